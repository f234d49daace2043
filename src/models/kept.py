"""Models that were fetched for jobs onto a container disk: those used longest ago go when there is no room.

On a network volume everything stays for the next worker. What MODELS names, and what others have put there, is never
removed. A note, an empty file below the folder of digests, stands for each of them; its mtime is the last use.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .files import DIGESTS_FOLDER
from .partial import RESERVED_BYTES, discard, is_in_use

log = logging.getLogger(__name__)

_NOTES_FOLDER = Path(DIGESTS_FOLDER, ".for-jobs")


@dataclass(frozen=True)
class KeptModels:
    """Models below `root`, at most `limit` bytes (0: as many as there is room for). Not `may_remove`: all stay.

    `protected` are those that MODELS names.
    """

    root: Path
    limit: int
    may_remove: bool
    protected: Collection[Path] = ()

    def add(self, paths: Iterable[Path]) -> None:
        """Note models that were fetched for a job."""
        if self.may_remove:
            for path in (path for path in paths if path.is_file() and path not in self.protected):
                with contextlib.suppress(OSError, ValueError):
                    note = self._note_of(path)
                    note.parent.mkdir(parents=True, exist_ok=True)
                    note.touch()

    def note_use(self, paths: Iterable[Path]) -> None:
        """Note that models are used now."""
        if self.may_remove and (self.root / _NOTES_FOLDER).is_dir():
            for path in paths:
                with contextlib.suppress(OSError, ValueError):
                    os.utime(self._note_of(path))

    def make_room(self, size: int, keep: Collection[Path] = ()) -> None:
        """Remove models, those used longest ago first, until `size` bytes more fit, or only those in `keep` are left.

        What cancelled downloads have left goes first.
        """
        if not self.may_remove:
            return
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self.root).free - RESERVED_BYTES < size:
                self._remove_partials()
            notes = [(note, path) for note, path in self._notes() if path not in self.protected and path not in keep]
            kept = sorted((note.stat().st_mtime_ns, note, path) for note, path in notes)
            used = sum(path.stat().st_size for _, _, path in kept)
            free = shutil.disk_usage(self.root).free - RESERVED_BYTES
            for _, note, path in kept:
                if free >= size and (not self.limit or used + size <= self.limit):
                    return
                bytes_there = path.stat().st_size
                path.unlink()
                note.unlink()
                used, free = used - bytes_there, free + bytes_there
                log.info("removed %s to make room for the models of a job", path.name)

    def _remove_partials(self) -> None:
        for parts in self.root.rglob("*.partial.parts"):
            target = parts.with_name(parts.name.removesuffix(".partial.parts"))
            if not is_in_use(target):
                discard(target)

    def _note_of(self, path: Path) -> Path:
        return self.root / _NOTES_FOLDER / path.relative_to(self.root)

    def _notes(self) -> Iterator[tuple[Path, Path]]:
        """Each note and its model; the notes of models that are gone are removed."""
        folder = self.root / _NOTES_FOLDER
        for note in sorted(folder.rglob("*")):
            path = self.root / note.relative_to(folder)
            if note.is_file() and path.is_file():
                yield note, path
            elif note.is_file():
                note.unlink()
