"""Converts a file of the editor to the prompt that the editor would queue for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..workflow.graph import Link
from ..workflow.schemas import NodeSchema
from .document import Document, EditorNode, refuse
from .links import LinkSources, PromotedWidget
from .placing import VIRTUAL_CLASSES, PlacedNode, place_nodes
from .values import ConversionContext, Values, wrap_list
from .widgets import needs_browser

# Prefixes of node classes whose frontend scripts connect nodes while the editor queues.
_CONNECTING_CLASSES = ("Anything Everywhere", "Prompts Everywhere", "Seed Everywhere")
_MAX_CLASSES = 300
_SUBGRAPH_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_GROUP_NODE_PREFIXES = ("workflow>", "workflow/")


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
) -> dict[str, Any]:
    """The document in API format: `{node id: {"class_type", "inputs", "_meta": {"title"}}}`.

    `schemas` maps each class in it to its schema, None for a class that ComfyUI does not have. `check` raises if the
    conversion has to end. Raises GuiFormatWorkflow, with the node and the reason, for everything that cannot be
    converted reliably.
    """
    try:
        prompt = _prompt(document, schemas, context or ConversionContext(time.localtime()), check)
    except RecursionError:
        refuse("it has links, subgraphs or texts that lie too deep in one another")
    if not prompt:
        refuse("all of its nodes are muted, bypassed or notes")
    return prompt


def _prompt(
    document: Document,
    schemas: Mapping[str, NodeSchema | None],
    context: ConversionContext,
    check: Callable[[], None],
) -> dict[str, Any]:
    placed_nodes = place_nodes(document, schemas, check)
    in_prompt = [placed for placed in placed_nodes if not placed.is_virtual and placed.node.is_active]
    for placed in in_prompt:
        _check(placed, document)
    values, sources = Values(placed_nodes, context), LinkSources()
    prompt = {}
    for placed in in_prompt:
        check()
        prompt[placed.id] = _entry(placed, values, sources)
    for entry in prompt.values():
        inputs = entry["inputs"]
        entry["inputs"] = {
            name: value for name, value in inputs.items() if not isinstance(value, list) or value[0] in prompt
        }
    return prompt


def _check(placed: PlacedNode, document: Document) -> None:
    node = placed.node
    if placed.schema is None:
        name = node.class_type.removeprefix(_GROUP_NODE_PREFIXES[0]).removeprefix(_GROUP_NODE_PREFIXES[1])
        if node.class_type.startswith(_GROUP_NODE_PREFIXES) or name in document.group_nodes:
            refuse(
                "it is a group node, a former kind of subgraph; in the editor convert it to nodes or to a subgraph",
                node,
                placed.id,
            )
        if _SUBGRAPH_ID.fullmatch(node.class_type):
            refuse("it is a subgraph whose definition is not in the file", node, placed.id)
        refuse(
            f"this ComfyUI has no such node class, and it is no node that only the editor knows; {_who_has_it(node)}",
            node,
            placed.id,
        )
    use_everywhere = node.properties.get("ue_properties")
    connects_others = isinstance(use_everywhere, Mapping) and bool(use_everywhere.get("ue_convert"))
    if connects_others or node.class_type.startswith(_CONNECTING_CLASSES):
        refuse("its script connects nodes when the editor queues, which is nowhere in the file", node, placed.id)
    if needs_browser(placed.schema):
        refuse("its values are made by the browser when the editor queues", node, placed.id)


def _who_has_it(node: EditorNode) -> str:
    """What brings a node's class: the editor writes that into the file (`cnr_id` or `aux_id`, and `ver`)."""
    pack, version = (str(node.properties.get(name) or "")[:100] for name in ("cnr_id", "ver"))
    pack = pack or str(node.properties.get("aux_id") or "")[:100]
    saved = f"{pack} {version}".strip()
    if pack == "comfy-core":
        return f"ComfyUI itself brings it (the file was saved with {saved}): a newer ComfyUI may have it"
    return f"install the node pack that brings it{f' ({saved}, says the file)' if pack else ''}"


def _entry(placed: PlacedNode, values: Values, sources: LinkSources) -> dict[str, Any]:
    inputs = values.sent_inputs(placed)
    for number, socket in enumerate(placed.inputs):
        source = sources.source_of(placed, number)
        if isinstance(source, Link):
            inputs[socket.name] = [source.node_id, source.slot]
        elif isinstance(source, PromotedWidget) and values.has_promoted(source.host, source.socket):
            inputs[socket.name] = wrap_list(values.promoted_value(source.host, source.socket))
    return {"inputs": inputs, "class_type": placed.node.class_type, "_meta": {"title": placed.title}}
