"""Where an input's value comes from: through reroutes, Set/Get nodes, bypassed nodes and subgraph inputs and outputs.

Each node of the workflow, and each node of every instance of a subgraph, is a `PlacedNode` with the id that it has in
the prompt: the ids of the subgraph nodes around it and its own, joined by colons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ..workflow.graph import Link
from ..workflow.schemas import NodeSchema
from .document import BYPASSED, MUTED, SUBGRAPH_INPUT, Document, EditorGraph, EditorNode, Socket, refuse
from .widgets import is_widget

_SETTER_OF = {"GetNode": "SetNode", "easy getNode": "easy setNode"}
PRIMITIVE = "PrimitiveNode"
VIRTUAL_CLASSES = frozenset(
    {
        PRIMITIVE,
        "Note",
        "MarkdownNote",
        "Label (rgthree)",
        "Bookmark (rgthree)",
        "Fast Muter (rgthree)",
        "Fast Bypasser (rgthree)",
        "Fast Groups Muter (rgthree)",
        "Fast Groups Bypasser (rgthree)",
        "Mute / Bypass Repeater (rgthree)",
        "Mute / Bypass Relay (rgthree)",
        "Reroute",
        "Reroute (rgthree)",
        *_SETTER_OF,
        *_SETTER_OF.values(),
    }
)
"""Classes that only the editor knows. Their effect is already in the saved file, or this package applies it."""

# Types of V3 inputs: one that stands for as many inputs as are connected (`images.image0`), and the prefix of all that
# add further inputs.
_AUTOGROW, _DYNAMIC_PREFIX = "COMFY_AUTOGROW_V3", "COMFY_"
_MAX_SUBGRAPH_DEPTH = 30
_MAX_PLACED_NODES, _MAX_ITEMS = 5000, 100_000


class Siblings(dict[str, "PlacedNode"]):
    """The nodes of one graph, of one instance of it if it is a subgraph, by their ids. Complete before it is asked."""

    @cached_property
    def setters(self) -> dict[tuple[str, str], list[PlacedNode]]:
        """The Set nodes, by class and name."""
        found: dict[tuple[str, str], list[PlacedNode]] = {}
        for placed in self.values():
            if placed.node.class_type in _SETTER_OF.values():
                found.setdefault((placed.node.class_type, _variable_name(placed.node)), []).append(placed)
        return found

    @cached_property
    def consumers(self) -> dict[str, list[tuple[PlacedNode, int]]]:
        """The inputs that are linked to the first output of each node, by that node's id."""
        found: dict[str, list[tuple[PlacedNode, int]]] = {}
        for placed in self.values():
            for number, socket in enumerate(placed.inputs):
                link = placed.graph.links.get(socket.link) if socket.link is not None else None
                if link and link.origin_slot == 0:
                    found.setdefault(link.origin, []).append((placed, number))
        return found

    @cached_property
    def by_link(self) -> dict[str, tuple[PlacedNode, int]]:
        """The first input that each link leads to."""
        found: dict[str, tuple[PlacedNode, int]] = {}
        for placed in self.values():
            for number, socket in enumerate(placed.inputs):
                if socket.link is not None:
                    found.setdefault(socket.link, (placed, number))
        return found


class PromotedWidget(NamedTuple):
    """An input whose value is that of a promoted widget on the subgraph node around it (`host`)."""

    host: PlacedNode
    socket: int


@dataclass(eq=False)
class PlacedNode:
    """A node at one place in the workflow. `host` is the subgraph node around it; a subgraph node has a `subgraph`."""

    id: str
    node: EditorNode
    graph: EditorGraph
    schema: NodeSchema | None
    host: PlacedNode | None = None
    subgraph: EditorGraph | None = None
    inner: Siblings = field(default_factory=Siblings)
    siblings: Siblings = field(default_factory=Siblings)
    inputs: tuple[Socket, ...] = ()
    outputs: tuple[str, ...] = ()
    file_position: tuple[int, ...] = ()
    """Its position in the file; nodes inside a subgraph node come before that node."""

    @property
    def title(self) -> str:
        """The title that the editor shows."""
        return self.node.title or (self.schema.title if self.schema else "") or self.node.class_type

    @property
    def is_virtual(self) -> bool:
        """Whether it does not become a node of the prompt."""
        return self.subgraph is not None or self.node.class_type in VIRTUAL_CLASSES


