"""Runs prompts as jobs of an endpoint."""

from __future__ import annotations

import base64
import binascii
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..errors import WorkerError
from ..protocol.executor import Folders, ValidationResult
from ..protocol.queue import QueuedPrompt
from ..protocol.report import RunReport
from ..workflow.graph import Graph, unique, with_dependencies
from .checking import validate
from .endpoint import Endpoint, EndpointFailed, JobStatus
from .input_files import LocalFiles, Sender, named_files
from .node_classes import NodeClasses
from .results import FRAME_SENDER, ResultSaver, SavedFile, node_outputs
from .store import StoredQueue

log = logging.getLogger(__name__)

_OUTPUT = {"answer": "standard", "format": "original", "previews": True, "metadata": True}  # as ComfyUI itself
_MAX_JOBS = 32
"""Jobs that the endpoint has at a time: enough for it to start all its workers, and few to ask about."""
_LISTENING_SECONDS = 0.1
"""Between the first node of a prompt and what follows, which may all be known at once: some clients see that a prompt
is not cached by its first node, and listen to its other events only then."""


@dataclass
class JobExecutor:
    """Runs each prompt as a job: an `Executor` of the protocol."""

    folders: Folders
    endpoint: Endpoint
    classes: NodeClasses
    queue: StoredQueue
    sender: Sender
    saver: ResultSaver
    takes_previews: Callable[[str], bool]
    """Whether a client, by its id, shows previews."""
    concurrency: int = _MAX_JOBS
    _stops: dict[str, threading.Event] = field(default_factory=dict)
    _withdrawn: set[str] = field(default_factory=set)
    _unsent: list[tuple[float, str]] = field(default_factory=list)
    _sent: threading.Condition = field(default_factory=threading.Condition)

    @property
    def version(self) -> str:
        """See `Executor`."""
        return self.classes.kept.versions.get("comfyui", "unknown")

    @property
    def devices(self) -> Sequence[Mapping[str, Any]]:
        """See `Executor`."""
        return self.classes.kept.devices

    def validate(self, prompt: dict[str, Any], targets: Collection[str] | None) -> ValidationResult:
        """See `Executor`."""
        return validate(
            prompt, targets, self.classes.kept.schemas, self.classes.kept.node_replacements, LocalFiles(self.folders)
        )

    def execute(self, queued: QueuedPrompt, report: RunReport) -> None:
        """See `Executor`."""
        with self._stoppable(queued.prompt_id) as stop:
            _JobRun(self, queued, report, stop).run()

    def interrupt(self, prompt_id: str) -> None:
        """See `Executor`."""
        self._stops.setdefault(prompt_id, threading.Event()).set()  # it may be on its way to `execute`

    def withdraw(self, prompt_id: str) -> None:
        """See `Executor`."""
        self._withdrawn.add(prompt_id)
        self.interrupt(prompt_id)

    def was_withdrawn(self, prompt_id: str) -> bool:
        """Whether its user has deleted a prompt."""
        return prompt_id in self._withdrawn

    def free_memory(self) -> None:
        """See `Executor`: a worker that has nothing to do ends by itself."""

    def object_info(self) -> Mapping[str, Mapping[str, Any]]:
        """See `Executor`."""
        return self.classes.kept.object_info

    def node_class(self, name: str) -> Mapping[str, Any] | None:
        """See `Executor`."""
        return self.classes.kept.object_info.get(name)

    @contextmanager
    def _stoppable(self, prompt_id: str) -> Iterator[threading.Event]:
        try:
            yield self._stops.setdefault(prompt_id, threading.Event())
        finally:
            del self._stops[prompt_id]
            self._withdrawn.discard(prompt_id)

    @contextmanager
    def turn_to_send(self, queued: QueuedPrompt) -> Iterator[None]:
        """Wait until the prompts before this one have jobs: an endpoint runs them in the order in which they come."""
        turn = (queued.number, queued.prompt_id)
        with self._sent:
            self._unsent.append(turn)
            self._sent.wait_for(lambda: min(self._unsent) == turn)
        try:
            yield
        finally:
            with self._sent:
                self._unsent.remove(turn)
                self._sent.notify_all()


