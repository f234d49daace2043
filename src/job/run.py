"""One job on a booted engine: its files, its workflow, the run, and what it made, brought to the caller."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..comfy.engine import ComfyEngine
from ..comfy.folders import Folders, private_folder
from ..comfy.preflight import check_changes, check_partner_nodes, find_problems, input_files_of
from ..comfy.prompt import Report, RunLimits, run_prompt
from ..comfy.record import Run
from ..comfy.recovery import run_with_recovery
from ..comfy.rejection import explain_failure
from ..deadline import Deadline
from ..editor import class_types, convert, read_document
from ..errors import BucketFailed, ComfyCrashed, InvalidWorkflow, JobTimeout, MissingModel, NoBucket, WorkerError
from ..inputs.files import InputPlaces, StagedFile, check_sources, fetch_files, fetch_rules
from ..models.manifest import where_to_get
from ..models.supply import ModelSupply
from ..outputs import (
    Encoding,
    LocalFile,
    Outcome,
    OutputFile,
    Plan,
    Result,
    Timings,
    deliver,
    gather_files,
    hints,
    list_files,
    list_texts,
    remove_files,
    remove_named_files,
    write_frames,
)
from ..settings import Delivery, Settings
from ..storage.bucket import Bucket
from ..workflow import (
    Applied,
    apply_overrides,
    fields_of,
    isolate_outputs,
    outline_of,
    place_files,
    renew_nodes,
    seeds_of,
)
from ..workflow.graph import Graph, Workflow
from .info import versions
from .request import Request

log = logging.getLogger(__name__)

_MOST_CURES = 2  # of one job: what it misses is told at once
_TURN_LOOK_SECONDS = 0.1  # between two looks whether a job that waits for its turn was cancelled
_ANSWER_SECONDS = 0.01  # that an answer takes to be gone
_FIXED_BYTES = 4000  # of an answer: the names of its fields, ids, versions, hints that come last


@dataclass(frozen=True)
class _Job:
    """A job that is ready to be queued."""

    request: Request
    applied: Applied
    files: Mapping[str, StagedFile]
    input_seconds: float
    plan: Plan
    encoding: Encoding
    extra_data: Mapping[str, Any]


@dataclass(frozen=True)
class _Made:
    """What came of a prompt: its run, the job's files that it used, the files that it named, and those to deliver."""

    run: Run
    used: set[str]
    named: list[OutputFile]
    files: list[LocalFile]


