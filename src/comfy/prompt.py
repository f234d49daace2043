"""One prompt: queue it, wait for its history entry, stop it."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..deadline import Deadline
from ..errors import ComfyCrashed, ComfyUnreachable, EngineFault, MissingNodeType, UnexpectedAnswer, WorkerError
from ..workflow.graph import Workflow
from .engine import ComfyEngine
from .history_wait import HistoryWait
from .liveness import HangDetector, wait_until_responsive
from .preflight import engine_of, with_all_classes
from .record import Run, sends_frames
from .rejection import explain_rejection
from .run_limits import Report, RunLimits

log = logging.getLogger(__name__)

_SOCKET_SECONDS = 1.0  # that a prompt waits for the websocket to open; it can do without
_EXIT_SECONDS = 0.2  # that a process may take to end after it has closed its port
_INTERRUPT_INTERVAL_SECONDS = 1.0  # an interrupt that arrives between two prompts is lost, so it is repeated
_STOP_CHECK_SECONDS = 0.1


def run_prompt(
    engine: ComfyEngine,
    workflow: Workflow,
    limits: RunLimits,
    report: Report,
    extra_data: Mapping[str, Any] = MappingProxyType({}),
    takes_previews: bool = False,
) -> Run:
    """Queue a checked workflow and wait until it ended; its history entry stays, for `ComfyEngine.forget`.

    `extra_data` is what ComfyUI hands to nodes besides their inputs: `extra_pnginfo`, `api_key_comfy_org`. With
    `takes_previews` what samplers send of their work is reported too.
    Raises InvalidWorkflow and its subclasses for what ComfyUI refuses, JobTimeout, JobStalled, JobCancelled, and an
    EngineFault if the process dies, hangs or answers what its protocol does not have. In each case the prompt no
    longer runs, or the engine has to be replaced. Whether the nodes failed, the entry says.
    """
    prompt_id, generation, hang_detector = str(uuid.uuid4()), engine.generation, HangDetector(engine)
    wait_until_responsive(engine, limits, hang_detector)
    client_id = engine.events.client_id(_SOCKET_SECONDS)
    if engine.generation != generation:
        raise ComfyCrashed("ComfyUI was restarted before the job was queued")
    try:
        with engine.events.listen(prompt_id, takes_previews) as listener:
            queued_at, began = time.time(), time.monotonic()
            _queue(engine, workflow, prompt_id, client_id, extra_data)
            wait = HistoryWait(engine, prompt_id, client_id, limits, report, listener, hang_detector)
            entry = wait.entry()
            has_all_frames = wait.drain_frames() if sends_frames(workflow) else True
            wait.drain_received()
            waited, seconds = time.monotonic() - began, wait.clock.node_seconds
            return Run(prompt_id, workflow, entry, tuple(wait.frames), has_all_frames, queued_at, waited, seconds)
    except ComfyUnreachable:
        time.sleep(_EXIT_SECONDS)
        engine.ensure_alive()  # if it died, that says more
        raise
    except EngineFault:  # the process is replaced, and the prompt with it
        raise
    except BaseException:  # the edge of a run: however it ends, also by SystemExit, the prompt must not run on
        _stop_prompt(engine, generation, prompt_id, limits.grace)
        with contextlib.suppress(WorkerError):
            engine.client.forget(prompt_id)
        raise


def _queue(
    engine: ComfyEngine, workflow: Workflow, prompt_id: str, client_id: str, extra_data: Mapping[str, Any]
) -> None:
    """Queue the prompt. Raises what a rejection means, also where ComfyUI would run only a part of it."""
    submission = engine.client.queue_prompt(workflow, prompt_id, client_id, extra_data)
    if not submission.is_whole:
        error = explain_rejection(submission.body, workflow, engine_of(engine.client))
        raise with_all_classes(engine.client, error, workflow) if isinstance(error, MissingNodeType) else error
    log.info("queued prompt %s with %d nodes", prompt_id, len(workflow))


def _stop_prompt(engine: ComfyEngine, generation: int, prompt_id: str, grace: float) -> None:
    """Make sure that a prompt no longer runs: dequeue it, interrupt it, or restart ComfyUI.

    `generation` is that of the process that the prompt was queued in: in any other the prompt is gone.
    """
    with engine.stopping:
        deadline, interrupt_at = Deadline(grace), 0.0
        while engine.generation == generation and engine.process.alive and not deadline.passed:
            try:
                if time.monotonic() >= interrupt_at:
                    interrupt_at = time.monotonic() + _INTERRUPT_INTERVAL_SECONDS
                    engine.client.dequeue(prompt_id)
                    engine.client.interrupt(prompt_id)
                if prompt_id not in engine.client.queue():
                    return
            except (ComfyCrashed, ComfyUnreachable, UnexpectedAnswer):
                log.debug("ComfyUI did not respond while the prompt was being stopped")
            time.sleep(deadline.at_most(_STOP_CHECK_SECONDS))
        if engine.generation != generation:
            return
        log.warning("prompt %s did not stop within %g s", prompt_id, grace)
        engine.restart(generation)
