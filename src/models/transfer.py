"""A file of many gigabytes, read in ranges at the same time, that goes on where it stopped.

What came lies in `NAME.partial` beside the file that it will be, and `NAME.partial.parts` says how far each part of it
has come, so that the next process goes on from there. The digest is taken while the rest is still on its way. Bytes of
a machine that loses power are not waited for: what is checked is what the system has.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import ModelCorrupt, ModelFetchFailed, NoSpaceForModels

log = logging.getLogger(__name__)

CONNECTIONS = 8
"""At a time, for one file."""
PART = 1 << 24
"""Bytes that are asked for at a time."""
_PIECE = 1 << 22
_LOOK_SECONDS = 0.1
_NOTED = 1 << 20  # bytes between two notes of how far a part is
_DRIP = 1 << 16  # bytes in a stall's time that are none
_ATTEMPTS = 5
_PAUSES = (0.2, 0.5, 1.0, 2.0)
_LONGEST_PAUSE = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Check = Callable[[], None]
"""Raises if nobody waits for the file any more."""
Count = Callable[[int], None]
"""Told how many more bytes there are; fewer, if some have to come again."""


@dataclass(frozen=True)
class Facts:
    """What a source says of its file. `tag` changes with the content; `sha256` is None where it is not told."""

    size: int
    tag: str
    has_ranges: bool = True
    sha256: str | None = None


class Remote(Protocol):
    """A file somewhere else."""

    def facts(self) -> Facts:
        """What is known of it before it is read. Raises ModelFetchFailed, SourceBroke."""
        ...

    def read(self, start: int, end: int, write: Callable[[bytes], object]) -> None:
        """Hand its bytes from `start` to `end` to `write`. Raises ModelFetchFailed, SourceBroke."""
        ...

    def abort(self) -> None:
        """End all that is being read now; it may be read again afterwards."""
        ...

    def close(self) -> None:
        """Let go of its connections."""
        ...


class SourceBroke(Exception):
    """A source did not answer, broke off or was busy: it can be asked again, after `pause` seconds if it said so."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


def download(
    remote: Remote,
    target: Path,
    check: Check,
    count: Count,
    *,
    size: int | None = None,
    stall_seconds: float = 60.0,
    part: int = PART,
    connections: int = CONNECTIONS,
) -> tuple[Path, str, Facts]:
    """Bring a file to `target.partial`; its path, its SHA-256, and what the source said of it.

    Raises ModelFetchFailed (ModelCorrupt if the source has another size than `size`), NoSpaceForModels, and whatever
    `check` raises. What came is kept, unless it is found to be wrong.
    """
    facts = _retried(remote.facts, check)
    if size is not None and facts.size != size:
        raise ModelCorrupt(
            f"{target.name} is not the file that is meant: it has {facts.size:,} bytes there, and should have {size:,}"
        )
    with _Partial.open(target, facts, part if facts.has_ranges else max(facts.size, 1)) as partial:
        count(partial.bytes_there())
        transfer = _Transfer(remote, partial, check, count, stall_seconds, facts.has_ranges)
        return partial.path, transfer.run(connections if facts.has_ranges else 1), facts


def partial_of(target: Path) -> Path:
    """Where what came of a file lies."""
    return target.with_name(f"{target.name}.partial")


def parts_of(target: Path) -> Path:
    """Where it is written which of it came."""
    return target.with_name(f"{target.name}.partial.parts")


def discard(target: Path) -> None:
    """Remove what came."""
    parts_of(target).unlink(missing_ok=True)
    partial_of(target).unlink(missing_ok=True)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Put in words what the disk says."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpaceForModels(
                f"no space left for {target.name}: give the volume (or the container disk) more, or prune models"
            ) from error
        raise ModelFetchFailed(
            f"{target.name} cannot be written to its folder of models ({error.strerror}); set MODELS_DIR to a folder "
            "that can be written"
        ) from error


