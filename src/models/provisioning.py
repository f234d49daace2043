"""The models of a worker: those that its settings name are fetched while ComfyUI boots, others when jobs need them."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from ..errors import WorkerError
from ..settings import Settings
from ..storage.bucket import Bucket
from ..storage.web import FetchRules
from .catalog import known_manifest
from .civitai import Civitai
from .fetch import Fetcher
from .hub import Hub
from .job_models import JobModels, NamedModel
from .kept import KeptModels
from .local_cache import local_cache
from .manifest import Manifest, Model
from .places import VOLUMES, Places, find_places, link_fixed_folders
from .read_ahead import ReadAhead
from .store import ModelStore
from .transfer import TransferLimits

log = logging.getLogger(__name__)

_MODEL_FILE = re.compile(r"[^\0\n]{1,300}\.(safetensors|sft|ckpt|pt|pt2|pth|bin|gguf|onnx)", re.IGNORECASE)


@dataclass(frozen=True)
class ModelProvisioner:
    """The models of one worker; leaving the context stops what `start` began. May be used from several threads."""

    settings: Settings
    comfyui: Path
    manifest: Manifest
    fetcher: Fetcher
    _threads: dict[str, threading.Thread] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def make(settings: Settings, comfyui: Path) -> ModelProvisioner:
        """One for the ComfyUI checkout in that folder. Raises InvalidManifest, UnknownModelSet, InvalidSetting."""
        manifest = check_models(settings)
        fetcher = make_fetcher(settings, find_places(settings, comfyui), manifest)
        return ModelProvisioner(settings, comfyui, manifest, fetcher)

    @property
    def places(self) -> Places:
        """Where models are."""
        return self.fetcher.places

    # --- While the worker boots ------------------------------------------------------------------------

    def start(self, workflow: Mapping[str, Any] | None = None) -> None:
        """Start to fetch required models that are missing, and to read ahead those that are there; returns at once.

        Required are the models that MODELS names, and the files that `workflow` (the one of the warm-up) names.
        """
        names = list(model_names(workflow or {}))
        required = {model.name: model for model in self.manifest.expand(self.settings.models)}
        for name in names:
            known = self.manifest.find_by_path(name)
            if known and self.places.locate(name) is None:
                required[known[0].name] = known[0]
        present = [path for name in names if (path := self.places.locate(name))]
        present += [path for model in required.values() if (path := self.places.find(model))]
        cache = local_cache(self.settings)
        if cache is not None:
            cache.tidy()
        if self.settings.read_ahead:
            reader = ReadAhead(self.places.roots, cache, self._stop)
            self._start_thread("read-ahead", lambda: reader.read(present))
        self._start_thread("models", lambda: self._fetch(list(required.values())))

    def _start_thread(self, name: str, task: Callable[[], None]) -> None:
        thread = threading.Thread(target=task, daemon=True, name=name)
        self._threads[name] = thread
        thread.start()

    def wait(self) -> None:
        """Wait until the fetches of `start` are done; reading ahead may still go on."""
        if "models" in self._threads:
            self._threads["models"].join()

    def __enter__(self) -> ModelProvisioner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads.values():
            thread.join()

    def _fetch(self, models: Sequence[Model]) -> None:
        """Failures are only logged: the job that needs the model fetches it again, and reports the failure."""
        missing = self.fetcher.missing(models)
        if missing and not self.settings.download_models:
            names = ", ".join(f"{model.folder}/{model.file}" for model in missing)
            log.warning("models are missing: %s; set DOWNLOAD_MODELS=true to download them", names)
            return
        try:
            self.fetcher.fetch(missing, self._check)
            link_fixed_folders(self.comfyui, self.places.roots)
        except WorkerError as error:
            log.error("%s: %s; jobs that need it will retry", error.error_code, error)

    def _check(self) -> None:
        if self._stop.is_set():
            raise WorkerError("the worker ends")

    # --- For a job -------------------------------------------------------------------------------------

    def for_job(
        self, wanted: Sequence[NamedModel] = (), saved: Callable[[], Sequence[NamedModel]] = lambda: ()
    ) -> JobModels:
        """The models of a job, which itself asks for `wanted`, and whose saved workflow names `saved`."""
        target = self.places.target
        is_volume = any(target.is_relative_to(volume) for volume in VOLUMES)
        protected = {self.places.target_of(model) for model in self.manifest.expand(self.settings.models)}
        kept = KeptModels(target, self.settings.kept_models * 10**9, not is_volume, protected)
        return JobModels(self.settings, self.manifest, self.fetcher, kept, wanted, saved)


def check_models(settings: Settings) -> Manifest:
    """The manifest of the worker. Raises InvalidManifest; UnknownModelSet if MODELS names what it does not have."""
    manifest = known_manifest(settings)
    manifest.expand(settings.models)
    return manifest


def model_names(workflow: Mapping[str, Any]) -> Iterator[str]:
    """The names of the model files in a workflow, in the order of its nodes."""
    for node in workflow.values():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        for value in inputs.values() if isinstance(inputs, Mapping) else ():
            if isinstance(value, str) and _MODEL_FILE.fullmatch(value):
                yield value


def make_fetcher(settings: Settings, places: Places, manifest: Manifest) -> Fetcher:
    """The fetcher that the settings describe."""
    config = settings.models_bucket
    of_operator = {settings.hf_endpoint, settings.civitai_endpoint} - {Settings.hf_endpoint, Settings.civitai_endpoint}
    own = (urlsplit(endpoint).netloc.lower() for endpoint in of_operator)
    rules = FetchRules(settings.allow_http_urls, frozenset({*settings.trusted_hosts, *own}))
    return Fetcher(
        places,
        manifest,
        Hub(settings.hf_endpoint, settings.hf_token),
        rules,
        ModelStore(Bucket(config)) if config else None,
        TransferLimits(settings.download_stall_timeout),
        Civitai(settings.civitai_endpoint, settings.civitai_token, rules),
    )
