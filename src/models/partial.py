"""A partly downloaded file: its bytes, and a journal of how far each part has been received.

The bytes are in `NAME.partial` next to the final file; `NAME.partial.parts` is the journal, from which the next
process resumes. Nothing is fsynced against a loss of power: the digest is taken of what the system has in its cache.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from ..errors import ModelFetchFailed, NoSpaceForModels

_READ_BYTES = 1 << 22
_JOURNAL_INTERVAL_BYTES = 1 << 20  # bytes of a part between two entries in the journal
_CHECK_INTERVAL_SECONDS = 0.1
_DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RESERVED_BYTES = 200_000_000
"""Bytes that stay free besides the models."""
_STAGING = ".partial.hub"
_LOCK_FRESH_SECONDS = 120.0  # a lock that was touched in that time is held


def partial_of(target: Path) -> Path:
    """The file with the bytes received so far."""
    return target.with_name(f"{target.name}.partial")


def parts_of(target: Path) -> Path:
    """The journal of how far each part has been received."""
    return target.with_name(f"{target.name}.partial.parts")


def lock_of(target: Path) -> Path:
    """The lock file that a download holds."""
    return target.with_name(f"{target.name}.lock")


def staging_of(target: Path) -> Path:
    """The folder that huggingface_hub downloads into."""
    return target.with_name(f"{target.name}{_STAGING}")


def discard(target: Path) -> None:
    """Remove the partial file and its journal."""
    parts_of(target).unlink(missing_ok=True)
    partial_of(target).unlink(missing_ok=True)


def is_leftover(path: PurePath) -> bool:
    """Whether a file, given its path below a root, is one that a download needs only while it runs."""
    in_staging = any(part.endswith(_STAGING) for part in path.parent.parts)
    return in_staging or path.name.endswith((".partial", ".partial.parts", ".lock", ".lock.breaking"))


def is_in_use(path: Path) -> bool:
    """Whether a leftover may belong to a running download: its lock is held."""
    staging = next((parent for parent in path.parents if parent.name.endswith(_STAGING)), None)
    name = staging.name if staging else path.name
    folder = staging.parent if staging else path.parent
    for ending in (_STAGING, ".breaking", ".lock", ".parts", ".partial"):
        name = name.removesuffix(ending)
    lock = folder / f"{name}.lock"
    with contextlib.suppress(OSError):
        return time.time() - lock.stat().st_mtime < _LOCK_FRESH_SECONDS
    return False


def check_space(folder: Path, downloads: Iterable[tuple[Path, int]]) -> None:
    """Raise NoSpaceForModels if the disk of `folder` has no space for `downloads`: (target, size in bytes) each."""
    while not folder.exists():
        folder = folder.parent
    files = list(downloads)
    free = shutil.disk_usage(folder).free
    needed = sum(size - _allocated_bytes(partial_of(target)) for target, size in files) + RESERVED_BYTES
    if files and needed > free:
        names = ", ".join(target.name for target, _ in files)
        raise NoSpaceForModels(
            f"{names} need {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free: enlarge the volume (or the "
            "container disk), or run `python -m src.models prune`"
        )


def _allocated_bytes(path: Path) -> int:
    """Bytes that a file, which may be sparse, occupies on the disk."""
    return path.stat().st_blocks * 512 if path.is_file() else 0


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn OSError from writing `target` into NoSpaceForModels or ModelFetchFailed."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL_ERRORS:
            raise NoSpaceForModels(
                f"no space left for {target.name}: enlarge the volume (or the container disk), or prune models"
            ) from error
        raise ModelFetchFailed(
            f"{target.name} cannot be written to its models folder ({error.strerror}); set MODELS_DIR to a writable "
            "folder"
        ) from error


class Partial:
    """The bytes received of a file, and up to where each part of it is there. May be written from several threads."""

    def __init__(
        self, target: Path, size: int, part_bytes: int, reached: dict[int, int], file: int, journal: Any
    ) -> None:
        self.target = target
        self.path = partial_of(target)
        self.size = size
        self._part_bytes = part_bytes
        self._reached = reached
        self._journaled = dict(reached)
        self._file = file
        self._journal = journal
        self._changed = threading.Condition()

    @classmethod
    @contextmanager
    def open(cls, target: Path, size: int, tag: str, part_bytes: int) -> Iterator[Partial]:
        """The partial file of a download of `size` bytes with that `tag`; bytes of any other download are dropped."""
        head = json.dumps({"size": size, "tag": tag, "part": part_bytes})
        path, journal_path = partial_of(target), parts_of(target)
        with disk_errors(target):
            reached = _reached(path, journal_path, head)
            file = os.open(path, os.O_RDWR | os.O_CREAT | (0 if reached else os.O_TRUNC), 0o644)
        try:
            with disk_errors(target):
                os.ftruncate(file, size)
                journal = journal_path.open("a" if reached else "w", encoding="ascii")
            with journal:
                if not reached:
                    with disk_errors(target):
                        journal.write(f"{head}\n")
                        journal.flush()
                yield cls(target, size, part_bytes, reached, file, journal)
        finally:
            os.close(file)

    @property
    def count(self) -> int:
        """The number of parts."""
        return -(-self.size // self._part_bytes)

    def range_of(self, number: int) -> tuple[int, int]:
        """The offsets at which a part begins and ends."""
        return number * self._part_bytes, min((number + 1) * self._part_bytes, self.size)

    def reached(self, number: int) -> int:
        """The offset up to which a part has been received."""
        return self._reached.get(number, self.range_of(number)[0])

    def missing(self) -> list[int]:
        """The numbers of the incomplete parts."""
        return [number for number in range(self.count) if self.reached(number) < self.range_of(number)[1]]

    def received_bytes(self) -> int:
        """How many bytes have been received."""
        return sum(position - self.range_of(number)[0] for number, position in self._reached.items())

    def write(self, number: int, chunk: bytes) -> None:
        """Write the next bytes of a part. Raises NoSpaceForModels, ModelFetchFailed."""
        start, end = self.range_of(number)
        position, left = self.reached(number), memoryview(chunk)
        with disk_errors(self.target):
            while left:
                written = os.pwrite(self._file, left, position)
                position, left = position + written, left[written:]
            with self._changed:
                self._reached[number] = position
                if position - self._journaled.get(number, start) >= _JOURNAL_INTERVAL_BYTES or position == end:
                    self._journaled[number] = position
                    self._journal.write(f"{number} {position}\n")
                    self._journal.flush()
                    self._changed.notify_all()

    def restart(self, number: int) -> int:
        """Forget the bytes of a part; returns how many there were."""
        start = self.range_of(number)[0]
        lost = self.reached(number) - start
        with self._changed:
            self._reached[number] = self._journaled[number] = start
        return lost

    def digest(self, stop: threading.Event) -> str:
        """The SHA-256 of the file, computed while its parts arrive; incomplete if `stop` is set before the end.

        Raises ModelFetchFailed if another process has made the file shorter.
        """
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
        for number in range(self.count):
            with self._changed:
                while self.reached(number) < self.range_of(number)[1] and not stop.is_set():
                    self._changed.wait(_CHECK_INTERVAL_SECONDS)
            position, end = self.range_of(number)
            while position < end and not stop.is_set():
                length = os.preadv(self._file, [buffer[: min(_READ_BYTES, end - position)]], position)
                if not length:
                    raise ModelFetchFailed(f"{self.target.name} was changed by another process during the download")
                digest.update(buffer[:length])
                position += length
        return digest.hexdigest()


def _reached(path: Path, journal: Path, head: str) -> dict[int, int]:
    """The journal: part number to offset reached; empty if it belongs to a download of other content."""
    with contextlib.suppress(OSError, ValueError):
        first, *lines = journal.read_text(encoding="ascii").split("\n")
        if first == head and path.stat().st_size == json.loads(head)["size"]:
            entries = (line.split() for line in lines[:-1])  # the last line may be cut off
            return {int(number): int(position) for number, position in entries}
    return {}
