"""One prompt: queue it, wait for its history entry, stop it.

History is the truth, the websocket is a doorbell. Each turn of the wait checks the caller's stop signal, the deadline
and the process; a quiet turn also asks for the entry, and from time to time whether ComfyUI still has the prompt.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .comfy_engine import ComfyEngine
from .comfy_events import Event, Listener
from .deadline import Deadline
from .errors import ComfyCrashed, ComfyUnreachable, JobCancelled, JobTimeout, WorkerError
from .rejection import explain_rejection
from .workflow.graph import Workflow

log = logging.getLogger(__name__)

_SOCKET_SECONDS = 1.0  # that a prompt waits for the websocket to be open, which it can do without
_FIRST_POLL, _LONGEST_POLL, _POLL_GROWTH = 0.01, 0.25, 1.3
_QUEUE_SECONDS = 1.0  # between two questions whether ComfyUI still has the prompt
_LOST_AFTER = 2  # such questions in a row that say no

Report = Callable[[Event], None]


@dataclass(frozen=True)
class Run:
    """A prompt that ended, well or not: its id, the workflow as queued and its history entry."""

    prompt_id: str
    workflow: Workflow
    entry: dict[str, Any]


@dataclass(frozen=True)
class RunLimits:
    """What may end a wait early: its time budget, and `stop`, set by whoever withdraws the job.

    `grace` is the seconds that an interrupted prompt gets to stop before ComfyUI is restarted.
    """

    deadline: Deadline
    grace: float
    stop: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise JobCancelled or JobTimeout if the wait has to end."""
        if self.stop.is_set():
            raise JobCancelled("the job was cancelled")
        if self.deadline.passed:
            raise JobTimeout(
                f"the job did not end within {self.deadline.seconds:g} s (JOB_TIMEOUT); "
                "raise the limit or use fewer steps or a smaller size"
            )


def run_prompt(engine: ComfyEngine, workflow: Workflow, limits: RunLimits, report: Report) -> Run:
    """Queue a checked workflow and wait until it ended; ComfyUI has forgotten its history entry then.

    Raises InvalidWorkflow and its kin for what ComfyUI refuses, JobTimeout, JobCancelled, and ComfyCrashed if the
    process dies. In each case the prompt no longer runs. Whether its nodes failed, the entry says.
    """
    prompt_id = str(uuid.uuid4())
    limits.check()
    try:
        with engine.events.listen(prompt_id) as listener:
            _queue(engine, workflow, prompt_id, limits)
            return Run(prompt_id, workflow, _Wait(engine, prompt_id, limits, report, listener).entry())
    except (JobTimeout, JobCancelled):
        _stop_prompt(engine, prompt_id, limits.grace)
        raise
    finally:
        with contextlib.suppress(WorkerError):
            engine.client.forget(prompt_id)


def _queue(engine: ComfyEngine, workflow: Workflow, prompt_id: str, limits: RunLimits) -> None:
    client_id = engine.events.client_id(_SOCKET_SECONDS)
    try:
        submission = engine.client.queue_prompt(workflow, prompt_id, client_id)
    except ComfyUnreachable:
        engine.ensure_alive()
        raise
    if submission.accepted and not submission.is_whole:
        _stop_prompt(engine, prompt_id, limits.grace)
    if not submission.is_whole:
        raise explain_rejection(submission.body, workflow, engine.client.options)
    log.info("queued prompt %s with %d nodes", prompt_id, len(workflow))


class _Wait:
    """The wait for one history entry."""

    def __init__(
        self, engine: ComfyEngine, prompt_id: str, limits: RunLimits, report: Report, listener: Listener
    ) -> None:
        self._engine = engine
        self._prompt_id = prompt_id
        self._limits = limits
        self._report = report
        self._listener = listener
        self._interval = _FIRST_POLL
        self._next_queue_check = time.monotonic() + _QUEUE_SECONDS
        self._missing = 0

    def entry(self) -> dict[str, Any]:
        """The history entry, once there is one."""
        while True:
            self._limits.check()
            self._engine.ensure_alive()
            event = self._listener.next(self._limits.deadline.at_most(self._interval))
            if event is not None and not event.is_last:
                self._hear(event)
                continue
            try:
                entry = self._engine.client.history(self._prompt_id)
                if entry is not None:
                    return entry
                self._check_queue()
            except ComfyUnreachable:  # busy or dead; the next turn tells which
                log.debug("ComfyUI did not answer while the prompt ran")
            self._interval = min(self._interval * _POLL_GROWTH, _LONGEST_POLL)

    def _hear(self, event: Event) -> None:
        if event.is_ending:
            self._interval = _FIRST_POLL
        else:
            self._interval = _LONGEST_POLL  # the doorbell works: asking is only for when it breaks
            self._report(event)

    def _check_queue(self) -> None:
        """Notice that ComfyUI has lost the prompt. Its entry appears a moment after it leaves the queue."""
        if time.monotonic() < self._next_queue_check:
            return
        self._next_queue_check = time.monotonic() + _QUEUE_SECONDS
        self._missing = 0 if self._prompt_id in self._engine.client.queue() else self._missing + 1
        if self._missing >= _LOST_AFTER:
            raise ComfyCrashed("ComfyUI lost the prompt: it is neither queued nor running nor in the history")


def _stop_prompt(engine: ComfyEngine, prompt_id: str, grace: float) -> None:
    """See to it that a prompt no longer runs: take it out, interrupt it, or restart ComfyUI."""
    deadline = Deadline(grace)
    while engine.process.alive and not deadline.passed:
        try:
            engine.client.dequeue(prompt_id)
            engine.client.interrupt(prompt_id)
            if prompt_id not in engine.client.queue():
                return
        except ComfyUnreachable:
            log.debug("ComfyUI did not answer while the prompt was stopped")
        time.sleep(deadline.at_most(0.1))
    log.warning("prompt %s did not stop within %g s", prompt_id, grace)
    engine.restart()
