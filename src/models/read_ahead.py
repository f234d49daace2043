"""Models read before they are needed: into the page cache while ComfyUI boots, or to a fast disk from a slow volume.

Loaders map files and touch them page by page, which is slow where each page comes over a network. Whoever reads the
same files in large pieces, several at a time, before that, turns it into a copy from memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from .memory import free_memory

log = logging.getLogger(__name__)

_AT_A_TIME = 8
_BLOCK = 8 << 20
_SHARE = 0.7  # of the free memory that pages of models may take: ComfyUI needs some itself
_SAMPLE = 64 << 20
_SLOW = 800e6  # bytes a second; a disk that is worth a copy gives more
_GIGABYTE = 1e9


@dataclass(frozen=True)
class LocalCache:
    """Copies of models below `root`, in the same folders, at most `limit` bytes; what was used longest ago goes."""

    root: Path
    limit: int

    def copy_of(self, file: Path, below: Path) -> Path:
        """Where the copy of a file is, or would be, that lies `below` a root of models."""
        return self.root / file.relative_to(below)

    def has(self, file: Path, below: Path) -> bool:
        """Whether there is a copy of the file as it is now; it counts as used then."""
        copy = self.copy_of(file, below)
        try:
            there, now = copy.stat(), file.stat()
        except OSError:
            return False
        if (there.st_size, there.st_mtime_ns) != (now.st_size, now.st_mtime_ns):
            return False
        os.utime(copy, ns=(time.time_ns(), there.st_mtime_ns))
        return True

    def add(self, file: Path, below: Path, kept: Sequence[Path], is_over: Event) -> Path | None:
        """Copy a file; the copy, or None if there is no room for it beside the copies `kept`, or it was ended."""
        copy, about = self.copy_of(file, below), file.stat()
        if not self._make_room(about.st_size, {*kept, copy}):
            log.info("no room for a copy of %s in MODEL_CACHE_DIR (MODEL_CACHE_GB)", file.name)
            return None
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f"{copy.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as target:
                os.ftruncate(target.fileno(), about.st_size)
                for position, piece in _pieces(file, about.st_size, is_over):
                    os.pwrite(target.fileno(), piece, position)
            if is_over.is_set():
                return None
            os.utime(partial, ns=(time.time_ns(), about.st_mtime_ns))
            partial.replace(copy)
            return copy
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, size: int, kept: set[Path]) -> bool:
        there = [path for path in self.root.rglob("*") if path.is_file()]
        sizes = {path: path.stat().st_size for path in there}
        taken = sum(sizes.values())
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        for path in sorted(there, key=lambda path: path.stat().st_atime_ns):
            if taken + size <= self.limit and size < free:
                break
            if path not in kept:
                path.unlink(missing_ok=True)
                taken, free = taken - sizes[path], free + sizes[path]
        return taken + size <= self.limit and size < free


@dataclass(frozen=True)
class ReadAhead:
    """Reads files that lie below one of `roots`; with a `cache`, those of a slow disk are copied to it."""

    roots: Sequence[Path]
    cache: LocalCache | None
    is_over: Event

    def read(self, files: Sequence[Path]) -> None:
        """Read the files in that order, as far as free memory goes. Nothing that fails here fails anything."""
        budget, started, total = int(free_memory() * _SHARE), time.monotonic(), 0
        copies: list[Path] = []
        for file in dict.fromkeys(files):
            if self.is_over.is_set():
                return
            with contextlib.suppress(OSError):
                size = file.stat().st_size
                copy = self._copy(file, copies)
                if copy is not None:
                    copies.append(copy)
                if size > budget:
                    log.info("%s is not read ahead: %.1f GB of memory are free for it", file.name, budget / _GIGABYTE)
                    continue
                for _ in _pieces(copy or file, size, self.is_over):
                    pass
                budget, total = budget - size, total + size
        seconds = max(1e-3, time.monotonic() - started)
        if total and not copies and _speed(files[0]) < _SLOW:  # opened again: some network file systems forget then
            log.warning("this volume keeps nothing in memory, so reading ahead is of no use: set MODEL_CACHE_DIR")
        if total:
            log.info("read ahead %.2f GB of models, %.0f MB/s", total / _GIGABYTE, total / 1e6 / seconds)

    def _copy(self, file: Path, kept: Sequence[Path]) -> Path | None:
        """The copy of a file on the fast disk, made now if its own is slow."""
        below = next((root for root in self.roots if file.is_relative_to(root)), None)
        if self.cache is None or below is None or file.is_relative_to(self.cache.root):
            return None
        if self.cache.has(file, below):
            return self.cache.copy_of(file, below)
        speed = _speed(file)
        if speed > _SLOW:
            log.info("%s is not copied: its disk gives %.0f MB/s", file.name, speed / 1e6)
            return None
        started = time.monotonic()
        copy = self.cache.add(file, below, kept, self.is_over)
        if copy is not None:
            size, seconds = file.stat().st_size, max(1e-3, time.monotonic() - started)
            log.info("copied %s (%.2f GB) at %.0f MB/s", file.name, size / _GIGABYTE, size / 1e6 / seconds)
        return copy


def _speed(file: Path) -> float:
    """Bytes a second, by the first of the file."""
    started, length = time.monotonic(), 0
    for _, piece in _pieces(file, min(_SAMPLE, file.stat().st_size), Event()):
        length += len(piece)
    return length / max(1e-6, time.monotonic() - started)


def _pieces(file: Path, size: int, is_over: Event) -> Iterator[tuple[int, bytes]]:
    """The first `size` bytes in large pieces, several read at a time: (position, bytes), in order."""
    opened = os.open(file, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="read-ahead") as pool:
            positions = range(0, size, _BLOCK)
            coming = []
            for position in positions:
                if is_over.is_set():
                    return
                coming.append((position, pool.submit(os.pread, opened, min(_BLOCK, size - position), position)))
                if len(coming) > _AT_A_TIME:
                    first, future = coming.pop(0)
                    yield first, future.result()
            for first, future in coming:
                yield first, future.result()
    finally:
        os.close(opened)
