"""The content of a file saved by the editor: nodes, links and subgraphs, in any version of the format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeGuard

from ..errors import GuiFormatWorkflow
from ..workflow.checks import EXPORT_HINT

MUTED, BYPASSED = 2, 4
"""The `mode` of a node that does not run, and of one that passes its inputs through."""

SUBGRAPH_INPUT = "-10"
"""The node id that links inside a subgraph have as their origin if they start at the subgraph's inputs."""

_MAX_NODES = 5000
_MAX_SUBGRAPH_DEPTH = 30
_MAX_NUMBER_LENGTH, _MAX_TEXT_LENGTH = 9, 1000
_MAX_ITEMS = 100_000
_RENAMED_CLASSES = {
    "T2IAdapterLoader": "ControlNetLoader",
    "ConditioningAverage ": "ConditioningAverage",
    "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
}


@dataclass(frozen=True)
class Socket:
    """An input of a node. `link` is the id of the link to it, `widget` the name of the widget that it belongs to."""

    name: str
    type: str
    link: str | None = None
    widget: str | None = None


@dataclass(frozen=True)
class EditorLink:
    """A link, by the node and the output that it starts at."""

    origin: str
    origin_slot: int


@dataclass(frozen=True)
class EditorNode:
    """A node as it was saved; `title` is empty if the user gave it none.

    `values` are those of its widgets: a list in the order of the widgets, or a dict by name.
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
    """An input or an output of a subgraph, and the links to it inside the subgraph."""

    name: str
    type: str
    links: tuple[str, ...]


@dataclass(frozen=True)
class EditorGraph:
    """The top level of a workflow, or one of its subgraphs."""

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
        """The top level and every subgraph."""
        yield self.root
        yield from self.subgraphs.values()


def is_editor_workflow(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is a file of the editor, not a prompt in API format."""
    return isinstance(value, dict) and isinstance(value.get("nodes"), list)


def refuse(reason: str, node: EditorNode | None = None, node_id: str = "") -> NoReturn:
    """Raise GuiFormatWorkflow: why a file cannot be converted, at which node, and what to do instead."""
    location, details = "it", {}
    if node is not None:
        name = node.class_type if node.title in ("", node.class_type) else f'{node.class_type} "{node.title}"'
        location = "".join(c if c.isprintable() else "?" for c in f"node {node_id or node.id} ({name})"[:200])
        details = {"node_id": (node_id or node.id)[:200], "title": node.title[:200], "reason": reason[:500]}
    raise GuiFormatWorkflow(
        f"workflow is in the editor's save format, and {location} cannot be converted: {reason}. {EXPORT_HINT}",
        **details,
    )


# --- Reading --------------------------------------------------------------------------------------------


def read_document(value: Mapping[str, Any]) -> Document:
    """Parse a file of the editor. Raises GuiFormatWorkflow for one that the editor would not open."""
    definitions = value.get("definitions")
    subgraph_list = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    subgraphs: dict[str, EditorGraph] = {}
    for subgraph in _objects(subgraph_list, "definitions.subgraphs"):
        _collect_subgraphs(subgraph, subgraphs, 0)
    extra = value.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, Mapping) else None
    document = Document(_graph(value), subgraphs, frozenset(groups) if isinstance(groups, Mapping) else frozenset())
    if sum(len(graph.nodes) for graph in document.graphs()) > _MAX_NODES:
        refuse(f"it has more than {_MAX_NODES} nodes")
    return document


def _collect_subgraphs(definition: Mapping[str, Any], found: dict[str, EditorGraph], depth: int) -> None:
    """Collect a subgraph and those defined inside it, where older versions of the editor put them."""
    if depth > _MAX_SUBGRAPH_DEPTH:
        refuse(f"its subgraphs lie more than {_MAX_SUBGRAPH_DEPTH} deep in one another")
    subgraph_id, graph = str(definition.get("id")), _graph(definition)
    if found.setdefault(subgraph_id, graph) != graph:
        refuse(f"it defines two subgraphs with the id {subgraph_id[:80]!r}")
    inner = definition.get("definitions")
    for subgraph in _objects(inner.get("subgraphs") if isinstance(inner, Mapping) else None, "definitions.subgraphs"):
        _collect_subgraphs(subgraph, found, depth + 1)


