"""Lists of what an installation has: a snapshot of ComfyUI-Manager, and Comfy's own comfy-build.yaml.

A snapshot is `{"comfyui": commit, "git_custom_nodes": {url: {"hash", "disabled"}}, "cnr_custom_nodes": {id: version},
"file_custom_nodes": [{"filename", "disabled"}], "pips": {"name==version": ""}}`. A comfy-build.yaml (comfy-build/1)
has `baseComfyVersion`, `models` (`type`, `filename`, `sourceUri`, `sha256`), `customNodes` (`repository` and `gitRef`,
or `registryVersion`) and `pipDependencies`, at its top or below `definition`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..models.folders import kind_of
from .facts import ModelNeed, Needs, PackNeed

_OF_SNAPSHOT = frozenset({"git_custom_nodes", "cnr_custom_nodes", "file_custom_nodes"})
_OF_BUILD = frozenset({"baseComfyVersion", "customNodes"})
_MAX_LENGTH = 300


def is_list_of_needs(content: object) -> bool:
    """Whether it is a snapshot or a comfy-build.yaml, by its keys."""
    return isinstance(content, Mapping) and bool((_OF_SNAPSHOT | _OF_BUILD) & _definition(content).keys())


def read_list(name: str, content: Mapping[str, Any]) -> Needs:
    """What such a list says. An entry that says nothing of use is a question."""
    definition = _definition(content)
    packs = [*_packs_of_snapshot(definition), *_packs_of_build(definition)]
    models, questions = list[ModelNeed](), list[str]()
    for entry in _objects(definition.get("models")):
        model = _model(entry)
        if model is None:
            questions.append(f"a model without type and filename: {_text(entry, 'sourceUri') or 'nothing else'}")
        else:
            models.append(model)
    questions += [f"a single file with no known source: {file}" for file in _files(definition)]
    questions += ["a node pack with neither repository nor registry id" for pack in packs if not _is_named(pack)]
    return Needs(
        name,
        _text(definition, "baseComfyVersion") or _text(definition, "comfyui"),
        tuple(models),
        tuple(pack for pack in packs if _is_named(pack)),
        libraries=tuple(_libraries(definition)),
        questions=tuple(questions),
    )


def _definition(content: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = content.get("definition")
    return inner if isinstance(inner, Mapping) else content


def _packs_of_snapshot(content: Mapping[str, Any]) -> Iterator[PackNeed]:
    for url, entry in _items(content.get("git_custom_nodes")):
        is_on = not (isinstance(entry, Mapping) and entry.get("disabled"))
        commit = _text(entry, "hash") if isinstance(entry, Mapping) else ""
        yield PackNeed(repository=url[:_MAX_LENGTH].removesuffix(".git"), versions=_some(commit), is_needed=is_on)
    for pack_id, version in _items(content.get("cnr_custom_nodes")):
        yield PackNeed(pack_id[:_MAX_LENGTH], versions=_some(version if isinstance(version, str) else ""))


def _packs_of_build(content: Mapping[str, Any]) -> Iterator[PackNeed]:
    for entry in _objects(content.get("customNodes")):
        repository, version = _text(entry, "repository").removesuffix(".git"), _text(entry, "registryVersion")
        names = (_text(entry, part) for part in ("cnrId", "registryId", "id", "name"))
        pack_id = next(filter(None, names), "") if version or not repository else ""
        yield PackNeed(pack_id, repository, _some(version or _text(entry, "gitRef")))


def _model(entry: Mapping[str, Any]) -> ModelNeed | None:
    folder, file, source = (_text(entry, part) for part in ("type", "filename", "sourceUri"))
    if not folder or not file:
        return None
    sources = (source,) if source.startswith("https://") else ()
    digest = _text(entry, "sha256").lower()
    return ModelNeed(kind_of(folder), file, sources, "file" if sources else "unknown", digest)


def _files(content: Mapping[str, Any]) -> list[str]:
    found = _objects(content.get("file_custom_nodes"))
    return [_text(entry, "filename") for entry in found if not entry.get("disabled")]


def _libraries(content: Mapping[str, Any]) -> list[str]:
    text = content.get("pipDependencies")
    lines = text.splitlines() if isinstance(text, str) else [name for name, _ in _items(content.get("pips"))]
    return [line.strip()[:_MAX_LENGTH] for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _is_named(pack: PackNeed) -> bool:
    return bool(pack.id or pack.repository)


def _some(text: str) -> tuple[str, ...]:
    return (text[:_MAX_LENGTH],) if text else ()


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value.strip()[:_MAX_LENGTH] if isinstance(value, str) else ""


def _items(value: object) -> list[tuple[str, Any]]:
    return [(str(name), entry) for name, entry in value.items()] if isinstance(value, Mapping) else []


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
