"""What RunPod calls with each job: read it, do its action, answer it whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from .. import job_log
from ..clients import in_answer_format
from ..comfy.run_limits import Report
from ..errors import ComfyCrashed, DiskFull, WorkerError
from ..outputs import failure_answer, info_answer, serialisable, success_answer, validation_answer
from ..settings import AnswerFormat, Settings
from ..workflow.graph import Workflow
from ..workflow.stored import stored_workflow
from .editable import editable
from .info import describe_worker, versions
from .info_parts import describe_parts
from .request import Request, asked_answer_format, job_id_of, read_job
from .run import JobRunner

log = logging.getLogger("worker")

_THREADS = ThreadPoolExecutor(256, thread_name_prefix="job")  # made when needed: asyncio's own pool has few

_worker: Worker | None = None


def set_worker(worker: Worker) -> None:
    """Set what runs the jobs: RunPod calls `handler` with nothing but the job."""
    global _worker  # noqa: PLW0603
    _worker = worker


async def handler(job: dict[str, Any], on_safe: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Answer one RunPod job. Never raises, but for the cancellation that RunPod asks for.

    `on_safe` is called, from another thread, when the job no longer needs ComfyUI, before its files are encoded and
    delivered; not if it fails before.

    `job` is `{"id": …, "input": {"workflow": …, "prompt": …, "seed": …, "width": …, "height": …}}`; the answer has
    `status` "success" with `images` and `filenames`, or "error" with `error_type`, `error_code` and `error`.
    """
    stop = threading.Event()
    answer = asyncio.get_running_loop().run_in_executor(_THREADS, answer_job, job, stop, on_safe)
    try:
        return await asyncio.shield(answer)
    except asyncio.CancelledError:
        stop.set()
        while not answer.done():  # the GPU must be free before the next job, however often this is cancelled
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([answer])
        raise


def answer_job(job: object, stop: threading.Event, on_safe: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """The answer to one job, whatever happens to it; JSON in UTF-8 can carry it, whatever ComfyUI's nodes made."""
    settings = _worker.runner.settings if _worker is not None else Settings()
    has_run = threading.Event()
    # A worker that is to be refreshed begins no job before the response of this one.
    call = Call(job, stop, has_run.set if settings.refresh_worker else on_safe)
    answer, wanted = _answer(call)
    with job_log.job(job_id_of(job)):
        log.info("%s", _summary(answer, call.seconds))
    if settings.refresh_worker and (has_run.is_set() or answer.get("error_type", "validation") != "validation"):
        answer["refresh_worker"] = True  # not for a job that was refused: it left nothing
    told: dict[str, Any] = serialisable(in_answer_format(answer, wanted or settings.answer_format))
    return told


def _summary(answer: Mapping[str, Any], seconds: float) -> str:
    """One line about an answer, for the log."""
    files = answer.get("files") or []
    size = sum(int(file.get("size_bytes") or 0) for file in files)
    made = f", {len(files)} file{'s' if len(files) > 1 else ''} of {size:,} bytes" if files else ""
    reason = f" ({answer.get('error_code')})" if answer.get("status") == "error" else ""
    return f"{answer.get('status')}{reason} after {seconds:.2f} s{made}"


def _answer(call: Call) -> tuple[dict[str, Any], AnswerFormat | None]:
    """The answer, and the format that the job asks for."""
    request: Request | None = None
    with job_log.job(job_id_of(call.job)):
        try:
            worker = _worker
            if worker is None:
                raise ComfyCrashed("ComfyUI is not running: start the worker with `python serverless_worker.py`")
            request = _read(worker.runner, call)
            return ACTIONS[request.action](worker, request, call), request.output.answer
        except WorkerError as error:
            log.warning("%s: %s", error.error_code, error)
            warnings = [*(request.warnings if request else ()), *error.hints]
            answer = failure_answer(error, call.seconds, warnings)
        except Exception as error:  # the edge of the worker: a fault of ours becomes `internal_error`
            log.exception("unexpected error")
            answer = failure_answer(_explained(error), call.seconds)
    return answer, request.output.answer if request else asked_answer_format(call.job)


def _read(runner: JobRunner, call: Call) -> Request:
    return read_job(
        call.job,
        lambda name: stored_workflow(name, runner.settings),
        lambda saved: runner.convert(saved, call.stop),
        lambda workflow: runner.mend(workflow, call.stop),
        runner.settings.default_workflow,
    )


def _explained(error: Exception) -> WorkerError:
    """The error for callers that stands for an unexpected one."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            "the worker's disk is full: produce smaller files, or give the endpoint a larger container disk"
        )
    return WorkerError("unexpected error in the worker; its log has the details")


@dataclass(frozen=True)
class Call:
    """One call of the handler: the job, `stop`, which is set when RunPod withdraws it, and `on_safe`."""

    job: Any
    stop: threading.Event
    on_safe: Callable[[], object]
    _began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began


@dataclass(frozen=True)
class Worker:
    """What runs jobs on a booted engine; `progress` gives what is called with the events of a job."""

    runner: JobRunner
    progress: Callable[[Any, Workflow], AbstractContextManager[Report]] = lambda *_: nullcontext(lambda event: None)


def _run(worker: Worker, request: Request, call: Call) -> dict[str, Any]:
    with worker.progress(call.job, request.workflow) as report:
        result = worker.runner.run(request, job_id_of(call.job), call.stop, report, call.on_safe)
    limit = worker.runner.settings.result_limit_bytes
    return success_answer(result, request.warnings, call.seconds, limit)


def _validate(worker: Worker, request: Request, call: Call) -> dict[str, Any]:
    worker.runner.engine.ensure_ready()
    checker, check = worker.runner.checker, worker.runner.limits(call.stop).check
    problems, told = checker.problems(request, check)
    details = {
        **editable(worker.runner.engine.client, request, check),
        "needs": checker.needs(request),
        "versions": versions(worker.runner.engine),
    }
    return validation_answer(problems, [*request.warnings, *told], details, call.seconds, request.is_converted)


def _info(worker: Worker, request: Request, call: Call) -> dict[str, Any]:
    worker.runner.engine.ensure_ready()
    engine, settings = worker.runner.engine, worker.runner.settings
    info = describe_worker(engine, settings)
    warnings = [*request.warnings, *info.pop("warnings")]
    parts = describe_parts(engine.client, request.parts)
    return info_answer(info, parts, warnings, call.seconds, settings.result_limit_bytes)


ACTIONS = {"run": _run, "validate": _validate, "info": _info}
"""What a job may have done, by its `action`."""
