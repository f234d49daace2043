"""Models fetched: from the bucket if it has them, else from where the manifest says; checked; put in their place."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from ..errors import BucketFailed, ModelCorrupt, ModelFetchFailed, NoSpaceForModels, WorkerError
from ..safe_fetch import FetchRules
from .files import check_digest, digest_of, keep_digest, what_is_wrong
from .hub import Hub
from .locks import locked
from .manifest import Manifest, Model
from .meter import Meter, shown
from .places import Places, folders_for
from .store import ModelStore
from .transfer import PART, Check, Facts, Remote, SourceBroke, discard, disk_errors, download, partial_of, parts_of
from .web import WebFile

log = logging.getLogger(__name__)

_AT_A_TIME = 2
_SPARE_BYTES = 200_000_000  # that are to stay free beside the models


@dataclass(frozen=True)
class Fetcher:
    """Fetches models into `places.target`. May be used from several threads."""

    places: Places
    manifest: Manifest
    hub: Hub
    rules: FetchRules
    store: ModelStore | None = None
    stall_seconds: float = 60.0
    xet_from: int = 32 << 20
    """Bytes from which on a file is worth the library's process."""
    part: int = PART

    def missing(self, models: Iterable[Model]) -> list[Model]:
        """Those that are in none of the places."""
        return [model for model in models if self.places.find(model) is None]

    def fetch(self, models: Sequence[Model], check: Check) -> None:
        """See to it that all models are there; largest first, two at a time.

        `check` raises if nobody waits any more. Raises ModelFetchFailed and its kin: the first, after the others have
        been tried.
        """
        missing = sorted(self.missing(models), key=lambda model: -(model.size or 0))
        if not missing:
            return
        self._check_clashes(missing)
        self._check_space(missing)
        for model in missing:
            log.info("fetching %s/%s: %s", model.folder, model.file, model.about)
        meter = Meter("models", sum(model.size or 0 for model in missing))
        is_over = Event()

        def check_all() -> None:
            if is_over.is_set():
                raise ModelFetchFailed("ended")
            check()

        with shown(meter), ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="fetch") as pool:
            try:
                outcomes = list(pool.map(lambda model: self._outcome(model, check_all, meter), missing))
            except BaseException:  # Ctrl-C: the threads are waited for
                is_over.set()
                raise
        failures = [failure for failure in outcomes if failure is not None]
        if failures:
            raise failures[0]
        log.info("%s", meter.line())

    def _outcome(self, model: Model, check: Check, meter: Meter) -> WorkerError | None:
        try:
            self._fetch_one(model, check, meter)
        except WorkerError as error:
            log.warning("%s: %s", error.error_code, error)
            return error
        return None

    def _fetch_one(self, model: Model, check: Check, meter: Meter) -> None:
        check()
        target = self.places.target_of(model)
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.with_name(f"{target.name}.lock"), check):
                if self.places.find(model) is not None:  # another worker has brought it
                    meter.already(model.size or 0)
                else:
                    self._bring(model, target, check, meter)

    def _bring(self, model: Model, target: Path, check: Check, meter: Meter) -> None:
        """From the first source that has it."""
        stored = self._stored(model)
        if stored is not None:
            try:
                self._from(stored, model, target, check, meter)
                return
            except (ModelFetchFailed, BucketFailed) as error:
                if isinstance(error, NoSpaceForModels) or model.source.key:
                    raise
                log.warning("%s; so it is fetched from where it was published", error)
        remote = self._published(model)
        try:
            self._by_xet_or_ranges(remote, model, target, check, meter)
        finally:
            remote.close()

    def _by_xet_or_ranges(self, remote: WebFile, model: Model, target: Path, check: Check, meter: Meter) -> None:
        if self._is_for_xet(model, remote, target):
            try:
                path = self.hub.download(model.source, target, check, meter.count, self.stall_seconds)
                facts = _facts(remote)
                self._accept(model, path, digest_of(path, target.parent, check), facts, target)
                return
            except NoSpaceForModels:
                raise
            except ModelFetchFailed as error:
                log.warning("%s; so it is fetched without Xet", error)
        self._from(remote, model, target, check, meter)

    def _from(self, remote: Remote, model: Model, target: Path, check: Check, meter: Meter) -> None:
        """By ranges. What an earlier process has begun and what is found to be wrong then, is begun anew once."""
        was_begun = parts_of(target).exists()
        came = 0

        def count(more: int) -> None:
            nonlocal came
            came += more
            meter.count(more)

        try:
            path, digest, facts = download(
                remote, target, check, count, size=model.size, stall_seconds=self.stall_seconds, part=self.part
            )
            self._accept(model, path, digest, facts, target)
        except ModelCorrupt as error:
            discard(target)
            meter.count(-came)
            if not was_begun:
                raise
            log.warning("%s; begun anew", error)
            self._from(remote, model, target, check, meter)
        except ModelFetchFailed:
            meter.count(-came)
            raise

    def _accept(self, model: Model, path: Path, digest: str, facts: Facts | None, target: Path) -> None:
        """Check what came, and give it its name."""
        wrong = what_is_wrong(path, target.suffix)
        if wrong:
            raise ModelCorrupt(f"{target.name}: {wrong}")
        check_digest(target, digest, model.sha256 or (facts.sha256 if facts else None))
        with disk_errors(target):
            path.replace(target)
        parts_of(target).unlink(missing_ok=True)
        keep_digest(target, self.places.target, digest)

    # --- Sources ---------------------------------------------------------------------------------------

    def _stored(self, model: Model) -> Remote | None:
        """The model in the bucket: by its key, or because a backup has put it there."""
        if model.source.key:
            if self.store is None:
                raise ModelFetchFailed(
                    f"{model.file} is in the bucket of models, and none is set: set R2_ENDPOINT, R2_ACCESS_KEY_ID and "
                    "R2_SECRET_ACCESS_KEY"
                )
            return self.store.remote(model.source.key)
        if self.store is None:
            return None
        try:
            for folder in folders_for(model.folder):
                found = self.store.look(f"{folder}/{model.file}")
                same = found is not None and (model.size is None or found.size == model.size)
                if found and same and (model.sha256 is None or found.sha256 in (None, model.sha256)):
                    return self.store.remote(found.key)
        except BucketFailed as error:
            log.warning("%s", error)
        return None

    def _published(self, model: Model) -> WebFile:
        if model.source.repository is None:
            return WebFile(str(model.source.url), model.file, self.rules, is_page=model.file.endswith(".html"))
        url = self.hub.url(model.source)
        return WebFile(url, model.file, self.rules, self.hub.token, self._how_to_open(model))

    def _how_to_open(self, model: Model) -> str:
        """What to do about a refusal of the hub."""
        page = self.hub.page(model.source)
        first = (
            f"accept its licence at {page} with the account that HF_TOKEN is of"
            if self.hub.token
            else f"accept its licence at {page}, and set HF_TOKEN to a token of that account"
        )
        if not model.instead:
            return f"Hugging Face refuses it: {first}"
        other = self.manifest.model(model.instead)
        return f"Hugging Face refuses it: {first}; or use {other.name} ({other.folder}/{other.file}), which needs none"

    def _is_for_xet(self, model: Model, remote: WebFile, target: Path) -> bool:
        """Whether the hub keeps it in Xet storage, and nothing of it came in ranges before."""
        if model.source.repository is None or parts_of(target).exists():
            return False
        facts = _facts(remote)
        return facts is not None and facts.size >= self.xet_from and "x-xet-hash" in remote.headers

    # --- Before anything is fetched --------------------------------------------------------------------

    def _check_clashes(self, models: Sequence[Model]) -> None:
        """Raise ModelFetchFailed if a place has another file already, which may be dear to somebody."""
        for model in models:
            target = self.places.target_of(model)
            if target.is_file() and not what_is_wrong(target):
                raise ModelFetchFailed(
                    f"{model.folder}/{model.file} is there, but is another file: it has {target.stat().st_size:,} "
                    f"bytes, and {model.name} has {model.size or 0:,}. Two models have that name: rename or remove "
                    "the one that is there"
                )

    def _check_space(self, models: Sequence[Model]) -> None:
        """Raise NoSpaceForModels if there will not be room for all."""
        folder = self.places.target
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        needed = sum((model.size or 0) - _taken(partial_of(self.places.target_of(model))) for model in models)
        if needed + _SPARE_BYTES > free:
            names = ", ".join(model.file for model in models)
            raise NoSpaceForModels(
                f"{names} need {(needed + _SPARE_BYTES) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: give the "
                "volume (or the container disk) more, or `python -m src.models prune`"
            )


def _facts(remote: WebFile) -> Facts | None:
    """What is known of a file, None if it cannot be told now: whoever reads it then will say why."""
    try:
        return remote.facts()
    except (SourceBroke, WorkerError):
        return None


def _taken(path: Path) -> int:
    """Bytes of the disk that a file takes, which may have holes."""
    return path.stat().st_blocks * 512 if path.is_file() else 0
