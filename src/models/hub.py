"""Downloads files that Hugging Face keeps in Xet storage, with huggingface_hub in a supervised child process.

huggingface_hub 2 is the only way to use Xet, whose transfers are parallel and deduplicated. The library cannot resume
a download that was killed, and has been seen to stall for ever, so it runs in a child process that is killed when no
bytes arrive; `web` then downloads the file in ranges. Files outside Xet storage it reads over one connection: `web`
is faster there too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .. import REPOSITORY
from ..errors import ModelFetchFailed
from ..launch.container_memory import total_memory
from .manifest import Source
from .partial import disk_errors, partial_of, staging_of
from .transfer import Check, Count

log = logging.getLogger(__name__)

_CHECK_INTERVAL_SECONDS = 0.1
_HIGH_PERFORMANCE_MEMORY = 64 << 30  # below that Xet's high-performance mode has been seen to be killed for memory
# Xet's default buffers (2 GB, and as much again for prefetching) took 580 MB for a file of 1 GB on loopback, these
# 140 MB, in no more time. The names are from xet-core's xet_runtime/src/config/groups/reconstruction.rs.
_SMALL_BUFFERS = {
    "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_SIZE": "48mb",
    "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_PERFILE_SIZE": "16mb",
    "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_LIMIT": "64mb",
    "HF_XET_RECONSTRUCTION_MIN_PREFETCH_BUFFER": "48mb",
    "HF_XET_RECONSTRUCTION_MIN_RECONSTRUCTION_FETCH_SIZE": "64mb",
    "HF_XET_RECONSTRUCTION_MAX_RECONSTRUCTION_FETCH_SIZE": "256mb",
}
_DOWNLOAD_LOCK = threading.Lock()  # one at a time: a transfer is parallel in itself, and each has its own buffers


@dataclass(frozen=True)
class Hub:
    """A Hugging Face endpoint and the token for it."""

    endpoint: str
    token: str

    def url(self, source: Source) -> str:
        """The URL of a file in a repository."""
        return f"{self.endpoint}/{source.repository}/resolve/{source.revision or 'main'}/{quote(source.path or '')}"

    def has(self, url: str) -> bool:
        """Whether a URL is one of its site."""
        mine, other = urlsplit(self.endpoint), urlsplit(url)
        return (other.scheme, other.netloc.lower()) == (mine.scheme, mine.netloc.lower())

    def page(self, source: Source) -> str:
        """The page of the repository, where its licence is accepted."""
        return f"{self.endpoint}/{source.repository}"

    def download(self, source: Source, target: Path, check: Check, count: Count, stall_seconds: float) -> Path:
        """Download a file to `target.partial` and return that path.

        Raises ModelFetchFailed if the library fails or no bytes arrive for `stall_seconds`, and whatever `check`
        raises. The bytes received until then are lost.
        """
        folder = staging_of(target)
        received = 0

        def count_bytes(more: int) -> None:
            nonlocal received
            received += more
            count(more)

        try:
            with disk_errors(target):
                folder.mkdir(exist_ok=True)
            with _exclusive(check):
                path = self._run_child(source, folder, check, count_bytes, stall_seconds)
            with disk_errors(target):
                path.replace(partial_of(target))
            return partial_of(target)
        except BaseException:  # the edge of a download: whatever ends it, its bytes are lost
            count(-received)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run_child(self, source: Source, folder: Path, check: Check, count: Count, stall_seconds: float) -> Path:
        child = subprocess.Popen(
            [sys.executable, "-m", "src.models.hub_child"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_read_lines, args=(child, lines), daemon=True, name="hub").start()
            _send_request(child, self._request(source, folder))
            last_progress = time.monotonic()
            while True:
                check()
                if time.monotonic() - last_progress > stall_seconds:
                    raise ModelFetchFailed(f"{source.path}: no data by Xet for {stall_seconds:g} s")
                try:
                    line = lines.get(timeout=_CHECK_INTERVAL_SECONDS)
                except queue.Empty:
                    continue
                if line is None:
                    raise ModelFetchFailed(f"{source.path}: huggingface_hub exited with {child.wait()}")
                message = _parse_message(line)
                if "path" in message:
                    return Path(message["path"])
                if "failed" in message:
                    raise ModelFetchFailed(f"{source.path}: huggingface_hub failed ({message['failed']})")
                if "bytes" in message:
                    last_progress = time.monotonic()
                    count(message["bytes"])
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    pipe.close()

    def _request(self, source: Source, folder: Path) -> dict[str, Any]:
        environment = {
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "30",
            "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",  # no cache: each file is downloaded once
            "HF_HOME": str(folder / ".home"),
        }
        environment |= (
            {"HF_XET_HIGH_PERFORMANCE": "1"} if total_memory() >= _HIGH_PERFORMANCE_MEMORY else _SMALL_BUFFERS
        )
        return {
            "repository": source.repository,
            "revision": source.revision,
            "path": source.path,
            "folder": str(folder),
            "endpoint": self.endpoint,
            "token": self.token,
            "parent": os.getpid(),
            "environment": environment,
        }


@contextmanager
def _exclusive(check: Check) -> Iterator[None]:
    while not _DOWNLOAD_LOCK.acquire(timeout=_CHECK_INTERVAL_SECONDS):
        check()
    try:
        yield
    finally:
        _DOWNLOAD_LOCK.release()


def _read_lines(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in child.stdout or ():
        lines.put(line)
    lines.put(None)


def _parse_message(line: str) -> dict[str, Any]:
    """A message of the child; empty for a line that a library printed."""
    with contextlib.suppress(ValueError):
        message = json.loads(line)
        return message if isinstance(message, dict) else {}
    return {}


def _send_request(child: subprocess.Popen[str], request: dict[str, Any]) -> None:
    try:
        if child.stdin:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
    except OSError as error:
        raise ModelFetchFailed("huggingface_hub could not be started") from error
