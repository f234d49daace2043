"""Collects the files of a run on the disk, and deletes them after the job."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from ..comfy.client import ComfyClient
from ..comfy.folders import Folders, link_or_copy, seconds_old
from ..errors import OutputMissing, OutputRefused
from .content_types import content_type, kind_of
from .listing import OutputFile

_STRAY_FILE_SECONDS = 600.0  # minimum age of a file of no running job before it is deleted while jobs run
_MAX_PREVIEWS = 100  # that stay for ComfyUI's cache while the queue is never empty
_MAX_MISSING = 10  # files that are asked for in vain before the job fails


@dataclass(frozen=True)
class LocalFile:
    """A file to deliver: `name` is for the caller, `path` is where it is now, `origin` where ComfyUI had it."""

    node_id: str
    name: str
    path: Path
    is_preview: bool = False
    origin: OutputFile | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size

    @property
    def content_type(self) -> str:
        """Its MIME type, by the extension of its name."""
        return content_type(self.name)

    @property
    def kind(self) -> str:
        """`image`, `video`, `audio`, `text`, `latent` or `file`: the types of Comfy's API v2."""
        return kind_of(self.name)


def gather_files(
    files: Iterable[OutputFile],
    folders: Folders,
    client: ComfyClient,
    job_folder: str,
    private_folder: Path,
    check: Callable[[], None] = lambda: None,
) -> list[LocalFile]:
    """Link or copy the files into the job's private folder, each under a unique name.

    `check` raises if the job has to end. Raises OutputMissing (with the `node_ids`) for files that do not exist,
    OutputRefused for one outside ComfyUI's folders or that is not a regular file. A file that no node reported may
    have been temporary, and is then left out.
    """
    found: list[LocalFile] = []
    missing: list[OutputFile] = []
    for number, file in enumerate(files):
        check()
        real = _real_path(file, folders) if file.can_exist else None
        try:
            path = _take_file(file, real, private_folder / "gathered" / str(number), client) if real else None
        except OutputRefused:
            if file.is_reported:
                raise
            continue
        if real is None or path is None:
            missing.extend([file] if file.is_reported else [])
        else:
            name = file.name(real, folders, job_folder)
            found.append(LocalFile(file.node_id, name, path, file.is_preview, origin=file))
        if len(missing) == _MAX_MISSING:
            break
    if missing:
        node_ids = list(dict.fromkeys(file.node_id for file in missing))
        names = ", ".join(repr(file.filename[:200]) for file in missing[:10])
        raise OutputMissing(f"output files reported by ComfyUI do not exist: {names}", node_ids=node_ids)
    return found


def with_unique_names(files: Iterable[LocalFile]) -> list[LocalFile]:
    """The files, with a number added to names that occur more than once."""
    taken: set[str] = set()
    named = []
    for file in files:
        name, number = PurePosixPath(file.name), 2
        while str(name) in taken:
            name, number = PurePosixPath(file.name).with_stem(f"{PurePosixPath(file.name).stem}-{number}"), number + 1
        taken.add(str(name))
        named.append(replace(file, name=str(name)))
    return named


def _real_path(file: OutputFile, folders: Folders) -> Path:
    """Where a file is, symlinks resolved. Raises OutputRefused if that is outside ComfyUI's folders."""
    real = file.real_path(folders)
    if real is None or real.is_dir():
        raise OutputRefused(
            f"node {file.node_id[:80]}: its output {file.filename[:200]!r} is outside ComfyUI's {file.type} folder"
        )
    return real


def _take_file(file: OutputFile, real: Path, target: Path, client: ComfyClient) -> Path | None:
    """Link, copy or download a file to `target`, which only this job uses; None if there is no such file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _check_regular(file, real.lstat())
        if file.is_preview:  # stays in ComfyUI's folder, where its node may overwrite it: not linked
            shutil.copyfile(real, target, follow_symlinks=False)
        else:
            link_or_copy(real, target)
        _check_regular(file, target.lstat())  # a node that still runs may have replaced it
        return target
    except FileNotFoundError:
        pass
    # Not in our folders: COMFYUI_ARGS may have given ComfyUI other ones.
    content = client.view(file.filename, file.subfolder, file.type)
    if content is None:
        return None
    target.write_bytes(content)
    return target


def _check_regular(file: OutputFile, status: os.stat_result) -> None:
    """Raise OutputRefused for a FIFO, a device, a socket or a symlink, and for a hard link to another owner's file."""
    is_foreign = status.st_nlink > 1 and status.st_uid != os.geteuid()
    if not stat.S_ISREG(status.st_mode) or is_foreign:
        raise OutputRefused(f"node {file.node_id[:80]}: its output {file.filename[:200]!r} is not a regular file")


def remove_files_outside(files: Iterable[OutputFile], folders: Folders, job_folder: str) -> None:
    """Delete the output files that the job's nodes saved outside the job's folder, under names that they chose.

    This must be done before the next job begins, because it may write a file of the same name. Previews stay:
    ComfyUI's cache may return them to another job, which would otherwise have to create them again.
    """
    for file in filter(lambda file: file.can_exist, files):
        real = file.real_path(folders)
        is_elsewhere = real is not None and not real.is_relative_to(folders.output / job_folder)
        if file.type == "output" and is_elsewhere and not file.path(folders).is_dir():
            _remove(file.path(folders))


def remove_files(folders: Folders, job_folder: str, other_jobs: Mapping[str, float] = MappingProxyType({})) -> None:
    """Delete the job's folder, and everything else in the output and temp folders if ComfyUI has no other job.

    `other_jobs` are the folders of the other jobs, with the time (`time.time()`) at which each began. While there are
    any, only what is from before all of them is deleted, since newer files may belong to them: what is old, and of the
    previews all but the newest. Nothing is deleted if a node has replaced one of the folders, perhaps by a link to
    where the files are not ours.
    """
    if not folders.are_intact:
        return
    shutil.rmtree(folders.output / job_folder, ignore_errors=True)
    leftovers = [*_entries(folders.output), *_entries(folders.temp)]
    if other_jobs:
        since = time.time() - min(other_jobs.values())
        age = max(_STRAY_FILE_SECONDS, since)
        leftovers = [path for path in leftovers if path.name not in other_jobs and seconds_old(path) > age]
        before_all = [path for path in _entries(folders.temp) if seconds_old(path) > since]
        leftovers += sorted(before_all, key=seconds_old)[_MAX_PREVIEWS:]
        leftovers.append(folders.temp / "api_logs")  # partner nodes write their API key there
    for path in leftovers:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
