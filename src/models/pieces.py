"""A file in large pieces, several of them read at a time: what a disk behind a network is fast with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

_AT_A_TIME = 8
_BLOCK = 8 << 20


def pieces(file: Path, size: int, is_over: Event) -> Iterator[bytes]:
    """The first `size` bytes of a file, in order; ends early once `is_over` is set.

    Raises OSError, also for a file that has become shorter.
    """
    opened = os.open(file, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="read-ahead") as pool:
            coming = []
            for position in range(0, size, _BLOCK):
                if is_over.is_set():
                    return
                coming.append(pool.submit(_read, opened, min(_BLOCK, size - position), position))
                if len(coming) > _AT_A_TIME:
                    yield coming.pop(0).result()
            for future in coming:
                yield future.result()
    finally:
        os.close(opened)


def _read(opened: int, length: int, position: int) -> bytes:
    """All of a block: a network file system may give less at a time."""
    parts = []
    while length:
        part = os.pread(opened, length, position)
        if not part:
            raise OSError("the file has become shorter")
        parts.append(part)
        position, length = position + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