@dataclass(frozen=True)
class JobRunner:
    """Runs jobs on an engine. `bucket` is the worker's own. May be used from several threads."""

    engine: ComfyEngine
    settings: Settings
    bucket: Bucket | None
    supply: ModelSupply
    _places: InputPlaces = field(default_factory=InputPlaces)
    _engine_turn: threading.Lock = field(default_factory=threading.Lock)
    """Held from before a prompt is queued until its files are gathered."""
    _running: dict[str, float] = field(default_factory=dict)
    """The output folders of the jobs that ComfyUI has now, and since when, by the clock of the files."""
    _sweeping: threading.Lock = field(default_factory=threading.Lock)
    """Held while files are gathered or removed: no job begins in the middle of that."""
    _sweeper: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="sweeper"))
    """Clears up after jobs that ended; their answers do not wait for it."""

    @staticmethod
    def make(engine: ComfyEngine, settings: Settings) -> JobRunner:
        """One with the bucket and the models that the settings name. Raises InvalidSetting and its kin."""
        config = settings.bucket
        supply = ModelSupply.make(settings, engine.process.installation.directory)
        return JobRunner(engine, settings, Bucket(config) if config else None, supply)

    def check_bucket(self) -> None:
        """Say in the log what is wrong with the bucket, before a job finds out."""
        if self.bucket is not None:
            try:
                self.bucket.check()
            except BucketFailed as error:
                log.error("%s", error)

    def begin_models(self, warm_up: Request | None = None) -> None:
        """Have the models fetched and read that the settings and that request name; `supply.wait` waits for them."""
        if self.engine.process.installation.loads_models:
            self.supply.begin(warm_up.workflow if warm_up else None)

    def run(self, request: Request, job_id: str, stop: threading.Event, report: Report) -> Result:
        """One checked job, from overrides to what the answer holds. Nothing of it stays behind. Raises WorkerError."""
        applied = apply_overrides(request.workflow, request.overrides)
        deadline = Deadline(self.settings.job_timeout)
        limits = RunLimits(deadline, self.settings.stall_timeout, self.settings.interrupt_grace, stop)
        with self._bucket_of(request) as bucket:
            plan = self._plan(request, job_id, bucket)
            with _fetched(request, self.settings, bucket, stop) as (files, input_seconds):
                encoding = self._encoding(request, applied.workflow)
                extra_data = self._extra_data(request, applied.workflow)
                job = _Job(request, applied, files, input_seconds, plan, encoding, extra_data)

                def attempt(to_renew: Sequence[str]) -> Result:
                    return self._run_cured(job, renew_nodes(applied.workflow, to_renew), limits, report)

                return run_with_recovery(self.engine, attempt, self.settings.job_retries, deadline)

    def convert(self, saved: Mapping[str, Any]) -> Workflow:
        """A file of the editor in API format, by the node classes that this ComfyUI has.

        Raises GuiFormatWorkflow for what cannot be converted for sure, and what keeps ComfyUI from answering.
        """
        document = read_document(saved)
        wanted = class_types(document)

        def attempt(_: Sequence[str]) -> Workflow:
            return convert(document, self.engine.client.schemas(wanted))

        return run_with_recovery(self.engine, attempt, self.settings.job_retries, Deadline(self.settings.job_timeout))

    def problems(self, request: Request) -> list[dict[str, Any]]:
        """What would keep the engine from running a job; a missing model that would be fetched for it does not.

        Raises WorkerError for overrides that have no place.
        """
        applied = apply_overrides(request.workflow, request.overrides)
        workflow, names = applied.workflow, [file.name for file in request.files]
        found = find_problems(self.engine.client, workflow, names, [*applied.changed, *request.set_inputs])
        problems: list[dict[str, Any]] = []
        for problem in found:
            told: dict[str, Any] = {**problem.details, "message": problem.text}
            if problem.is_missing_model:
                name, folder = str(problem.received), problem.missing_model["folder"]
                if self.supply.to_fetch(name, folder):
                    continue
                told["sources"] = where_to_get(name, self.supply.manifest, folder)
            problems.append(told)
        checks: tuple[Callable[[], None], ...] = (
            lambda: self._check_bucket_of(request),
            lambda: self._check_key(request, workflow),
            lambda: check_sources(request.files, self.settings),
        )
        for check in checks:
            try:
                check()
            except WorkerError as error:
                problems.append({"reason": error.error_code, "message": error.message, **error.details})
        return problems

    def editable(self, workflow: Workflow) -> dict[str, Any]:
        """What a person would want to change in a workflow: its fields, and the files that it names."""
        graph = Graph(workflow)
        fields = [
            {"name": field.name, "candidates": list(field.candidates)}
            if field.candidates
            else {"name": field.name, "value": field.value, "node_id": field.node_id, "title": field.title}
            for field in fields_of(workflow)
        ]
        inputs = [
            {"node_id": node_id, "title": graph.title(node_id), "input": name, "name": graph.inputs(node_id)[name]}
            for node_id, name in input_files_of(self.engine.client, workflow)
        ]
        return {"fields": fields, "inputs": inputs}

    def _run_cured(
        self, job: _Job, workflow: Workflow, limits: RunLimits, report: Report, cures: int = _MOST_CURES
    ) -> Result:
        """Run it, with the models fetched that it misses, at most `cures` times."""
        try:
            return self._run_once(job, workflow, limits, report)
        except MissingModel as error:
            if not cures or not self.supply.cure(error, lambda: _check_fetch(limits)):
                raise self.supply.explained(error) from error
        return self._run_cured(job, workflow, limits, report, cures - 1)

    def _run_once(self, job: _Job, workflow: Workflow, limits: RunLimits, report: Report) -> Result:
        """Queue, wait, gather the files and deliver them; then delete them."""
        limits.check_stop()
        self._check(job, workflow)
        own = ExitStack()
        try:
            folder = own.enter_context(private_folder())
            with self._turn(limits) as waited:
                made = self._made(job, workflow, limits, report, folder)
            return self._result(job, made, waited, folder, limits)
        finally:
            self._sweeper.submit(own.close)

    @contextmanager
    def _turn(self, limits: RunLimits) -> Iterator[float]:
        """ComfyUI for one job at a time, given the seconds that it was waited for.

        ComfyUI's own queue would begin the next prompt before the files of the last are safe, and its nodes may write
        files of the same names.
        """
        began = time.monotonic()
        while not self._engine_turn.acquire(timeout=_TURN_LOOK_SECONDS):
            limits.check_stop()
            limits.deadline.restart()  # what others take is not the job's own time
        try:
            yield time.monotonic() - began
        finally:
            self._engine_turn.release()

    def _made(self, job: _Job, workflow: Workflow, limits: RunLimits, report: Report, own: Path) -> _Made:
        """What a run makes, its files in the folder `own`, where neither ComfyUI's end nor the next job reaches them.

        Nothing of it stays in ComfyUI's folders.
        """
        folders, run, job_folder = self.engine.process.folders, None, f"job-{uuid.uuid4().hex[:12]}"
        with self._sweeping:
            self._running[job_folder] = time.time()
        try:
            with self._places.placed(job.files, folders) as places:
                placed, used = place_files(workflow, places)
                isolated = isolate_outputs(placed, job_folder)
                try:
                    run = run_prompt(self.engine, isolated, limits, report, job.extra_data)
                except InvalidWorkflow as error:
                    error.hints.extend(_unused(job, used))
                    if self.engine.process.folders is folders:
                        raise
                    # Another job had it restarted in the meantime: this job's files are with the old one.
                    raise ComfyCrashed("ComfyUI was restarted while the job was queued") from error
            failure = explain_failure(run.entry, run.workflow)
            if failure:
                raise failure
            named = [*list_files(run), *write_frames(run, folders, job_folder)]
            wanted = [file for file in named if job.request.output.previews or not file.is_preview]
            with self._sweeping:
                files = gather_files(wanted, folders, self.engine.client, job_folder, own)
            return _Made(run, used, named, files)
        finally:
            if run is not None:
                with _tidying(), self._sweeping:
                    remove_named_files(run, folders, job_folder)
            self._sweeper.submit(self._sweep, run, folders, job_folder, time.monotonic())

    def _sweep(self, run: Run | None, folders: Folders, job_folder: str, ended: float) -> None:
        """Leave nothing of a run in ComfyUI that ended at a monotonic time, once its answer may be on its way."""
        time.sleep(max(0.0, ended + _ANSWER_SECONDS - time.monotonic()))
        with _tidying():
            with self._sweeping:
                del self._running[job_folder]
                remove_files(folders, job_folder, self._running)
            if run is not None:
                self.engine.forget(run.prompt_id)

    def _result(self, job: _Job, made: _Made, waited: float, own: Path, limits: RunLimits) -> Result:
        """What a run made, brought to the caller."""
        limits.check_stop()
        run = made.run
        texts = list_texts(run)
        with_previews = job.request.output.previews
        known = [*job.applied.hints, *_unused(job, made.used), *hints(run, made.named, with_previews)]
        reserved = _size_of_rest(run, texts, [*known, *job.request.warnings])
        plan = replace(job.plan, reserved_bytes=reserved, check_stop=limits.check_stop)
        outcome = deliver(made.files, plan, job.encoding, own / "delivery")
        return Result(
            prompt_id=run.prompt_id,
            files=outcome.files,
            texts=texts,
            hints=[*known, *outcome.hints],
            seed=_seed(job),
            cached_nodes=[node_id for node_id in run.cached_nodes if node_id in job.applied.workflow],
            timings=_timings(job, run, waited, outcome),
            versions=versions(self.engine),
            is_converted=job.request.is_converted,
        )

    def _check(self, job: _Job, workflow: Workflow) -> None:
        """What the engine can say before the prompt is queued."""
        changed = [*job.applied.changed, *job.request.set_inputs]
        if changed:
            check_changes(self.engine.client, workflow, changed, job.files)
        self._check_key(job.request, workflow)

    def _check_key(self, request: Request, workflow: Workflow) -> None:
        if self.settings.enable_api_nodes and not self._partner_key(request):
            check_partner_nodes(self.engine.client, workflow)

    # --- What a job asks for ---------------------------------------------------------------------------

    @contextmanager
    def _bucket_of(self, request: Request) -> Iterator[Bucket | None]:
        """The caller's bucket, or else the worker's."""
        if request.bucket is None:
            yield self.bucket
            return
        bucket = Bucket(request.bucket, fetch_rules(self.settings))
        try:
            yield bucket
        finally:
            bucket.close()

    def _check_bucket_of(self, request: Request) -> None:
        with self._bucket_of(request) as bucket:
            self._plan(request, "validate", bucket)

    def _plan(self, request: Request, job_id: str, bucket: Bucket | None) -> Plan:
        usual: Delivery = "bucket" if request.bucket is not None else self.settings.output_delivery
        delivery = request.output.delivery or usual
        if delivery == "bucket":
            if bucket is None:
                raise NoBucket(
                    "the files are to go to a bucket, but this worker has none: set BUCKET_ENDPOINT_URL and its kin, "
                    "or send s3Config beside input"
                )
            bucket.check()  # before the GPU has worked for nothing
        return Plan(delivery, bucket, self.settings.result_limit_bytes, request.output.may_reencode, job_id)

    def _encoding(self, request: Request, workflow: Workflow) -> Encoding:
        wanted = request.output
        texts: dict[str, str] | None = None
        if wanted.metadata is not None and wanted.metadata != self.settings.save_metadata:
            told = {"prompt": workflow, **(request.extra_pnginfo or {})} if wanted.metadata else {}
            texts = {keyword: json.dumps(value) for keyword, value in told.items()}
        as_wanted = wanted.format or self.settings.output_format or "original"
        return Encoding(
            None if as_wanted == "original" else as_wanted,
            wanted.quality,
            wanted.max_side,
            wanted.background,
            texts,
            self.settings.output_quality,
        )

    def _extra_data(self, request: Request, workflow: Workflow) -> dict[str, Any]:
        """What ComfyUI hands to nodes beside their inputs.

        Where ComfyUI writes it into files, an outline must not stand in for the editor's own workflow.
        """
        outline = {} if self.settings.save_metadata else {"workflow": outline_of(workflow)}
        extra: dict[str, Any] = {"extra_pnginfo": {**outline, **(request.extra_pnginfo or {})}}
        key = self._partner_key(request)
        return {**extra, "api_key_comfy_org": key} if key else extra

    def _partner_key(self, request: Request) -> str:
        return request.comfy_org_api_key or self.settings.comfy_org_api_key


