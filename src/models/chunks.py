"""Reads a file in large chunks, several at a time, which is fast on network volumes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

_PARALLEL_READS = 8
_CHUNK_BYTES = 8 << 20


def read_chunks(file: Path, size: int, stop: Event) -> Iterator[bytes]:
    """The first `size` bytes of a file, in order; ends early once `stop` is set.

    Raises OSError, also for a file that has become shorter.
    """
    opened = os.open(file, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(_PARALLEL_READS, thread_name_prefix="read-ahead") as pool:
            pending = []
            for position in range(0, size, _CHUNK_BYTES):
                if stop.is_set():
                    return
                pending.append(pool.submit(_read, opened, min(_CHUNK_BYTES, size - position), position))
                if len(pending) > _PARALLEL_READS:
                    yield pending.pop(0).result()
            for future in pending:
                yield future.result()
    finally:
        os.close(opened)


def _read(opened: int, length: int, position: int) -> bytes:
    """Read exactly `length` bytes: a network file system may return fewer per read."""
    parts = []
    while length:
        part = os.pread(opened, length, position)
        if not part:
            raise OSError("the file has become shorter")
        parts.append(part)
        position, length = position + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
