"""What a file saved by the editor holds: nodes, links and subgraphs, in any of its versions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeGuard

from ..errors import GuiFormatWorkflow
from ..workflow.checks import EXPORT_HINT

MUTED, BYPASSED = 2, 4
"""The `mode` of a node that does not run, and of one that hands on what it gets."""

SUBGRAPH_INPUT = "-10"
"""The id by which the links inside a subgraph name its inputs."""

_MOST_NODES = 5000
_DEEPEST = 30
_LONGEST_NUMBER, _LONGEST_TEXT = 9, 1000
_MOST_PARTS = 100_000
_FORMER_CLASSES = {
    "T2IAdapterLoader": "ControlNetLoader",
    "ConditioningAverage ": "ConditioningAverage",
    "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
}


@dataclass(frozen=True)
class Socket:
    """An input of a node. `link` is the id of what is connected; `widget` the name of the widget behind it."""

    name: str
    type: str
    link: str | None = None
    widget: str | None = None


@dataclass(frozen=True)
class EditorLink:
    """A connection: from an output of one node."""

    origin: str
    origin_slot: int


@dataclass(frozen=True)
class EditorNode:
    """A node as it was saved; its `title` is empty if nobody gave it one.

    `values` are those of its widgets: a list in their order, or by name.
    """

    id: str
    class_type: str
    title: str
    mode: int
    order: float
    inputs: tuple[Socket, ...]
    outputs: tuple[str, ...]
    values: list[Any] | dict[str, Any]
    properties: Mapping[str, Any]

    @property
    def is_active(self) -> bool:
        """Whether it is neither muted nor bypassed."""
        return self.mode not in (MUTED, BYPASSED)


@dataclass(frozen=True)
class Port:
    """An input or an output of a subgraph, and the links that it has inside."""

    name: str
    type: str
    links: tuple[str, ...]


@dataclass(frozen=True)
class EditorGraph:
    """The whole workflow, or a subgraph of it."""

    nodes: Mapping[str, EditorNode]
    links: Mapping[str, EditorLink]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()


@dataclass(frozen=True)
class Document:
    """A saved file."""

    root: EditorGraph
    subgraphs: Mapping[str, EditorGraph] = field(default_factory=dict)
    group_nodes: frozenset[str] = frozenset()

    def graphs(self) -> Iterator[EditorGraph]:
        """The workflow and every subgraph."""
        yield self.root
        yield from self.subgraphs.values()


def is_editor_workflow(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is a file of the editor and no prompt in API format."""
    return isinstance(value, dict) and isinstance(value.get("nodes"), list)


def refuse(reason: str, node: EditorNode | None = None, node_id: str = "") -> NoReturn:
    """Raise GuiFormatWorkflow: what keeps a file from being converted, where, and the way around it."""
    place, details = "it", {}
    if node is not None:
        name = node.class_type if node.title in ("", node.class_type) else f'{node.class_type} "{node.title}"'
        place = "".join(c if c.isprintable() else "?" for c in f"node {node_id or node.id} ({name})"[:200])
        details = {"node_id": (node_id or node.id)[:200], "title": node.title[:200], "reason": reason[:500]}
    raise GuiFormatWorkflow(
        f"workflow is in the editor's save format, and {place} cannot be converted: {reason}. {EXPORT_HINT}", **details
    )


# --- Reading --------------------------------------------------------------------------------------------


def read_document(value: Mapping[str, Any]) -> Document:
    """The document in a file of the editor. Raises GuiFormatWorkflow for one that the editor would not open."""
    definitions = value.get("definitions")
    told = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    subgraphs: dict[str, EditorGraph] = {}
    for subgraph in _objects(told, "definitions.subgraphs"):
        _collect(subgraph, subgraphs, 0)
    extra = value.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, Mapping) else None
    document = Document(_graph(value), subgraphs, frozenset(groups) if isinstance(groups, Mapping) else frozenset())
    if sum(len(graph.nodes) for graph in document.graphs()) > _MOST_NODES:
        refuse(f"it has more than {_MOST_NODES} nodes")
    return document


def _collect(told: Mapping[str, Any], found: dict[str, EditorGraph], depth: int) -> None:
    """A subgraph and those defined inside of it, which older versions of the editor put there."""
    if depth > _DEEPEST:
        refuse(f"its subgraphs lie more than {_DEEPEST} deep in one another")
    subgraph_id, graph = str(told.get("id")), _graph(told)
    if found.setdefault(subgraph_id, graph) != graph:
        refuse(f"it defines two subgraphs with the id {subgraph_id[:80]!r}")
    inner = told.get("definitions")
    for subgraph in _objects(inner.get("subgraphs") if isinstance(inner, Mapping) else None, "definitions.subgraphs"):
        _collect(subgraph, found, depth + 1)


