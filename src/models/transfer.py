"""A file of many gigabytes, read in ranges at the same time, watched, checked, and given its name.

The digest is taken while the rest is still on its way.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import ModelCorrupt, ModelFetchFailed
from .files import check_digest, keep_digest, what_is_wrong
from .meter import Meter
from .partial import Partial, discard, disk_errors, partial_of, parts_of

log = logging.getLogger(__name__)

CONNECTIONS = 8
"""At a time, for one file."""
PART = 1 << 24
"""Bytes that are asked for at a time."""
_LOOK_SECONDS = 0.1
_DRIP = 1 << 16  # bytes in a stall's time that are none
_ATTEMPTS = 5
_PAUSES = (0.2, 0.5, 1.0, 2.0)
_LONGEST_PAUSE = 60.0

Check = Callable[[], None]
"""Raises if nobody waits for the file any more."""
Count = Callable[[int], None]
"""Told how many more bytes there are; fewer, if some have to come again."""
Result = TypeVar("Result")


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


@dataclass(frozen=True)
class Wanted:
    """A file that is to come to `target`, below `root`; size in bytes and SHA-256 where they are known."""

    target: Path
    root: Path
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Pace:
    """Bytes that are asked for at a time, and the seconds that nothing may come."""

    stall_seconds: float = 60.0
    part: int = PART


def bring(remote: Remote, wanted: Wanted, check: Check, meter: Meter, pace: Pace) -> None:
    """Bring a file and give it its name, once it is what is wanted.

    What an earlier process has begun and what is found to be wrong then, is begun anew once. Raises ModelFetchFailed,
    ModelCorrupt, NoSpaceForModels, and whatever `check` raises; what came is kept, unless it is wrong.
    """
    was_begun, came = parts_of(wanted.target).exists(), 0

    def counted(more: int) -> None:
        nonlocal came
        came += more
        meter.count(more)

    facts = look(remote, check, pace.stall_seconds)
    if wanted.size not in (None, facts.size):
        raise ModelCorrupt(
            f"{wanted.target.name} is not the file that is meant: it has {facts.size:,} bytes there, and should have "
            f"{wanted.size:,}"
        )
    if wanted.size is None:
        meter.expect(facts.size)
    facts = replace(facts, tag=wanted.sha256 or facts.sha256 or facts.tag)  # two sources may have the same file
    try:
        accept(wanted, _download(remote, wanted.target, facts, check, counted, pace), facts)
    except ModelCorrupt as error:
        discard(wanted.target)
        meter.count(-came)
        if not was_begun:
            raise
        log.warning("%s; begun anew", error)
        bring(remote, replace(wanted, size=facts.size), check, meter, pace)
    except ModelFetchFailed:
        meter.count(-came)
        raise


def accept(wanted: Wanted, digest: str, facts: Facts | None) -> None:
    """Check what came to the partial file, and give it its name. Raises ModelCorrupt."""
    target, path = wanted.target, partial_of(wanted.target)
    wrong = what_is_wrong(path, target.suffix) if facts is None or facts.size else ""
    if wrong:
        raise ModelCorrupt(f"{target.name}: {wrong}")
    check_digest(target, digest, wanted.sha256 or (facts.sha256 if facts else None))
    with disk_errors(target):
        path.replace(target)
    parts_of(target).unlink(missing_ok=True)
    keep_digest(target, wanted.root, digest)


def look(remote: Remote, check: Check, stall_seconds: float) -> Facts:
    """What a source says of its file, asked again where it breaks. Raises ModelFetchFailed, and what `check` does."""
    watch = _Watch(remote, check, stall_seconds)
    pool = ThreadPoolExecutor(1, thread_name_prefix="model-look")
    try:
        future = pool.submit(watch.retried, remote.facts)
        watch.wait([future])
        return future.result()
    finally:
        pool.shutdown()


def _download(remote: Remote, target: Path, facts: Facts, check: Check, count: Count, pace: Pace) -> str:
    """Bring what is missing to the partial file; the digest of the whole."""
    part = pace.part if facts.has_ranges else max(facts.size, 1)
    with Partial.open(target, facts.size, facts.tag, part) as partial:
        count(partial.bytes_there())
        watch = _Watch(remote, check, pace.stall_seconds)
        bringer = _Bringer(remote, partial, count, watch, facts.has_ranges)
        connections = CONNECTIONS if facts.has_ranges else 1
        pool = ThreadPoolExecutor(connections + 1, thread_name_prefix="model")
        try:
            digest = pool.submit(partial.digest, watch.is_over)
            watch.wait([pool.submit(bringer.bring, number) for number in partial.missing()], [digest])
            return digest.result()
        finally:
            watch.is_over.set()
            pool.shutdown(cancel_futures=True)


class _Watch:
    """Looks at what threads do with a source: ends them when nobody waits, breaks off what stalls."""

    def __init__(self, remote: Remote, check: Check, stall_seconds: float) -> None:
        self.is_over = threading.Event()
        self._remote = remote
        self._check = check
        self._stall_seconds = stall_seconds
        self._came = 0
        self._patient_until = 0.0
        self._lock = threading.Lock()

    def came(self, more: int) -> None:
        """So many bytes have come."""
        with self._lock:
            self._came += more

    def wait(self, reading: Sequence[Future[Any]], computing: Sequence[Future[Any]] = ()) -> None:
        """Wait for all. Raises the first failure; ModelFetchFailed for a second stall without progress between."""
        try:
            self._wait(set(reading), set(computing))
        except BaseException:
            self.is_over.set()
            for future in reading:
                future.cancel()
            while not all(future.done() for future in reading):
                self._remote.abort()  # again and again: a connection that is just being made is missed
                time.sleep(_LOOK_SECONDS)
            raise

    def _wait(self, reading: set[Future[Any]], computing: set[Future[Any]]) -> None:
        came, since, has_stalled = 0, time.monotonic(), False
        while reading or computing:
            done, pending = wait({*reading, *computing}, _LOOK_SECONDS, FIRST_EXCEPTION)
            for future in done:
                future.result()
            reading, computing = reading & pending, computing & pending
            self._check()
            if self._came - came > _DRIP or not reading:
                came, since, has_stalled = self._came, time.monotonic(), False
            elif time.monotonic() - max(since, self._patient_until) > self._stall_seconds:
                if has_stalled:
                    raise ModelFetchFailed(
                        f"{self._remote}: nothing came for {self._stall_seconds:g} s, twice (DOWNLOAD_STALL_TIMEOUT); "
                        "what came is kept, and goes on from there"
                    )
                has_stalled, since = True, time.monotonic()
                log.warning("%s: nothing came for %g s, asked anew", self._remote, self._stall_seconds)
                self._remote.abort()

    def retried(self, action: Callable[[], Result]) -> Result:
        """What `action` returns, asked again if it broke, a few times, with pauses that grow or that it asks for."""
        for attempt in range(_ATTEMPTS):
            if self.is_over.is_set():
                raise ModelFetchFailed(f"{self._remote}: ended")
            try:
                return action()
            except SourceBroke as broke:
                if attempt == _ATTEMPTS - 1 or self.is_over.is_set():
                    raise ModelFetchFailed(f"{broke}; tried {attempt + 1} times") from broke
                pause = _PAUSES[attempt] if broke.pause is None else min(broke.pause, _LONGEST_PAUSE)
                log.warning("%s; again in %g s", broke, pause)
                with self._lock:
                    self._patient_until = max(self._patient_until, time.monotonic() + pause)
                if self.is_over.wait(pause):
                    raise ModelFetchFailed(f"{broke}") from broke
        raise AssertionError("the last attempt raises")


@dataclass(frozen=True)
class _Bringer:
    """Brings parts of a file."""

    remote: Remote
    partial: Partial
    count: Count
    watch: _Watch
    has_ranges: bool

    def bring(self, number: int) -> None:
        """One part, from where it is."""
        with contextlib.suppress(_Over):
            self.watch.retried(lambda: self._read(number))

    def _read(self, number: int) -> None:
        partial, end = self.partial, self.partial.range_of(number)[1]
        if not self.has_ranges:
            self.count(-partial.begin_anew(number))

        def write(piece: bytes) -> None:
            if self.watch.is_over.is_set():
                raise _Over
            if partial.reached(number) + len(piece) > end:
                raise SourceBroke(f"{self.remote}: the source sent more than was asked for")
            partial.write(number, piece)
            self.watch.came(len(piece))
            self.count(len(piece))

        self.remote.read(partial.reached(number), end, write)
        if partial.reached(number) != end:
            raise SourceBroke(f"{self.remote}: the source broke off")


class _Over(Exception):
    """Somebody else has failed, or nobody waits any more."""