class _Partial:
    """The bytes that came, and how far each part of them reaches."""

    def __init__(self, target: Path, size: int, part: int, reached: dict[int, int], file: int, journal: Any) -> None:
        self.target = target
        self.path = partial_of(target)
        self.size = size
        self._part = part
        self._reached = reached
        self._noted = dict(reached)
        self._file = file
        self._journal = journal
        self._changed = threading.Condition()

    @classmethod
    @contextmanager
    def open(cls, target: Path, facts: Facts, part: int) -> Iterator[_Partial]:
        head = json.dumps({"size": facts.size, "tag": facts.tag, "part": part})
        path, journal_path = partial_of(target), parts_of(target)
        with disk_errors(target):
            reached = _reached(path, journal_path, head)
            file = os.open(path, os.O_RDWR | os.O_CREAT | (0 if reached else os.O_TRUNC), 0o644)
        try:
            with disk_errors(target):
                os.ftruncate(file, facts.size)
                journal = journal_path.open("a" if reached else "w", encoding="ascii")
            with journal:
                if not reached:
                    journal.write(f"{head}\n")
                    journal.flush()
                yield cls(target, facts.size, part, reached, file, journal)
        finally:
            os.close(file)

    def missing(self) -> list[int]:
        """The numbers of the parts that are not whole."""
        return [number for number in range(self.count) if self.reached(number) < self.range_of(number)[1]]

    @property
    def count(self) -> int:
        return -(-self.size // self._part)

    def range_of(self, number: int) -> tuple[int, int]:
        return number * self._part, min((number + 1) * self._part, self.size)

    def reached(self, number: int) -> int:
        """Up to where the bytes of a part are there."""
        return self._reached.get(number, self.range_of(number)[0])

    def bytes_there(self) -> int:
        return sum(position - self.range_of(number)[0] for number, position in self._reached.items())

    def write(self, number: int, piece: bytes) -> None:
        """Put the next bytes of a part into their place."""
        start, end = self.range_of(number)
        position, left = self.reached(number), memoryview(piece)
        with disk_errors(self.target):
            while left:
                written = os.pwrite(self._file, left, position)
                position, left = position + written, left[written:]
            with self._changed:
                self._reached[number] = position
                if position - self._noted.get(number, start) >= _NOTED or position == end:
                    self._noted[number] = position
                    self._journal.write(f"{number} {position}\n")
                    self._journal.flush()
                    self._changed.notify_all()

    def begin_anew(self, number: int) -> int:
        """Forget what came of a part; how many bytes that were."""
        start = self.range_of(number)[0]
        lost = self.reached(number) - start
        with self._changed:
            self._reached[number] = self._noted[number] = start
        return lost

    def digest(self, is_over: threading.Event) -> str:
        """The SHA-256 of the file, taken part by part as they come; of less than all if `is_over` is set before."""
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
        for number in range(self.count):
            with self._changed:
                while self.reached(number) < self.range_of(number)[1] and not is_over.is_set():
                    self._changed.wait(_LOOK_SECONDS)
            position, end = self.range_of(number)
            while position < end and not is_over.is_set():
                length = os.preadv(self._file, [buffer[: min(_PIECE, end - position)]], position)
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


def _retried(action: Callable[[], Any], check: Check) -> Any:
    """What `action` returns, asked again if it broke, a few times, with pauses that grow or that the source wants."""
    for attempt in range(_ATTEMPTS):
        try:
            return action()
        except SourceBroke as broke:
            if attempt == _ATTEMPTS - 1:
                raise ModelFetchFailed(f"{broke}; tried {_ATTEMPTS} times") from broke
            pause = _PAUSES[attempt] if broke.pause is None else min(broke.pause, _LONGEST_PAUSE)
            log.warning("%s; again in %g s", broke, pause)
            end = time.monotonic() + pause
            while (left := end - time.monotonic()) > 0:
                check()
                time.sleep(min(left, _LOOK_SECONDS))
    raise AssertionError("the last attempt raises")


class _Transfer:
    """One run over the parts that are missing."""

    def __init__(
        self,
        remote: Remote,
        partial: _Partial,
        check: Check,
        count: Count,
        stall_seconds: float,
        has_ranges: bool,
    ) -> None:
        self._remote = remote
        self._partial = partial
        self._check = check
        self._count = count
        self._stall_seconds = stall_seconds
        self._has_ranges = has_ranges
        self._is_over = threading.Event()
        self._came = 0
        self._lock = threading.Lock()

    def run(self, connections: int) -> str:
        """Bring all that is missing; the digest of the whole."""
        pool = ThreadPoolExecutor(connections + 1, thread_name_prefix="model")
        try:
            digest = pool.submit(self._partial.digest, self._is_over)
            parts = [pool.submit(self._bring, number) for number in self._partial.missing()]
            self._watch([digest, *parts])
            return digest.result()
        except BaseException:
            self._is_over.set()
            self._remote.abort()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _watch(self, futures: Sequence[Future[Any]]) -> None:
        """Wait for all. A run that brings nothing for too long is broken off, so that each range is asked for anew."""
        came, since, has_stalled = 0, time.monotonic(), False
        pending: set[Future[Any]] = set(futures)
        while pending:
            done, pending = wait(pending, _LOOK_SECONDS, FIRST_EXCEPTION)
            for future in done:
                future.result()
            self._check()
            if self._came - came > _DRIP or len(pending) <= 1:  # what is left is the digest, which waits for nobody
                came, since = self._came, time.monotonic()
            elif time.monotonic() - since > self._stall_seconds:
                if has_stalled:
                    raise ModelFetchFailed(
                        f"{self._partial.target.name}: nothing came for {self._stall_seconds:g} s, twice "
                        "(DOWNLOAD_STALL_TIMEOUT); what came is kept, and goes on from there"
                    )
                has_stalled, since = True, time.monotonic()
                log.warning("%s: nothing came for %g s, asked anew", self._partial.target.name, self._stall_seconds)
                self._remote.abort()

    def _bring(self, number: int) -> None:
        partial, end = self._partial, self._partial.range_of(number)[1]

        def write(piece: bytes) -> None:
            if self._is_over.is_set():
                raise _Over
            if partial.reached(number) + len(piece) > end:
                raise SourceBroke(f"{partial.target.name}: the source sent more than was asked for")
            partial.write(number, piece)
            with self._lock:
                self._came += len(piece)
            self._count(len(piece))

        def read() -> None:
            if not self._has_ranges:
                self._count(-partial.begin_anew(number))
            self._remote.read(partial.reached(number), end, write)
            if partial.reached(number) != end:
                raise SourceBroke(f"{partial.target.name}: the source broke off")

        with contextlib.suppress(_Over):
            _retried(read, self._check_over)

    def _check_over(self) -> None:
        if self._is_over.is_set():
            raise _Over


class _Over(Exception):
    """Somebody else has failed, or nobody waits any more."""
