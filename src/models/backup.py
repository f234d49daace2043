"""A folder of models and a bucket, made the same: what is to be done first, then done.

Only what differs is moved. Files are the same if size and SHA-256 are; a stored file that has no digest counts as the
same by its size. Nothing that somebody has is replaced or removed unless that was asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import ModelCorrupt, ModelFetchFailed
from .files import check_digest, digest_of, keep_digest, what_is_wrong
from .locks import locked
from .manifest import Model
from .meter import Meter, shown
from .store import ModelStore
from .transfer import Check, disk_errors, download, parts_of

log = logging.getLogger(__name__)

_AT_A_TIME = 8
_LEFTOVERS = (".partial", ".partial.parts", ".lock")
_STAGING = ".hub"


@dataclass(frozen=True)
class Step:
    """One file that is to be moved; `replaces` one that differs."""

    key: str
    size: int
    replaces: bool


@dataclass(frozen=True)
class Mirror:
    """A folder and the bucket that is its backup."""

    root: Path
    store: ModelStore

    # --- What differs ----------------------------------------------------------------------------------

    def to_back_up(self, check: Check) -> list[Step]:
        """The files that the bucket lacks, or has otherwise. Reads what has not been digested before."""
        stored = self.store.sizes()
        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="compare") as pool:
            steps = pool.map(lambda key: self._step(key, stored, check), list(files_below(self.root)))
            return [step for step in steps if step is not None]

    def _step(self, key: str, stored: dict[str, int], check: Check) -> Step | None:
        check()
        size = (self.root / key).stat().st_size
        if key not in stored:
            return Step(key, size, replaces=False)
        is_same = stored[key] == size and self._has_same_digest(key, check)
        return None if is_same else Step(key, size, replaces=True)

    def to_restore(self, check: Check, only: Sequence[Model] | None = None) -> list[Step]:
        """The files that the folder lacks, or has otherwise: all that are stored, or those of some models.

        Raises ModelFetchFailed for keys that lead out of the folder.
        """
        stored = self.store.sizes()
        for key in stored:
            _check_key(key)
        if only is not None:
            names = {model.file for model in only}
            stored = {key: size for key, size in stored.items() if PurePosixPath(key).name in names}
        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="compare") as pool:
            steps = pool.map(lambda key: self._step_back(key, stored[key], check), sorted(stored))
            return [step for step in steps if step is not None]

    def _step_back(self, key: str, size: int, check: Check) -> Step | None:
        check()
        file = self.root / key
        if not file.is_file():
            return Step(key, size, replaces=False)
        is_same = file.stat().st_size == size and self._has_same_digest(key, check)
        return None if is_same else Step(key, size, replaces=True)

    def _has_same_digest(self, key: str, check: Check) -> bool:
        stored = self.store.look(key)
        if stored is None:
            return False
        return stored.sha256 is None or stored.sha256 == digest_of(self.root / key, self.root, check)

    def only_stored(self) -> dict[str, int]:
        """Key to size of what the bucket has and the folder does not."""
        there = set(files_below(self.root))
        return {key: size for key, size in self.store.sizes().items() if key not in there}

    # --- Doing it --------------------------------------------------------------------------------------

    def back_up(self, steps: Sequence[Step], check: Check) -> list[str]:
        """Store the files; what could not be stored, a sentence each. A file that is broken is not stored."""
        failures = []
        with shown(Meter("backup", sum(step.size for step in steps))) as meter:
            for step in steps:
                check()
                file = self.root / step.key
                try:
                    wrong = what_is_wrong(file) if step.size else ""
                    if wrong:
                        raise ModelCorrupt(f"{step.key}: {wrong}")
                    self.store.upload(file, step.key, digest_of(file, self.root, check), check, meter.count)
                except ModelCorrupt as error:
                    failures.append(error.message)
        return failures

    def restore(self, steps: Sequence[Step], check: Check, stall_seconds: float) -> list[str]:
        """Bring the files back, each checked; what could not be brought, a sentence each."""
        failures = []
        with shown(Meter("restore", sum(step.size for step in steps))) as meter:
            for step in steps:
                check()
                try:
                    self._bring_back(step, check, meter, stall_seconds)
                except ModelCorrupt as error:
                    failures.append(error.message)
        return failures

    def _bring_back(self, step: Step, check: Check, meter: Meter, stall_seconds: float) -> None:
        target = self.root / step.key
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if not step.size:
                target.touch()
                return
            with locked(target.with_name(f"{target.name}.lock"), check):
                path, digest, facts = download(
                    self.store.remote(step.key), target, check, meter.count, stall_seconds=stall_seconds
                )
                check_digest(target, digest, facts.sha256)
                path.replace(target)
                parts_of(target).unlink(missing_ok=True)
                keep_digest(target, self.root, digest)


def files_below(root: Path) -> Iterator[str]:
    """The paths below a folder of all files but our own notes and leftovers; each folder once, links followed."""
    for path in _walk(root, {root.resolve()}):
        if not is_leftover(path):
            yield path.relative_to(root).as_posix()


def leftovers_below(root: Path) -> list[Path]:
    """What downloads that were killed have left."""
    return [path for path in _walk(root, {root.resolve()}) if is_leftover(path)]


def is_leftover(path: Path) -> bool:
    """Whether a file is what a download needs only while it runs."""
    return path.name.endswith(_LEFTOVERS) or any(part.endswith(_STAGING) for part in path.parent.parts[-2:])


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            real = path.resolve()
            if real not in seen:  # a link to a folder that it is in would have no end
                seen.add(real)
                yield from _walk(path, seen)
        elif path.is_file():
            yield path


def _check_key(key: str) -> None:
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or {"..", "."} & set(parts) or "\0" in key or "\\" in key:
        raise ModelFetchFailed(
            f"the bucket has the key {key[:200]!r}, which leads out of the folder: nothing is restored"
        )
