"""A RunPod Serverless worker for ComfyUI: a job with a workflow in, images out.

    boot ComfyUI as a subprocess -> wait for its HTTP port -> take a job -> apply its overrides to the workflow ->
    queue it -> wait for its history entry -> read the files -> answer with base64 images

Run it as `python serverless_worker.py --test --draft` to see an image without ComfyUI or GPU; see README.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from src import command_line, job_log
from src.boot_timeline import BootTimeline
from src.comfy_engine import ComfyEngine
from src.comfy_install import draft_installation, find_comfyui
from src.comfy_launcher import die_with_parent
from src.errors import BootTimeout, ComfyBootFailed, ComfyCrashed, WorkerError
from src.fitness import check_fitness
from src.job_input import Request, job_id_of, read_job
from src.job_run import JobRunner
from src.models import check_models
from src.outputs import failure_answer, info_answer, success_answer, validation_answer
from src.progress import ProgressSender, Send
from src.prompt_run import Report
from src.settings import Settings, on_runpod, own_environment, read_settings, tame_sdk
from src.stored_workflows import stored_workflow
from src.warm_up import read_warm_up, warm_up
from src.worker_info import describe_worker, versions
from src.workflow.graph import Workflow

log = logging.getLogger("worker")


# --- One job -------------------------------------------------------------------------------------------


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Answer one RunPod job. Never raises, but for the cancellation that RunPod asks for.

    `job` is `{"id": …, "input": {"workflow": …, "prompt": …, "seed": …, "width": …, "height": …}}`; the answer has
    `status` "success" with `images` and `filenames`, or "error" with `error_type`, `error_code` and `error`.
    """
    stop = threading.Event()
    answer = asyncio.ensure_future(asyncio.to_thread(answer_job, job, stop))
    try:
        return await asyncio.shield(answer)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([answer])  # the GPU is free before the next job comes
        raise


def answer_job(job: object, stop: threading.Event) -> dict[str, Any]:
    """The answer to one job, whatever happens to it."""
    started, warnings = time.monotonic(), list[str]()
    with job_log.job(job_id_of(job)):
        try:
            worker = _worker
            if worker is None:
                raise ComfyCrashed("ComfyUI is not running: start the worker with `python serverless_worker.py`")
            request = read_job(job, lambda name: stored_workflow(name, worker.runner.settings))
            warnings.extend(request.warnings)
            return ACTIONS[request.action](worker, request, job, stop, started)
        except WorkerError as error:
            log.warning("%s: %s", error.error_code, error)
            return failure_answer(error, time.monotonic() - started, [*warnings, *error.hints])
        except Exception:
            log.exception("unexpected error")
            unexpected = WorkerError("unexpected error in the worker; its log has the details")
            return failure_answer(unexpected, time.monotonic() - started)


@dataclass(frozen=True)
class Worker:
    """What runs jobs on a booted engine; `progress` gives what hears the events of a job."""

    runner: JobRunner
    progress: Callable[[Any, Workflow], AbstractContextManager[Report]] = lambda *_: nullcontext(lambda event: None)


def _run(worker: Worker, request: Request, job: Any, stop: threading.Event, started: float) -> dict[str, Any]:
    with worker.progress(job, request.workflow) as report:
        result = worker.runner.run(request, job_id_of(job), stop, report)
    limit = worker.runner.settings.result_limit_bytes
    return success_answer(result, request.warnings, time.monotonic() - started, limit)


def _validate(worker: Worker, request: Request, job: Any, stop: threading.Event, started: float) -> dict[str, Any]:
    worker.runner.engine.ensure_ready()
    problems = worker.runner.problems(request)
    return validation_answer(problems, request.warnings, versions(worker.runner.engine), time.monotonic() - started)


def _info(worker: Worker, request: Request, job: Any, stop: threading.Event, started: float) -> dict[str, Any]:
    worker.runner.engine.ensure_ready()
    told = describe_worker(worker.runner.engine, worker.runner.settings)
    return info_answer(told, request.warnings, time.monotonic() - started)


ACTIONS = {"run": _run, "validate": _validate, "info": _info}
"""What a job may ask for, by its `action`."""


