"""A time budget for one wait, and a wait for what cannot be interrupted."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

_CHECK_INTERVAL_SECONDS = 0.2
_T = TypeVar("_T")


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


def attended(action: Callable[[], _T], check: Callable[[], None]) -> _T:
    """What `action` returns or raises, while `check` is called several times a second.

    What `check` raises ends the wait; the action, which may hang in a look-up of a host's address, goes on in a thread
    of its own, and nobody hears of it any more.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(action())
        except BaseException as error:  # noqa: BLE001  the edge of the thread
            outcome.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True, name="attended").start()
    while not wait([outcome], _CHECK_INTERVAL_SECONDS).done:
        check()
    return outcome.result()
