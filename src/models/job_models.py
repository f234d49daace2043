"""The models of one job: those that the worker knows, and those of which the job, or its saved workflow, says the URL.

What a job names is fetched only from the hosts of MODEL_HOSTS, only in formats that hold no code, and at most
MAX_JOB_MODEL_GB for one job. What the manifest has pinned goes before what a saved workflow says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from ..errors import InputFileRefused, MissingModel, ModelCorrupt, ModelFetchFailed, ModelRefused
from ..settings import Settings
from ..storage.web import checked_url
from .fetch import Fetcher
from .files import could_be, digest_of
from .folders import MODEL_FILE, folder_names, is_below, kind_of
from .kept import KeptModels
from .manifest import EXPECTED_FORMS, Manifest, Model, Source, UnpinnedModel, UnpinnedSource, where_to_get
from .transfer import Check

_SAFE_ENDINGS = (".safetensors", ".sft", ".gguf")
_MAX_MODELS = 50  # that one job may have fetched
_GIGABYTE = 1e9
_MAX_NAME_BYTES = 200  # file systems take 255, and a download adds an ending
_NAME = re.compile(r"[^\s/\\\x00-\x1f]([^/\\\x00-\x1f]{0,198}[^\s/\\\x00-\x1f])?")
_HUB = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_ON_HUB = re.compile(r"/([\w.-]+/[\w.-]+)/(?:resolve|blob)/([^/]+)/(.+)")


@dataclass(frozen=True)
class NamedModel:
    """A model of which a job says the URL. `folder` is ComfyUI's, `file` its path below that.

    `where` is its place in the job, for messages. `is_wanted`: the job itself asks for it, so it is fetched before the
    run; else its saved workflow names it, and it is fetched if the run turns out to miss it.
    """

    folder: str
    file: str
    url: str
    where: str
    sha256: str | None = None
    is_wanted: bool = True

    def is_meant_by(self, name: str, folder: str) -> bool:
        """Whether a workflow's name of a file, and its folder ("" if not known), mean this model."""
        path, own = PurePosixPath(name.replace("\\", "/")), PurePosixPath(self.file)
        has_same_name = path == own or (len(own.parts) == 1 and path.name == own.name)
        return has_same_name and (not folder or kind_of(folder) == kind_of(self.folder))


