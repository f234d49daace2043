"""A file of the editor as the prompt that the editor would queue for it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from ..workflow.graph import Link
from ..workflow.schemas import NodeSchema
from .document import Document, refuse
from .links import VIRTUAL, Placed, Promoted, place_nodes, source_of
from .values import Moment, Values, wrapped
from .widgets import needs_browser

# Real classes whose scripts connect nodes while the editor queues.
_CONNECTS_BY_ITSELF = ("Anything Everywhere", "Prompts Everywhere", "Seed Everywhere")
_MOST_CLASSES = 300
_SUBGRAPH_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_GROUP = ("workflow>", "workflow/")


def class_types(document: Document) -> set[str]:
    """The node classes of which the schemas are needed: all but those that only the editor knows."""
    found = {node.class_type for graph in document.graphs() for node in graph.nodes.values()}
    wanted = found - VIRTUAL - document.subgraphs.keys()
    if len(wanted) > _MOST_CLASSES:
        refuse(f"it has nodes of more than {_MOST_CLASSES} classes")
    return wanted


def convert(
    document: Document, schemas: Mapping[str, NodeSchema | None], moment: Moment | None = None
) -> dict[str, Any]:
    """The document in API format: `{node id: {"class_type", "inputs", "_meta": {"title"}}}`.

    `schemas` are of the classes in it, None for one that ComfyUI does not have. Raises GuiFormatWorkflow for what
    cannot be converted for sure, with the node and the reason.
    """
    try:
        prompt = _prompt(document, schemas, moment or Moment(time.localtime()))
    except RecursionError:
        refuse("it has links, subgraphs or texts that lie too deep in one another")
    if not prompt:
        refuse("all of its nodes are muted, bypassed or notes")
    return prompt


def _prompt(document: Document, schemas: Mapping[str, NodeSchema | None], moment: Moment) -> dict[str, Any]:
    places = place_nodes(document, schemas)
    sending = [placed for placed in places if not placed.is_virtual and placed.node.is_active]
    for placed in sending:
        _check(placed, document)
    values = Values(places, moment)
    prompt = {placed.id: _entry(placed, values) for placed in sending}
    for entry in prompt.values():
        inputs = entry["inputs"]
        entry["inputs"] = {
            name: value for name, value in inputs.items() if not isinstance(value, list) or value[0] in prompt
        }
    return prompt


def _check(placed: Placed, document: Document) -> None:
    node = placed.node
    if placed.schema is None:
        name = node.class_type.removeprefix(_GROUP[0]).removeprefix(_GROUP[1])
        if node.class_type.startswith(_GROUP) or name in document.group_nodes:
            refuse(
                "it is a group node, a former kind of subgraph; in the editor convert it to nodes or to a subgraph",
                node,
                placed.id,
            )
        if _SUBGRAPH_ID.fullmatch(node.class_type):
            refuse("it is a subgraph whose definition is not in the file", node, placed.id)
        refuse(
            "this ComfyUI has no such node class, and it is no node that only the editor knows; install the node pack "
            "that brings it",
            node,
            placed.id,
        )
    told = node.properties.get("ue_properties")
    is_sender = isinstance(told, Mapping) and bool(told.get("ue_convert"))
    if is_sender or node.class_type.startswith(_CONNECTS_BY_ITSELF):
        refuse("its script connects nodes when the editor queues, which is nowhere in the file", node, placed.id)
    if needs_browser(placed.schema):
        refuse("its values are made by the browser when the editor queues", node, placed.id)


def _entry(placed: Placed, values: Values) -> dict[str, Any]:
    inputs = values.sent(placed)
    for number, socket in enumerate(placed.inputs):
        source = source_of(placed, number)
        if isinstance(source, Link):
            inputs[socket.name] = [source.node_id, source.slot]
        elif isinstance(source, Promoted) and values.has_promoted(source.host, source.socket):
            inputs[socket.name] = wrapped(values.promoted(source.host, source.socket))
    return {"inputs": inputs, "class_type": placed.node.class_type, "_meta": {"title": placed.title}}
