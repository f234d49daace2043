"""Liveness checks: does ComfyUI answer, and if not, is it busy or hung?"""

from __future__ import annotations

import time

from ..errors import ComfyHung, ComfyUnreachable
from .engine import ComfyEngine
from .run_limits import RunLimits

_RECENT_SECONDS = 2.0  # an answer this recent counts as a sign of life
_HUNG_SECONDS = 3.5
_RETRY_SECONDS = 0.01


class HangDetector:
    """Distinguishes a hung engine from a busy one: one that answers nothing, uses no CPU and reads nothing is hung."""

    def __init__(self, engine: ComfyEngine) -> None:
        self._engine = engine
        self._activity: tuple[int, ...] | None = None
        self._since = 0.0

    def answered(self) -> None:
        """The engine answered a request."""
        self._activity = None

    def did_not_answer(self) -> None:
        """The engine did not answer a request. Raises ComfyHung if it has done nothing at all for some time."""
        activity = self._engine.process.activity()
        if activity is None or activity != self._activity:
            self._activity, self._since = activity, time.monotonic()
        elif time.monotonic() - self._since > _HUNG_SECONDS:
            raise ComfyHung(f"ComfyUI hung: for {_HUNG_SECONDS:g} s it neither responded nor did any work")


def wait_until_responsive(engine: ComfyEngine, limits: RunLimits, hang_detector: HangDetector) -> None:
    """Wait until the engine answers, unless it just did: it may have been frozen since the last job.

    Raises ComfyCrashed, ComfyHung, JobCancelled, JobTimeout.
    """
    while time.monotonic() - engine.client.answered_at > _RECENT_SECONDS:
        limits.check()
        engine.ensure_alive()
        try:
            engine.client.queue_remaining()
        except ComfyUnreachable:  # at once, if nothing listens on its port
            hang_detector.did_not_answer()
            time.sleep(_RETRY_SECONDS)
