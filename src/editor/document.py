"""The content of a file saved by the editor: nodes, links and subgraphs, in any version of the format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeGuard

from ..errors import GuiFormatWorkflow
from ..workflow.checks import EXPORT_HINT

MUTED, BYPASSED = 2, 4
"""The `mode` of a node that does not run, and of one that passes its inputs through."""

SUBGRAPH_INPUT = "-10"
"""The node id that links inside a subgraph have as their origin if they start at the subgraph's inputs."""

SUBGRAPH_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The class of a node that stands for a subgraph."""

GROUP_NODE_PREFIXES = ("workflow>", "workflow/")
"""How the class of a group node begins, a former kind of subgraph."""

_MAX_NODES = 5000
_MAX_SUBGRAPH_DEPTH = 30
_MAX_NUMBER_LENGTH, _MAX_TEXT_LENGTH = 9, 1000
_MAX_ITEMS = 100_000
_MAX_BROADCASTS = 300  # to one node
_INT_RANGE, _FLOAT_LIMIT = range(-(2**63), 2**64), 2**1023
_VERSION = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}")
_RENAMED_CLASSES = {
    "T2IAdapterLoader": "ControlNetLoader",
    "ConditioningAverage ": "ConditioningAverage",
    "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
}


@dataclass(frozen=True)
class Socket:
    """An input of a node. `link` is the id of the link to it, `widget` the name of the widget that it belongs to.

    `label` is the name that the user gave it.
    """

    name: str
    type: str
    link: str | None = None
    widget: str | None = None
    label: str = ""


@dataclass(frozen=True)
class EditorLink:
    """A link, by the node and the output that it starts at."""

    origin: str
    origin_slot: int


@dataclass(frozen=True)
class Broadcast:
    """A link that a pack's script makes while the editor queues (`extra.ue_links`); `slot` is the input's number."""

    link_id: str
    slot: int
    link: EditorLink
    type: str


@dataclass(frozen=True)
class EditorNode:
    """A node as it was saved; `title` is empty if the user gave it none.

    `values` are those of its widgets: a list in the order of the widgets, or a dict by name. Newer editors save the
    list and also `named`, the same by name.
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
    named: Mapping[str, Any] | None = None

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
    """The top level of a workflow, or one of its subgraphs.

    `broadcasts` are by the node that they lead to; None if the file has no list of them.
    """

    nodes: Mapping[str, EditorNode]
    links: Mapping[str, EditorLink]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    broadcasts: Mapping[str, tuple[Broadcast, ...]] | None = None
    name: str = ""


@dataclass(frozen=True)
class Document:
    """A saved file. `version` is that of the editor that saved it, None if the file does not say.

    `app` is what its author chose for the editor's App Mode: `{"inputs": …, "outputs": …}`, empty if nothing.
    """

    root: EditorGraph
    subgraphs: Mapping[str, EditorGraph] = field(default_factory=dict)
    group_nodes: frozenset[str] = frozenset()
    version: tuple[int, ...] | None = None
    app: Mapping[str, Any] = field(default_factory=dict)

    def graphs(self) -> Iterator[EditorGraph]:
        """The top level and every subgraph."""
        yield self.root
        yield from self.subgraphs.values()


