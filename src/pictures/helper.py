"""Calls into helper processes, which are ended when the caller's time is over; idle ones are kept."""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from .. import REPOSITORY
from ..settings import harmless_environment

_MAX_MEGABYTES = 3000  # of one process: 150 million pixels take up to some 2 GB while they are decoded
_MAX_PROCESSES = 4
_MAX_IDLE = 2
_CHECK_INTERVAL_SECONDS = 0.05


class HelperFailed(Exception):
    """The call failed: the message says why, for the log."""


class HelperEnded(HelperFailed):
    """The process ended: it was killed, or ran out of memory."""


class TooSlow(Exception):
    """The call took longer than it may."""


class _Helper:
    """One process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "src.pictures.child", str(_MAX_MEGABYTES)],
            cwd=REPOSITORY,
            env=harmless_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def call(self, request: bytes, check: Callable[[], None]) -> dict[str, Any]:
        """The answer to one call. After any error (HelperEnded, what `check` raises) the process is of no use."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is read below
            stdin.write(request)
            stdin.flush()
        while not poll.poll(_CHECK_INTERVAL_SECONDS * 1000):
            check()
        line = stdout.readline()
        if not line.endswith(b"\n"):
            raise HelperEnded("the helper process exited")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Helpers:
    """A few helper processes. May be used from several threads."""

    def __init__(self) -> None:
        self._idle: list[_Helper] = []
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(_MAX_PROCESSES)

    def warm_up(self) -> None:
        """Have a process ready for the first call."""
        self._keep(_Helper())

    def call(self, operation: str, check: Callable[[], None], *arguments: Any) -> Any:
        """The JSON result of an operation of `child`; `check` raises if the caller's time is over.

        Raises HelperFailed for what the library raised, or if the process ran out of memory.
        """
        request = json.dumps([operation, *map(_as_json, arguments)]).encode() + b"\n"
        while not self._slots.acquire(timeout=_CHECK_INTERVAL_SECONDS):
            check()
        try:
            idle = self._take_idle()
            try:
                answer = self._call(idle or _Helper(), request, check)
            except HelperEnded:
                if idle is None:
                    raise
                answer = self._call(_Helper(), request, check)  # it may have ended while it was idle
        finally:
            self._slots.release()
        if answer.get("errno") == errno.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if "failed" in answer:
            raise HelperFailed(answer["failed"])
        return answer["result"]

    def close(self) -> None:
        """End the idle processes."""
        with self._lock:
            idle, self._idle = self._idle, []
        for helper in idle:
            helper.kill()

    def _call(self, helper: _Helper, request: bytes, check: Callable[[], None]) -> dict[str, Any]:
        try:
            answer = helper.call(request, check)
        except BaseException:  # the edge of a call: whatever ended it, the process works on for no one
            helper.kill()
            raise
        self._keep(helper)
        return answer

    def _take_idle(self) -> _Helper | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, helper: _Helper) -> None:
        with self._lock:
            if helper.is_alive and len(self._idle) < _MAX_IDLE:
                self._idle.append(helper)
                return
        helper.kill()


def time_limit(seconds: float, check: Callable[[], None]) -> Callable[[], None]:
    """A check that also raises TooSlow after so many seconds from now."""
    end = time.monotonic() + seconds

    def checked() -> None:
        check()
        if time.monotonic() > end:
            raise TooSlow

    return checked


def _as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


HELPERS = Helpers()
"""Those of this process."""

atexit.register(HELPERS.close)