@dataclass(frozen=True)
class JobModels:
    """The models of one job. `saved` gives those that its saved workflow names. May be used from several threads."""

    settings: Settings
    manifest: Manifest
    fetcher: Fetcher
    kept: KeptModels
    wanted: Sequence[NamedModel] = ()
    saved: Callable[[], Sequence[NamedModel]] = field(default=lambda: ())
    _used: set[Path] = field(default_factory=set)
    _fetched: list[Model] = field(default_factory=list)

    # --- Before a run --------------------------------------------------------------------------------------

    def check_wanted(self) -> None:
        """Raise ModelRefused for a model that the job asks for and that cannot be one, or may not be fetched."""
        for named in self.wanted:
            self._check_place(named)
            if self._find(named) is None:
                self.as_model(named)

    def fetch_wanted(self, check: Check) -> None:
        """Fetch what the job itself asks for. Raises ModelRefused, ModelFetchFailed, and whatever `check` raises."""
        missing = []
        self.check_wanted()
        for named in self.wanted:
            path = self._find(named)
            if path is None:
                missing.append(self.as_model(named))
            elif named.sha256:
                _check_same(named, path, self.fetcher.places.roots, check)
        if missing:
            self._fetch(missing, check)

    def note_use(self, names: Iterable[str]) -> None:
        """Note that the job uses the models of these names: they stay while it runs, and are not the first to go."""
        self._used.update(path for name in names if (path := self.fetcher.places.locate(name)) is not None)
        self.kept.note_use(self._used)

    # --- What a run turns out to miss ----------------------------------------------------------------------

    def fetch_missing(self, error: MissingModel, check: Check) -> bool:
        """Fetch the models that a job lacks; whether the job may run again.

        `check` raises if the job may not wait any longer. Raises ModelFetchFailed and its subclasses.
        """
        missing = list(_missing(error))
        models = [model for name, folder in missing if (model := self.to_fetch(name, folder)) is not None]
        if not error.is_all or not missing or len(models) != len(missing):  # the job would fail anyway
            return False
        self._fetch(models, check)
        return True

    def to_fetch(self, name: str, folder: str) -> Model | None:
        """The model that would be fetched for a job that names that file for that kind of folder, None for none."""
        if not self.settings.download_models:
            return None
        known = self._known(name, folder)
        if known is not None and known.is_pinned:
            return known
        for named in self._named(name, folder):
            with contextlib.suppress(ModelRefused):
                return self.as_model(named)
        return known

    def describe(self, name: str, folder: str) -> dict[str, Any]:
        """An entry of `missing_models`: of a known model also where it is, how large, and its name here."""
        model = self._known(name, folder)
        if model is None:
            return {"name": name, "folder": folder}
        size = {"size": model.size} if model.size else {}
        return {"name": name, "folder": folder, "source": model.source.page, **size, "model": model.name}

    def explain(self, error: MissingModel) -> MissingModel:
        """The same error, its message and hints completed with where and how to get the models."""
        known: dict[str, Model] = {}
        lines, described = [error.message], []
        for name, folder in _missing(error):
            model = self._known(name, folder)
            described.append(self.describe(name, folder))
            error.hints.extend(where_to_get(name, self.manifest, folder))
            if model is not None:
                known[model.name] = model
                sets = " or ".join(self.manifest.sets_with(model.name))
                lines.append(
                    f"{model.file} ({model.about}){f' comes with the set {sets}' if sets else ' is known here'}"
                )
            else:
                lines.extend(filter(None, map(self._why_not, self._named(name, folder))))
        if known:
            setting = "MODELS" if self.settings.download_models else "DOWNLOAD_MODELS=true and MODELS"
            lines.append(f"To download them, set {setting}, or run `python -m src.models fetch {' '.join(known)}`")
        details = {**error.details, "missing_models": described}
        explained = MissingModel("\n".join(lines), error.is_all, **details)
        explained.hints = error.hints
        return explained

    def _why_not(self, named: NamedModel) -> str:
        """Why a model of which the saved workflow says the URL is not fetched; "" if it would be."""
        try:
            self.as_model(named)
        except ModelRefused as refusal:
            return refusal.message
        if self.settings.download_models:
            return ""
        return f"{named.where} has a URL for {named.file}: DOWNLOAD_MODELS=true allows the worker to download it"

    # --- Which models ----------------------------------------------------------------------------------------

    @cached_property
    def _saved(self) -> Sequence[NamedModel]:
        return self.saved()

    def _known(self, name: str, folder: str) -> Model | None:
        known = self.manifest.find_by_path(name, folder)
        return known[0] if known else None

    def _named(self, name: str, folder: str) -> Iterator[NamedModel]:
        """The models that a name of the workflow means, as files of that name."""
        for named in (*self.wanted, *self._saved):
            if named.is_meant_by(name, folder):
                yield replace(named, file=name.replace("\\", "/"))

    def _find(self, named: NamedModel) -> Path | None:
        found = self.fetcher.places.candidates(named.folder, named.file)
        return next((path for path in found if could_be(path, None)), None)

    def _check_place(self, named: NamedModel) -> None:
        """Raise ModelRefused if its folder, name or format is not one that a job may name."""
        if named.folder not in {name for kind, names in folder_names().items() for name in (kind, *names)}:
            raise ModelRefused(
                f"{named.where}: {named.folder[:80]!r} is not one of ComfyUI's model folders: "
                f"{', '.join(folder_names())}"
            )
        path = PurePosixPath(named.file)
        if not named.file.lower().endswith(_SAFE_ENDINGS):
            raise ModelRefused(
                f"{named.where}: {path.name[:80]!r} is not downloaded for a job: it must be one of "
                f"{', '.join(_SAFE_ENDINGS)}, which contain no code"
            )
        is_odd = any(MODEL_FILE.search(part) for part in path.parts[:-1]) or any(
            len(part.encode("utf-8", "replace")) > _MAX_NAME_BYTES for part in path.parts
        )
        if is_odd or not is_below(named.file) or not all(map(_NAME.fullmatch, path.parts)):
            raise ModelRefused(
                f"{named.where}: {named.file[:80]!r} is not valid: it must be a file name, optionally with "
                "subfolders, each of at most 200 bytes"
            )

    def as_model(self, named: NamedModel) -> Model:
        """What is to be fetched for it. Raises ModelRefused."""
        self._check_place(named)
        where, path = named.where, PurePosixPath(named.folder, named.file)
        source = self._source(named)
        if named.is_wanted and not self.settings.download_models:
            raise ModelRefused(f"{where}: this worker does not download models; DOWNLOAD_MODELS=true allows it")
        known = self._known(named.file, named.folder)
        if known is not None and known.is_pinned and not _is_same(known, source, named.sha256):
            raise ModelRefused(
                f"{where}: {path} is already the name of another model, {known.name}: rename yours, also in the "
                "workflow"
            )
        try:
            made = UnpinnedModel.make(str(path.parent), path.name, source, named.sha256, f"the page of {path.name}")
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False)[0]
            part = ".".join(str(step) for step in problem["loc"]) or "it"
            expected = EXPECTED_FORMS.get(part.rpartition(".")[2], problem["msg"].removeprefix("Value error, "))
            raise ModelRefused(f"{where}: {part} is not valid: {expected}") from error
        return known if known is not None and known.is_pinned else made

    def _source(self, named: NamedModel) -> UnpinnedSource:
        """Where a URL of a job leads. Raises ModelRefused for one that may not be reached."""
        fetcher = self.fetcher
        try:
            checked_url(named.url, fetcher.rules, named.where)
        except InputFileRefused as error:
            raise ModelRefused(error.message) from error
        parts = urlsplit(named.url)
        host, allowed = _host_of(named.url), {name.lower() for name in self.settings.model_hosts}
        is_hub = host in _HUB or host == _host_of(fetcher.hub.endpoint)
        if not (host in allowed or (is_hub and allowed & _HUB)):
            names = ", ".join(self.settings.model_hosts) or "none"
            raise ModelRefused(
                f"{named.where}: models are not downloaded from {host[:100]!r}; MODEL_HOSTS allows "
                f"these hosts: {names}"
            )
        on_hub = _ON_HUB.fullmatch(parts.path) if is_hub else None
        try:
            if on_hub is None:
                return UnpinnedSource(url=named.url)
            revision = None if on_hub[2] == "main" else on_hub[2]
            return UnpinnedSource(repository=on_hub[1], revision=revision, path=unquote(on_hub[3]))
        except ValidationError as error:
            raise ModelRefused(f"{named.where}: the URL cannot be used for a model") from error

    # --- Fetching --------------------------------------------------------------------------------------------

    def _fetch(self, models: Sequence[Model], check: Check) -> None:
        """Fetch models within the limits for one job; they are kept as long as there is room."""
        total_count = len(models) + len(self._fetched)
        if total_count > _MAX_MODELS:
            raise ModelFetchFailed(
                f"the job needs {total_count} missing models; at most {_MAX_MODELS} are downloaded for one job"
            )
        sized = self.fetcher.sized(models, check)
        empty = [model.file for model in sized if model.size == 0]
        if empty:
            raise ModelCorrupt(f"{', '.join(empty)} is empty at its source")
        needed = sum(model.size or 0 for model in sized)
        total = needed + sum(model.size or 0 for model in self._fetched)
        limit = int(self.settings.max_job_models * _GIGABYTE)
        if total > limit:
            raise ModelFetchFailed(
                f"the missing models of the job are {total / 1e9:.1f} GB; at most {limit / 1e9:g} GB are downloaded "
                "for one job (MAX_JOB_MODEL_GB)"
            )
        targets = [self.fetcher.places.target_of(model) for model in sized]
        self.kept.make_room(needed, {*self._used, *targets, *map(self.fetcher.places.target_of, self._fetched)})
        self._fetched.extend(sized)
        try:
            self.fetcher.fetch(sized, check)
        finally:
            self.kept.add(targets)


