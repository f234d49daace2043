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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..deadline import Deadline
from ..errors import (
    ComfyCrashed,
    ComfyHung,
    ComfyUnreachable,
    EngineFault,
    JobCancelled,
    JobStalled,
    JobTimeout,
    UnexpectedAnswer,
    WorkerError,
)
from ..workflow.graph import Workflow
from .engine import ComfyEngine
from .events import Event, Listener
from .record import Frame, NodeClock, Run, sends_frames
from .rejection import explain_rejection

log = logging.getLogger(__name__)

_SOCKET_SECONDS = 1.0  # that a prompt waits for the websocket to be open, which it can do without
_FIRST_POLL, _LONGEST_POLL, _POLL_GROWTH = 0.01, 0.25, 1.3
_QUEUE_SECONDS = 1.0  # between two questions whether ComfyUI still has the prompt
_LOST_AFTER = 2  # such questions in a row that say no
_MOST_NONSENSE = 8  # senseless answers in a row
_DEATH_SECONDS = 0.2  # that a process which has closed its port may take to be gone
_LATE_SECONDS = 10.0  # that a picture may take to arrive after the run has ended
_INTERRUPT_SECONDS = 1.0  # between two interrupts: one between two prompts is lost
_FRESH_SECONDS = 2.0  # that an answer counts as a sign of life
_HUNG_SECONDS = 3.5

Report = Callable[[Event], None]


@dataclass(frozen=True)
class RunLimits:
    """What may end a wait early: its time budget, silence, and `stop`, set by whoever withdraws the job.

    `deadline` starts again while the prompt waits behind others. `stall` is the seconds that a running prompt may go
    without an event, `grace` those that an interrupted one gets to stop before ComfyUI is restarted.
    """

    deadline: Deadline
    stall: float
    grace: float
    stop: threading.Event = field(default_factory=threading.Event)

    def check_stop(self) -> None:
        """Raise JobCancelled if the caller has withdrawn the job."""
        if self.stop.is_set():
            raise JobCancelled("the job was cancelled")

    def check(self) -> None:
        """Raise JobCancelled or JobTimeout if the wait has to end."""
        self.check_stop()
        if self.deadline.passed:
            raise JobTimeout(
                f"the job did not end within {self.deadline.seconds:g} s (JOB_TIMEOUT); "
                "raise the limit or use fewer steps or a smaller size"
            )