def is_editor_workflow(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is a file of the editor, not a prompt in API format."""
    return isinstance(value, dict) and isinstance(value.get("nodes"), list)


def with_editor_numbers(value: Any) -> Any:
    """A copy in which whole numbers of more than 64 bits are as the editor reads them: floats, or nothing if larger.

    Old files have such in the limits of widgets, which nobody sends. Makes no use of recursion: the value may be deep.
    """
    top = [value]
    waiting: list[tuple[Any, Any]] = [(top, 0)]
    while waiting:
        container, key = waiting.pop()
        item = container[key]
        if isinstance(item, (dict, list)):
            container[key] = item.copy()
            waiting.extend((container[key], inner) for inner in (item if isinstance(item, dict) else range(len(item))))
        elif isinstance(item, int) and item not in _INT_RANGE:
            container[key] = float(item) if abs(item) < _FLOAT_LIMIT else None
    return top[0]


def refuse(reason: str, node: EditorNode | None = None, node_id: str = "", remedy: str = EXPORT_HINT) -> NoReturn:
    """Raise GuiFormatWorkflow: why a file cannot be converted, at which node, and what to do instead."""
    location, details = "it", {}
    if node is not None:
        name = node.class_type if node.title in ("", node.class_type) else f'{node.class_type} "{node.title}"'
        location = "".join(c if c.isprintable() else "?" for c in f"node {node_id or node.id} ({name})"[:200])
        details = {"node_id": (node_id or node.id)[:200], "title": node.title[:200], "reason": reason[:500]}
    raise GuiFormatWorkflow(
        f"workflow is in the editor's save format, and {location} cannot be converted: {reason}. {remedy}",
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
    extra = _mapping(value.get("extra"))
    document = Document(
        _graph(value),
        subgraphs,
        frozenset(_mapping(extra.get("groupNodes"))),
        _version(extra.get("frontendVersion")),
        _mapping(extra.get("linearData")),
    )
    if sum(len(graph.nodes) for graph in document.graphs()) > _MAX_NODES:
        refuse(f"it has more than {_MAX_NODES} nodes")
    return document


def _collect_subgraphs(definition: Mapping[str, Any], found: dict[str, EditorGraph], depth: int) -> None:
    """Collect a subgraph and those defined inside it, where older versions of the editor put them."""
    if depth > _MAX_SUBGRAPH_DEPTH:
        refuse(f"its subgraphs are nested more than {_MAX_SUBGRAPH_DEPTH} deep")
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
    broadcasts = _broadcasts(_mapping(definition.get("extra")).get("ue_links"))
    made_when_queued = {one.link_id: one.link for target in (broadcasts or {}).values() for one in target}
    return EditorGraph(
        nodes,
        {**dict(_links(definition.get("links"))), **made_when_queued},
        _ports(definition.get("inputs")),
        _ports(definition.get("outputs")),
        broadcasts,
        name[:_MAX_TEXT_LENGTH] if isinstance(name := definition.get("name"), str) else "",
    )


def _broadcasts(value: Any) -> dict[str, tuple[Broadcast, ...]] | None:
    """The links that Use Everywhere has made, by target; None if the file has no list of them."""
    if not isinstance(value, list):
        return None
    found: dict[str, tuple[Broadcast, ...]] = {}
    for number, link in enumerate(value[:_MAX_ITEMS]):
        saved = _mapping(link)
        target, origin = _id(saved.get("downstream")), _id(saved.get("upstream"))
        target_slot, origin_slot = _slot(saved.get("downstream_slot")), _slot(saved.get("upstream_slot"))
        if target is None or origin is None or target_slot is None or origin_slot is None:
            refuse("a link in its extra.ue_links has no source or no target")
        if len(found.get(target, ())) > _MAX_BROADCASTS:
            refuse(f"its extra.ue_links has more than {_MAX_BROADCASTS} links to one node")
        broadcast = Broadcast(f"ue_links {number}", target_slot, EditorLink(origin, origin_slot), _socket_type(saved))
        found[target] = (*found.get(target, ()), broadcast)
    return found


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
        named=named if isinstance(named := saved.get("widgets_values_named"), Mapping) else None,
    )


def _socket(saved: Mapping[str, Any]) -> Socket:
    widget = saved.get("widget")
    name = widget.get("name") if isinstance(widget, Mapping) else None
    label = saved.get("label")
    return Socket(
        str(saved.get("name")),
        _socket_type(saved),
        _id(saved.get("link")),
        name if isinstance(name, str) else None,
        label[:_MAX_TEXT_LENGTH] if isinstance(label, str) else "",
    )


def _socket_type(saved: Mapping[str, Any]) -> str:
    """The type of a socket; in older files this may be the list of a combo, or the number of an event."""
    kind = saved.get("type")
    return kind[:_MAX_TEXT_LENGTH] if isinstance(kind, str) else "COMBO" if isinstance(kind, list) else "*"


def _links(value: Any) -> Iterator[tuple[str, EditorLink]]:
    """The links by id: in version 0.4 lists `[id, origin, slot, target, slot, type]`, in version 1 objects."""
    if not isinstance(value, (list, type(None))):
        refuse("its links are not a list")
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


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _version(value: Any) -> tuple[int, ...] | None:
    """`"1.47.10"` as (1, 47, 10); None for what is no version."""
    match = _VERSION.match(value) if isinstance(value, str) else None
    return tuple(int(part) for part in match[0].split(".")) if match else None


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
