"""Reads models before they are needed: into the page cache while ComfyUI boots, or from a slow volume to a fast disk.

Loaders use mmap and fault files in page by page, which is slow where each page comes over a network. Reading the same
files in large chunks, several at a time, before that makes it a copy from memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from ..launch.container_memory import free_memory
from .chunks import read_chunks
from .local_cache import LocalCache

log = logging.getLogger(__name__)

_MEMORY_SHARE = 0.7  # of the free memory that read-ahead may fill: ComfyUI needs some itself
_SAMPLE_BYTES = 64 << 20
_SLOW_SPEED = 800e6  # bytes a second; the disk of the copies is faster
_GIGABYTE = 1e9


@dataclass(frozen=True)
class ReadAhead:
    """Reads files below `roots`; with a `cache`, files on a slow disk are copied to it."""

    roots: Sequence[Path]
    cache: LocalCache | None
    stop: Event

    def read(self, files: Sequence[Path]) -> None:
        """Read the files in that order, as far as free memory allows. Failures are only logged."""
        budget, started, total = int(free_memory() * _MEMORY_SHARE), time.monotonic(), 0
        copies: list[Path] = []
        is_uncached = False
        for file in dict.fromkeys(files):
            try:
                size, copy = file.stat().st_size, self._copy(file, copies)
                copies += [copy] if copy else []
                if size > budget:
                    log.info(
                        "%s is not read ahead: only %.1f GB of memory are available", file.name, budget / _GIGABYTE
                    )
                    continue
                for _ in read_chunks(copy or file, size, self.stop):
                    pass
                budget, total = budget - size, total + size
                is_uncached = is_uncached or (
                    copy is None and self._speed(file) < _SLOW_SPEED
                )  # a second read is slow
            except OSError as error:
                log.warning("%s is not read ahead: %s", file.name, error.strerror or error)
            if self.stop.is_set():
                return
        seconds = max(1e-3, time.monotonic() - started)
        if total:
            log.info("read ahead %.2f GB of models, %.0f MB/s", total / _GIGABYTE, total / 1e6 / seconds)
        if is_uncached:
            log.warning(
                "files of this volume do not stay in memory, so reading ahead has no effect: set MODEL_CACHE_DIR"
            )

    def _copy(self, file: Path, keep: Sequence[Path]) -> Path | None:
        """The copy of a file on the fast disk, made now if the disk of the file is slow; None without one."""
        below = next((root for root in self.roots if file.is_relative_to(root)), None)
        if self.cache is None or below is None:
            return None
        existing = self.cache.copy_of(file, below)
        if existing is not None:
            return existing
        speed = self._speed(file)
        if speed > _SLOW_SPEED:
            log.info("%s is not copied: its disk already reads at %.0f MB/s", file.name, speed / 1e6)
            return None
        started = time.monotonic()
        copy = self.cache.add(file, below, keep, self.stop)
        if copy is not None:
            size, seconds = file.stat().st_size, max(1e-3, time.monotonic() - started)
            log.info("copied %s (%.2f GB) at %.0f MB/s", file.name, size / _GIGABYTE, size / 1e6 / seconds)
        return copy

    def _speed(self, file: Path) -> float:
        """Bytes a second, measured on the beginning of the file."""
        started = time.monotonic()
        length = sum(map(len, read_chunks(file, min(_SAMPLE_BYTES, file.stat().st_size), self.stop)))
        return length / max(1e-6, time.monotonic() - started)
