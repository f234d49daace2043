"""Fetches the input files of a job (base64, data URI, URL, bucket), checks them, and puts them where ComfyUI looks.

All are fetched in parallel, with one deadline, to a folder of the job's own. In ComfyUI's input folder each file is in
a subfolder named after its content: jobs stay apart, and the same image sent twice has the same path, so that
ComfyUI's cache applies.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..comfy.folders import Folders, link_or_copy
from ..deadline import Deadline
from ..errors import ComfyCrashed, InputFileRefused, InputFileUnavailable
from ..settings import Settings
from ..storage.bucket import Bucket, key_of
from ..storage.web import Fetch, FetchRules, check_endpoint
from ..workflow.files import PlacedFile
from .checks import check_content, check_name, decode
from .input_file import InputFile

_MEGABYTE = 1_000_000
_3D_ENDINGS = (".glb", ".gltf", ".obj", ".fbx", ".stl")
_PARALLEL_FETCHES = 8
_CHECK_INTERVAL_SECONDS = 0.2
_URL = re.compile(r"(https?|s3)://", re.IGNORECASE)


@dataclass(frozen=True)
class StagedFile:
    """A checked file of a job, and the digest of its content."""

    path: Path
    digest: str


def fetch_files(
    files: Sequence[InputFile], folder: Path, settings: Settings, bucket: Bucket | None, check: Callable[[], None]
) -> dict[str, StagedFile]:
    """Fetch the files into `folder` and check them; returns them by name. `check` raises if the job has to end.

    Raises InputFileRefused, InputFileUnavailable, BucketFailed, each with the place in the input.
    """
    _check_names(files, settings)
    deadline = Deadline(settings.input_timeout)
    budget = _Budget(int(settings.max_input_total * _MEGABYTE))
    rules = fetch_rules(settings)
    pending = [_PendingFile(file, folder / str(number), settings, bucket, budget) for number, file in enumerate(files)]
    fetches = [Fetch(rules, item.file.where, deadline, "INPUT_TIMEOUT") for item in pending]
    pool = ThreadPoolExecutor(_PARALLEL_FETCHES, thread_name_prefix="input")
    try:
        futures = [pool.submit(item.fetch_file, fetch) for item, fetch in zip(pending, fetches, strict=True)]
        _wait_for(futures, deadline, check)
    except BaseException:  # the edge of the fetches: stalled downloads are not waited for
        for fetch in fetches:
            fetch.abort()
        if bucket is not None:
            bucket.abort()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return {file.name: future.result() for file, future in zip(files, futures, strict=True)}


def check_sources(files: Sequence[InputFile], settings: Settings) -> None:
    """Check names, and URLs as far as that is possible without fetching anything."""
    _check_names(files, settings)
    rules = fetch_rules(settings)
    for file in files:
        if file.source[:4].lower() == "http":
            check_endpoint(file.source.strip(), rules, file.where)
        elif "://" in file.source[:12] and file.source[:5].lower() != "s3://":
            raise InputFileRefused(f"{file.where}: a URL must begin with https:// or s3://, not {file.source[:20]!a}")


def fetch_rules(settings: Settings) -> FetchRules:
    """The rules for URLs in jobs."""
    return FetchRules(settings.allow_http_urls, frozenset(host.lower() for host in settings.trusted_hosts))


def _wait_for(futures: Sequence[Future[StagedFile]], deadline: Deadline, check: Callable[[], None]) -> None:
    """Wait until all are there. Raises what the first raises that fails, InputFileUnavailable, what `check` raises."""
    waiting: set[Future[StagedFile]] = set(futures)
    while waiting:
        done, waiting = wait(waiting, _CHECK_INTERVAL_SECONDS, FIRST_EXCEPTION)
        for future in futures:
            if future in done:
                future.result()
        check()
        if waiting and deadline.passed:
            raise InputFileUnavailable(
                f"the files of the job did not arrive within {deadline.seconds:g} s (INPUT_TIMEOUT)"
            )


def _check_names(files: Sequence[InputFile], settings: Settings) -> None:
    if len(files) > settings.max_input_files:
        raise InputFileRefused(
            f"the job has {len(files)} files; at most {settings.max_input_files} are allowed (MAX_INPUT_FILES)"
        )
    seen: dict[str, str] = {}
    for file in files:
        check_name(file.name, f"{file.where}.name")
        if file.name in seen:
            raise InputFileRefused(f"{file.where}.name: {seen[file.name]} already has the name {file.name[:80]!r}")
        seen[file.name] = file.where
    for file in files:
        folders = [str(parent) for parent in PurePosixPath(file.name).parents]
        clash = next((folder for folder in folders if folder in seen), None)
        if clash:
            raise InputFileRefused(
                f"{file.where}.name: {clash[:80]!r} is the name of {seen[clash]}, so it cannot be a folder"
            )


# --- Fetching ------------------------------------------------------------------------------------------


class _Budget:
    """The limit in bytes for all files of a job together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    def take(self, count: int, where: str) -> None:
        with self._lock:
            self._used += count
            if self._used > self._limit:
                megabytes = self._limit / _MEGABYTE
                raise InputFileRefused(
                    f"{where}: with this file the total is over {megabytes:g} MB (MAX_INPUT_TOTAL_MB)"
                )