def _check_fetch(limits: RunLimits) -> None:
    """Raise JobCancelled or JobTimeout if a job may not wait for its models any longer."""
    limits.check_stop()
    if limits.deadline.passed:
        raise JobTimeout(
            f"the models that the job needs did not come within {limits.deadline.seconds:g} s (JOB_TIMEOUT). What "
            "came is kept: send the job again, raise the limit, or name the models in MODELS"
        )


def _unused(job: _Job, used: set[str]) -> list[str]:
    files = [file for file in job.request.files if file.name not in used]
    return [f"{file.where} ({file.name}) was not used: no node names it" for file in files]


def _seed(job: _Job) -> int | None:
    """The seed that the job put in, else the one of its workflow; None if that has none or several."""
    if job.request.overrides.seed is not None:
        return job.request.overrides.seed
    seeds = seeds_of(job.applied.workflow)
    return seeds[0] if len(seeds) == 1 else None


def _size_of_rest(run: Run, texts: Sequence[str], told: Sequence[str]) -> int:
    """About the bytes of an answer beside its files."""
    return _FIXED_BYTES + len(json.dumps([texts, told, run.cached_nodes, list(run.node_seconds.items())]))


def _timings(job: _Job, run: Run, waited: float, outcome: Outcome) -> Timings:
    nodes = {node_id: seconds for node_id, seconds in run.node_seconds.items() if node_id in job.applied.workflow}
    return Timings(
        inputs=job.input_seconds,
        queue=waited + run.queue_seconds,
        execution=run.execution_seconds,
        encode=outcome.encode_seconds,
        upload=outcome.upload_seconds,
        nodes=nodes,
    )


@contextmanager
def _tidying() -> Iterator[None]:
    """What goes wrong while a job is cleared up after costs its answer nothing."""
    try:
        yield
    except Exception:
        log.exception("something of a job that ended is left behind")


@contextmanager
def _fetched(
    request: Request, settings: Settings, bucket: Bucket | None, stop: threading.Event
) -> Iterator[tuple[dict[str, StagedFile], float]]:
    """The job's files, and the seconds that fetching them took."""
    if not request.files:
        yield {}, 0.0
        return
    started = time.monotonic()
    with private_folder() as folder:
        files = fetch_files(request.files, folder, settings, bucket, stop)
        yield files, time.monotonic() - started
