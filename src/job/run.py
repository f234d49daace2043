"""One job on a booted ComfyUI: overrides, files, run, gather, deliver, answer."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..comfy.engine import ComfyEngine
from ..comfy.folders import private_folder
from ..comfy.preflight import failed_packs, fit, mend, schemas_of, stand_in_warnings
from ..comfy.record import Run
from ..comfy.recovery import run_with_recovery
from ..comfy.run_limits import Report, RunLimits
from ..deadline import Deadline
from ..editor import Converted, class_types, convert, read_document
from ..errors import BucketFailed, GuiFormatWorkflow, JobTimeout, MissingModel
from ..inputs.files import StagedFile, fetch_files
from ..models.provisioning import ModelProvisioner, model_names
from ..outputs import FileNames, LocalFile, Outcome, Plan, Result, Timings, deliver, hints, list_texts, node_outputs
from ..overrides import AppliedOverrides, apply_overrides
from ..redaction import public_text
from ..settings import Settings
from ..storage.bucket import Bucket
from ..workflow import rerun_nodes
from ..workflow.graph import Workflow
from .check import JobChecker, check_before_queueing
from .info import versions
from .one_file import with_the_one_file
from .prepare import PreparedJob, bucket_for, delivery_plan, models_of, preview_warnings
from .request import Request
from .turn import EngineTurns, Made, unused_files

log = logging.getLogger(__name__)
Asked = TypeVar("Asked")

_MAX_FETCHES = 2  # of models that a job turns out to miss: ComfyUI names all that are missing at once
_MAX_PLACES = 5  # that a warning lists
_FIXED_BYTES = 4000  # of an answer: its field names, ids, versions, and the hints that are added last


@dataclass(frozen=True)
class JobRunner:
    """Runs jobs on an engine. `bucket` is the worker's own. May be used from several threads."""

    engine: ComfyEngine
    settings: Settings
    bucket: Bucket | None
    models: ModelProvisioner
    turns: EngineTurns = field(default_factory=EngineTurns)

    @staticmethod
    def make(engine: ComfyEngine, settings: Settings) -> JobRunner:
        """One with the bucket and the models that the settings name.

        Raises InvalidSetting, InvalidManifest, UnknownModelSet.
        """
        config = settings.bucket
        models = ModelProvisioner.make(settings, engine.process.installation.directory)
        return JobRunner(engine, settings, Bucket(config) if config else None, models)

    def check_bucket(self) -> None:
        """Log what is wrong with the bucket before a job finds out."""
        if self.bucket is not None:
            try:
                self.bucket.check()
            except BucketFailed as error:
                log.error("%s", error)

    def begin_models(self, warm_up: Request | None = None) -> None:
        """Have the models fetched and read that the settings and that request name; `models.wait` waits for them."""
        if self.engine.process.installation.loads_models:
            self.models.start(warm_up.workflow if warm_up else None)

    @property
    def checker(self) -> JobChecker:
        """For checks of jobs without running them."""
        return JobChecker(self.engine, self.settings, self.bucket, self.models)

    def run(
        self,
        request: Request,
        job_id: str,
        stop: threading.Event,
        report: Report,
        on_safe: Callable[[], object] = lambda: None,
    ) -> Result:
        """One checked job, from overrides to what the answer holds. Nothing of it stays behind.

        `on_safe` is called when its files are safe, so that it needs ComfyUI no more. Raises WorkerError.
        """
        limits = self.limits(stop)
        models = models_of(request, self.models)
        models.check_wanted()
        models.note_use(model_names(request.workflow))
        applied = self._apply_overrides(request, limits)
        with bucket_for(request, self.settings, self.bucket) as bucket:
            plan = delivery_plan(request, job_id, self.settings, bucket, limits.check)
            models.fetch_wanted(lambda: _check_fetch(limits))
            with _fetched_files(request, self.settings, bucket, limits.check) as (files, input_seconds):
                job = PreparedJob(request, applied, models, files, input_seconds, plan, self.settings, on_safe)

                def attempt(to_renew: Sequence[str]) -> Result:
                    return self._run_with_models(job, to_renew, limits, report)

                return run_with_recovery(self.engine, attempt, self.settings.job_retries, limits.deadline)

    def convert(self, saved: Mapping[str, Any], stop: threading.Event) -> Converted:
        """A file of the editor in API format, by the node classes that this ComfyUI has.

        Raises GuiFormatWorkflow for what cannot be converted for sure, JobTimeout, JobCancelled, and what keeps
        ComfyUI from answering.
        """
        limits = self.limits(stop)
        document = read_document(saved)
        needed = class_types(document)

        def converted() -> Converted:
            client = self.engine.client
            schemas = client.schemas(needed)
            try:
                return convert(document, schemas, check=limits.check)
            except GuiFormatWorkflow as error:
                failed = failed_packs(client, [name for name, schema in schemas.items() if schema is None])
                raise GuiFormatWorkflow("; ".join([error.message, *failed]), **error.details) from error

        return self._ask(converted, limits)

    def mend(self, workflow: Workflow, stop: threading.Event) -> tuple[Workflow, list[str]]:
        """A workflow with odd links without those that do no harm, and warnings; see `preflight.mend`."""
        limits = self.limits(stop)
        return self._ask(lambda: mend(self.engine.client, workflow, limits.check), limits)

    def _apply_overrides(self, request: Request, limits: RunLimits) -> AppliedOverrides:
        """The job's overrides put into its workflow, by the node classes that this ComfyUI has."""
        workflow = request.workflow

        def applied() -> AppliedOverrides:
            schemas = schemas_of(self.engine.client, workflow, limits.check)
            overridden = apply_overrides(workflow, request.overrides, schemas)
            return replace(overridden, hints=(*overridden.hints, *stand_in_warnings(schemas)))

        return self._ask(applied, limits)

    def _ask(self, ask: Callable[[], Asked], limits: RunLimits) -> Asked:
        """What ComfyUI is asked before the run. It is started again if it ends meanwhile."""

        def attempt(_: Sequence[str]) -> Asked:
            limits.deadline.restart()  # a boot of ComfyUI is not the job's own time
            return ask()

        return run_with_recovery(self.engine, attempt, self.settings.job_retries, limits.deadline)

    def limits(self, stop: threading.Event) -> RunLimits:
        """The limits of a job that begins now."""
        settings = self.settings
        return RunLimits(Deadline(settings.job_timeout), settings.stall_timeout, settings.interrupt_grace, stop)

    def _run_with_models(
        self, job: PreparedJob, to_renew: Sequence[str], limits: RunLimits, report: Report, fetches: int = _MAX_FETCHES
    ) -> Result:
        """Run it, with the models fetched that it misses, at most `fetches` times."""
        try:
            return self._run_once(job, to_renew, limits, report)
        except MissingModel as error:
            if not fetches or not job.models.fetch_missing(error, lambda: _check_fetch(limits)):
                raise job.models.explain(error) from error
        return self._run_with_models(job, to_renew, limits, report, fetches - 1)

    def _run_once(self, job: PreparedJob, to_renew: Sequence[str], limits: RunLimits, report: Report) -> Result:
        """Queue, wait, gather the files and deliver them; then delete them. The nodes `to_renew` are run anew."""
        limits.check_stop()
        client, changed = self.engine.client, [*job.applied.changed, *job.request.set_inputs]
        fitted, told = fit(client, job.applied.workflow, limits.check)
        fitted, matched = with_the_one_file(client, job.request, fitted, changed)
        hints_so_far = (*job.applied.hints, *told, *matched)
        job = replace(job, applied=replace(job.applied, workflow=fitted, hints=hints_so_far))
        job.models.note_use(model_names(fitted))
        check_before_queueing(client, job.request, self.settings, fitted, changed, job.files, limits.check)
        workflow = rerun_nodes(fitted, to_renew)
        with ExitStack() as own:
            folder = own.enter_context(private_folder())
            with self.turns.turn(limits) as waited:
                made = self.turns.run(self.engine, job, workflow, limits, report, folder)
            job.on_safe()
            result = self._deliver(job, made, waited, folder, limits)
            self.turns.later(own.pop_all().close)
            return result

    def _deliver(self, job: PreparedJob, made: Made, waited: float, own: Path, limits: RunLimits) -> Result:
        """Deliver what a run made to the caller."""
        limits.check_stop()
        run = made.run
        texts = list_texts(run)
        with_previews = job.request.output.previews
        known = [
            *job.applied.hints,
            *unused_files(job, made.used),
            *hints(run, made.saved, with_previews),
            *_told_elsewhere(made.elsewhere),
            *preview_warnings(job, self.engine.process.installation),
        ]
        expected, _ = self._outputs(made, made.files, job.plan)
        reserved = _size_of_rest(run, texts, expected, [*known, *job.request.warnings])
        plan = replace(job.plan, reserved_bytes=reserved, check=limits.check)
        outcome = deliver(made.files, plan, job.encoding, own / "delivery")
        outputs, left_out = self._outputs(made, [delivered.file for delivered in outcome.files], job.plan)
        return Result(
            prompt_id=run.prompt_id,
            files=outcome.files,
            texts=texts,
            outputs=outputs,
            hints=[*known, *outcome.hints, *left_out],
            errors=[made.failure.message] if made.failure else [],
            seed=_seed(job),
            cached_nodes=[node_id for node_id in run.cached_nodes if node_id in job.applied.workflow],
            timings=_timings(job, run, waited, outcome),
            versions=versions(self.engine),
            is_converted=job.request.is_converted,
        )

    def _outputs(self, made: Made, files: Sequence[LocalFile], plan: Plan) -> tuple[dict[str, Any], list[str]]:
        """What each node reported, with the names of these files, and warnings."""
        comfyui = self.engine.process.installation.directory
        names = FileNames.make(comfyui, made.folders, made.job_folder, made.saved, files)
        return node_outputs(made.run, names, plan.limit_bytes)


