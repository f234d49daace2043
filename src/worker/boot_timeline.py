"""Where the seconds of a cold start go: spans since the process began, logged in one line when jobs are taken."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IMPORTED = time.monotonic()


class BootTimeline:
    """Named spans of a boot; they may overlap, from several threads."""

    def __init__(self, process_began: float | None = None) -> None:
        self._zero = process_start() if process_began is None else process_began
        self._began: dict[str, float] = {"imports": self._zero}
        self._spans: list[tuple[float, float, str]] = []
        self.end("imports")

    def begin(self, name: str) -> None:
        """A span begins now."""
        self._began[name] = time.monotonic()

    def end(self, name: str) -> None:
        """A span that has begun ends now."""
        self._spans.append((self._began[name] - self._zero, time.monotonic() - self._zero, name))

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A span as a context."""
        self.begin(name)
        try:
            yield
        finally:
            self.end(name)

    def summary(self) -> str:
        """One line: each span with its beginning and end in seconds since the process began, in order of beginning."""
        spans = [f"{name} {began:.1f}-{ended:.1f}" for began, ended, name in sorted(self._spans)]
        return f"taking jobs {time.monotonic() - self._zero:.1f} s after the process began: {', '.join(spans)}"


def process_start() -> float:
    """When this process began, by the monotonic clock: from proc(5), else when this module was imported."""
    try:
        fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    except (OSError, AttributeError, IndexError, ValueError):
        return _IMPORTED
