"""Files that nodes save without telling ComfyUI's history, found by looking into its folders before and after a run.

One job at a time has ComfyUI, so what is new in its output and temp folders is that job's. (A node that goes on saving
under a fixed name after its prompt has ended cannot be told from the next job's.)
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ..comfy.folders import Folders, is_job_folder
from ..comfy.record import Run
from .content_types import kind_of
from .listing import OutputFile

_MAX_FILES = 20_000  # and folders that are looked at in one place; if it holds more, nothing is found there
_MAX_DEPTH = 12
_PARTNER_LOGS = "api_logs"  # partner nodes write their API key there
_UNWATCHED = ("custom_nodes", "models")  # below ComfyUI's folder: large, and perhaps on a network volume
_VIDEOS = (".mp4", ".webm", ".mkv", ".mov")
_ANIMATIONS = (".gif", ".webp")  # or a picture
_FRAMES = (".png", ".jpg", ".webp")
_WITH_SOUND = "-audio"
_TOP = "the folder itself"
_SHOWN = ("image", "video", "audio")

State = Mapping[str, tuple[int, int, int]]
"""The regular files of a folder, and what tells whether they were written again."""


@dataclass(frozen=True)
class FolderWatch:
    """The state of ComfyUI's folders as a run begins.

    `saved_before` are the files in the output and temp folders, `elsewhere_before` the names of those in other ones.
    """

    folders: Folders
    comfyui: Path
    saved_before: State | None
    elsewhere_before: frozenset[str]

    @staticmethod
    def begin(folders: Folders, comfyui: Path) -> FolderWatch:
        """Look at the folders of a process, and below the folder of ComfyUI itself at those that hold data."""
        return FolderWatch(folders, comfyui, _state(folders), _files_elsewhere(folders, comfyui))

    def saved(self) -> list[Path]:
        """The files in the output and temp folders that are new, or were written again, in the order of their time."""
        before, now = self.saved_before, _state(self.folders)
        if before is None or now is None:
            return []
        return [
            Path(path) for path in sorted(now, key=lambda path: (now[path], path)) if before.get(path) != now[path]
        ]

    def saved_elsewhere(self) -> dict[str, int]:
        """How many files are new in other folders of ComfyUI, from which nothing is delivered, by folder.

        No names: that folder may be shared with other workers, and the files theirs.
        """
        new = _files_elsewhere(self.folders, self.comfyui) - self.elsewhere_before
        roots = (self.folders.root, self.comfyui)
        places = (Path(path).relative_to(root) for path in new for root in roots if Path(path).is_relative_to(root))
        return dict(sorted(Counter(place.parts[0] if len(place.parts) > 1 else _TOP for place in places).items()))


def list_unreported(
    run: Run, saved: Iterable[Path], reported: Iterable[OutputFile], folders: Folders, job_folder: str
) -> list[OutputFile]:
    """The saved files that are not among the reported ones, each with its node as far as that is known, else `""`.

    Pictures, videos and sounds in the temp folder are previews, like what a node makes beside a video that it reports.
    What else is in the temp folder is of no interest, and the folder of a job that has ended not this job's.
    """
    known = {Path(os.path.normpath(file.path(folders))) for file in reported if file.can_exist}
    senders = _Senders(run)
    found = []
    for path in saved:
        is_temp = path.is_relative_to(folders.temp)
        place = PurePosixPath(path.relative_to(folders.temp if is_temp else folders.output).as_posix())
        is_others = is_job_folder(place.parts[0]) and place.parts[0] != job_folder
        if path in known or is_others or (is_temp and kind_of(path.name) not in _SHOWN):
            continue
        subfolder = "" if place.parent == PurePosixPath(".") else str(place.parent)
        is_preview = not is_temp and _is_by_product(path, known, senders.mention(place.name))
        kind = "temp" if is_temp else "output"
        found.append(OutputFile(senders.of(place), place.name, subfolder, kind, is_preview, is_reported=False))
    return found


class _Senders:
    """Which node saved a file: one that mentions it, or whose `filename_prefix` it has."""

    def __init__(self, run: Run) -> None:
        self._mentions: dict[str, str] = {}
        outputs = run.entry.get("outputs")
        for node_id, output in outputs.items() if isinstance(outputs, Mapping) else ():
            for text in _texts(output):
                self._mentions.setdefault(text, node_id)
        prefixes = ((node_id, node["inputs"].get("filename_prefix")) for node_id, node in run.workflow.items())
        self._prefixes = {prefix: node_id for node_id, prefix in prefixes if isinstance(prefix, str) and prefix}

    def mention(self, text: str) -> bool:
        """Whether a node's output holds that text."""
        return text in self._mentions

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


def _is_by_product(path: Path, reported: Set[Path], is_mentioned: bool) -> bool:
    """Whether a file is what video nodes leave beside a video that they report.

    VHS_VideoCombine leaves its first frame, also of a gif or webp, and a video without its sound.
    """
    if path.suffix.lower() in _FRAMES:
        endings = (*_VIDEOS, *(_ANIMATIONS if is_mentioned else ()))
        return any(path.with_suffix(ending) in reported for ending in endings) or _with_sound(path, reported)
    return path.suffix.lower() in _VIDEOS and _with_sound(path, reported)


def _with_sound(path: Path, reported: Set[Path]) -> bool:
    return any(path.with_name(f"{path.stem}{_WITH_SOUND}{ending}") in reported for ending in _VIDEOS)


def _state(folders: Folders) -> State | None:
    """None if there are too many files."""
    found = {}
    for entry in [*_files(folders.output), *_files(folders.temp)]:
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            found[entry.path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found if len(found) < _MAX_FILES else None


def _files_elsewhere(folders: Folders, comfyui: Path) -> frozenset[str]:
    """The files in the input folder and in ComfyUI's own, but programs, models and places with too many."""
    found = set[str]()
    with contextlib.suppress(OSError):
        data_folders = _data_folders(comfyui, comfyui.stat().st_mtime_ns)
        for place in (_files(folders.input), _files(comfyui, 0), *map(_files, data_folders)):
            paths = [entry.path for entry in place]
            found.update(paths if len(paths) < _MAX_FILES else [])
    return frozenset(found)


@lru_cache(maxsize=4)
def _data_folders(comfyui: Path, changed_at: int) -> tuple[Path, ...]:
    """The folders right below ComfyUI's that hold neither programs nor models, as of when one came or went."""
    folders = []
    for entry in _entries(comfyui):
        if entry.is_dir(follow_symlinks=False) and entry.name not in _UNWATCHED and entry.name[0] not in "._":
            names = [inner.name for inner in _entries(entry.path)]
            if not any(name.endswith(".py") or name == "pyvenv.cfg" for name in names):
                folders.append(Path(entry.path))
    return tuple(folders)


def _files(folder: Path, max_depth: int = _MAX_DEPTH) -> Iterator[os.DirEntry[str]]:
    """The regular files below a folder; hidden ones and links left out. Ends with one more than `_MAX_FILES`.

    Folders count as files, so that the time is bounded.
    """
    count, pending = 0, [(os.fspath(folder), 0)]
    while pending:
        current, depth = pending.pop()
        for entry in _entries(current):
            if entry.name.startswith(".") or (depth == 0 and entry.name == _PARTNER_LOGS):
                continue
            count += 1
            if entry.is_dir(follow_symlinks=False) and depth < max_depth:
                pending.append((entry.path, depth + 1))
            elif entry.is_file(follow_symlinks=False):
                yield entry
            if count > _MAX_FILES:
                return


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # not there, or gone
        return []
