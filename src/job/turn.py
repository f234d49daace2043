"""A job's turn at ComfyUI: its files put in place, its prompt run, what it made gathered, and all of it cleared up.

One job at a time has ComfyUI until its files are safe in a folder of its own: ComfyUI's own queue would begin the next
prompt before that, and its nodes may write files of the same names.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..comfy.engine import ComfyEngine
from ..comfy.folders import Folders, job_folder_name
from ..comfy.prompt import run_prompt
from ..comfy.record import Run, messages_of
from ..comfy.rejection import explain_failure
from ..comfy.run_limits import Report, RunLimits
from ..errors import ComfyCrashed, InvalidWorkflow, NodeFailed, WorkerError
from ..inputs.files import InputPlaces
from ..outputs import (
    FolderWatch,
    LocalFile,
    OutputFile,
    gather_files,
    list_files,
    list_unreported,
    remove_files,
    remove_files_outside,
    write_frames,
)
from ..workflow import isolate_outputs, place_files, rerun_nodes
from ..workflow.graph import Workflow
from .prepare import PreparedJob

log = logging.getLogger(__name__)

_CANCEL_CHECK_SECONDS = 0.1  # how often a job that waits for its turn looks whether it was cancelled
_SAVER = re.compile("save|write|export", re.IGNORECASE)
_ANSWER_SECONDS = 0.01  # that an answer takes to be gone


@dataclass(frozen=True)
class Made:
    """The result of a prompt: its run, the job's files that it used, the files that it saved, and those to deliver.

    `folders` are those that ComfyUI had, where the job had its own, `job_folder`, in the output folder.

    `elsewhere` is how many files it saved where answers do not reach, by folder of ComfyUI. `failure` is that of a
    node; files that others had saved are delivered all the same.
    """

    run: Run
    folders: Folders
    job_folder: str
    used: set[str]
    saved: list[OutputFile]
    files: list[LocalFile]
    elsewhere: dict[str, int]
    failure: WorkerError | None = None


@dataclass(frozen=True)
class EngineTurns:
    """Gives ComfyUI to one job after the other. May be used from several threads."""

    _places: InputPlaces = field(default_factory=InputPlaces)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    """Held from before a prompt is queued until its files are gathered."""
    _silent_classes: set[str] = field(default_factory=set)
    """Node classes that save files without telling: from ComfyUI's cache they would not save again."""
    _running: dict[str, float] = field(default_factory=dict)
    """The output folders of the jobs that ComfyUI has now, and since when, by the clock of the files."""
    _files: threading.Lock = field(default_factory=threading.Lock)
    """Held while files are gathered or removed: no job begins in the middle of that."""
    _cleaner: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="cleaner"))
    """Clears up after jobs that ended; their answers do not wait for it."""

    def later(self, clear_up: Callable[[], None]) -> None:
        """Clear something up once what was handed over before is done."""
        self._cleaner.submit(clear_up)

    def wait_cleared(self) -> None:
        """Wait until everything that was handed over is cleared up."""
        self._cleaner.submit(lambda: None).result()

    @contextmanager
    def turn(self, limits: RunLimits) -> Iterator[float]:
        """ComfyUI for one job, given the seconds that it was waited for. Raises JobCancelled."""
        began = time.monotonic()
        while not self._turn.acquire(timeout=_CANCEL_CHECK_SECONDS):
            limits.check_stop()
            limits.deadline.restart()  # what others take is not the job's own time
        try:
            yield time.monotonic() - began
        finally:
            self._turn.release()

    def run(
        self, engine: ComfyEngine, job: PreparedJob, workflow: Workflow, limits: RunLimits, report: Report, own: Path
    ) -> Made:
        """What a run makes, its files in the folder `own`, where neither ComfyUI's end nor the next job reaches them.

        Nothing of it stays in ComfyUI's folders. Raises WorkerError.
        """
        folders, job_folder = engine.process.folders, job_folder_name()
        run, made, saved = None, None, list[OutputFile]()
        with self._files:
            self._running[job_folder] = time.time()
            watch = FolderWatch.begin(folders, engine.process.installation.directory)
        try:
            with self._places.placed(job.files, folders) as places:
                placed, used = place_files(workflow, places)
                prompt = self._with_silent_savers(placed)
                with _explaining_rejections(engine, folders, unused_files(job, used)):
                    run = _run_isolated(engine, prompt, job_folder, folders, limits, report, job)
            saved = self._saved_files(engine, run, watch, job_folder)
            failure = explain_failure(run.entry, run.workflow)
            if failure and not (job.keeps_partial_results and _is_partial(failure, saved)):
                raise failure
            saved += write_frames(run, folders, job_folder) if failure is None else []
            wanted = [file for file in saved if job.request.output.previews or not file.is_preview]
            with self._files:
                files = gather_files(wanted, folders, engine.client, job_folder, own, limits.check)
            made = Made(run, folders, job_folder, used, saved, files, watch.saved_elsewhere(), failure)
        finally:
            with _logging_failures():
                if run is None:
                    self._note_stopped(engine, workflow, watch, job_folder)
                else:
                    with self._files:
                        remove_files_outside(saved, folders, job_folder)
            if made is None:  # at once: what it left may be what fills the disk
                self._clear_up(engine, run, folders, job_folder)
        answered = time.monotonic() + _ANSWER_SECONDS
        self.later(lambda: self._clear_up(engine, run, folders, job_folder, answered))
        return made

    def _with_silent_savers(self, workflow: Workflow) -> Workflow:
        """A copy in which the nodes run again that would save nothing if their results came from ComfyUI's cache."""
        silent = [node_id for node_id, node in workflow.items() if node["class_type"] in self._silent_classes]
        return rerun_nodes(workflow, silent)

    def _note_stopped(self, engine: ComfyEngine, workflow: Workflow, watch: FolderWatch, job_folder: str) -> None:
        """Of a run that was stopped: what it saved in silence is deleted, so it is to be saved again another time."""
        if any(job_folder not in path.parts for path in watch.saved()):
            self._silent_classes.update(_silent_savers(engine, workflow, ()))

    def _saved_files(self, engine: ComfyEngine, run: Run, watch: FolderWatch, job_folder: str) -> list[OutputFile]:
        """The files of a run, those first that its nodes reported."""
        reported = list_files(run)
        unreported = list_unreported(run, watch.saved(), reported, watch.folders, job_folder)
        if any(not file.is_preview for file in unreported):
            self._silent_classes.update(_silent_savers(engine, run.workflow, reported))
        return reported + unreported

    def _clear_up(
        self, engine: ComfyEngine, run: Run | None, folders: Folders, job_folder: str, not_before: float = 0.0
    ) -> None:
        """Leave nothing of a run in ComfyUI, from a monotonic time on."""
        time.sleep(max(0.0, not_before - time.monotonic()))
        with _logging_failures():
            with self._files:
                del self._running[job_folder]
                remove_files(folders, job_folder, self._running)
            if run is not None:
                engine.forget(run.prompt_id)