def _host_of(url: str) -> str:
    """The host of a URL, with its port if that is not the usual one."""
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return (parts.hostname or "") + (f":{parts.port}" if parts.port not in (None, usual) else "")


def _check_same(named: NamedModel, path: Path, roots: Sequence[Path], check: Check) -> None:
    """Raise ModelCorrupt if the file that is there is another than the job wants."""
    root = next((root for root in roots if path.is_relative_to(root)), path.parent)
    if digest_of(path, root, check) != named.sha256:
        raise ModelCorrupt(
            f"{named.where}: {named.folder}/{path.name} exists, but is not the expected file: its SHA-256 differs. "
            "Rename yours, also in the workflow"
        )


def _is_same(known: Model, source: Source, sha256: str | None) -> bool:
    """Whether a job means the file that is known: by its digest, or where it is from."""
    if sha256 and known.sha256:
        return sha256 == known.sha256
    place = (known.source.repository, known.source.path, known.source.url)
    return place == (source.repository, source.path, source.url)


def _missing(error: MissingModel) -> Iterator[tuple[str, str]]:
    """File name and folder (ComfyUI's name, or '') of each missing model."""
    models: Iterable[Mapping[str, Any]] = error.details.get("missing_models") or ()
    for model in models:
        yield str(model.get("name", "")), str(model.get("folder", ""))
