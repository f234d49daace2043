"""The files of a run as they lie on the disk, and their end."""

from __future__ import annotations

import contextlib
import mimetypes
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from ..comfy.client import ComfyClient
from ..comfy.folders import Folders, link_or_copy, seconds_old
from ..comfy.record import Run
from ..errors import OutputMissing, OutputRefused
from .listing import OutputFile, list_files

# What Python's table, which depends on the system, may lack or call otherwise.
_CONTENT_TYPES = {
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".gif": "image/gif",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".opus": "audio/ogg",
    ".ogg": "audio/ogg",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".obj": "model/obj",
    ".stl": "model/stl",
    ".ply": "model/ply",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".txt": "text/plain",
}
_STRAY_SECONDS = 600.0  # that a file which no running job owns stays while there is one
_KINDS = ("image", "video", "audio", "text")


@dataclass(frozen=True)
class LocalFile:
    """A file to deliver: `name` as the caller knows it, `path` where it lies now."""

    node_id: str
    name: str
    path: Path
    is_preview: bool = False

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.path.stat().st_size

    @property
    def content_type(self) -> str:
        """Its MIME type, by the ending of its name."""
        ending = PurePosixPath(self.name).suffix.lower()
        return _CONTENT_TYPES.get(ending) or mimetypes.guess_type(self.name)[0] or "application/octet-stream"

    @property
    def kind(self) -> str:
        """`image`, `video`, `audio`, `text`, `latent` or `file`: the types of Comfy's API v2."""
        if self.name.lower().endswith(".latent"):
            return "latent"
        kind = self.content_type.partition("/")[0]
        return kind if kind in _KINDS else "file"


def gather_files(
    files: Iterable[OutputFile], folders: Folders, client: ComfyClient, job_folder: str, own: Path
) -> list[LocalFile]:
    """The files, each under a name of its own in the folder `own`.

    Raises OutputMissing (with the `node_ids`) for files that are not there, OutputRefused for one outside ComfyUI's
    folders.
    """
    found, missing = [], []
    for number, file in enumerate(files):
        real = file.real_path(folders)
        if real is None or real.is_dir():
            raise OutputRefused(
                f"node {file.node_id[:80]}: its output {file.filename[:200]!r} is outside ComfyUI's {file.type} folder"
            )
        path = _taken(file, real, own / "gathered" / str(number), client)
        if path is None:
            missing.append(file)
        else:
            found.append(LocalFile(file.node_id, file.name(real, folders, job_folder), path, file.is_preview))
    if missing:
        node_ids = list(dict.fromkeys(file.node_id for file in missing))
        names = ", ".join(repr(file.filename[:200]) for file in missing[:10])
        raise OutputMissing(f"output files that ComfyUI named are not there: {names}", node_ids=node_ids)
    return found


def with_own_names(files: Iterable[LocalFile]) -> list[LocalFile]:
    """The files, with a number in the name of each whose name another one has."""
    taken: set[str] = set()
    named = []
    for file in files:
        name, number = PurePosixPath(file.name), 2
        while str(name) in taken:
            name, number = PurePosixPath(file.name).with_stem(f"{PurePosixPath(file.name).stem}-{number}"), number + 1
        taken.add(str(name))
        named.append(LocalFile(file.node_id, str(name), file.path, file.is_preview))
    return named


def _taken(file: OutputFile, real: Path, own: Path, client: ComfyClient) -> Path | None:
    """Where a file lies that only this job uses; None if there is no such file."""
    own.parent.mkdir(parents=True, exist_ok=True)
    try:
        if file.is_preview:  # stays in ComfyUI's folder, where its node may write it anew
            shutil.copyfile(real, own)
        else:
            link_or_copy(real, own)
        return own
    except FileNotFoundError:
        pass
    # Not in our folders: ComfyUI may have been told others, by COMFYUI_ARGS.
    content = client.view(file.filename, file.subfolder, file.type)
    if content is None:
        return None
    own.write_bytes(content)
    return own


def remove_named_files(run: Run, folders: Folders, job_folder: str) -> None:
    """Delete what the job's nodes wrote and reported outside its folder, under names that they choose.

    The next job may write the same name: this is done before that begins. A preview stays, for ComfyUI's cache may
    give it to another job, which would have to make it again.
    """
    for file in list_files(run):
        real = file.real_path(folders)
        is_elsewhere = real is not None and not real.is_relative_to(folders.output / job_folder)
        if file.type == "output" and is_elsewhere and not file.path(folders).is_dir():
            _remove(file.path(folders))


def remove_files(folders: Folders, job_folder: str, others: Mapping[str, float] = MappingProxyType({})) -> None:
    """Delete the job's folder, and all else that is there if ComfyUI has no other job.

    `others` are the folders of jobs that it has, and since when (as `time.time()`). Then of what lies elsewhere only
    what is old and from before them goes: the rest may be theirs.
    """
    shutil.rmtree(folders.output / job_folder, ignore_errors=True)
    left = [*_in(folders.output), *_in(folders.temp)]
    if others:
        age = max(_STRAY_SECONDS, time.time() - min(others.values()))
        left = [path for path in left if path.name not in others and seconds_old(path) > age]
        left.append(folders.temp / "api_logs")  # partner nodes write their key there
    for path in left:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _in(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
