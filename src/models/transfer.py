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
from .files import cache_digest, check_digest, what_is_wrong
from .meter import Meter
from .partial import Partial, discard, disk_errors, partial_of, parts_of

log = logging.getLogger(__name__)

CONNECTIONS = 8
"""At a time, for one file."""
PART_BYTES = 1 << 24
"""Bytes that are asked for at a time."""
_CHECK_INTERVAL_SECONDS = 0.1
_MIN_PROGRESS_BYTES = 1 << 16  # bytes in a stall's time that are none
_ATTEMPTS = 5
_RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0)
_MAX_RETRY_DELAY = 60.0

Check = Callable[[], None]
"""Raises if nobody waits for the file any more."""
Count = Callable[[int], None]
"""Told how many more bytes there are; fewer, if some have to come again."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteInfo:
    """What a source says of its file. `tag` changes with the content; `sha256` is None where it is not told."""

    size: int
    tag: str
    has_ranges: bool = True
    sha256: str | None = None


class Remote(Protocol):
    """A file somewhere else."""

    def info(self) -> RemoteInfo:
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


class RetryableSourceError(Exception):
    """A source did not answer, broke off or was busy: it can be asked again, after `pause` seconds if it said so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class ExpectedFile:
    """A file that is to come to `target`, below `root`; size in bytes and SHA-256 where they are known."""

    target: Path
    root: Path
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class TransferLimits:
    """Bytes that are asked for at a time, and the seconds that nothing may come."""

    stall_seconds: float = 60.0
    part_bytes: int = PART_BYTES


def download(remote: Remote, expected: ExpectedFile, check: Check, meter: Meter, limits: TransferLimits) -> None:
    """Bring a file and give it its name, once it is what is wanted.

    What an earlier process has begun and what is found to be wrong then, is begun anew once. Raises ModelFetchFailed,
    ModelCorrupt, NoSpaceForModels, and whatever `check` raises; what came is kept, unless it is wrong.
    """
    was_resumed, received = parts_of(expected.target).exists(), 0

    def counted(more: int) -> None:
        nonlocal received
        received += more
        meter.count(more)

    info = fetch_info(remote, check, limits.stall_seconds)
    if expected.size not in (None, info.size):
        raise ModelCorrupt(
            f"{expected.target.name} is not the file that is meant: it has {info.size:,} bytes there, and should have "
            f"{expected.size:,}"
        )
    if expected.size is None:
        meter.expect(info.size)
    info = replace(info, tag=expected.sha256 or info.sha256 or info.tag)  # two sources may have the same file
    try:
        finish_download(expected, _download_missing(remote, expected.target, info, check, counted, limits), info)
    except ModelCorrupt as error:
        discard(expected.target)
        meter.count(-received)
        if not was_resumed:
            raise
        log.warning("%s; begun anew", error)
        download(remote, replace(expected, size=info.size), check, meter, limits)
    except ModelFetchFailed:
        meter.count(-received)
        raise


def finish_download(expected: ExpectedFile, digest: str, info: RemoteInfo | None) -> None:
    """Check what came to the partial file, and give it its name. Raises ModelCorrupt."""
    target, path = expected.target, partial_of(expected.target)
    wrong = what_is_wrong(path, target.suffix) if info is None or info.size else ""
    if wrong:
        raise ModelCorrupt(f"{target.name}: {wrong}")
    check_digest(target, digest, expected.sha256 or (info.sha256 if info else None))
    with disk_errors(target):
        path.replace(target)
    parts_of(target).unlink(missing_ok=True)
    cache_digest(target, expected.root, digest)


def fetch_info(remote: Remote, check: Check, stall_seconds: float) -> RemoteInfo:
    """What a source says of its file, asked again where it breaks. Raises ModelFetchFailed, and what `check` does."""
    monitor = _TransferMonitor(remote, check, stall_seconds)
    pool = ThreadPoolExecutor(1, thread_name_prefix="model-look")
    try:
        future = pool.submit(monitor.with_retries, remote.info)
        monitor.wait([future])
        return future.result()
    finally:
        pool.shutdown()


def _download_missing(
    remote: Remote, target: Path, info: RemoteInfo, check: Check, count: Count, limits: TransferLimits
) -> str:
    """Bring what is missing to the partial file; the digest of the whole."""
    part_bytes = limits.part_bytes if info.has_ranges else max(info.size, 1)
    with Partial.open(target, info.size, info.tag, part_bytes) as partial:
        count(partial.received_bytes())
        monitor = _TransferMonitor(remote, check, limits.stall_seconds)
        downloader = _PartDownloader(remote, partial, count, monitor, info.has_ranges)
        connections = CONNECTIONS if info.has_ranges else 1
        pool = ThreadPoolExecutor(connections + 1, thread_name_prefix="model")
        try:
            digest = pool.submit(partial.digest, monitor.stop)
            monitor.wait([pool.submit(downloader.download, number) for number in partial.missing()], [digest])
            return digest.result()
        finally:
            monitor.stop.set()
            pool.shutdown(cancel_futures=True)


