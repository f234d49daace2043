"""Progress of a transfer of several files: a bar on a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)

_LINE_SECONDS = 5.0
_BAR_SECONDS = 0.2
_GIGABYTE = 1e9


class Meter:
    """Counts the bytes received of `total` (0 if unknown). May be used from several threads."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self.total = total
        self.bytes = 0
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._existing = 0

    def count(self, more: int) -> None:
        """Add that many bytes; negative to take some back."""
        with self._lock:
            self.bytes += more

    def expect(self, more: int) -> None:
        """Add to the total, for a file whose size was not known before."""
        with self._lock:
            self.total += more

    def count_existing(self, more: int) -> None:
        """Add bytes that were there before: they count as done, but not for the speed."""
        with self._lock:
            self.bytes += more
            self._existing += more

    @property
    def speed(self) -> float:
        """Bytes a second."""
        return max(0, self.bytes - self._existing) / max(1e-3, time.monotonic() - self._started)

    def line(self) -> str:
        """The progress as text: `models: 12.3 of 34.2 GB (36 %), 812 MB/s, 27 s left`."""
        gigabytes, speed = self.bytes / _GIGABYTE, self.speed
        text = f"{self._label}: {gigabytes:.2f} GB"
        if self.total:
            percent = 100 * self.bytes // self.total
            text = f"{self._label}: {gigabytes:.2f} of {self.total / _GIGABYTE:.2f} GB ({percent} %)"
        text = f"{text}, {speed / 1e6:.0f} MB/s"
        left = self.total - self.bytes
        return f"{text}, {left / speed:.0f} s left" if speed and left > 0 else text


@contextmanager
def show_progress(meter: Meter) -> Iterator[Meter]:
    """Show the progress until the block ends."""
    done = threading.Event()
    show = _show_bar if sys.stderr.isatty() else _log_lines
    thread = threading.Thread(target=show, args=(meter, done), daemon=True, name="meter")
    thread.start()
    try:
        yield meter
    finally:
        done.set()
        thread.join()


def _log_lines(meter: Meter, done: threading.Event) -> None:
    while not done.wait(_LINE_SECONDS):
        log.info("%s", meter.line())


def _show_bar(meter: Meter, done: threading.Event) -> None:
    columns, rows = shutil.get_terminal_size()  # tqdm shows nothing on a terminal that does not report its size
    options: dict[str, Any] = {
        "unit": "B",
        "unit_scale": True,
        "desc": meter._label,
        "leave": False,
        "ncols": columns,
        "nrows": rows,
    }
    with tqdm(total=meter.total or None, **options) as bar:
        while not done.wait(_BAR_SECONDS):
            bar.total = meter.total or None
            with contextlib.suppress(ValueError):
                bar.update(meter.bytes - bar.n)
        bar.update(meter.bytes - bar.n)
