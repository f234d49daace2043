"""Jobs from RunPod: what they need is prepared while ComfyUI boots, then the SDK's loop runs to the end."""

from __future__ import annotations

import logging
import os
import threading

from ..comfy.engine import ComfyEngine
from ..comfy.process import ComfyProcess
from ..errors import BootTimeout, ComfyBootFailed
from ..job.handler import Worker, handler, set_worker
from ..job.run import JobRunner
from ..job_log import print_error
from ..launch.comfy_launcher import die_with_parent
from ..pictures.helper import HELPERS
from ..settings import Settings, configure_sdk_environment, on_local_endpoint
from .boot_timeline import BootTimeline
from .fitness import check_fitness
from .progress import ProgressSender, Send
from .sdk_loop import patched_scaler
from .warm_up import read_warm_up, warm_up

log = logging.getLogger("worker")


def take_jobs(process: ComfyProcess, settings: Settings, timeline: BootTimeline) -> None:
    """Take jobs for the engine whose process has been started, and end it at the end."""
    with ComfyEngine(process.installation, settings, process) as engine:
        check_fitness(settings)
        runner, warm_up_request = JobRunner.make(engine, settings), read_warm_up(settings)
        with runner.models:
            runner.begin_models(warm_up_request)  # while ComfyUI boots
            with timeline.span("RunPod's SDK"):
                send = _import_sdk()
            threading.Thread(target=runner.check_bucket, daemon=True, name="bucket").start()
            try:
                engine.ensure_ready()
            except (ComfyBootFailed, BootTimeout) as error:
                if on_local_endpoint():
                    raise
                print_error(error)  # jobs are taken nevertheless: each tries a boot, and is answered with its failure
            timeline.end("ComfyUI")
            # Only now, since ComfyUI's boot needs every core that there is.
            threading.Thread(target=HELPERS.warm_up, daemon=True, name="picture-helper").start()
            with timeline.span("models"):
                runner.models.wait()
            if warm_up_request is not None and engine.process.alive:
                with timeline.span("warm-up"):
                    warm_up(runner, warm_up_request)
            set_worker(Worker(runner, lambda job, workflow: ProgressSender(job, workflow, send)))
            log.info(timeline.summary())
            _start_sdk(settings)


def _import_sdk() -> Send:
    """Import RunPod's SDK; the function that sends progress."""
    configure_sdk_environment()
    from runpod.serverless.modules import rp_progress  # while ComfyUI boots, because the import sleeps for a second

    # The public function sends from a thread that cannot be waited for; this is what that thread runs.
    send: Send = getattr(rp_progress, "_thread_target", rp_progress.progress_update)
    return send


def _start_sdk(settings: Settings) -> None:
    # No signal handler here: the SDK's ping process would inherit it and hang the exit. The SDK installs its own.
    import runpod
    from runpod.serverless.modules import rp_scale

    rp_scale.JobScaler = patched_scaler(rp_scale.JobScaler)  # `start` makes one
    worker_id = os.getpid()
    os.register_at_fork(after_in_child=lambda: die_with_parent(worker_id))  # the SDK's ping process
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: settings.concurrency})
