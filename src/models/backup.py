"""Backup of a folder of models to a bucket, and the way back: first the list of steps, then the transfers.

Only files that differ are transferred. Two files are the same if their sizes and SHA-256 digests are; for a stored
file without a digest, the size decides. Nothing is replaced or removed unless the user asked for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from ..errors import BucketFailed, ModelCorrupt, ModelFetchFailed, NoSpaceForModels
from .files import digest_of, what_is_wrong
from .folders import folder_names, folders_for
from .locks import locked
from .manifest import Model
from .meter import Meter, show_progress
from .partial import check_space, disk_errors, is_leftover, lock_of
from .store import ModelStore
from .transfer import Check, ExpectedFile, TransferLimits, download

log = logging.getLogger(__name__)

_PARALLEL_COMPARISONS = 8


@dataclass(frozen=True)
class Step:
    """One file to transfer; `replaces`: a different file of that name is there already."""

    key: str
    size: int
    replaces: bool


@dataclass(frozen=True)
class Mirror:
    """A folder and the bucket that is its backup. `excluded`: keys in the bucket that are not part of the backup."""

    root: Path
    store: ModelStore
    excluded: frozenset[str] = field(default_factory=frozenset)
    digests: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Key to the SHA-256 digests that the manifest has for it; only keys that the manifest knows."""

    # --- What differs ----------------------------------------------------------------------------------

    def to_back_up(self) -> list[Step]:
        """The files that are missing from the bucket, or differ there. Reads files whose digest is not cached.

        Raises ModelFetchFailed if the folder is not a folder of models.
        """
        check_models_folder(self.root)
        stored = self.store.sizes()

        def step(key: str, check: Check) -> Step | None:
            try:
                size = (self.root / key).stat().st_size
                if key not in stored:
                    return Step(key, size, replaces=False)
                is_same = stored[key] == size and self._has_same_digest(key, check)
            except OSError as error:
                log.warning("%s cannot be read (%s)", key, error.strerror)
                return None
            return None if is_same else Step(key, size, replaces=True)

        return _compare(step, (key for key in files_below(self.root) if key not in self.excluded))

    def to_restore(self, only: Sequence[Model] | None = None) -> list[Step]:
        """The files that are missing from the folder, or differ there: all stored ones, or those of `only`.

        Raises ModelFetchFailed for keys that lead out of the folder.
        """
        stored = self._stored()
        for key in stored:
            _check_key(key)
        if only is not None:
            requested = {f"{folder}/{model.file}" for model in only for folder in folders_for(model.folder)}
            stored = {key: size for key, size in stored.items() if key in requested}

        def step(key: str, check: Check) -> Step | None:
            file = self.root / key
            if not file.is_file():
                return Step(key, stored[key], replaces=False)
            is_same = file.stat().st_size == stored[key] and self._has_same_digest(key, check)
            return None if is_same else Step(key, stored[key], replaces=True)

        return _compare(step, sorted(stored))

    def _stored(self) -> dict[str, int]:
        return {key: size for key, size in self.store.sizes().items() if key not in self.excluded}

    def _has_same_digest(self, key: str, check: Check) -> bool:
        stored = self.store.head(key)
        if stored is None:
            return False
        return stored.sha256 is None or stored.sha256 == digest_of(self.root / key, self.root, check)

    def only_stored(self) -> dict[str, int]:
        """Key to size of the objects whose files are not in the folder.

        Raises ModelFetchFailed for a folder without any file: a volume that is not mounted is the likelier reason.
        """
        check_models_folder(self.root)
        local = set(files_below(self.root))
        if not local:
            raise ModelFetchFailed(f"{self.root} has no files: is the volume attached? Nothing is removed")
        return {key: size for key, size in self._stored().items() if key not in local}

    # --- Transfers -------------------------------------------------------------------------------------

    def back_up(self, steps: Sequence[Step]) -> list[str]:
        """Upload the files; returns a sentence for each failure. Corrupt files are not uploaded."""
        failures = []
        with show_progress(Meter("backup", sum(step.size for step in steps))) as meter:
            for step in steps:
                file = self.root / step.key
                try:
                    wrong = what_is_wrong(file) if step.size else ""
                    if wrong:
                        raise ModelCorrupt(f"{step.key}: {wrong}")
                    digest = digest_of(file, self.root)
                    self._check_against_manifest(step.key, digest)
                    self.store.upload(file, step.key, digest, _never_stop, meter.count)
                except ModelCorrupt as error:
                    failures.append(error.message)
                except OSError as error:
                    failures.append(f"{step.key} cannot be read ({error.strerror})")
        return failures

    def restore(self, steps: Sequence[Step], limits: TransferLimits) -> list[str]:
        """Download the files and check each; returns a sentence for each failure. Raises NoSpaceForModels."""
        failures = []
        check_space(self.root, [(self.root / step.key, step.size) for step in steps])
        with show_progress(Meter("restore", sum(step.size for step in steps))) as meter:
            for step in steps:
                try:
                    self._restore_one(step, meter, limits)
                except NoSpaceForModels:
                    raise
                except (ModelFetchFailed, BucketFailed) as error:
                    failures.append(f"{step.key}: {error.message}")
        return failures

    def _check_against_manifest(self, key: str, digest: str | None) -> None:
        """Raise ModelCorrupt if the manifest has another digest for that key."""
        known = self.digests.get(key)
        if known and digest is not None and digest not in known:
            raise ModelCorrupt(f"{key} is not the file in the manifest: its SHA-256 is {digest}")

    def _restore_one(self, step: Step, meter: Meter, limits: TransferLimits) -> None:
        target, stored = self.root / step.key, self.store.head(step.key)
        self._check_against_manifest(step.key, stored.sha256 if stored else None)
        known = self.digests.get(step.key, frozenset())
        digest = next(iter(known)) if len(known) == 1 else None  # for objects without a digest in their metadata
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if not step.size:
                target.write_bytes(b"")
                return
            with locked(lock_of(target), _never_stop):
                download(
                    self.store.remote(step.key),
                    ExpectedFile(target, self.root, step.size, digest),
                    _never_stop,
                    meter,
                    limits,
                )