@dataclass
class _LimitedWriter:
    """Writes a file in chunks, checks the limits and computes the digest on the way."""

    stream: BinaryIO
    where: str
    limit: int
    budget: _Budget
    fetch: Fetch
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.check()
        if self.size > self.limit:
            raise InputFileRefused(f"{self.where}: the file is over {self.limit / _MEGABYTE:g} MB (MAX_INPUT_FILE_MB)")
        self.budget.take(len(chunk), self.where)
        self.digest.update(chunk)
        self.stream.write(chunk)

    def check(self) -> None:
        """Raise InputFileUnavailable if the job waits for its files no longer."""
        if self.fetch.is_over:
            raise InputFileUnavailable(f"{self.where}: the file did not arrive in time (INPUT_TIMEOUT)")


@dataclass(frozen=True)
class _PendingFile:
    file: InputFile
    path: Path
    settings: Settings
    bucket: Bucket | None
    budget: _Budget

    def fetch_file(self, fetch: Fetch) -> StagedFile:
        limit = int(self.settings.max_input_file * _MEGABYTE)
        with self.path.open("wb") as stream:
            writer = _LimitedWriter(stream, self.file.where, limit, self.budget, fetch)
            self._read(fetch, writer.write)
        if not writer.size:
            raise InputFileRefused(f"{self.file.where} ({self.file.name[:80]!r}) is empty")
        check_content(self.file, self.path, self.settings.max_input_megapixels * 1_000_000, writer.check)
        return StagedFile(self.path, writer.digest.hexdigest()[:24])

    def _read(self, fetch: Fetch, write: Callable[[bytes], object]) -> None:
        source, where = self.file.source.strip(), self.file.where
        if source[:5].lower() == "s3://":
            key = key_of(source, self.bucket.config if self.bucket else None, where)
            assert self.bucket is not None  # or `key_of` would have raised
            self.bucket.download(key, where, write)
        elif _URL.match(source):
            fetch.download(source, write)
        else:
            decode(source, where, write)


# --- ComfyUI's input folder ----------------------------------------------------------------------------


class InputPlaces:
    """The files in ComfyUI's input folder, each of which stays there as long as a job uses it."""

    def __init__(self) -> None:
        self._users: Counter[Path] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def placed(self, files: Mapping[str, StagedFile], folders: Folders) -> Iterator[dict[str, PlacedFile]]:
        """Put the files into the input folder for the block; yields them by name."""
        relative = {name: _relative_path(name, file.digest) for name, file in files.items()}
        held: list[Path] = []
        try:
            with self._lock:
                for name, place in relative.items():
                    path = folders.input / place
                    self._users[path] += 1
                    held.append(path)
                    _put(files[name].path, path, folders.input)
            yield {name: PlacedFile(place, str(folders.input / place)) for name, place in relative.items()}
        finally:
            with self._lock:
                for path in held:
                    self._users[path] -= 1
                    if self._users[path] <= 0:
                        del self._users[path]
                        _remove(path, folders.input)


def _relative_path(name: str, digest: str) -> str:
    """The path of a file below the input folder; ComfyUI's 3D nodes look for files only in `3d`."""
    kind = "3d/" if name.lower().endswith(_3D_ENDINGS) else ""
    return f"{kind}{digest[:16]}{hashlib.sha256(name.encode()).hexdigest()[:8]}/{name}"


def _put(source: Path, target: Path, root: Path) -> None:
    """Put a file at `target`. Raises ComfyCrashed if ComfyUI's folders are gone: it has just been restarted."""
    try:
        for folder in reversed(target.relative_to(root).parents[:-1]):
            (root / folder).mkdir(exist_ok=True)
        if not target.exists():
            link_or_copy(source, target)
    except FileNotFoundError as error:
        raise ComfyCrashed("ComfyUI was restarted while the job's files were being placed") from error


def _remove(path: Path, root: Path) -> None:
    """Delete a file, and its parent folders that are empty then."""
    with contextlib.suppress(OSError):
        path.unlink()
        for folder in path.parents:
            if folder == root:
                return
            folder.rmdir()
