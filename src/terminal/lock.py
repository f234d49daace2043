"""The option `--lock` of `python -m src.workflow needs`: node packs and models at exact versions, for an image."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .. import REPOSITORY
from ..errors import InvalidManifest, ModelRefused, WorkerError
from ..models.job_models import JobModels
from ..models.manifest import Model, read_manifest, shipped_manifest
from ..models.provisioning import ModelProvisioner
from ..needs import Needs
from ..packs.lock import LockedPack, PackLocker, Target, image_target, merged
from ..packs.registry import Registry
from ..settings import Settings
from ..storage.web import FetchRules
from .need_models import model_of

_DOCKER = REPOSITORY / "docker"
_SET = "workflow"


def lock(
    found: Sequence[Needs],
    settings: Settings,
    into: Path | None,
    models_into: Path | None,
    libraries: Sequence[str] = (),
) -> int:
    """Lock what the files need; entries go into the lock file, and their names are printed, or they are printed.

    With `models_into` their models go into that manifest, as the set `workflow`. `libraries` (`name==version`) are
    taken where packs want them. The exit status: 0, or 1 if something cannot be locked; nothing is written then.
    """
    rules = FetchRules(settings.allow_http_urls, frozenset(settings.trusted_hosts))
    target = image_target(_DOCKER)
    preferred = _preferred(target, libraries)
    locker = PackLocker(Registry(settings.comfy_registry, rules), rules, sys.executable, target, preferred)
    packs, failures = locker.lock(found)
    models, more = _locked_models(found, settings) if models_into else ([], [])
    written: dict[Path, str] = {}
    try:
        if into is not None:
            written[into] = merged(into, packs)
        if models_into is not None:
            written[models_into] = _merged_models(models_into, models)
    except WorkerError as error:
        more = [*more, error.message]
    for failure in (*failures, *more):
        print(failure, file=sys.stderr)
    if failures or more:
        return 1
    for file, content in written.items():
        file.write_text(content, encoding="utf-8")
    _show_packs(packs, into)
    return 0


def _preferred(target: Target, libraries: Sequence[str]) -> tuple[str, ...]:
    """Of these libraries those that the image does not have."""
    there = {line.partition("==")[0].lower() for line in target.known}
    return tuple(line for line in libraries if line.partition("==")[0].lower() not in there and "+" not in line)


def _show_packs(packs: Sequence[LockedPack], into: Path | None) -> None:
    for pack in packs:
        source = pack.registry or f"{pack.repository}@{pack.commit}"
        print(f"{pack.name}: {source}. {pack.state}", file=sys.stderr)
    if into is None:
        print(json.dumps([pack.as_entry() for pack in packs], indent=2, ensure_ascii=False))
        return
    print(",".join(pack.name for pack in packs))


# --- Models -----------------------------------------------------------------------------------------------


def _locked_models(found: Sequence[Needs], settings: Settings) -> tuple[list[Model], list[str]]:
    """The models that files need, pinned by what their sources say, and what cannot be, a sentence each."""
    locked, failures = dict[tuple[str, str], Model](), list[str]()
    with TemporaryDirectory() as nowhere:
        job = ModelProvisioner.make(replace(settings, download_models=True), Path(nowhere)).for_job()
        for need in (need for needs in found for need in needs.models if need.is_needed):
            try:
                model = _pinned(job, model_of(job, need))
                locked[model.folder, model.file] = model
            except WorkerError as error:
                failures.append(error.message)
    return list(locked.values()), failures


def _pinned(job: JobModels, model: Model) -> Model:
    """The model with its size and digest. Raises ModelRefused, ModelFetchFailed."""
    if not model.is_pinned:
        (model,) = job.fetcher.sized([model], lambda: None)
    if not model.is_pinned:
        raise ModelRefused(f"{model.folder}/{model.file}: its SHA-256 is not known, so it cannot be locked")
    return model


def _merged_models(manifest: Path, models: Iterable[Model]) -> str:
    """A manifest of one's own with models, and the set of them, in place of those with their names.

    Raises InvalidManifest.
    """
    try:
        content: Any = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidManifest(f"{manifest.name} cannot be read as JSON") from error
    read_manifest(content, shipped_manifest())
    entries = list(_entries(models))
    names = {entry["name"] for entry in entries}
    kept = [entry for entry in content.get("models", []) if entry["name"] not in names]
    content = {"models": [*kept, *entries], "sets": {**content.get("sets", {}), _SET: sorted(names)}}
    read_manifest(content, shipped_manifest())
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _entries(models: Iterable[Model]) -> Iterator[dict[str, Any]]:
    for model in models:
        entry = model.model_dump(exclude_none=True, exclude_defaults=True)
        source = entry["source"]
        if len(str(source.get("revision", ""))) != 40:  # a branch, which the digest pins
            source.pop("revision", None)
        yield {**entry, "commercial_ok": model.commercial_ok}
