"""What a workflow needs: the editor's file says it of its nodes, our own catalog of the rest.

Newer editors write into `properties` of a node: `cnr_id` (the pack's id in ComfyUI's registry, `comfy-core` for
ComfyUI itself), `aux_id` (`owner/repository` on GitHub), `ver` (a version, or a commit), and for loaders `models`:
`[{"name", "url", "directory", "hash"?, "hash_type"?}]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..editor import is_editor_workflow, read_document, with_editor_numbers
from ..editor.document import Document, EditorNode
from ..editor.placing import VIRTUAL_CLASSES
from ..editor.widgets import widgets_of
from ..errors import InvalidWorkflow
from ..models.folders import MODEL_FILE, folder_of_input, kind_of
from ..models.manifest import Manifest
from ..workflow.checks import check_json, check_nodes
from ..workflow.core_classes import core_schemas
from ..workflow.leftovers import without_leftovers
from .facts import ModelNeed, Needs, PackNeed

_CORE = "comfy-core"
_VERSION = re.compile(r"v?(\d{1,6}(?:\.\d{1,6}){1,3})")
_MAX_NAME_LENGTH = 300


class _Node(NamedTuple):
    """A node of either format: `values` are its texts, by the name of the input where that is known."""

    id: str
    class_type: str
    properties: Mapping[str, Any]
    values: tuple[tuple[str, str], ...]
    runs: bool = True


def needs_of_workflow(name: str, content: object, manifest: Manifest) -> Needs:
    """What a workflow needs. `manifest` has the models that are known.

    Raises InvalidWorkflow, GuiFormatWorkflow for what is no workflow.
    """
    nodes = list(_nodes_of_editor(content) if is_editor_workflow(content) else _nodes_of_api(content))
    packs, open_classes = _packs(nodes)
    models = _models(nodes, manifest)
    versions = [str(node.properties.get("ver")) for node in nodes if node.properties.get("cnr_id") == _CORE]
    return Needs(
        name,
        max((v for v in versions if _VERSION.fullmatch(v)), key=_as_numbers, default=""),
        tuple(models),
        tuple(packs),
        tuple(dict.fromkeys(_inputs(nodes))),
        partner_classes=tuple(
            sorted({node.class_type for node in nodes if node.runs and _is_partner(node.class_type)})
        ),
        open_classes=tuple(name[:80] for name in open_classes),
    )


def saved_models(content: object) -> list[ModelNeed]:
    """The models of which a file of the editor says the sources, as far as its nodes run; none for anything else."""
    try:
        nodes = list(_nodes_of_editor(content)) if is_editor_workflow(content) else []
    except InvalidWorkflow:
        return []
    nothing = Manifest(models=(), sets={})
    return [model for node in nodes if node.runs for model in _saved_models(node, nothing)]


def _is_partner(class_type: str) -> bool:
    schema = core_schemas().get(class_type)
    return schema is not None and schema.is_partner


# --- Nodes of both formats --------------------------------------------------------------------------------


def _nodes_of_editor(content: Mapping[str, Any]) -> Iterator[_Node]:
    content = with_editor_numbers(content)
    check_json(content, "workflow")
    document = read_document(content)
    live = _live_subgraphs(document)
    for graph_id, graph in (("", document.root), *document.subgraphs.items()):
        for node in graph.nodes.values():
            if node.class_type not in VIRTUAL_CLASSES and node.class_type not in document.subgraphs:
                runs = node.is_active and (not graph_id or graph_id in live)
                yield _Node(node.id, node.class_type, node.properties, tuple(_named_values(node)), runs)


def _live_subgraphs(document: Document) -> set[str]:
    """The subgraphs of which a node that runs is one, directly or inside another."""
    live, waiting = set[str](), [document.root]
    while waiting:
        for node in waiting.pop().nodes.values():
            if node.is_active and node.class_type in document.subgraphs and node.class_type not in live:
                live.add(node.class_type)
                waiting.append(document.subgraphs[node.class_type])
    return live


def _named_values(node: EditorNode) -> Iterator[tuple[str, str]]:
    """The texts in a node's widgets, however deep, by the name of the widget where it is known."""
    schema = core_schemas().get(node.class_type)
    values: Iterable[tuple[str, Any]]
    if node.named is not None:
        values = node.named.items()
    elif isinstance(node.values, dict):
        values = node.values.items()
    elif schema is not None:
        names = [widget.name for widget in widgets_of(node.class_type, schema, node.values) if widget.is_saved]
        unnamed = [""] * max(0, len(node.values) - len(names))
        values = zip([*names, *unnamed], node.values, strict=False)
    else:
        values = (("", value) for value in node.values)
    for name, value in values:
        yield from ((name, text) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _nodes_of_api(content: object) -> Iterator[_Node]:
    workflow = check_nodes(without_leftovers(content)[0])
    for node_id, node in workflow.items():
        values = ((name, text) for name, value in node["inputs"].items() for text in _texts(value))
        yield _Node(node_id, node["class_type"], {}, tuple(values))


# --- Packs ------------------------------------------------------------------------------------------------


def _packs(nodes: Iterable[_Node]) -> tuple[list[PackNeed], list[str]]:
    """The packs, and the classes of which nothing says where they are from."""
    found: dict[tuple[str, str], list[_Node]] = {}
    unknown: dict[str, None] = {}
    for node in nodes:
        pack_id, repository = _text(node.properties, "cnr_id"), _repository(_text(node.properties, "aux_id"))
        if pack_id == _CORE or (not pack_id and not repository and node.class_type in core_schemas()):
            continue
        if pack_id or repository:
            found.setdefault((pack_id, repository), []).append(node)
        elif node.runs:
            unknown[node.class_type] = None
    packs = [
        PackNeed(
            pack_id,
            repository,
            tuple(sorted({version for node in members if (version := _text(node.properties, "ver"))})),
            tuple(sorted({node.class_type for node in members})),
            any(node.runs for node in members),
        )
        for (pack_id, repository), members in found.items()
    ]
    return packs, list(unknown)


def _repository(aux_id: str) -> str:
    """`owner/repository` as the URL that it means."""
    return f"https://github.com/{aux_id}" if re.fullmatch(r"[\w.-]+/[\w.-]+", aux_id) else ""


def _text(properties: Mapping[str, Any], name: str) -> str:
    value = properties.get(name)
    return value.strip()[:_MAX_NAME_LENGTH] if isinstance(value, str) else ""


def _as_numbers(version: str) -> tuple[int, ...]:
    match = _VERSION.fullmatch(version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


# --- Models -----------------------------------------------------------------------------------------------


def _models(nodes: list[_Node], manifest: Manifest) -> list[ModelNeed]:
    """The models that nodes name, each once: with the source that the file gives, else one of the catalog."""
    found: dict[tuple[str, str], ModelNeed] = {}
    for node in nodes:
        for entry in _saved_models(node, manifest):
            _add(found, entry)
    files = {need.file.rpartition("/")[2] for need in found.values()}
    for node in nodes:
        for name, text in node.values:
            path = text.replace("\\", "/").strip("/")
            is_model = len(text) <= _MAX_NAME_LENGTH and "\n" not in text and MODEL_FILE.search(text)
            if is_model and not text.startswith(("http:", "https:")) and path.rpartition("/")[2] not in files:
                _add(found, _known(path, folder_of_input(node.class_type, name), node, manifest))
    return list(found.values())


def _saved_models(node: _Node, manifest: Manifest) -> Iterator[ModelNeed]:
    """The models of which a node's file says the source, with what the catalog knows of the same file there."""
    entries = node.properties.get("models")
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping):
            continue
        file, url, folder = (_text(entry, part) for part in ("name", "url", "directory"))
        if not file or not folder:
            continue
        path, source = file.replace("\\", "/"), url.partition("?")[0] if url.startswith("https://") else ""
        digest = _text(entry, "hash").lower() if _text(entry, "hash_type").lower() == "sha256" else ""
        same = (m for m in manifest.find_by_path(path, folder) if _unpinned(m.source.page) == _unpinned(source))
        known = next(same, None)
        yield ModelNeed(
            kind_of(folder), path, (source,) if source else (), "file" if source else "unknown",
            digest or (known.sha256 or "" if known else ""), known.size if known else None,
            known.licence if known else "", (_shown(node),), node.runs,
        )  # fmt: skip


def _unpinned(url: str) -> str:
    """A URL of a file on Hugging Face whatever its revision, for comparing."""
    return re.sub(r"/resolve/[^/]+/", "/resolve/main/", url)


def _known(path: str, folder: str, node: _Node, manifest: Manifest) -> ModelNeed:
    """A model by its name, with what the catalog knows of it."""
    known = next(iter(manifest.find_by_path(path, folder)), None)
    if known is None:
        return ModelNeed(folder, path, nodes=(_shown(node),), is_needed=node.runs)
    return ModelNeed(
        folder or kind_of(known.folder), path, (known.source.page,), "catalog", known.sha256 or "", known.size,
        known.licence, (_shown(node),), node.runs,
    )  # fmt: skip


def _add(found: dict[tuple[str, str], ModelNeed], need: ModelNeed) -> None:
    """Put a need beside those of the same file: its sources and nodes after theirs."""
    key = (need.folder, need.file)
    before = found.get(key)
    if before is None:
        found[key] = need
        return
    found[key] = ModelNeed(
        *key,
        tuple(dict.fromkeys((*before.sources, *need.sources))),
        before.origin if before.origin != "unknown" else need.origin,
        before.sha256 or need.sha256,
        before.size or need.size,
        before.licence or need.licence,
        tuple(dict.fromkeys((*before.nodes, *need.nodes))),
        before.is_needed or need.is_needed,
    )


def _shown(node: _Node) -> str:
    return f"{node.id[:80]} ({node.class_type[:80]})"


# --- Files and open questions -----------------------------------------------------------------------------


def _inputs(nodes: Iterable[_Node]) -> Iterator[str]:
    """The files in ComfyUI's input folder that nodes name."""
    for node in nodes:
        schema = core_schemas().get(node.class_type)
        for name, text in node.values if schema is not None and node.runs else ():
            config = schema.inputs.get(name) if schema is not None else None
            is_name = "://" not in text and not text.startswith("data:")
            if config is not None and config.is_file and text and is_name:
                yield text.removesuffix(" [input]")[:_MAX_NAME_LENGTH]
