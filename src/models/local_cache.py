"""Copies of models on a fast disk, up to a limit in bytes; the least recently used are removed first.

Only files that this module recorded as its copies are ever removed. ComfyUI looks here first, so copies whose original
has changed or is gone must be removed before ComfyUI starts.
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
from .chunks import read_chunks

log = logging.getLogger(__name__)

_OWN_FOLDER = "comfyui-worker-copies"
_RECORDS_FOLDER = ".originals"
_GIGABYTE = 1e9


@dataclass(frozen=True)
class LocalCache:
    """Copies below `root`, in ComfyUI's folders, at most `limit` bytes."""

    root: Path
    limit: int

    def tidy(self) -> None:
        """Remove copies whose original has changed or is gone."""
        for record, copy, original in self._records():
            if not _is_same(copy, original):
                with contextlib.suppress(OSError):
                    copy.unlink(missing_ok=True)
                    record.unlink(missing_ok=True)

    def copy_of(self, file: Path, below: Path) -> Path | None:
        """The copy of a file in the root `below`, None if there is none. Its time of last use becomes now."""
        copy = self.root / file.relative_to(below)
        if not _is_same(copy, file):
            return None
        os.utime(copy, ns=(time.time_ns(), copy.stat().st_mtime_ns))
        return copy

    def add(self, file: Path, below: Path, keep: Collection[Path], stop: Event) -> Path | None:
        """Copy a file; the copy, or None if it does not fit along with the copies in `keep`, or `stop` was set.

        Raises OSError if it could not be copied completely.
        """
        copy, before = self.root / file.relative_to(below), file.stat()
        if copy.exists() and not self._record_of(copy).exists():
            return None  # not a copy of ours
        if not self._free_space(before.st_size, {*keep, copy}):
            log.info("no room for a copy of %s in MODEL_CACHE_DIR (MODEL_CACHE_GB)", file.name)
            return None
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f"{copy.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as target:
                for chunk in read_chunks(file, before.st_size, stop):
                    target.write(chunk)
            if stop.is_set():
                return None
            after = file.stat()
            if partial.stat().st_size != before.st_size or (after.st_size, after.st_mtime_ns) != (
                before.st_size,
                before.st_mtime_ns,
            ):
                raise OSError("the file changed while it was copied")
            os.utime(partial, ns=(time.time_ns(), before.st_mtime_ns))
            record = self._record_of(copy)
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"original": str(file)}), encoding="utf-8")
            partial.replace(copy)
            return copy
        finally:
            partial.unlink(missing_ok=True)

    def _free_space(self, size: int, keep: Collection[Path]) -> bool:
        """Remove copies until `size` bytes are free, or none if that is impossible; whether they are free."""
        copies = [(copy.stat(), record, copy) for record, copy, _ in self._records() if copy.is_file()]
        removable = sorted((status.st_atime_ns, record, copy) for status, record, copy in copies if copy not in keep)
        self.root.mkdir(parents=True, exist_ok=True)
        free = min(self.limit - sum(status.st_size for status, _, _ in copies), shutil.disk_usage(self.root).free - 1)
        if free + sum(copy.stat().st_size for _, _, copy in removable) < size:
            return False
        for _, record, copy in removable:
            if free >= size:
                break
            free += copy.stat().st_size
            copy.unlink()
            record.unlink()
        return free >= size

    def _record_of(self, copy: Path) -> Path:
        return self.root / _RECORDS_FOLDER / f"{copy.relative_to(self.root)}.json"

    def _records(self) -> Iterator[tuple[Path, Path, Path]]:
        """(record, copy, original) of each copy."""
        for record in sorted((self.root / _RECORDS_FOLDER).rglob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                original = Path(json.loads(record.read_text(encoding="utf-8"))["original"])
                yield record, self.root / record.relative_to(self.root / _RECORDS_FOLDER).with_suffix(""), original


def local_cache(settings: Settings) -> LocalCache | None:
    """The cache in a subfolder of MODEL_CACHE_DIR, None if that is not set."""
    if not settings.model_cache_dir:
        return None
    root = Path(settings.model_cache_dir).expanduser().absolute() / _OWN_FOLDER
    return LocalCache(root, int(settings.model_cache * _GIGABYTE))


def _is_same(copy: Path, original: Path) -> bool:
    with contextlib.suppress(OSError):
        one, other = copy.stat(), original.stat()
        return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
    return False
