"""Downloads a file of many gigabytes in parallel ranges, detects stalls, checks the file, and gives it its final name.

The digest is computed while the rest is still being downloaded.
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
"""Parallel connections for one file."""
PART_BYTES = 1 << 24
"""Bytes per range request."""
_CHECK_INTERVAL_SECONDS = 0.1
_MIN_PROGRESS_BYTES = 1 << 16  # fewer bytes within the stall time count as a stall
_ATTEMPTS = 5
_RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0)
_MAX_RETRY_DELAY = 60.0

Check = Callable[[], None]
"""Called now and then; raises if the file is not needed any more."""
Count = Callable[[int], None]
"""Called with the number of bytes received; negative if some have to be downloaded again."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteInfo:
    """What a source says of its file. `tag` changes with the content; `sha256` is None where the source has none."""

    size: int
    tag: str
    has_ranges: bool = True
    sha256: str | None = None


class Remote(Protocol):
    """A file that can be downloaded."""

    def info(self) -> RemoteInfo:
        """Its size and tag, before it is read. Raises ModelFetchFailed, RetryableSourceError."""
        ...

    def read(self, start: int, end: int, write: Callable[[bytes], object]) -> None:
        """Pass its bytes from `start` to `end` to `write`. Raises ModelFetchFailed, RetryableSourceError."""
        ...

    def abort(self) -> None:
        """Break off all current reads; new ones may follow."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...


class RetryableSourceError(Exception):
    """A source did not answer, broke off or was busy: retry, after `retry_after` seconds if the source said so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class ExpectedFile:
    """The file to download to `target`, below `root`; its size in bytes and SHA-256 where they are known."""

    target: Path
    root: Path
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class TransferLimits:
    """Seconds without progress that count as a stall, and bytes per range request."""

    stall_seconds: float = 60.0
    part_bytes: int = PART_BYTES


def download(remote: Remote, expected: ExpectedFile, check: Check, meter: Meter, limits: TransferLimits) -> None:
    """Download a file, and give it its final name once its content has been checked.

    A download that an earlier process began and that turns out corrupt is started again once. Raises ModelFetchFailed,
    ModelCorrupt, NoSpaceForModels, and whatever `check` raises; the bytes received are kept, unless they are corrupt.
    """
    was_resumed, received = parts_of(expected.target).exists(), 0

    def count_bytes(more: int) -> None:
        nonlocal received
        received += more
        meter.count(more)

    info = fetch_info(remote, check, limits.stall_seconds)
    if expected.size not in (None, info.size):
        raise ModelCorrupt(
            f"{expected.target.name} is not the expected file: it has {info.size:,} bytes there, but should have "
            f"{expected.size:,}"
        )
    if expected.size is None:
        meter.expect(info.size)
    info = replace(info, tag=expected.sha256 or info.sha256 or info.tag)  # two sources may have the same file
    try:
        finish_download(expected, _download_missing(remote, expected.target, info, check, count_bytes, limits), info)
    except ModelCorrupt as error:
        discard(expected.target)
        meter.count(-received)
        if not was_resumed:
            raise
        log.warning("%s; starting over", error)
        download(remote, replace(expected, size=info.size), check, meter, limits)
    except ModelFetchFailed:
        meter.count(-received)
        raise


def finish_download(expected: ExpectedFile, digest: str, info: RemoteInfo | None) -> None:
    """Check the complete partial file, and give it its final name. Raises ModelCorrupt."""
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
    """What a source says of its file, with retries. Raises ModelFetchFailed, and whatever `check` raises."""
    monitor = _TransferMonitor(remote, check, stall_seconds)
    pool = ThreadPoolExecutor(1, thread_name_prefix="model-info")
    try:
        future = pool.submit(monitor.with_retries, remote.info)
        monitor.wait([future])
        return future.result()
    finally:
        pool.shutdown()


def _download_missing(
    remote: Remote, target: Path, info: RemoteInfo, check: Check, count: Count, limits: TransferLimits
) -> str:
    """Download the missing parts to the partial file; returns the SHA-256 of the whole."""
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
    """Watches the threads that read from a source: stops them when `check` raises, breaks off reads that stall."""

    def __init__(self, remote: Remote, check: Check, stall_seconds: float) -> None:
        self.stop = threading.Event()
        self._remote = remote
        self._check = check
        self._stall_seconds = stall_seconds
        self._received = 0
        self._retry_wait_until = 0.0
        self._lock = threading.Lock()

    def received(self, more: int) -> None:
        """Note that many more bytes as progress."""
        with self._lock:
            self._received += more

    def wait(self, reading: Sequence[Future[Any]], computing: Sequence[Future[Any]] = ()) -> None:
        """Wait for all. Raises the first failure; ModelFetchFailed for a second stall without progress in between."""
        try:
            self._wait(set(reading), set(computing))
        except BaseException:  # the edge of a transfer: whatever ends it, its threads are stopped first
            self.stop.set()
            for future in reading:
                future.cancel()
            while not all(future.done() for future in reading):
                self._remote.abort()  # repeatedly: a connection that is just being opened is missed
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
                        f"{self._remote}: no data for {self._stall_seconds:g} s, twice (DOWNLOAD_STALL_TIMEOUT); "
                        "the partial file is kept and resumes from there"
                    )
                has_stalled, since = True, time.monotonic()
                log.warning("%s: no data for %g s, requesting it again", self._remote, self._stall_seconds)
                self._remote.abort()

    def with_retries(self, action: Callable[[], Result]) -> Result:
        """What `action` returns, after a few retries at most; delays grow, or are the `retry_after` of the error."""
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
                log.warning("%s; retrying in %g s", error, delay)
                with self._lock:
                    self._retry_wait_until = max(self._retry_wait_until, time.monotonic() + delay)
                if self.stop.wait(delay):
                    raise ModelFetchFailed(f"{error}") from error
        raise AssertionError("the last attempt raises")


@dataclass(frozen=True)
class _PartDownloader:
    """Downloads parts of a file."""

    remote: Remote
    partial: Partial
    count: Count
    monitor: _TransferMonitor
    has_ranges: bool

    def download(self, number: int) -> None:
        """Download one part, from the offset it has reached."""
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
                raise RetryableSourceError(f"{self.remote}: the source sent more than was requested")
            partial.write(number, chunk)
            self.monitor.received(len(chunk))
            self.count(len(chunk))

        self.remote.read(partial.reached(number), end, write)
        if partial.reached(number) != end:
            raise RetryableSourceError(f"{self.remote}: the source closed the connection early")


class _Stopped(Exception):
    """Another part has failed, or the download was cancelled."""
