"""What has come of a file: its bytes beside the file that it will be, and how far each part of it reaches.

The bytes lie in `NAME.partial`, and `NAME.partial.parts` says how far each part has come, so that the next process
goes on from there. Bytes of a machine that loses power are not waited for: what is checked is what the system has.
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
_JOURNAL_INTERVAL_BYTES = 1 << 20  # bytes between two notes of how far a part is
_CHECK_INTERVAL_SECONDS = 0.1
_DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RESERVED_BYTES = 200_000_000  # that are to stay free beside the models
_STAGING = ".partial.hub"
_LOCK_FRESH_SECONDS = 120.0  # a lock that was touched in that time is held by somebody


def partial_of(target: Path) -> Path:
    """Where what came of a file lies."""
    return target.with_name(f"{target.name}.partial")


def parts_of(target: Path) -> Path:
    """Where it is written how far its parts have come."""
    return target.with_name(f"{target.name}.partial.parts")


def lock_of(target: Path) -> Path:
    """What whoever brings a file holds."""
    return target.with_name(f"{target.name}.lock")


def staging_of(target: Path) -> Path:
    """The folder that Hugging Face's library works in."""
    return target.with_name(f"{target.name}{_STAGING}")


def discard(target: Path) -> None:
    """Remove what came."""
    parts_of(target).unlink(missing_ok=True)
    partial_of(target).unlink(missing_ok=True)


def is_leftover(path: PurePath) -> bool:
    """Whether a file, by its path below a root, is what a download needs only while it runs."""
    in_staging = any(part.endswith(_STAGING) for part in path.parent.parts)
    return in_staging or path.name.endswith((".partial", ".partial.parts", ".lock", ".lock.breaking"))


def is_in_use(path: Path) -> bool:
    """Whether a leftover may be of a download that runs now: its lock is held."""
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
    """Raise NoSpaceForModels if `folder` will not have room for files of those sizes (bytes)."""
    while not folder.exists():
        folder = folder.parent
    files = list(downloads)
    free = shutil.disk_usage(folder).free
    needed = sum(size - _allocated_bytes(partial_of(target)) for target, size in files) + _RESERVED_BYTES
    if files and needed > free:
        names = ", ".join(target.name for target, _ in files)
        raise NoSpaceForModels(
            f"{names} need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: give the volume (or the container "
            "disk) more, or `python -m src.models prune`"
        )


def _allocated_bytes(path: Path) -> int:
    """Bytes of the disk that a file takes, which may have holes."""
    return path.stat().st_blocks * 512 if path.is_file() else 0


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Put in words what the disk says."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL_ERRORS:
            raise NoSpaceForModels(
                f"no space left for {target.name}: give the volume (or the container disk) more, or prune models"
            ) from error
        raise ModelFetchFailed(
            f"{target.name} cannot be written to its folder of models ({error.strerror}); set MODELS_DIR to a folder "
            "that can be written"
        ) from error


class Partial:
    """The bytes that came, and how far each part of them reaches. May be written from several threads."""

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
        """What has come of a file of `size` bytes whose content has that tag; what came of another one is dropped."""
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
        """How many parts it has."""
        return -(-self.size // self._part_bytes)

    def range_of(self, number: int) -> tuple[int, int]:
        """Where a part begins and ends."""
        return number * self._part_bytes, min((number + 1) * self._part_bytes, self.size)

    def reached(self, number: int) -> int:
        """Up to where the bytes of a part are there."""
        return self._reached.get(number, self.range_of(number)[0])

    def missing(self) -> list[int]:
        """The numbers of the parts that are not whole."""
        return [number for number in range(self.count) if self.reached(number) < self.range_of(number)[1]]

    def received_bytes(self) -> int:
        """How many bytes have come."""
        return sum(position - self.range_of(number)[0] for number, position in self._reached.items())

    def write(self, number: int, chunk: bytes) -> None:
        """Put the next bytes of a part into their place. Raises NoSpaceForModels, ModelFetchFailed."""
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
        """Forget what came of a part; how many bytes that were."""
        start = self.range_of(number)[0]
        lost = self.reached(number) - start
        with self._changed:
            self._reached[number] = self._journaled[number] = start
        return lost

    def digest(self, stop: threading.Event) -> str:
        """The SHA-256 of the file, taken part by part as they come; of less than all if `is_over` is set before.

        Raises ModelFetchFailed if somebody else has made the file shorter.
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
                    raise ModelFetchFailed(f"{self.target.name} was changed by somebody else while it came")
                digest.update(buffer[:length])
                position += length
        return digest.hexdigest()


def _reached(path: Path, journal: Path, head: str) -> dict[int, int]:
    """How far each part of a download of the same content has come; nothing if it was of another one."""
    with contextlib.suppress(OSError, ValueError):
        first, *lines = journal.read_text(encoding="ascii").split("\n")
        if first == head and path.stat().st_size == json.loads(head)["size"]:
            notes = (line.split() for line in lines[:-1])  # the last line may have been cut
            return {int(number): int(position) for number, position in notes}
    return {}