def check_models_folder(folder: Path) -> None:
    """Raise ModelFetchFailed unless the folder contains one of ComfyUI's model folders."""
    known = {name for names in folder_names().values() for name in names}
    if any((folder / name).is_dir() for name in known):
        return
    if not folder.is_dir():
        raise ModelFetchFailed(f"there is no folder {folder}")
    inner = next((path for path in (folder / "models", folder / "ComfyUI" / "models") if path.is_dir()), None)
    hint = f"; did you mean {inner}?" if inner else ""
    raise ModelFetchFailed(f"{folder} is not a models folder: it has no checkpoints/, loras/, vae/ or similar{hint}")


def files_below(root: Path) -> list[str]:
    """The paths below `root` of all files but hidden ones and leftovers; follows links, each folder once."""
    return [path.as_posix() for path in _walk(root, root, {root.resolve()}) if not is_leftover(path)]


def leftovers_below(root: Path) -> list[Path]:
    """Files that killed downloads left behind."""
    return [root / path for path in _walk(root, root, {root.resolve()}) if is_leftover(path)]


def _walk(folder: Path, root: Path, seen: set[Path]) -> Iterator[Path]:
    """The files below `folder`, as paths relative to `root`; `seen` are the folders visited so far, links resolved."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") and not is_leftover(path.relative_to(root)):
            continue
        if path.is_dir():
            real = path.resolve()
            if real not in seen:  # a link to one of its parents would recurse for ever
                seen.add(real)
                yield from _walk(path, root, seen)
        elif path.is_file():
            yield path.relative_to(root)


def _compare(step: Callable[[str, Check], Step | None], keys: Iterable[str]) -> list[Step]:
    """The steps for those keys that need one; compares several files in parallel, and Ctrl-C stops it."""
    stop = Event()

    def check() -> None:
        if stop.is_set():
            raise ModelFetchFailed("ended")

    with ThreadPoolExecutor(_PARALLEL_COMPARISONS, thread_name_prefix="compare") as pool:
        try:
            return [found for found in pool.map(lambda key: step(key, check), list(keys)) if found is not None]
        except BaseException:  # the edge of an interrupt (Ctrl-C): stops the comparisons that still run
            stop.set()
            raise


def _check_key(key: str) -> None:
    parts = key.split("/")
    if {"", "..", "."} & set(parts) or "\0" in key or "\\" in key:
        raise ModelFetchFailed(f"the bucket has the key {key[:200]!r}, which leads out of the folder: nothing is done")


def _never_stop() -> None:
    """A check that never raises: only Ctrl-C stops a command."""