class _TransferMonitor:
    """Looks at what threads do with a source: ends them when nobody waits, breaks off what stalls."""

    def __init__(self, remote: Remote, check: Check, stall_seconds: float) -> None:
        self.stop = threading.Event()
        self._remote = remote
        self._check = check
        self._stall_seconds = stall_seconds
        self._received = 0
        self._retry_wait_until = 0.0
        self._lock = threading.Lock()

    def received(self, more: int) -> None:
        """So many bytes have come."""
        with self._lock:
            self._received += more

    def wait(self, reading: Sequence[Future[Any]], computing: Sequence[Future[Any]] = ()) -> None:
        """Wait for all. Raises the first failure; ModelFetchFailed for a second stall without progress between."""
        try:
            self._wait(set(reading), set(computing))
        except BaseException:
            self.stop.set()
            for future in reading:
                future.cancel()
            while not all(future.done() for future in reading):
                self._remote.abort()  # again and again: a connection that is just being made is missed
                time.sleep(_CHECK_INTERVAL_SECONDS)
            raise

    def _wait(self, reading: set[Future[Any]], computing: set[Future[Any]]) -> None:
        received, since, has_stalled = 0, time.monotonic(), False
        while reading or computing:
            done, pending = wait({*reading, *computing}, _CHECK_INTERVAL_SECONDS, FIRST_EXCEPTION)
            for future in done:
                future.result()
            reading, computing = reading & pending, computing & pending
            self._check()
            if self._received - received > _MIN_PROGRESS_BYTES or not reading:
                received, since, has_stalled = self._received, time.monotonic(), False
            elif time.monotonic() - max(since, self._retry_wait_until) > self._stall_seconds:
                if has_stalled:
                    raise ModelFetchFailed(
                        f"{self._remote}: nothing came for {self._stall_seconds:g} s, twice (DOWNLOAD_STALL_TIMEOUT); "
                        "what came is kept, and goes on from there"
                    )
                has_stalled, since = True, time.monotonic()
                log.warning("%s: nothing came for %g s, asked anew", self._remote, self._stall_seconds)
                self._remote.abort()

    def with_retries(self, action: Callable[[], Result]) -> Result:
        """What `action` returns, asked again if it broke, a few times, with pauses that grow or that it asks for."""
        for attempt in range(_ATTEMPTS):
            if self.stop.is_set():
                raise ModelFetchFailed(f"{self._remote}: ended")
            try:
                return action()
            except RetryableSourceError as error:
                if attempt == _ATTEMPTS - 1 or self.stop.is_set():
                    raise ModelFetchFailed(f"{error}; tried {attempt + 1} times") from error
                asked = error.retry_after
                delay = _RETRY_DELAYS[attempt] if asked is None else min(asked, _MAX_RETRY_DELAY)
                log.warning("%s; again in %g s", error, delay)
                with self._lock:
                    self._retry_wait_until = max(self._retry_wait_until, time.monotonic() + delay)
                if self.stop.wait(delay):
                    raise ModelFetchFailed(f"{error}") from error
        raise AssertionError("the last attempt raises")


@dataclass(frozen=True)
class _PartDownloader:
    """Brings parts of a file."""

    remote: Remote
    partial: Partial
    count: Count
    monitor: _TransferMonitor
    has_ranges: bool

    def download(self, number: int) -> None:
        """One part, from where it is."""
        with contextlib.suppress(_Stopped):
            self.monitor.with_retries(lambda: self._read(number))

    def _read(self, number: int) -> None:
        partial, end = self.partial, self.partial.range_of(number)[1]
        if not self.has_ranges:
            self.count(-partial.restart(number))

        def write(chunk: bytes) -> None:
            if self.monitor.stop.is_set():
                raise _Stopped
            if partial.reached(number) + len(chunk) > end:
                raise RetryableSourceError(f"{self.remote}: the source sent more than was asked for")
            partial.write(number, chunk)
            self.monitor.received(len(chunk))
            self.count(len(chunk))

        self.remote.read(partial.reached(number), end, write)
        if partial.reached(number) != end:
            raise RetryableSourceError(f"{self.remote}: the source broke off")


class _Stopped(Exception):
    """Somebody else has failed, or nobody waits any more."""