def _is_partial(failure: WorkerError, saved: Sequence[OutputFile]) -> bool:
    """Whether a node failed after others had saved something."""
    return type(failure) is NodeFailed and any(not file.is_preview for file in saved)


def _run_isolated(
    engine: ComfyEngine,
    workflow: Workflow,
    job_folder: str,
    folders: Folders,
    limits: RunLimits,
    report: Report,
    job: PreparedJob,
) -> Run:
    """Run a prompt whose outputs lie in the job's folder, but those of a node for which that folder is in the way."""
    try:
        (folders.output / job_folder).mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise ComfyCrashed("ComfyUI was restarted while the job was being prepared") from error
    extra_data, previews = job.extra_data, job.takes_previews
    run = run_prompt(engine, isolate_outputs(workflow, job_folder), limits, report, extra_data, previews)
    failure = messages_of(run.entry).get("execution_error", {})
    if job_folder not in str(failure.get("exception_message", "")):
        return run
    engine.forget(run.prompt_id)
    bare = {str(failure.get("node_id"))}
    return run_prompt(engine, isolate_outputs(workflow, job_folder, bare), limits, report, extra_data, previews)


def _silent_savers(engine: ComfyEngine, workflow: Workflow, reported: Sequence[OutputFile]) -> set[str]:
    """The classes that may have saved something in silence: output nodes, and what is called a saver."""
    if not engine.process.alive:
        return set()  # its cache has gone with it
    told = {file.node_id for file in reported}
    quiet = {node["class_type"] for node_id, node in workflow.items() if node_id not in told}
    schemas = engine.client.schemas(quiet)
    return {name for name in quiet if (schema := schemas[name]) and (schema.is_output or _SAVER.search(name))}


def unused_files(job: PreparedJob, used: set[str]) -> list[str]:
    """A warning for each of the job's files that no node names."""
    files = [file for file in job.request.files if file.name not in used]
    return [f"{file.where} ({file.name}) was not used: no node uses this name" for file in files]


@contextmanager
def _explaining_rejections(engine: ComfyEngine, folders: Folders, hints: Sequence[str]) -> Iterator[None]:
    """Add hints to a rejection, or turn it into ComfyCrashed if it is not about the workflow."""
    try:
        yield
    except InvalidWorkflow as error:
        error.hints.extend(hints)
        if engine.process.folders is folders:
            raise
        # Another job had ComfyUI restarted in the meantime: this job's files are in the old one's folders.
        raise ComfyCrashed("ComfyUI was restarted while the job was queued") from error


@contextmanager
def _logging_failures() -> Iterator[None]:
    try:
        yield
    except Exception:  # the edge of clearing up: whatever fails there costs the job's answer nothing
        log.exception("leftovers of a finished job could not be removed")