def place_nodes(
    document: Document, schemas: Mapping[str, NodeSchema | None], check: Callable[[], None]
) -> list[PlacedNode]:
    """Every node that the editor visits, in its order: a subgraph node before the nodes inside it.

    `check` raises if the conversion has to end.
    """
    placer = _NodePlacer(document, schemas, check)
    placer.place_graph(document.root, None, Siblings(), 0)
    return placer.placed_nodes


class _NodePlacer:
    def __init__(
        self, document: Document, schemas: Mapping[str, NodeSchema | None], check: Callable[[], None]
    ) -> None:
        self.placed_nodes: list[PlacedNode] = []
        self._check = check
        self._size = 0
        self._document, self._schemas = document, schemas

    def place_graph(self, graph: EditorGraph, host: PlacedNode | None, siblings: Siblings, depth: int) -> None:
        """Place the nodes of a graph, and those of the subgraphs in it."""
        if depth > _MAX_SUBGRAPH_DEPTH:
            refuse(f"its subgraphs lie more than {_MAX_SUBGRAPH_DEPTH} deep in one another, or in themselves")
        numbers = {node_id: number for number, node_id in enumerate(graph.nodes)}
        for node in sorted(graph.nodes.values(), key=lambda node: node.order):
            self._check()
            node_id = f"{host.id}:{node.id}" if host else node.id
            placed = PlacedNode(node_id, node, graph, self._schemas.get(node.class_type), host)
            placed.siblings, placed.subgraph = siblings, self._document.subgraphs.get(node.class_type)
            placed.inputs, placed.outputs = _sockets(placed), _outputs(placed)
            around = host.file_position[:-1] if host else ()
            placed.file_position = (*around, numbers[node.id], len(graph.nodes))
            siblings[node.id] = placed
            self.placed_nodes.append(placed)
            self._size += len(placed.inputs) + len(placed.outputs) + len(node.values)
            if self._size > _MAX_ITEMS:
                refuse(f"with its subgraphs it has more than {_MAX_ITEMS} inputs, outputs and values")
            if len(self.placed_nodes) > _MAX_PLACED_NODES:
                refuse(f"with its subgraphs it has more than {_MAX_PLACED_NODES} nodes")
            # The editor skips the nodes inside a muted or bypassed subgraph node, unless that is itself in a subgraph.
            if placed.subgraph and (node.is_active or host is not None):
                self.place_graph(placed.subgraph, placed, placed.inner, depth + 1)


def _sockets(placed: PlacedNode) -> tuple[Socket, ...]:
    """The inputs in the editor's order: those of the class, sockets before widgets, then those that only the file has.

    Files do not contain the sockets of widgets that have no link.
    """
    links = {socket.name: socket.link for socket in placed.node.inputs}
    if placed.subgraph is not None:
        declared = [Socket(port.name, port.type, links.get(port.name)) for port in placed.subgraph.inputs]
    elif placed.schema is not None:
        inputs = placed.schema.inputs
        names = [*(n for n in inputs if not is_widget(inputs[n])), *(n for n in inputs if is_widget(inputs[n]))]
        declared = []
        for name in names:
            kind, widget = inputs[name].kind, name if is_widget(inputs[name]) else None
            if kind != _AUTOGROW:
                declared.append(Socket(name, _socket_type(kind), links.get(name), widget))
            if kind.startswith(_DYNAMIC_PREFIX):
                declared.extend(socket for socket in placed.node.inputs if socket.name.startswith(f"{name}."))
    else:
        declared = []
    known = {socket.name for socket in declared}
    return (*declared, *(socket for socket in placed.node.inputs if socket.name not in known))