def _told_elsewhere(places: Mapping[str, int]) -> list[str]:
    """A warning about files that were saved where answers do not reach."""
    if not places:
        return []
    told = ", ".join(f"{count} in {public_text(place, 100)}" for place, count in list(places.items())[:_MAX_PLACES])
    return [
        f"files were saved in ComfyUI's folder, but not in its output folder, so they are not in this response: {told}"
    ]


def _check_fetch(limits: RunLimits) -> None:
    """Raise JobCancelled or JobTimeout if a job may not wait for its models any longer."""
    limits.check_stop()
    if limits.deadline.passed:
        raise JobTimeout(
            f"the models of the job were not downloaded within {limits.deadline.seconds:g} s (JOB_TIMEOUT). What "
            "was downloaded is kept: send the job again, raise the limit, or list the models in MODELS"
        )


def _seed(job: PreparedJob) -> int | None:
    """The seed that the job put in, else the one of its workflow; None if that has none or several."""
    if job.request.overrides.seed is not None:
        return job.request.overrides.seed
    seeds = job.applied.seeds
    return seeds[0] if len(seeds) == 1 else None


def _size_of_rest(run: Run, texts: Sequence[str], outputs: Mapping[str, Any], warnings: Sequence[str]) -> int:
    """About how many bytes an answer has besides its files."""
    rest = [texts, outputs, warnings, run.cached_nodes, list(run.node_seconds.items())]
    return _FIXED_BYTES + len(json.dumps(rest))


def _timings(job: PreparedJob, run: Run, waited: float, outcome: Outcome) -> Timings:
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
def _fetched_files(
    request: Request, settings: Settings, bucket: Bucket | None, check: Callable[[], None]
) -> Iterator[tuple[dict[str, StagedFile], float]]:
    """The job's files, and the seconds that fetching them took."""
    if not request.files:
        yield {}, 0.0
        return
    started = time.monotonic()
    with private_folder() as folder:
        files = fetch_files(request.files, folder, settings, bucket, check)
        yield files, time.monotonic() - started