def _graph(definition: Mapping[str, Any]) -> EditorGraph:
    nodes: dict[str, EditorNode] = {}
    for number, node in enumerate(_objects(definition.get("nodes"), "nodes")):
        parsed = _node(node, number)
        if parsed.id in nodes:
            refuse("another node has the same id", parsed)
        nodes[parsed.id] = parsed
    return EditorGraph(
        nodes,
        dict(_links(definition.get("links"))),
        _ports(definition.get("inputs")),
        _ports(definition.get("outputs")),
    )


def _node(saved: Mapping[str, Any], number: int) -> EditorNode:
    node_id, class_type = _id(saved.get("id")), saved.get("type")
    if node_id is None or not isinstance(class_type, str) or not class_type:
        refuse(f"its node number {number + 1} has no id or no type")
    class_type = _RENAMED_CLASSES.get(class_type, class_type)
    values, order, mode, title = saved.get("widgets_values"), saved.get("order"), saved.get("mode"), saved.get("title")
    properties = saved.get("properties")
    return EditorNode(
        id=node_id,
        class_type=class_type,
        title=title if isinstance(title, str) else "",
        mode=_whole_number(mode) or 0,
        order=order if isinstance(order, (int, float)) else number,
        inputs=tuple(_socket(socket) for socket in _objects(saved.get("inputs"), f"the inputs of node {node_id}")),
        outputs=tuple(
            _socket_type(output) for output in _objects(saved.get("outputs"), f"the outputs of node {node_id}")
        ),
        values=values if isinstance(values, (list, dict)) else [],
        properties=properties if isinstance(properties, Mapping) else {},
    )


def _socket(saved: Mapping[str, Any]) -> Socket:
    widget = saved.get("widget")
    name = widget.get("name") if isinstance(widget, Mapping) else None
    return Socket(
        str(saved.get("name")), _socket_type(saved), _id(saved.get("link")), name if isinstance(name, str) else None
    )


def _socket_type(saved: Mapping[str, Any]) -> str:
    """The type of a socket; in older files this may be the list of a combo, or the number of an event."""
    kind = saved.get("type")
    return kind[:_MAX_TEXT_LENGTH] if isinstance(kind, str) else "COMBO" if isinstance(kind, list) else "*"


def _links(value: Any) -> Iterator[tuple[str, EditorLink]]:
    """The links by id: in version 0.4 lists `[id, origin, slot, target, slot, type]`, in version 1 objects."""
    if not isinstance(value, (list, type(None))):
        refuse("its links are no list")
    if value and len(value) > _MAX_ITEMS:
        refuse(f"it has more than {_MAX_ITEMS} links")
    for link in value or ():
        if isinstance(link, Mapping):
            parts = [link.get(name) for name in ("id", "origin_id", "origin_slot")]
        else:
            parts = list(link[:3]) if isinstance(link, list) and len(link) >= 5 else []
        link_id, origin = (_id(part) for part in (*parts[:2], None, None)[:2])
        slot = _slot(parts[2]) if len(parts) == 3 else None
        if link_id is not None and origin is not None and slot is not None:
            # The editor ignores malformed links too; an input that refers to one gets an error later.
            yield link_id, EditorLink(origin, slot)


def _slot(value: Any) -> int | None:
    """The number of an output, which may be saved as a string."""
    if isinstance(value, str):
        return int(value) if value.isdecimal() and len(value) < _MAX_NUMBER_LENGTH else None
    number = _whole_number(value)
    return number if number is not None and number >= 0 else None


def _ports(value: Any) -> tuple[Port, ...]:
    return tuple(
        Port(str(port.get("name")), _socket_type(port), tuple(_ids(port.get("linkIds"))))
        for port in _objects(value if isinstance(value, list) else None, "the inputs or outputs of a subgraph")
    )


def _ids(value: Any) -> Iterable[str]:
    return [found for part in value if (found := _id(part)) is not None] if isinstance(value, list) else []


def _id(value: Any) -> str | None:
    """An id, which may be a number or a string."""
    if isinstance(value, str):
        return value[:_MAX_TEXT_LENGTH] or None
    number = _whole_number(value)
    return None if number is None else str(number)


def _whole_number(value: Any) -> int | None:
    """A whole number, which some programs write as 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _objects(value: Any, where: str) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if isinstance(value, list) and len(value) > _MAX_ITEMS:
        refuse(f"{where[:100]} are more than {_MAX_ITEMS}")
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        refuse(f"{where[:100]} must be a list of objects")
    return value