def _socket_type(kind: str) -> str:
    """A type as the editor compares it: a dynamic type matches any other."""
    return "*" if kind.startswith(_DYNAMIC_PREFIX) else kind


def _outputs(placed: PlacedNode) -> tuple[str, ...]:
    declared = placed.schema.outputs if placed.schema else ()
    return (*declared, *placed.node.outputs[len(declared) :])


# --- Following links ------------------------------------------------------------------------------------

Source = Link | PromotedWidget | None
"""The source of an input: an output of a node, a widget of a subgraph node, or nothing."""


class _Step(NamedTuple):
    """An input or an output of a node, on the way upstream."""

    placed: PlacedNode
    is_input: bool
    number: int

    @property
    def key(self) -> tuple[str, bool, int]:
        return self.placed.id, self.is_input, self.number


class _Bypass(NamedTuple):
    """An output of a bypassed node: which of its inputs is the source depends on the type that is wanted."""

    placed: PlacedNode
    slot: int


class LinkSources:
    """Follows links upstream. Each input and output is followed once, however many nodes are linked through it."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, int], Source] = {}
        self._ends: dict[tuple[str, bool, int], Source | _Bypass] = {}
        self._visited: set[tuple[str, bool, int]] = set()
        """What is being followed now: to meet it again is a circle."""

    def source_of(self, placed: PlacedNode, socket: int) -> Source:
        """The source of the input with that number.

        Raises GuiFormatWorkflow for a broken link, or a cycle of links.
        """
        key = (placed.id, socket)
        if key not in self._sources:
            end = self._end_of(_Step(placed, True, socket))
            self._sources[key] = (
                self._behind_bypass(end, placed.inputs[socket].type) if isinstance(end, _Bypass) else end
            )
        return self._sources[key]

    def _behind_bypass(self, bypass: _Bypass, kind: str) -> Source:
        """The source of a bypassed node's output, for an input of type `kind`."""
        socket = _bypass_input(bypass.placed, bypass.slot, kind)
        if socket is None:
            return None
        step = _Step(bypass.placed, False, bypass.slot)
        self._visit(step)
        source = self.source_of(bypass.placed, socket)
        self._visited.discard(step.key)
        return source

    def _end_of(self, step: _Step) -> Source | _Bypass:
        """Where the links from an input or output lead: to a source, or to a bypassed node."""
        path: list[_Step] = []
        end: Source | _Bypass | _Step = step
        while isinstance(end, _Step):
            if end.key in self._ends:
                end = self._ends[end.key]
                break
            self._visit(end)
            path.append(end)
            end = self._after_input(end) if end.is_input else self._after_output(end)
        for passed in path:
            self._visited.discard(passed.key)
            self._ends[passed.key] = end
        return end

    def _visit(self, step: _Step) -> None:
        if step.key in self._visited:
            refuse("its links go in a circle", *_location(step.placed))
        self._visited.add(step.key)

    def _after_input(self, step: _Step) -> Source | _Step:
        placed, socket = step.placed, step.placed.inputs[step.number]
        if socket.link is None:
            return None
        link = placed.graph.links.get(socket.link)
        if link is None:
            refuse(f"its input {socket.name!r} is connected to a link that is not there", *_location(placed))
        if link.origin == SUBGRAPH_INPUT and placed.host is not None:
            return self._source_of_subgraph_input(placed, placed.host, link.origin_slot)
        origin = placed.siblings.get(link.origin)
        if origin is None:
            refuse(f"its input {socket.name!r} is connected to a node that is not there", *_location(placed))
        return _Step(origin, False, link.origin_slot)

    def _source_of_subgraph_input(self, placed: PlacedNode, host: PlacedNode, slot: int) -> Source:
        """The source of an input inside a subgraph that is linked to an input of the subgraph."""
        if host.subgraph is None or not 0 <= slot < len(host.subgraph.inputs):
            refuse("it is connected to an input that its subgraph does not have", *_location(placed))
        # If nothing or only a primitive is linked from outside, the subgraph node's own widget holds the value.
        return self.source_of(host, slot) or PromotedWidget(host, slot)

    def _after_output(self, step: _Step) -> Source | _Bypass | _Step:
        placed, slot = step.placed, step.number
        if placed.node.mode == MUTED:
            return None
        if placed.node.mode == BYPASSED:
            return _Bypass(placed, slot)
        if placed.subgraph is not None:
            return _after_subgraph_output(placed, placed.subgraph, slot)
        if placed.node.class_type in _SETTER_OF:
            setter = _setter(placed)
            return _Step(setter, True, slot) if slot < len(setter.inputs) else None
        if placed.is_virtual:
            return _Step(placed, True, slot) if slot < len(placed.inputs) else None
        return Link(placed.id, slot)