def _graph(told: Mapping[str, Any]) -> EditorGraph:
    nodes: dict[str, EditorNode] = {}
    for number, node in enumerate(_objects(told.get("nodes"), "nodes")):
        read = _node(node, number)
        if read.id in nodes:
            refuse("another node has the same id", read)
        nodes[read.id] = read
    return EditorGraph(nodes, dict(_links(told.get("links"))), _ports(told.get("inputs")), _ports(told.get("outputs")))


def _node(told: Mapping[str, Any], number: int) -> EditorNode:
    node_id, class_type = _id(told.get("id")), told.get("type")
    if node_id is None or not isinstance(class_type, str) or not class_type:
        refuse(f"its node number {number + 1} has no id or no type")
    class_type = _FORMER_CLASSES.get(class_type, class_type)
    values, order, mode, title = told.get("widgets_values"), told.get("order"), told.get("mode"), told.get("title")
    properties = told.get("properties")
    return EditorNode(
        id=node_id,
        class_type=class_type,
        title=title if isinstance(title, str) else "",
        mode=_whole(mode) or 0,
        order=order if isinstance(order, (int, float)) else number,
        inputs=tuple(_socket(socket) for socket in _objects(told.get("inputs"), f"the inputs of node {node_id}")),
        outputs=tuple(_type(output) for output in _objects(told.get("outputs"), f"the outputs of node {node_id}")),
        values=values if isinstance(values, (list, dict)) else [],
        properties=properties if isinstance(properties, Mapping) else {},
    )


def _socket(told: Mapping[str, Any]) -> Socket:
    widget = told.get("widget")
    name = widget.get("name") if isinstance(widget, Mapping) else None
    return Socket(str(told.get("name")), _type(told), _id(told.get("link")), name if isinstance(name, str) else None)


def _type(told: Mapping[str, Any]) -> str:
    """The type of a socket; older files have the list of a combo in its place, or the number of an event."""
    kind = told.get("type")
    return kind[:_LONGEST_TEXT] if isinstance(kind, str) else "COMBO" if isinstance(kind, list) else "*"


def _links(told: Any) -> Iterator[tuple[str, EditorLink]]:
    """Of version 0.4 `[id, origin, slot, target, slot, type]`, of version 1 objects."""
    if not isinstance(told, (list, type(None))):
        refuse("its links are no list")
    if told and len(told) > _MOST_PARTS:
        refuse(f"it has more than {_MOST_PARTS} links")
    for link in told or ():
        if isinstance(link, Mapping):
            parts = [link.get(name) for name in ("id", "origin_id", "origin_slot")]
        else:
            parts = list(link[:3]) if isinstance(link, list) and len(link) >= 5 else []
        link_id, origin = (_id(part) for part in (*parts[:2], None, None)[:2])
        slot = _slot(parts[2]) if len(parts) == 3 else None
        if link_id is not None and origin is not None and slot is not None:
            # The editor leaves out others too; whoever names one is told.
            yield link_id, EditorLink(origin, slot)


def _slot(told: Any) -> int | None:
    """The number of an output; it may be a text."""
    if isinstance(told, str):
        return int(told) if told.isdecimal() and len(told) < _LONGEST_NUMBER else None
    number = _whole(told)
    return number if number is not None and number >= 0 else None


def _ports(told: Any) -> tuple[Port, ...]:
    return tuple(
        Port(str(port.get("name")), _type(port), tuple(_ids(port.get("linkIds"))))
        for port in _objects(told if isinstance(told, list) else None, "the inputs or outputs of a subgraph")
    )


def _ids(told: Any) -> Iterable[str]:
    return [found for part in told if (found := _id(part)) is not None] if isinstance(told, list) else []


def _id(told: Any) -> str | None:
    """An id, which may be a number or a text."""
    if isinstance(told, str):
        return told[:_LONGEST_TEXT] or None
    number = _whole(told)
    return None if number is None else str(number)


def _whole(told: Any) -> int | None:
    """A whole number; some programs write it as 1.0."""
    if isinstance(told, float) and told.is_integer():
        return int(told)
    return told if type(told) is int else None


def _objects(told: Any, where: str) -> list[Mapping[str, Any]]:
    if told is None:
        return []
    if isinstance(told, list) and len(told) > _MOST_PARTS:
        refuse(f"{where[:100]} are more than {_MOST_PARTS}")
    if not isinstance(told, list) or not all(isinstance(part, Mapping) for part in told):
        refuse(f"{where[:100]} must be a list of objects")
    return told