# --- The process ---------------------------------------------------------------------------------------

_worker: Worker | None = None


def main() -> int:
    """Boot ComfyUI, then take jobs from RunPod or run the one test job; the exit status."""
    options = command_line.parse(sys.argv[1:])
    sys.argv[1:] = options.for_sdk  # the SDK reads the rest, and would take --test for its own
    try:
        settings = read_settings()
        testing = options.testing or settings.mode_to_run == "test"
        job_log.configure(settings.log_level or ("ERROR" if testing else "INFO"))
        if not (testing or options.serve or options.for_sdk or on_runpod()):
            return command_line.say_what_can_be_done()
        if testing:
            test_job, workflow = command_line.checked_test_job(options, settings)
        check_models(settings)
        installation = draft_installation() if options.draft else find_comfyui(settings)
        if options.serve:
            return _serve(options, settings)
        with ComfyEngine(installation, settings) as engine:
            if testing:
                return _run_test(test_job, workflow, engine, settings, options)
            _take_jobs(engine, settings)
    except WorkerError as error:
        return command_line.say_error(error)
    except KeyboardInterrupt:
        return 130
    return 0


def _run_test(
    job: dict[str, Any], workflow: Workflow, engine: ComfyEngine, settings: Settings, options: command_line.Options
) -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the SDK is not in this process
    progress = command_line.Progress(workflow, engine.process.installation.name)
    progress.booting()
    runner = JobRunner.make(engine, settings)
    with runner.supply:
        runner.begin_models()
        engine.wait_ready()
        runner.supply.wait()
        _set_worker(Worker(runner, lambda job, workflow: nullcontext(progress.report)))
        answer = asyncio.run(handler(job))
    progress.ended()
    return command_line.show_answer(answer, options.output)


def _serve(options: command_line.Options, settings: Settings) -> int:
    from src.endpoint.server import EndpointOptions, serve

    arguments = ["--draft"] if options.draft else []
    endpoint = EndpointOptions(options.port, options.workers, arguments, settings.serve_api_key)
    serve(endpoint, own_environment(), lambda: command_line.say_serving(options.port, options.workers))
    return 0


def _take_jobs(engine: ComfyEngine, settings: Settings) -> None:
    timeline, began = BootTimeline(), time.monotonic()
    check_fitness(settings)
    runner, warm_up_request = JobRunner.make(engine, settings), read_warm_up(settings)
    with runner.supply:
        runner.begin_models(warm_up_request)  # while ComfyUI boots
        with timeline.span("RunPod's SDK"):
            send = _import_sdk()
        threading.Thread(target=runner.check_bucket, daemon=True, name="bucket").start()
        try:
            engine.ensure_ready()
        except (ComfyBootFailed, BootTimeout) as error:  # jobs are taken all the same, tried and answered with it
            command_line.say_error(error)
        timeline.ended("ComfyUI", began)
        with timeline.span("models"):
            runner.supply.wait()
        if warm_up_request is not None and engine.process.alive:
            with timeline.span("warm-up"):
                warm_up(runner, warm_up_request)
        _set_worker(Worker(runner, lambda job, workflow: ProgressSender(job, workflow, send)))
        log.info(timeline.told())
        _start_sdk(settings)


def _import_sdk() -> Send:
    """Import RunPod's SDK; what sends progress."""
    tame_sdk()
    from runpod.serverless.modules import rp_progress  # while ComfyUI boots, because the import sleeps for a second

    # The public function sends from a thread that nobody can wait for; this is what that thread runs.
    send: Send = getattr(rp_progress, "_thread_target", rp_progress.progress_update)
    return send


def _start_sdk(settings: Settings) -> None:
    # No signal handler here: the SDK's ping process would inherit it and hang the exit. The SDK installs its own.
    import runpod

    worker_id = os.getpid()
    os.register_at_fork(after_in_child=lambda: die_with_parent(worker_id))  # the SDK's ping process
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: settings.concurrency})


def _set_worker(worker: Worker) -> None:
    global _worker  # noqa: PLW0603  RunPod calls `handler` with nothing but the job
    _worker = worker


if __name__ == "__main__":
    sys.exit(main())