def _after_subgraph_output(placed: PlacedNode, subgraph: EditorGraph, slot: int) -> _Step | None:
    if not 0 <= slot < len(subgraph.outputs):
        refuse(f"another node takes its output {slot}, which its subgraph does not have", *_location(placed))
    if not placed.inner or not subgraph.outputs[slot].links:
        return None
    link = subgraph.links.get(subgraph.outputs[slot].links[0])
    if link is None:
        refuse(f"its output {slot} is connected to a link that is not there", *_location(placed))
    if link.origin == SUBGRAPH_INPUT:
        refuse(f"its output {slot} is connected to an input of its own subgraph", *_location(placed))
    origin = placed.inner.get(link.origin)
    if origin is None:
        refuse(f"its output {slot} is connected to a node that is not there", *_location(placed))
    return _Step(origin, False, link.origin_slot)


def consumers_of(placed: PlacedNode) -> list[tuple[PlacedNode, int]]:
    """The inputs of nodes in the same graph that are linked to its first output."""
    return placed.siblings.consumers.get(placed.node.id, [])


def _location(placed: PlacedNode) -> tuple[EditorNode, str]:
    return placed.node, placed.id


def _setter(placed: PlacedNode) -> PlacedNode:
    """The Set node of a Get node: both have the same name as their value."""
    name, kind = _variable_name(placed.node), _SETTER_OF[placed.node.class_type]
    found = placed.siblings.setters.get((kind, name), [])
    if not found or not name:
        refuse(f"nothing beside it sets {name[:80]!r}", *_location(placed))
    if len(found) > 1:
        refuse(f"several nodes beside it set {name[:80]!r}", *_location(placed))
    return found[0]


def _variable_name(node: EditorNode) -> str:
    """The name in a Set or Get node: its first widget value."""
    name = node.values[0] if isinstance(node.values, list) and node.values else None
    return name if isinstance(name, str) else ""


def _bypass_input(placed: PlacedNode, slot: int, kind: str) -> int | None:
    """The input that a bypassed node passes through in place of an output, for a target of type `kind`."""
    inputs = placed.inputs
    if kind in ("*", ""):
        return (slot if slot < len(inputs) else 0) if inputs else None
    output_type = placed.outputs[slot] if 0 <= slot < len(placed.outputs) else "*"
    fitting = [
        number
        for number, socket in enumerate(inputs)
        if _types_match(socket.type, output_type) and _types_match(socket.type, kind)
    ]
    if slot in fitting:
        return slot
    same = [number for number, socket in enumerate(inputs) if socket.type == kind]
    return next(iter([*same, *fitting]), None)


def _types_match(one: str, other: str) -> bool:
    """Whether the editor links an output of one type to an input of the other; both may be comma-separated lists."""
    if one in ("", "*") or other in ("", "*"):
        return True
    return bool(set(one.lower().split(",")) & set(other.lower().split(",")))
