"""Converts a file of the editor to the prompt that the editor would queue for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..workflow.graph import Link
from ..workflow.schemas import NodeSchema
from .app_mode import App, read_app
from .document import GROUP_NODE_PREFIXES, SUBGRAPH_ID, Document, EditorNode, refuse
from .links import FromPrimitive, LinkSources, PromotedWidget
from .packs import BROADCASTERS, WHILE_QUEUEING, is_broadcaster
from .placing import VIRTUAL_CLASSES, PlacedNode, place_nodes, variable_name
from .values import ConversionContext, Values, wrap_list
from .widgets import needs_browser

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_MAX_CLASSES, _MAX_WARNINGS = 300, 20


@dataclass(frozen=True)
class Converted:
    """A file in API format: `prompt` is `{node id: {"class_type", "inputs", "_meta": {"title"}}}`.

    `warnings` tell where the editor's versions differ and which of them was followed, and what the file has no values
    for. `app` is what the file's author chose for the editor's App Mode, None if nothing.
    """

    prompt: dict[str, Any]
    warnings: tuple[str, ...] = ()
    app: App | None = None


def class_types(document: Document) -> set[str]:
    """The node classes whose schemas are needed: all except those that only the editor knows."""
    found = {node.class_type for graph in document.graphs() for node in graph.nodes.values()}
    needed = found - VIRTUAL_CLASSES - document.subgraphs.keys()
    if len(needed) > _MAX_CLASSES:
        refuse(f"it has nodes of more than {_MAX_CLASSES} classes")
    return needed


def convert(
    document: Document,
    schemas: Mapping[str, NodeSchema | None],
    context: ConversionContext | None = None,
    check: Callable[[], None] = lambda: None,
) -> Converted:
    """The document in API format.

    `schemas` maps each class in it to its schema, None for a class that ComfyUI does not have. `check` raises if the
    conversion has to end. Raises GuiFormatWorkflow, with the node and the reason, for everything that cannot be
    converted reliably.
    """
    try:
        converted = _converted(document, schemas, context or ConversionContext(time.localtime()), check)
    except RecursionError:
        refuse("its links, subgraphs or texts are nested too deeply")
    if not converted.prompt:
        refuse("all of its nodes are muted, bypassed or notes")
    return converted


def _converted(
    document: Document,
    schemas: Mapping[str, NodeSchema | None],
    context: ConversionContext,
    check: Callable[[], None],
) -> Converted:
    placed_nodes = place_nodes(document, schemas, check)
    in_prompt = [placed for placed in placed_nodes if _is_sent(placed)]
    for placed in placed_nodes:
        check()
        _check(placed, document)
    values, sources = Values(placed_nodes, context, document.version), LinkSources()
    prompt = {}
    for placed in in_prompt:
        check()
        prompt[placed.id] = _entry(placed, values, sources)
    for entry in prompt.values():
        inputs = entry["inputs"]
        entry["inputs"] = {
            name: value for name, value in inputs.items() if not isinstance(value, list) or value[0] in prompt
        }
    unset = (
        f"node {placed.id} ({placed.title[:80]}): nothing sets {variable_name(placed.node)[:80]!r}, so it has no value"
        for placed in sources.unset.values()
    )
    warnings = tuple(dict.fromkeys([*values.warnings, *unset]))[:_MAX_WARNINGS]
    return Converted(prompt, warnings, read_app(document, placed_nodes, prompt))


def _is_sent(placed: PlacedNode) -> bool:
    """Whether a node becomes one of the prompt. A broadcaster whose class is not there has done its part."""
    is_broadcaster = placed.schema is None and placed.node.class_type in BROADCASTERS
    return placed.node.is_active and not placed.is_virtual and not is_broadcaster


def _check(placed: PlacedNode, document: Document) -> None:
    """Refuse a node that is active and cannot be converted."""
    node = placed.node
    if not node.is_active or placed.is_virtual:
        return
    if node.class_type in WHILE_QUEUEING:
        refuse(WHILE_QUEUEING[node.class_type], node, placed.id)
    if is_broadcaster(node) and placed.graph.broadcasts is None and (target := _unsaved_target(placed)):
        refuse(
            f"its script connects nodes when the editor queues, such as to node {target[:80]}, and the file does "
            "not list them: it has no extra.ue_links, which newer versions of the pack save",
            node,
            placed.id,
        )
    if not _is_sent(placed):
        return
    if placed.schema is None:
        name = node.class_type.removeprefix(GROUP_NODE_PREFIXES[0]).removeprefix(GROUP_NODE_PREFIXES[1])
        if node.class_type.startswith(GROUP_NODE_PREFIXES) or name in document.group_nodes:
            refuse(
                "it is a group node, which subgraphs have replaced; in the editor convert it to nodes or to a "
                "subgraph",
                node,
                placed.id,
            )
        if SUBGRAPH_ID.fullmatch(node.class_type):
            refuse("it is a subgraph whose definition is not in the file", node, placed.id)
        refuse(
            "this ComfyUI has no such node class, and it is not an editor-only node",
            node,
            placed.id,
            _who_has_it(node),
        )
    if needs_browser(placed.schema):
        refuse("the browser creates its values when the editor queues", node, placed.id)


def _unsaved_target(placed: PlacedNode) -> str:
    """A node that a broadcaster might be connected to while the editor queues: one with an input without a link."""
    free = placed.siblings.free_inputs
    for kind in _broadcast_types(placed):
        parts = ["*", *kind.lower().split(",")] if kind not in ("", "*") else free
        if found := next((free[part] for part in parts if part in free), ""):
            return found
    return ""


def _broadcast_types(placed: PlacedNode) -> list[str]:
    """The types of what a broadcaster sends: what its inputs get, or what it gives itself."""
    if placed.node.class_type not in BROADCASTERS or placed.node.class_type == "Seed Everywhere":
        return list(placed.outputs) or ["*"]
    found = []
    for socket in placed.inputs:
        link = placed.graph.links.get(socket.link) if socket.link is not None else None
        origin = placed.siblings.get(link.origin) if link else None
        if link:
            outputs = origin.outputs if origin else ()
            found.append(outputs[link.origin_slot] if link.origin_slot < len(outputs) else "*")
    return found


def _who_has_it(node: EditorNode) -> str:
    """What to do about a missing class: the editor writes its pack into the file (`cnr_id` or `aux_id`, and `ver`)."""
    if not node.inputs and not node.outputs:
        return "It has no inputs and outputs: if it is only a note, delete it; otherwise install its node pack"
    registry_id, version = (str(node.properties.get(name) or "")[:100] for name in ("cnr_id", "ver"))
    pack = registry_id or str(node.properties.get("aux_id") or "")[:100]
    saved = f"{pack} {version}".strip()
    if pack == "comfy-core":
        return f"It is a core node (the file was saved with {saved}): a newer ComfyUI may have it"
    if registry_id and _VERSION.fullmatch(version):
        return f"Install its node pack, by CUSTOM_NODES={registry_id}@{version} or in the image"
    named = f" ({saved}, according to the file)" if pack else ""
    return f"Install its node pack{named}, by CUSTOM_NODES or in the image"


def _entry(placed: PlacedNode, values: Values, sources: LinkSources) -> dict[str, Any]:
    inputs = values.sent_inputs(placed)
    for number, socket in enumerate(placed.inputs):
        source = sources.source_of(placed, number)
        if isinstance(source, FromPrimitive) and source.host is not None:
            if values.has_own_faces:
                values.warn_of_primitive(source.primitive, source.host, source.socket)
            else:
                source = PromotedWidget(source.host, source.socket)
        if isinstance(source, Link):
            inputs[socket.name] = [source.node_id, source.slot]
        elif isinstance(source, PromotedWidget) and values.has_promoted(source.host, source.socket):
            inputs[socket.name] = wrap_list(values.promoted_value(source.host, source.socket))
    inputs = values.with_index(placed, inputs)
    return {"inputs": inputs, "class_type": placed.node.class_type, "_meta": {"title": placed.title}}
