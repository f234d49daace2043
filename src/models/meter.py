"""How far a transfer of several files is: a bar on a terminal, a line every few seconds in a log."""

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
    """Bytes of `total` (0 if it is not known) that have come; may be counted from several threads."""

    def __init__(self, done: str, total: int) -> None:
        self._label = done
        self.total = total
        self.bytes = 0
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._existing = 0

    def count(self, more: int) -> None:
        """So many more bytes, or fewer."""
        with self._lock:
            self.bytes += more

    def expect(self, more: int) -> None:
        """So many more bytes are to come than was known."""
        with self._lock:
            self.total += more

    def count_existing(self, more: int) -> None:
        """So many bytes that were there before: they tell nothing of the speed."""
        with self._lock:
            self.bytes += more
            self._existing += more

    @property
    def speed(self) -> float:
        """Bytes a second."""
        return max(0, self.bytes - self._existing) / max(1e-3, time.monotonic() - self._started)

    def line(self) -> str:
        """As people read it: `models: 12.3 of 34.2 GB (36 %), 812 MB/s, 27 s left`."""
        received, speed = self.bytes / _GIGABYTE, self.speed
        text = f"{self._label}: {received:.2f} GB"
        if self.total:
            text = f"{self._label}: {received:.2f} of {self.total / _GIGABYTE:.2f} GB ({100 * self.bytes // self.total} %)"
        text = f"{text}, {speed / 1e6:.0f} MB/s"
        left = self.total - self.bytes
        return f"{text}, {left / speed:.0f} s left" if speed and left > 0 else text


@contextmanager
def show_progress(meter: Meter) -> Iterator[Meter]:
    """Show how far it is, for as long as it takes."""
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
    columns, rows = shutil.get_terminal_size()  # tqdm shows nothing on a terminal that does not tell its size
    form: dict[str, Any] = {
        "unit": "B",
        "unit_scale": True,
        "desc": meter._label,
        "leave": False,
        "ncols": columns,
        "nrows": rows,
    }
    with tqdm(total=meter.total or None, **form) as bar:
        while not done.wait(_BAR_SECONDS):
            bar.total = meter.total or None
            with contextlib.suppress(ValueError):
                bar.update(meter.bytes - bar.n)
        bar.update(meter.bytes - bar.n)
