"""Copies of models on a fast disk, at most so many bytes; what was used longest ago goes.

Only what this room has noted as its copy is ever removed. ComfyUI looks here first, so a copy whose original has
changed or is gone must go before ComfyUI starts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from ..settings import Settings
from .pieces import pieces

log = logging.getLogger(__name__)

_OWN_FOLDER = "comfyui-worker-copies"
_NOTES = ".originals"
_GIGABYTE = 1e9


@dataclass(frozen=True)
class LocalCache:
    """Copies below `root`, in ComfyUI's folders, at most `limit` bytes."""

    root: Path
    limit: int

    def tidy(self) -> None:
        """Remove copies whose original has changed or is gone."""
        for note, copy, original in self._notes():
            if not _is_same(copy, original):
                with contextlib.suppress(OSError):
                    copy.unlink(missing_ok=True)
                    note.unlink(missing_ok=True)

    def copy_of(self, file: Path, below: Path) -> Path | None:
        """The copy of a file that lies `below` a root of models, None if there is none; it counts as used now."""
        copy = self.root / file.relative_to(below)
        if not _is_same(copy, file):
            return None
        os.utime(copy, ns=(time.time_ns(), copy.stat().st_mtime_ns))
        return copy

    def add(self, file: Path, below: Path, kept: Collection[Path], is_over: Event) -> Path | None:
        """Copy a file; the copy, or None if there is no room for it beside the copies `kept`, or it was ended.

        Raises OSError if it could not be copied whole.
        """
        copy, about = self.root / file.relative_to(below), file.stat()
        if copy.exists() and not self._note_of(copy).exists():
            return None  # somebody else's file
        if not self._make_room(about.st_size, {*kept, copy}):
            log.info("no room for a copy of %s in MODEL_CACHE_DIR (MODEL_CACHE_GB)", file.name)
            return None
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f"{copy.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as target:
                for piece in pieces(file, about.st_size, is_over):
                    target.write(piece)
            if is_over.is_set():
                return None
            after = file.stat()
            if partial.stat().st_size != about.st_size or (after.st_size, after.st_mtime_ns) != (
                about.st_size,
                about.st_mtime_ns,
            ):
                raise OSError("the file changed while it was copied")
            os.utime(partial, ns=(time.time_ns(), about.st_mtime_ns))
            note = self._note_of(copy)
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps({"original": str(file)}), encoding="utf-8")
            partial.replace(copy)
            return copy
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, size: int, kept: Collection[Path]) -> bool:
        """Remove copies until there is room; none if there cannot be."""
        copies = [(copy.stat(), note, copy) for note, copy, _ in self._notes() if copy.is_file()]
        removable = sorted((told.st_atime_ns, note, copy) for told, note, copy in copies if copy not in kept)
        self.root.mkdir(parents=True, exist_ok=True)
        room = min(self.limit - sum(told.st_size for told, _, _ in copies), shutil.disk_usage(self.root).free - 1)
        if room + sum(copy.stat().st_size for _, _, copy in removable) < size:
            return False
        for _, note, copy in removable:
            if room >= size:
                break
            room += copy.stat().st_size
            copy.unlink()
            note.unlink()
        return room >= size

    def _note_of(self, copy: Path) -> Path:
        return self.root / _NOTES / f"{copy.relative_to(self.root)}.json"

    def _notes(self) -> Iterator[tuple[Path, Path, Path]]:
        """(note, copy, original) of each copy."""
        for note in sorted((self.root / _NOTES).rglob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                original = Path(json.loads(note.read_text(encoding="utf-8"))["original"])
                yield note, self.root / note.relative_to(self.root / _NOTES).with_suffix(""), original


def local_cache(settings: Settings) -> LocalCache | None:
    """The cache that MODEL_CACHE_DIR names, None without one: in a folder of our own there."""
    if not settings.model_cache_dir:
        return None
    root = Path(settings.model_cache_dir).expanduser().absolute() / _OWN_FOLDER
    return LocalCache(root, int(settings.model_cache * _GIGABYTE))


def _is_same(copy: Path, original: Path) -> bool:
    with contextlib.suppress(OSError):
        one, other = copy.stat(), original.stat()
        return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
    return False
