"""Shuts a process, and all that it starts, out of the worker: its files, its memory, its `.secrets`.

Done with Landlock (landlock(7), Linux 5.19 and later), which needs no privilege, holds for root, and cannot be undone.
Landlock grants, it does not deny: what is to be guarded is left out, and everything beside it is granted. So a file
that appears later right beside a guarded folder (in `/`, say) is guarded too. A confined process cannot trace one that
is not, not even with CAP_SYS_PTRACE; only CAP_PERFMON lets it read one's memory.

It runs in ComfyUI's environment: standard library only, Python 3.9 and later.
"""

import ctypes
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

# linux/landlock.h; the numbers of the system calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _TRUNCATE = 1 << 1, 1 << 2, 1 << 14
_CHANGE_FOLDER = 0b11_1111_1111_0000  # REMOVE_DIR up to REFER: remove, make and move what is in a folder
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
_FIRST_VERSION, _TRUNCATE_VERSION = 2, 3  # in version 1 nothing could be moved from one folder to another
_PR_SET_NO_NEW_PRIVS = 38


class _Ruleset(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # what a packed structure has; Python 3.14 wants it said
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def confine(unchangeable: Sequence[str], unreadable: Sequence[str]) -> bool:
    """Confine this thread, and the threads and processes that it starts from now on; whether the kernel can.

    What is in the folders `unchangeable` can be read and run, but not changed; `unreadable` are files or folders.
    Raises OSError if the kernel can, but refuses.
    """
    try:
        version = _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return False
    if version < _FIRST_VERSION:
        return False
    change = _WRITE_FILE | _CHANGE_FOLDER | (_TRUNCATE if version >= _TRUNCATE_VERSION else 0)
    guarded = {change: _present(unchangeable)}
    if hidden := _present(unreadable):
        guarded[_READ_FILE] = hidden
    ruleset = _Ruleset(sum(guarded))
    rules = _call(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)
    try:
        for rights, paths in guarded.items():
            for granted in beside(paths):
                _grant(rules, rights, granted)
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "no_new_privs")
        _call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
    return True


def beside(guarded: Sequence[Path], folder: Path = Path("/")) -> Iterator[Path]:
    """The largest folders, and the files, that hold nothing of `guarded` (real paths): all the rest of the system."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if path in guarded or entry.is_symlink():  # what a link leads to is granted, or guarded, in its own place
                continue
            if any(path in inner.parents for inner in guarded):
                yield from beside(guarded, path)
            else:
                yield path


def _present(paths: Sequence[str]) -> "list[Path]":
    return [Path(path).resolve() for path in paths if Path(path).exists()]


def _grant(rules: int, rights: int, path: Path) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # it has gone, or is not ours to see: nothing to grant
        return
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= _OF_FILES
        _call(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(_PathBeneath(rights, handle)), 0)
    finally:
        os.close(handle)


def _call(number: int, *arguments: object) -> int:
    """A system call of Landlock. Raises OSError."""
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