def run_prompt(
    engine: ComfyEngine,
    workflow: Workflow,
    limits: RunLimits,
    report: Report,
    extra_data: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """Queue a checked workflow and wait until it ended; its history entry stays, for `ComfyEngine.forget`.

    `extra_data` is what ComfyUI hands to nodes beside their inputs: `extra_pnginfo`, `api_key_comfy_org`.
    Raises InvalidWorkflow and its kin for what ComfyUI refuses, JobTimeout, JobStalled, JobCancelled, and an
    EngineFault if the process dies, hangs or makes no sense. In each case the prompt no longer runs, or the engine
    has to be replaced. Whether the nodes failed, the entry says.
    """
    prompt_id, number, vitals = str(uuid.uuid4()), engine.number, _Vitals(engine)
    _knock(engine, limits, vitals)
    client_id = engine.events.client_id(_SOCKET_SECONDS)
    if engine.number != number:
        raise ComfyCrashed("ComfyUI was restarted before the job was queued")
    try:
        with engine.events.listen(prompt_id) as listener:
            queued_at = time.time()
            _queue(engine, workflow, prompt_id, client_id, extra_data)
            wait = _Wait(engine, prompt_id, client_id, limits, report, listener, vitals)
            entry = wait.entry()
            is_heard_whole = wait.hear_out() if sends_frames(workflow) else True
            wait.hear_arrived()
            frames, seconds = tuple(wait.frames), wait.clock.node_seconds
            return Run(prompt_id, workflow, entry, frames, is_heard_whole, queued_at, seconds)
    except ComfyUnreachable:
        time.sleep(_DEATH_SECONDS)
        engine.ensure_alive()  # that it died says more
        raise
    except EngineFault:  # what is left of the prompt goes with the process
        raise
    except BaseException:
        _stop_prompt(engine, number, prompt_id, limits.grace)
        with contextlib.suppress(WorkerError):
            engine.client.forget(prompt_id)
        raise


class _Vitals:
    """Tells a hung engine from a busy one: who answers nothing, uses no CPU and reads nothing, is hung."""

    def __init__(self, engine: ComfyEngine) -> None:
        self._engine = engine
        self._activity: tuple[int, ...] | None = None
        self._since = 0.0

    def answered(self) -> None:
        """It lives."""
        self._activity = None

    def silent(self) -> None:
        """It did not answer. Raises ComfyHung if it has done nothing at all for some time."""
        activity = self._engine.process.activity()
        if activity is None or activity != self._activity:
            self._activity, self._since = activity, time.monotonic()
        elif time.monotonic() - self._since > _HUNG_SECONDS:
            raise ComfyHung(f"ComfyUI hung: for {_HUNG_SECONDS:g} s it answered nothing and did nothing")


def _knock(engine: ComfyEngine, limits: RunLimits, vitals: _Vitals) -> None:
    """See that the engine answers, unless it just did: it may have been frozen since the last job."""
    while time.monotonic() - engine.client.answered_at > _FRESH_SECONDS:
        limits.check()
        engine.ensure_alive()
        try:
            engine.client.remaining()
        except ComfyUnreachable:  # at once, where it does not listen
            vitals.silent()
            time.sleep(_FIRST_POLL)


def _queue(
    engine: ComfyEngine, workflow: Workflow, prompt_id: str, client_id: str, extra_data: Mapping[str, Any]
) -> None:
    """Queue the prompt. Raises what ComfyUI's no means, also where it would run only a part."""
    submission = engine.client.queue_prompt(workflow, prompt_id, client_id, extra_data)
    if not submission.is_whole:
        raise explain_rejection(submission.body, workflow, lambda *place: _options(engine, *place))
    log.info("queued prompt %s with %d nodes", prompt_id, len(workflow))


def _options(engine: ComfyEngine, class_type: str, name: str) -> list[str]:
    """The values that an input may have; none where ComfyUI cannot tell, since they only adorn a message."""
    try:
        return engine.client.options(class_type, name)
    except WorkerError:
        return []


class _Wait:
    """The wait for one history entry."""

    def __init__(
        self,
        engine: ComfyEngine,
        prompt_id: str,
        client_id: str,
        limits: RunLimits,
        report: Report,
        listener: Listener,
        vitals: _Vitals,
    ) -> None:
        self._engine = engine
        self._prompt_id = prompt_id
        self._client_id = client_id
        self._limits = limits
        self._report = report
        self._listener = listener
        self._vitals = vitals
        self._interval = _FIRST_POLL
        self._next_queue_check = time.monotonic() + _QUEUE_SECONDS
        self._missing = self._nonsense = 0
        self._heard_at: float | None = None
        self._has_heard_last = False
        self.clock = NodeClock()
        self.frames: list[Frame] = []

    def entry(self) -> dict[str, Any]:
        """The history entry, once there is one."""
        while True:
            self._limits.check()
            self._engine.ensure_alive()
            event = self._listener.next(self._limits.deadline.at_most(self._interval))
            if event is not None:
                self._hear(event)
            if event is not None and not event.is_last:
                continue
            try:
                entry = self._engine.client.history(self._prompt_id)
                if entry is not None:
                    return entry
                self._check_queue()
                self._vitals.answered()
                self._nonsense = 0
            except ComfyUnreachable:
                self._vitals.silent()
            except UnexpectedAnswer as error:
                self._bear(error)
            self._check_progress()
            self._interval = min(self._interval * _POLL_GROWTH, _LONGEST_POLL)

    def hear_out(self) -> bool:
        """Hear what is still on its way after the entry is there: pictures come late. Whether all was heard."""
        while not self._has_heard_last:
            self._limits.check_stop()
            is_open = self._engine.events.hears(self._client_id)
            event = self._listener.next(_LATE_SECONDS if is_open else 0.0)
            if event is None:
                break
            self._hear(event)
        return self._has_heard_last

    def hear_arrived(self) -> None:
        """Hear what has arrived and end the clock: asking may have found the entry before its last events came."""
        while event := self._listener.next(0.0):
            self._hear(event)
        self.clock.hear(None, time.monotonic())

    def _hear(self, event: Event) -> None:
        self._heard_at = time.monotonic()
        self._has_heard_last = self._has_heard_last or event.is_last
        self.clock.hear(event.node_id, event.at)
        if event.png:
            self.frames.append(Frame(str(event.node_id), event.png))
        elif event.is_ending or event.is_last:
            self._interval = _FIRST_POLL
        else:
            self._interval = _LONGEST_POLL  # the doorbell works: asking is only for when it breaks
            self._report(event)

    def _bear(self, error: UnexpectedAnswer) -> None:
        """Let a few senseless answers pass: the run may be fine."""
        self._nonsense += 1
        if self._nonsense > _MOST_NONSENSE:
            raise ComfyCrashed(f"{error} again and again") from error

    def _check_progress(self) -> None:
        """Notice a run that has begun, tells nothing more, and could."""
        if self._heard_at is None or not self._engine.events.hears(self._client_id):
            return
        if time.monotonic() - self._heard_at > self._limits.stall:
            raise JobStalled(
                f"no node told of any progress for {self._limits.stall:g} s (STALL_TIMEOUT); "
                "raise the limit if a node of this workflow is silent for so long"
            )

    def _check_queue(self) -> None:
        """Notice that ComfyUI has lost the prompt. Its entry appears a moment after it leaves the queue."""
        if time.monotonic() < self._next_queue_check:
            return
        self._next_queue_check = time.monotonic() + _QUEUE_SECONDS
        state = self._engine.client.queue()
        if self._prompt_id in state.pending:
            self._limits.deadline.restart()
        self._missing = 0 if self._prompt_id in state else self._missing + 1
        if self._missing >= _LOST_AFTER:
            raise ComfyCrashed("ComfyUI lost the prompt: it is neither queued nor running nor in the history")


def _stop_prompt(engine: ComfyEngine, number: int, prompt_id: str, grace: float) -> None:
    """See to it that a prompt no longer runs: take it out, interrupt it, or end ComfyUI, which boots anew then.

    `number` is the process that the prompt was queued in: with another one it is gone.
    """
    with engine.stopping:
        deadline, interrupt_at = Deadline(grace), 0.0
        while engine.number == number and engine.process.alive and not deadline.passed:
            try:
                if time.monotonic() >= interrupt_at:
                    interrupt_at = time.monotonic() + _INTERRUPT_SECONDS
                    engine.client.dequeue(prompt_id)
                    engine.client.interrupt(prompt_id)
                if prompt_id not in engine.client.queue():
                    return
            except (ComfyCrashed, ComfyUnreachable, UnexpectedAnswer):
                log.debug("ComfyUI did not answer while the prompt was stopped")
            time.sleep(deadline.at_most(0.1))
        if engine.number != number:
            return
        log.warning("prompt %s did not stop within %g s", prompt_id, grace)
        engine.renew(number)
