"""Fetches models: from the bucket if it has them, else from the source in the manifest; checks and places them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from ..errors import BucketFailed, ModelFetchFailed, ModelGated, NoSpaceForModels, WorkerError
from ..storage.web import FetchRules
from .civitai import Civitai
from .files import digest_of, what_is_wrong
from .folders import folders_for
from .hub import Hub
from .locks import locked
from .manifest import Manifest, Model
from .meter import Meter, show_progress
from .partial import check_space, disk_errors, lock_of, parts_of
from .places import Places
from .store import ModelStore
from .transfer import Check, ExpectedFile, Remote, TransferLimits, download, fetch_info, finish_download
from .web import WebFile

log = logging.getLogger(__name__)

_PARALLEL_MODELS = 2
_PARALLEL_QUESTIONS = 8


@dataclass(frozen=True)
class Fetcher:
    """Fetches models into `places.target`. May be used from several threads."""

    places: Places
    manifest: Manifest
    hub: Hub
    rules: FetchRules
    store: ModelStore | None = None
    limits: TransferLimits = field(default_factory=TransferLimits)
    civitai: Civitai = field(default_factory=Civitai)
    min_xet_bytes: int = 32 << 20
    """Smaller files are not worth starting the child process with huggingface_hub."""

    def missing(self, models: Iterable[Model]) -> list[Model]:
        """Those that are not found in any folder of `places`."""
        return [model for model in models if self.places.find(model) is None]

    def sized(self, models: Sequence[Model], check: Check) -> list[Model]:
        """The same models with the sizes and digests that their sources say, where those are not known.

        Raises ModelFetchFailed or a subclass for a source that does not have its file, and whatever `check` raises.
        """
        with ThreadPoolExecutor(_PARALLEL_QUESTIONS, thread_name_prefix="source") as pool:
            return list(pool.map(lambda model: self._sized(model, check), models))

    def _sized(self, model: Model, check: Check) -> Model:
        check()
        if model.source.url and self.civitai.has(model.source.url):
            found = self.civitai.look_up(model.source.url, model.file)
            source = model.source.model_copy(update={"url": found.url})
            model = model.model_copy(update={"source": source, "sha256": model.sha256 or found.sha256})
        if model.size and model.is_pinned:
            return model
        remote = self._find_in_bucket(model) or self._published_file(model)
        try:
            info = fetch_info(remote, check, self.limits.stall_seconds)
        finally:
            remote.close()
        return model.model_copy(update={"size": model.size or info.size, "sha256": model.sha256 or info.sha256})

    def fetch(self, models: Sequence[Model], check: Check) -> None:
        """Fetch the models that are missing, largest first, two at a time.

        `check` raises to cancel. Raises ModelFetchFailed or a subclass: the first failure, once all models were tried.
        """
        with disk_errors(self.places.target):
            missing = sorted(self.missing(models), key=lambda model: -(model.size or 0))
            check_space(self.places.target, [(self.places.target_of(model), model.size or 0) for model in missing])
        if not missing:
            return
        for model in missing:
            log.info("fetching %s/%s: %s", model.folder, model.file, model.about)
        meter = Meter("models", sum(model.size or 0 for model in missing))
        stop = Event()

        def check_all() -> None:
            if stop.is_set():
                raise ModelFetchFailed("ended")
            check()

        with show_progress(meter), ThreadPoolExecutor(_PARALLEL_MODELS, thread_name_prefix="fetch") as pool:
            try:
                outcomes = list(pool.map(lambda model: self._try_fetch(model, check_all, meter), missing))
            except BaseException:  # the edge of an interrupt (Ctrl-C): stops the threads, which are joined
                stop.set()
                raise
        failures = [failure for failure in outcomes if failure is not None]
        failures.sort(key=lambda failure: isinstance(failure, ModelFetchFailed))  # a cancellation goes first
        for failure in failures[1:]:
            log.warning("%s: %s", failure.error_code, failure)
        if failures:
            raise failures[0]
        log.info("%s", meter.line())

    def _try_fetch(self, model: Model, check: Check, meter: Meter) -> WorkerError | None:
        try:
            self._fetch_one(model, check, meter)
        except WorkerError as error:
            return error
        return None

    def _fetch_one(self, model: Model, check: Check, meter: Meter) -> None:
        check()
        target = self.places.target_of(model)
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(lock_of(target), check):
                if self.places.find(model) is not None:  # another worker has fetched it meanwhile
                    meter.count_existing(model.size or 0)
                    return
                _check_clash(model, target)
                self._download(model, target, check, meter)

    def _download(self, model: Model, target: Path, check: Check, meter: Meter) -> None:
        """Download it from the first source that has it."""
        expected = ExpectedFile(target, self.places.target, model.size, model.sha256)
        stored = self._find_in_bucket(model)
        if stored is not None:
            try:
                download(stored, expected, check, meter, self.limits)
                return
            except (ModelFetchFailed, BucketFailed) as error:
                if isinstance(error, NoSpaceForModels) or model.source.key:
                    raise
                log.warning("%s; so it is fetched from where it was published", error)
        remote = self._published_file(model)
        try:
            if not self._try_xet(remote, model, expected, check, meter):
                download(remote, expected, check, meter, self.limits)
        finally:
            remote.close()

    def _try_xet(self, remote: WebFile, model: Model, expected: ExpectedFile, check: Check, meter: Meter) -> bool:
        """Download by Xet if the hub keeps the file there and no download in ranges was begun; whether that succeeded.

        After a failure the caller falls back to ranges.
        """
        if model.source.repository is None or parts_of(expected.target).exists():
            return False
        try:
            info = fetch_info(remote, check, self.limits.stall_seconds)
            if info.size < self.min_xet_bytes or "x-xet-hash" not in remote.headers:
                return False
            path = self.hub.download(model.source, expected.target, check, meter.count, self.limits.stall_seconds)
            finish_download(expected, digest_of(path, expected.target.parent, check, is_fresh=True), info)
        except (NoSpaceForModels, ModelGated):
            raise
        except ModelFetchFailed as error:
            log.warning("%s; so it is fetched in ranges", error)
            return False
        except BaseException:  # the edge of a cancellation: the next attempt uses ranges, which can be resumed
            parts_of(expected.target).touch()
            raise
        return True

    # --- Sources ---------------------------------------------------------------------------------------

    def _find_in_bucket(self, model: Model) -> Remote | None:
        """The model's object in the bucket, by its key in the manifest or as a backup stored it; None without one."""
        if model.source.key:
            if self.store is None:
                raise ModelFetchFailed(
                    f"{model.file} is in the models bucket, which is not configured: set R2_ENDPOINT, "
                    "R2_ACCESS_KEY_ID and "
                    "R2_SECRET_ACCESS_KEY"
                )
            return self.store.remote(model.source.key)
        if self.store is None:
            return None
        try:
            for folder in folders_for(model.folder):
                found = self.store.head(f"{folder}/{model.file}")
                has_same_size = found is not None and (model.size is None or found.size == model.size)
                if found and has_same_size and (model.sha256 is None or found.sha256 in (None, model.sha256)):
                    return self.store.remote(found.key)
        except BucketFailed as error:
            log.warning("%s", error)
        return None

    def _published_file(self, model: Model) -> WebFile:
        if model.source.url:
            return self._file_at(model.source.url, model.file)
        url = self.hub.url(model.source)
        return WebFile(url, model.file, self.rules, self.hub.token, self._access_hint(model))

    def _file_at(self, url: str, name: str) -> WebFile:
        """A file at a URL, with the token of its site."""
        if self.civitai.has(url):
            hint = "Civitai requires a login; set CIVITAI_TOKEN to the token of an account with access"
            return WebFile(url, name, self.rules, self.civitai.token, hint)
        token = self.hub.token if self.hub.has(url) else ""
        return WebFile(url, name, self.rules, token, is_page=name.endswith(".html"))

    def _access_hint(self, model: Model) -> str:
        """What the user can do about a 401 or 403 of the hub."""
        page = self.hub.page(model.source)
        first = (
            f"accept its licence at {page} with the account of HF_TOKEN"
            if self.hub.token
            else f"accept its licence at {page}, and set HF_TOKEN to a token of that account"
        )
        if not model.instead:
            return f"Hugging Face refuses it: {first}"
        other = self.manifest.model(model.instead)
        return (
            f"Hugging Face refuses it: {first}; or use {other.name} ({other.folder}/{other.file}), which is not gated"
        )


def _check_clash(model: Model, target: Path) -> None:
    """Raise ModelFetchFailed if another valid file has its path: the user may need that one."""
    if target.is_file() and not what_is_wrong(target):
        raise ModelFetchFailed(
            f"{model.folder}/{model.file} exists, but is a different file: it has {target.stat().st_size:,} bytes, "
            f"{model.name} has {model.size or 0:,}. Two models have that name: rename or remove the existing one"
        )