class _JobRun:
    """One prompt, from its job to its end."""

    def __init__(self, executor: JobExecutor, queued: QueuedPrompt, report: RunReport, stop: threading.Event) -> None:
        self._executor = executor
        self._queued = queued
        self._report = report
        self._stop = stop
        self._has_begun = False
        self._node_id: str | None = None
        self._done: list[str] = []

    def run(self) -> None:
        """Run it, and report how it ended, whatever happens."""
        try:
            job_id = self._executor.queue.job_of(self._queued.prompt_id)
            if job_id is None:
                with self._executor.turn_to_send(self._queued):
                    if self._stop.is_set():
                        return self._cancel()
                    job_id = self._submit()
            status = self._executor.endpoint.follow(job_id, self._stop, self._show)
            self._end(status)
        except (EndpointFailed, WorkerError) as error:
            self._fail(error.message)
        except Exception:  # the edge of a run: the thread must live on, and the prompt must end
            log.exception("prompt %s", self._queued.prompt_id)
            self._fail("unexpected error in the gateway; its log has the details")

    # --- Before ----------------------------------------------------------------------------------------

    def _submit(self) -> str:
        """Give the job to the endpoint; its id."""
        queued, executor = self._queued, self._executor
        named = named_files(_needed(queued.prompt, queued.outputs), executor.folders)
        extra = queued.extra_data
        job_input: dict[str, Any] = {
            "workflow": named.prompt,
            "files": executor.sender.fields(named.files),
            "output": {**_OUTPUT, "live_previews": self._wants_previews()},
        }
        if isinstance(extra.get("extra_pnginfo"), dict):
            job_input["extra_pnginfo"] = extra["extra_pnginfo"]
        if extra.get("api_key_comfy_org"):
            job_input["comfy_org_api_key"] = extra["api_key_comfy_org"]
        job_id = executor.endpoint.run(job_input, self._stop.wait)
        executor.queue.note_job(queued.prompt_id, job_id)
        log.info("prompt %s is job %s", queued.prompt_id, job_id)
        return job_id

    def _wants_previews(self) -> bool:
        """Whether its client shows them, which other programs take for results."""
        extra = self._queued.extra_data
        return extra.get("preview_method") != "none" and self._executor.takes_previews(str(extra.get("client_id")))

    # --- While it runs ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._report.started()
            self._report.cached({})

    def _show(self, status: JobStatus) -> None:
        """Report the progress of the job."""
        if status.state == "IN_QUEUE":
            return
        self._begin()
        progress = status.output if isinstance(status.output, dict) else {}
        node_id = progress.get("node_id")
        if not isinstance(node_id, str) or node_id not in self._queued.prompt:
            return
        if node_id != self._node_id:
            self._enter(node_id)
        if progress.get("steps"):
            self._report.progress(node_id, int(progress.get("step") or 0), int(progress["steps"]))
        if isinstance(progress.get("preview"), str):
            self._show_preview(progress["preview"])

    def _enter(self, node_id: str) -> None:
        """Report that a node runs: so those that it needs have run, and the one before."""
        needed = with_dependencies(Graph(self._queued.prompt), [node_id])
        before = unique([*needed, *([self._node_id] if self._node_id else [])])
        ended = [other for other in before if other != node_id and other not in self._done]
        self._done += ended
        if ended:
            self._report.node_finished(*ended)
        is_first = self._node_id is None
        self._node_id = node_id
        self._report.node_started(node_id)
        if is_first:
            self._stop.wait(_LISTENING_SECONDS)

    def _show_preview(self, encoded: str) -> None:
        try:
            self._report.preview(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
            log.debug("a preview is no base64")

    # --- Afterwards ------------------------------------------------------------------------------------

    def _end(self, status: JobStatus) -> None:
        answer = status.output if isinstance(status.output, dict) else {}
        if isinstance(answer.get("versions"), dict):
            self._executor.classes.note_versions(answer["versions"])
        if status.state == "COMPLETED" and answer.get("status") == "success":
            self._succeed(answer)
        elif status.state == "CANCELLED":
            self._cancel()
        elif status.state == "COMPLETED" and not answer:
            self._fail("the result was lost: it was larger than RunPod accepts; use smaller outputs or a bucket")
        elif status.state == "TIMED_OUT":
            self._fail(f"the endpoint ended the job: {status.error or 'it took longer than its execution timeout'}")
        else:
            self._fail(str(answer.get("error") or status.error or f"the job is {status.state}"), answer)

    def _cancel(self) -> None:
        """Report that it was cancelled, unless its user has deleted it before it began."""
        if self._has_begun or not self._executor.was_withdrawn(self._queued.prompt_id):
            self._begin()
            self._report.interrupted(self._node_id, self._done)

    def _succeed(self, answer: Mapping[str, Any]) -> None:
        saved = self._executor.saver.save(answer)
        classes = {node_id: str(node.get("class_type")) for node_id, node in self._queued.prompt.items()}
        outputs = node_outputs(answer, saved, classes)
        self._begin()
        for warning in answer.get("warnings") or []:
            log.warning("prompt %s: %s", self._queued.prompt_id, warning)
        for node_id in self._queued.prompt:
            if node_id in outputs:
                self._enter(node_id)
                self._report.output(node_id, outputs[node_id])
            for file in saved.values():
                if file.node_id == node_id and classes[node_id] == FRAME_SENDER:
                    self._send_frame(node_id, file)
        if self._node_id is not None:
            self._report.node_finished(self._node_id)
        for error in answer.get("errors") or []:
            log.error("prompt %s: %s", self._queued.prompt_id, error)
        self._report.succeeded()

    def _send_frame(self, node_id: str, file: SavedFile) -> None:
        self._enter(node_id)
        self._report.picture(file.path.read_bytes())

    def _fail(self, message: str, answer: Mapping[str, Any] | None = None) -> None:
        """Report why there is no result; at the node at fault, if the answer names one."""
        details = answer or {}
        refused = details.get("comfyui_error")
        node_errors = refused.get("node_errors") if isinstance(refused, dict) else None
        missing = [node.get("node_id") for node in details.get("missing_nodes") or ()]
        named = [details.get("node_id"), *(details.get("node_ids") or ()), *missing, *(node_errors or ())]
        node_id = next((node_id for node_id in named if node_id in self._queued.prompt), None)
        kind = str(details.get("exception_type") or details.get("error_code") or "endpoint_failed")
        log.warning("prompt %s: %s", self._queued.prompt_id, message)
        self._begin()
        if node_id is not None and node_id != self._node_id and details.get("exception_type"):
            self._enter(node_id)
        self._report.failed(node_id, self._done, kind, str(details.get("exception_message") or message))


def _needed(prompt: Mapping[str, Any], outputs: Collection[str]) -> dict[str, Any]:
    """The nodes of a prompt that the outputs need, all if it is not known which are outputs."""
    needed = set(with_dependencies(Graph(prompt), list(outputs))) if outputs else set(prompt)
    return {node_id: node for node_id, node in prompt.items() if node_id in needed}
