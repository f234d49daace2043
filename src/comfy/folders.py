"""The folders that one engine process has to itself; the next worker removes those of a killed one."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_JOB_FOLDER = re.compile(r"job-[0-9a-f]{12}")
_JOB_FOLDER_OF_PATH = re.compile(rf"(?<![0-9A-Za-z]){_JOB_FOLDER.pattern}(?![0-9A-Za-z])[/\\]?")
_MAX_BAKED_BYTES = 2 * 10**9  # of the files in ComfyUI's own input folder
_FOLDER_PREFIX = "comfyui-worker-"
_ABANDONED_SECONDS = 60.0  # a younger folder without a lock may be one that another worker is creating right now


@dataclass(frozen=True)
class Folders:
    """The folders that one engine process has to itself, below `root`, whose links are resolved.

    Their user holds a lock on them, so that the next worker can tell which ones a killed worker left behind.
    """

    root: Path
    lock: int = -1
    _made: dict[Path, tuple[int, int, int]] = field(default_factory=dict, compare=False)
    """What identifies the folders that were made."""

    @staticmethod
    def make() -> Folders:
        """New ones, in the system's temporary folder; those of dead workers are removed."""
        for old in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
            lock = _locked(old) if seconds_old(old) > _ABANDONED_SECONDS else None
            if lock is not None:
                Folders(old, lock).remove()
        folders = _new()
        for folder in (folders.input, folders.output, folders.temp, folders.user, folders.editor):
            folder.mkdir()
            folders._made[folder] = _identity(folder)
        del folders._made[folders.temp]  # ComfyUI wipes it, and makes it again
        return folders

    def bring_inputs(self, baked: Path) -> list[str]:
        """Copy the files of ComfyUI's own input folder, which an image may bring, so that jobs can name them.

        Copies, since newer versions open no link that leads out of the folder, and no job may change the originals.
        Returns the names of those that cannot be copied, or for which there is no room.
        """
        left_out, room = list[str](), _MAX_BAKED_BYTES
        for file in sorted(baked.rglob("*")):
            target = self.input / file.relative_to(baked)
            try:
                if not file.is_file():
                    continue
                size = file.stat().st_size
                if size > room:
                    left_out.append(file.relative_to(baked).as_posix())
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
                room -= size
            except OSError:  # unreadable, or the disk is full
                target.unlink(missing_ok=True)
                left_out.append(file.relative_to(baked).as_posix())
        return left_out

    @property
    def are_intact(self) -> bool:
        """Whether the folders are still those that were made: a node may have replaced or removed one."""
        try:
            is_temp_replaced = self.temp.is_symlink()
            return not is_temp_replaced and all(_identity(folder) == made for folder, made in self._made.items())
        except OSError:
            return False

    def remove(self) -> None:
        """Delete them with all that is in them."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self.lock >= 0:
            os.close(self.lock)

    @property
    def input(self) -> Path:
        """The files of jobs."""
        return self.root / "input"

    @property
    def output(self) -> Path:
        """What saving nodes write."""
        return self.root / "output"

    @property
    def temp(self) -> Path:
        """What preview nodes write. ComfyUI wipes and makes `temp` below the folder of --temp-directory."""
        return self.root / "temp"

    @property
    def user(self) -> Path:
        """ComfyUI's settings and database."""
        return self.root / "user"

    @property
    def editor(self) -> Path:
        """The --front-end-root of ComfyUI: empty, since no one opens its editor here."""
        return self.root / "editor"

    @property
    def models(self) -> Path:
        """Links to models that lie where ComfyUI does not look."""
        return self.root / "models"

    @property
    def model_paths(self) -> Path:
        """The file for --extra-model-paths-config."""
        return self.root / "model_paths.yaml"


def job_folder_name() -> str:
    """A new name for the folder of a job below the output folder."""
    return f"job-{uuid.uuid4().hex[:12]}"


def is_job_folder(name: str) -> bool:
    """Whether a name is one that `job_folder_name` gives."""
    return _JOB_FOLDER.fullmatch(name) is not None


def without_job_folders(text: str) -> str:
    """A text without the folders of jobs: the paths in it are then those that callers know."""
    return _JOB_FOLDER_OF_PATH.sub("", text)


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for as long as one job needs it, on the file system of the engines' folders."""
    folders = _new()
    try:
        yield folders.root
    finally:
        folders.remove()


def _new() -> Folders:
    root = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX)).resolve()
    lock = _locked(root)
    return Folders(root, -1 if lock is None else lock)


def _identity(folder: Path) -> tuple[int, int, int]:
    """Device, inode and file type: a file system may give the inode of a removed folder to a link in its place."""
    status = folder.lstat()
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name. Raises FileNotFoundError if it is gone, or if the target has no folder."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def seconds_old(path: Path) -> float:
    """Seconds since a file, or the entries of a folder, last changed; 0 if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _locked(folder: Path) -> int | None:
    """The descriptor of a lock on a folder; None if another process holds it, or if the folder cannot be opened."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened
