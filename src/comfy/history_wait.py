"""The wait for the history entry of one prompt.

History is the truth, the websocket is a doorbell. Each turn of the wait checks the caller's stop signal, the deadline
and the process; a turn without an event also asks for the entry, and from time to time whether ComfyUI still has the
prompt.
"""

from __future__ import annotations

import time
from typing import Any

from ..errors import ComfyCrashed, ComfyUnreachable, JobStalled, UnexpectedAnswer
from .engine import ComfyEngine
from .events import Event, Listener
from .liveness import HangDetector
from .record import Frame, NodeClock
from .run_limits import Report, RunLimits

_FIRST_POLL, _MAX_POLL, _POLL_GROWTH = 0.01, 0.25, 1.3
_QUEUE_CHECK_SECONDS = 1.0  # between two checks whether ComfyUI still has the prompt
_LOST_AFTER = 2  # such checks in a row that do not find it
_MAX_UNEXPECTED_ANSWERS = 8  # in a row
_LATE_FRAME_SECONDS = 10.0  # that a picture may take to arrive after the run has ended


class HistoryWait:
    """Waits for one history entry. `clock` and `frames` are filled by the events on the way."""

    def __init__(
        self,
        engine: ComfyEngine,
        prompt_id: str,
        client_id: str,
        limits: RunLimits,
        report: Report,
        listener: Listener,
        hang_detector: HangDetector,
    ) -> None:
        self._engine = engine
        self._prompt_id = prompt_id
        self._client_id = client_id
        self._limits = limits
        self._report = report
        self._listener = listener
        self._hang_detector = hang_detector
        self._interval = _FIRST_POLL
        self._next_queue_check = time.monotonic() + _QUEUE_CHECK_SECONDS
        self._missing_checks = self._unexpected_answers = 0
        self._last_event_at: float | None = None
        self._has_last_event = False
        self.clock = NodeClock()
        self.frames: list[Frame] = []

    def entry(self) -> dict[str, Any]:
        """The history entry, once there is one.

        Raises JobCancelled, JobTimeout, JobStalled, ComfyCrashed, ComfyHung.
        """
        while True:
            self._limits.check()
            self._engine.ensure_alive()
            event = self._listener.next(self._limits.deadline.at_most(self._interval))
            if event is not None:
                self._handle(event)
            if event is not None and not event.is_last:
                continue
            try:
                entry = self._engine.client.history(self._prompt_id)
                if entry is not None:
                    return entry
                self._check_queue()
                self._hang_detector.answered()
                self._unexpected_answers = 0
            except ComfyUnreachable:
                self._hang_detector.did_not_answer()
            except UnexpectedAnswer as error:
                self._tolerate(error)
            self._check_progress()
            self._interval = min(self._interval * _POLL_GROWTH, _MAX_POLL)

    def drain_frames(self) -> bool:
        """Handle the events still on their way after the entry is there: pictures arrive late. Whether all arrived."""
        while not self._has_last_event:
            self._limits.check_stop()
            is_connected = self._engine.events.is_connected_as(self._client_id)
            event = self._listener.next(_LATE_FRAME_SECONDS if is_connected else 0.0)
            if event is None:
                break
            self._handle(event)
        return self._has_last_event

    def drain_received(self) -> None:
        """Handle the events that have arrived, and stop the clock: polling may find the entry before they do."""
        while event := self._listener.next(0.0):
            self._handle(event)
        self.clock.switch_to(None, time.monotonic())

    def _handle(self, event: Event) -> None:
        self._last_event_at = time.monotonic()
        self._has_last_event = self._has_last_event or event.is_last
        self.clock.switch_to(event.node_id, event.at)
        if event.png:
            self.frames.append(Frame(str(event.node_id), event.png))
        elif event.is_ending or event.is_last:
            self._interval = _FIRST_POLL
        else:
            self._interval = _MAX_POLL  # the doorbell works: polling is only for when it breaks
            self._report(event)

    def _tolerate(self, error: UnexpectedAnswer) -> None:
        """Let a few unexpected answers pass: the run may be fine."""
        self._unexpected_answers += 1
        if self._unexpected_answers > _MAX_UNEXPECTED_ANSWERS:
            raise ComfyCrashed(f"{error} again and again") from error

    def _check_progress(self) -> None:
        """Notice a run that has begun and reports nothing more, although its events would arrive."""
        if self._last_event_at is None or not self._engine.events.is_connected_as(self._client_id):
            return
        if time.monotonic() - self._last_event_at > self._limits.stall:
            raise JobStalled(
                f"no node reported progress for {self._limits.stall:g} s (STALL_TIMEOUT); "
                "raise the limit if a node of this workflow needs longer without reporting progress"
            )

    def _check_queue(self) -> None:
        """Notice that ComfyUI has lost the prompt. Its entry appears a moment after it leaves the queue."""
        if time.monotonic() < self._next_queue_check:
            return
        self._next_queue_check = time.monotonic() + _QUEUE_CHECK_SECONDS
        state = self._engine.client.queue()
        if self._prompt_id in state.pending:
            self._limits.deadline.restart()
        self._missing_checks = 0 if self._prompt_id in state else self._missing_checks + 1
        if self._missing_checks >= _LOST_AFTER:
            raise ComfyCrashed("ComfyUI lost the prompt: it is neither queued nor running nor in the history")
