"""A time budget for one wait."""

from __future__ import annotations

import time


class Deadline:
    """A point in time that is `seconds` away, by the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def restart(self) -> None:
        """Start again with the full budget."""
        self._end = time.monotonic() + self.seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the budget is used up."""
        return self.remaining <= 0.0

    def at_most(self, seconds: float) -> float:
        """`seconds`, or what is left if that is less: the time-out for one step of the wait."""
        return min(seconds, self.remaining)
