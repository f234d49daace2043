"""What RunPod calls with each job: read it, do its action, answer it whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from .. import job_log
from ..comfy.run_limits import Report
from ..errors import ComfyCrashed, DiskFull, WorkerError
from ..outputs import failure_answer, info_answer, serialisable, success_answer, validation_answer
from ..workflow.graph import Workflow
from ..workflow.stored import stored_workflow
from .info import describe_worker, versions
from .request import Request, job_id_of, read_job
from .run import JobRunner

log = logging.getLogger("worker")

_worker: Worker | None = None


def set_worker(worker: Worker) -> None:
    """Set what runs the jobs: RunPod calls `handler` with nothing but the job."""
    global _worker  # noqa: PLW0603
    _worker = worker


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Answer one RunPod job. Never raises, but for the cancellation that RunPod asks for.

    `job` is `{"id": …, "input": {"workflow": …, "prompt": …, "seed": …, "width": …, "height": …}}`; the answer has
    `status` "success" with `images` and `filenames`, or "error" with `error_type`, `error_code` and `error`.
    """
    stop = threading.Event()
    answer = asyncio.get_running_loop().run_in_executor(None, answer_job, job, stop)
    try:
        return await asyncio.shield(answer)
    except asyncio.CancelledError:
        stop.set()
        while not answer.done():  # the GPU must be free before the next job, however often this is cancelled
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([answer])
        raise


def answer_job(job: object, stop: threading.Event) -> dict[str, Any]:
    """The answer to one job, whatever happens to it; JSON in UTF-8 can carry it, whatever ComfyUI's nodes made."""
    answer: dict[str, Any] = serialisable(_answer(job, stop))
    return answer


def _answer(job: object, stop: threading.Event) -> dict[str, Any]:
    started, warnings = time.monotonic(), list[str]()
    with job_log.job(job_id_of(job)):
        try:
            worker = _worker
            if worker is None:
                raise ComfyCrashed("ComfyUI is not running: start the worker with `python serverless_worker.py`")
            runner = worker.runner

            def find_workflow(name: str) -> object:
                return stored_workflow(name, runner.settings)

            request = read_job(job, find_workflow, lambda saved: runner.convert(saved, stop))
            warnings.extend(request.warnings)
            return ACTIONS[request.action](worker, request, job, stop, started)
        except WorkerError as error:
            log.warning("%s: %s", error.error_code, error)
            return failure_answer(error, time.monotonic() - started, [*warnings, *error.hints])
        except Exception as error:  # the edge of the worker: a fault of ours becomes `internal_error`
            log.exception("unexpected error")
            return failure_answer(_explained(error), time.monotonic() - started)


def _explained(error: Exception) -> WorkerError:
    """The error for callers that stands for an unexpected one."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("the worker's disk is full: have smaller files, or give the endpoint a larger container disk")
    return WorkerError("unexpected error in the worker; its log has the details")


@dataclass(frozen=True)
class Worker:
    """What runs jobs on a booted engine; `progress` gives what is called with the events of a job."""

    runner: JobRunner
    progress: Callable[[Any, Workflow], AbstractContextManager[Report]] = lambda *_: nullcontext(lambda event: None)


def _run(worker: Worker, request: Request, job: Any, stop: threading.Event, started: float) -> dict[str, Any]:
    with worker.progress(job, request.workflow) as report:
        result = worker.runner.run(request, job_id_of(job), stop, report)
    limit = worker.runner.settings.result_limit_bytes
    return success_answer(result, request.warnings, time.monotonic() - started, limit)


def _validate(worker: Worker, request: Request, job: Any, stop: threading.Event, started: float) -> dict[str, Any]:
    worker.runner.engine.ensure_ready()
    checker, check = worker.runner.checker, worker.runner.limits(stop).check
    problems = checker.problems(request, check)
    details = {**checker.editable(request.workflow), "versions": versions(worker.runner.engine)}
    return validation_answer(problems, request.warnings, details, time.monotonic() - started, request.is_converted)


def _info(worker: Worker, request: Request, job: Any, stop: threading.Event, started: float) -> dict[str, Any]:
    worker.runner.engine.ensure_ready()
    info = describe_worker(worker.runner.engine, worker.runner.settings)
    return info_answer(info, request.warnings, time.monotonic() - started)


ACTIONS = {"run": _run, "validate": _validate, "info": _info}
"""What a job may have done, by its `action`."""
