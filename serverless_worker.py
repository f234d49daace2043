"""A RunPod Serverless worker for ComfyUI: a job with a workflow in, images out.

    boot ComfyUI as a subprocess (here) -> meanwhile get ready, then take jobs (src/worker/start.py) ->
    read a job and answer it (src/job/handler.py) -> apply its overrides to the workflow (src/workflow/) ->
    put its files where ComfyUI finds them, run it, bring what it made to the caller (src/job/run.py):
    queue it, wait for its history entry (src/comfy/prompt.py) -> read the files, answer with base64 (src/outputs/)

Run it as `python serverless_worker.py --test --draft` to see an image without ComfyUI or GPU; see README.md.
"""

from __future__ import annotations

import logging
import sys
from contextlib import closing

from src import job_log
from src.comfy.install import draft_installation, find_comfyui
from src.comfy.process import ComfyProcess
from src.errors import WorkerError
from src.launch.comfy_launcher import hide_memory
from src.launch.container_init import leave_init_behind
from src.settings import (
    Settings,
    local_worker_environment,
    on_local_endpoint,
    on_runpod,
    read_settings,
    warnings_about_variables,
)
from src.terminal import command_line
from src.worker.boot_timeline import BootTimeline

log = logging.getLogger("worker")


def main() -> int:
    """Take jobs from RunPod, run the one test job, or serve an endpoint or a gateway here; the exit status."""
    hide_memory()  # it holds the secrets; node packs run in processes of the same user
    leave_init_behind()
    timeline = BootTimeline()
    options = command_line.parse(sys.argv[1:])
    sys.argv[1:] = options.for_sdk  # the SDK reads the rest, and would take --test for its own
    try:
        settings = read_settings()
        testing = options.testing or settings.mode_to_run == "test"
        level = settings.log_level or ("ERROR" if testing else "INFO")
        job_log.configure(level, settings.log_format == "json", on_local_endpoint())
        if options.doctor or testing or options.serve or options.gateway:
            return _on_this_machine(options, settings, testing)
        if not (options.for_sdk or on_runpod()):
            return command_line.print_usage_hint()
        for sentence in warnings_about_variables():
            log.warning("%s", sentence)
        _take_jobs(options, settings, timeline)
    except WorkerError as error:
        job_log.print_error(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _take_jobs(options: command_line.Options, settings: Settings, timeline: BootTimeline) -> None:
    installation = draft_installation(any_class=True) if options.draft else find_comfyui(settings)
    with closing(ComfyProcess(installation, settings)) as process:
        timeline.begin("ComfyUI")
        process.start()
        with timeline.span("the worker's modules"):
            from src.worker.start import take_jobs  # while ComfyUI boots
        take_jobs(process, settings, timeline)


def _on_this_machine(options: command_line.Options, settings: Settings, testing: bool) -> int:
    if options.doctor:
        from src.terminal.doctor import run_doctor

        return run_doctor(settings)
    if testing:
        from src.terminal.local_test import run_test

        return run_test(options, settings)
    if options.gateway:
        from src.terminal.gateway import run_gateway

        return run_gateway(options, settings)
    return _serve(options, settings)


def _serve(options: command_line.Options, settings: Settings) -> int:
    from src.endpoint.server import EndpointOptions, serve
    from src.job.examples import example_inputs
    from src.models.provisioning import check_models

    check_models(settings)
    if not options.draft:
        find_comfyui(settings)
    arguments = ["--draft"] if options.draft else []
    port = options.port or 8000
    endpoint = EndpointOptions(
        port,
        options.workers,
        arguments,
        settings.serve_api_key,
        examples=lambda: example_inputs(settings),
    )
    has_key = bool(settings.serve_api_key)
    return serve(
        endpoint,
        local_worker_environment(),
        lambda: command_line.print_serving(port, options.workers, has_key),
    )


if __name__ == "__main__":
    sys.exit(main())
