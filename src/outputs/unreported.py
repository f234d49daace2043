"""Files that nodes save without telling ComfyUI's history, found by looking into its folders before and after a run.

One job at a time has ComfyUI, so what is new in its output and temp folders is that job's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..comfy.folders import Folders
from ..comfy.record import Run
from .content_types import kind_of
from .listing import OutputFile

_MAX_FILES = 20_000  # that are looked at in a folder; one that holds more is not watched
_MAX_DEPTH = 12
_PARTNER_LOGS = "api_logs"  # partner nodes write their API key there
_DATA_FOLDERS = ("datasets", "input", "output", "temp")  # of ComfyUI's own folder, which the worker does not use
_VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".gif", ".webp")
_FRAMES = (".png", ".jpg", ".webp")
_WITH_SOUND = "-audio"
_SHOWN = ("image", "video", "audio")

State = Mapping[Path, tuple[int, int, int]]
"""The regular files of a folder, and what tells whether they were written again."""


@dataclass(frozen=True)
class FolderWatch:
    """The state of ComfyUI's folders as a run begins."""

    folders: Folders
    comfyui: Path
    before: Mapping[Path, State | None]

    @staticmethod
    def begin(folders: Folders, comfyui: Path) -> FolderWatch:
        """Look at the folders of a process, and at those below the folder of ComfyUI itself that hold data."""
        watched = [folders.output, folders.temp, folders.input, *(comfyui / name for name in _DATA_FOLDERS)]
        return FolderWatch(folders, comfyui, {folder: _state(folder) for folder in watched})

    def saved(self) -> list[Path]:
        """The files in the output and temp folders that are new, or were written again, in the order of their time."""
        return [*self._changed(self.folders.output), *self._changed(self.folders.temp)]

    def saved_elsewhere(self) -> list[str]:
        """The files that are new in other folders of ComfyUI, from which nothing is delivered, by names for people."""
        inputs = [f"input/{path.relative_to(self.folders.input)}" for path in self._changed(self.folders.input)]
        own = [self.comfyui / name for name in _DATA_FOLDERS]
        return inputs + [str(path.relative_to(self.comfyui)) for folder in own for path in self._changed(folder)]

    def _changed(self, folder: Path) -> list[Path]:
        before, now = self.before[folder], _state(folder)
        if before is None or now is None:
            return []
        return sorted((path for path in now if before.get(path) != now[path]), key=lambda path: (now[path][0], path))


def list_unreported(
    run: Run, saved: Iterable[Path], reported: Collection[OutputFile], folders: Folders
) -> list[OutputFile]:
    """The saved files that are not among the reported ones, each with its node as far as that is known, else `""`.

    What lies in the temp folder, and what a node makes beside the video that it reports, are previews.
    """
    known = {file.path(folders) for file in reported}
    senders = _Senders(run)
    found = []
    for path in saved:
        is_temp = path.is_relative_to(folders.temp)
        if path in known or (is_temp and kind_of(path.name) not in _SHOWN):
            continue
        root = folders.temp if is_temp else folders.output
        place = PurePosixPath(path.relative_to(root).as_posix())
        subfolder = "" if place.parent == PurePosixPath(".") else str(place.parent)
        is_preview = not is_temp and _is_by_product(path, known)
        found.append(OutputFile(senders.of(place), place.name, subfolder, "temp" if is_temp else "output", is_preview))
    return found


class _Senders:
    """Which node saved a file: one that mentions it, or whose `filename_prefix` it has."""

    def __init__(self, run: Run) -> None:
        self._mentions: dict[str, str] = {}
        for node_id, output in (run.entry.get("outputs") or {}).items():
            for text in _texts(output):
                self._mentions.setdefault(text, node_id)
        prefixes = ((node_id, node["inputs"].get("filename_prefix")) for node_id, node in run.workflow.items())
        self._prefixes = {prefix: node_id for node_id, prefix in prefixes if isinstance(prefix, str) and prefix}

    def of(self, place: PurePosixPath) -> str:
        """The id of the node that saved the file of that path below its folder, "" if that is not known."""
        relative = str(place)
        if mentioned := self._mentions.get(relative) or self._mentions.get(place.name):
            return mentioned
        ends = range(len(relative), 0, -1)
        return next((self._prefixes[relative[:end]] for end in ends if relative[:end] in self._prefixes), "")


def _texts(value: Any) -> Iterator[str]:
    values = [value]
    while values:
        item = values.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            values.extend(item.values())
        elif isinstance(item, list):
            values.extend(item)


def _is_by_product(path: Path, reported: Collection[Path]) -> bool:
    """Whether a file is what video nodes leave beside a video: its first frame, or itself without its sound."""
    stems = (path.stem, path.stem + _WITH_SOUND)
    videos = {path.with_name(stem + ending) for stem in stems for ending in _VIDEOS}
    is_frame, is_silent = path.suffix.lower() in _FRAMES, path.suffix.lower() in _VIDEOS
    return bool((videos - {path}) & set(reported)) and (is_frame or is_silent)


def _state(folder: Path) -> State | None:
    """The regular files below a folder; hidden ones, and what links lead to, left out. None if there are too many."""
    found: dict[Path, tuple[int, int, int]] = {}
    pending = [(folder, 0)]
    while pending:
        current, depth = pending.pop()
        try:
            entries = list(os.scandir(current))
        except OSError:  # not there, or gone
            continue
        for entry in entries:
            if entry.name.startswith(".") or (depth == 0 and entry.name == _PARTNER_LOGS):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(status.st_mode) and depth < _MAX_DEPTH:
                pending.append((Path(entry.path), depth + 1))
            elif stat.S_ISREG(status.st_mode):
                found[Path(entry.path)] = (status.st_mtime_ns, status.st_size, status.st_ino)
        if len(found) > _MAX_FILES:
            return None
    return found
