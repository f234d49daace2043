"""Lock files, which also work across workers that share a network volume.

A lock is a file that is created exclusively, which every file system supports (flock(2) is unreliable on network file
systems). Its owner touches it every few seconds. A lock that has not been touched for some time, by the clock of the
waiting process, or whose process on this machine is gone, is stale: its owner was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TOUCH_SECONDS = 5.0
_STALE_SECONDS = 90.0  # network file systems may report mtimes a minute late
_CHECK_INTERVAL_SECONDS = 0.2
_ABANDONED_SECONDS = 600.0


@contextmanager
def locked(path: Path, check: Callable[[], None], stale_seconds: float = _STALE_SECONDS) -> Iterator[None]:
    """Hold the lock file `path`. `check` is called while another process has it, and raises to cancel the wait.

    Raises OSError where files cannot be created.
    """
    content = json.dumps({"machine": _machine(), "process": os.getpid(), "id": uuid.uuid4().hex})
    _acquire(path, content, check, stale_seconds)
    done = threading.Event()
    toucher = threading.Thread(target=_touch, args=(path, done), daemon=True, name="model-lock")
    toucher.start()
    try:
        yield
    finally:
        done.set()
        toucher.join()
        if _read(path) == content:  # else another process took the lock for stale
            path.unlink(missing_ok=True)


def _acquire(path: Path, content: str, check: Callable[[], None], stale_seconds: float) -> None:
    seen: tuple[str, int] | None = None
    since = time.monotonic()
    while not _make(path, content):
        check()
        other, touched = _read(path), _touched(path)
        if (other, touched) != seen:
            seen, since = (other, touched), time.monotonic()
        if _is_dead(other) or time.monotonic() - since > stale_seconds:
            _break(path, other)
        else:
            time.sleep(_CHECK_INTERVAL_SECONDS)


def _make(path: Path, content: str) -> bool:
    try:
        opened = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with opened:
            opened.write(content)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _break(path: Path, content: str) -> None:
    """Remove a stale lock, if it is still that one. A second lock guards this, or two processes could get the lock."""
    breaking = path.with_name(f"{path.name}.breaking")
    if not _make(breaking, content):
        if time.time() - _touched(breaking) / 1e9 > _ABANDONED_SECONDS:  # its owner was killed
            breaking.unlink(missing_ok=True)
        time.sleep(_CHECK_INTERVAL_SECONDS)
        return
    try:
        if _read(path) == content:
            path.unlink(missing_ok=True)
    finally:
        breaking.unlink(missing_ok=True)


def _is_dead(content: str) -> bool:
    """Whether the owner was a process of this machine and container that is gone."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        owner = json.loads(content)
        if owner["machine"] != _machine():
            return False
        try:
            os.kill(int(owner["process"]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
    return False


def _machine() -> str:
    """Identifies this machine and its PID namespace: host names can be the same in many containers."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return " ".join(parts)


def _touch(path: Path, done: threading.Event) -> None:
    while not done.wait(_TOUCH_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _touched(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
