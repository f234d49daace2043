"""Where an input's value comes from: through reroutes, set and get, bypassed nodes and the ends of subgraphs.

Each node of the workflow and of each use of a subgraph is a `Placed` one, with the id that the prompt gives it: the
ids of the subgraph nodes around it and its own, with colons between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..workflow.graph import Link
from ..workflow.schemas import NodeSchema
from .document import BYPASSED, MUTED, SUBGRAPH_INPUT, Document, EditorGraph, EditorNode, Socket, refuse
from .widgets import is_widget

_SETTER_OF = {"GetNode": "SetNode", "easy getNode": "easy setNode"}
PRIMITIVE = "PrimitiveNode"
VIRTUAL = frozenset(
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
"""Classes that only the editor knows. What they do is done when the file is saved, or is done here."""

# Inputs of V3: one that stands for as many as are connected (`images.image0`), and those that bring others with them.
_GROWING, _DYNAMIC = "COMFY_AUTOGROW_V3", "COMFY_"
_DEEPEST = 30
_MOST_PLACED, _MOST_PARTS = 5000, 100_000


class Promoted(NamedTuple):
    """An input whose value is that of a widget of the subgraph node around it."""

    host: Placed
    socket: int


@dataclass(eq=False)
class Placed:
    """A node where it is used. `host` is the subgraph node around it; `subgraph` is set for one that is one itself."""

    id: str
    node: EditorNode
    graph: EditorGraph
    schema: NodeSchema | None
    host: Placed | None = None
    subgraph: EditorGraph | None = None
    inner: dict[str, Placed] = field(default_factory=dict)
    siblings: dict[str, Placed] = field(default_factory=dict)
    inputs: tuple[Socket, ...] = ()
    outputs: tuple[str, ...] = ()
    place: tuple[int, ...] = ()
    """Where it stands in the file; what is inside of a subgraph node comes before that."""

    @property
    def title(self) -> str:
        """What stands over it in the editor."""
        return self.node.title or (self.schema.title if self.schema else "") or self.node.class_type

    @property
    def is_virtual(self) -> bool:
        """Whether it is no node of the prompt."""
        return self.subgraph is not None or self.node.class_type in VIRTUAL


def place_nodes(document: Document, schemas: Mapping[str, NodeSchema | None]) -> list[Placed]:
    """Every node that the editor looks at, in the order in which it does: what is inside after what is around it."""
    places = _Places(document, schemas)
    places.fill(document.root, None, {}, 0)
    return places.found


class _Places:
    def __init__(self, document: Document, schemas: Mapping[str, NodeSchema | None]) -> None:
        self.found: list[Placed] = []
        self._size = 0
        self._document, self._schemas = document, schemas

    def fill(self, graph: EditorGraph, host: Placed | None, siblings: dict[str, Placed], depth: int) -> None:
        """Place the nodes of a graph."""
        if depth > _DEEPEST:
            refuse(f"its subgraphs lie more than {_DEEPEST} deep in one another, or in themselves")
        numbers = {node_id: number for number, node_id in enumerate(graph.nodes)}
        for node in sorted(graph.nodes.values(), key=lambda node: node.order):
            node_id = f"{host.id}:{node.id}" if host else node.id
            placed = Placed(node_id, node, graph, self._schemas.get(node.class_type), host)
            placed.siblings, placed.subgraph = siblings, self._document.subgraphs.get(node.class_type)
            placed.inputs, placed.outputs = _sockets(placed), _outputs(placed)
            around = host.place[:-1] if host else ()
            placed.place = (*around, numbers[node.id], len(graph.nodes))
            siblings[node.id] = placed
            self.found.append(placed)
            self._size += len(placed.inputs) + len(placed.outputs) + len(node.values)
            if self._size > _MOST_PARTS:
                refuse(f"with its subgraphs it has more than {_MOST_PARTS} inputs, outputs and values")
            if len(self.found) > _MOST_PLACED:
                refuse(f"with its subgraphs it has more than {_MOST_PLACED} nodes")
            # The editor leaves out what is inside of a muted or bypassed subgraph, but not where that is in another.
            if placed.subgraph and (node.is_active or host is not None):
                self.fill(placed.subgraph, placed, placed.inner, depth + 1)


def _sockets(placed: Placed) -> tuple[Socket, ...]:
    """The inputs in the editor's order: those of the class, sockets before widgets, then those only the file has.

    A file leaves out the sockets of widgets that nothing is connected to.
    """
    links = {socket.name: socket.link for socket in placed.node.inputs}
    if placed.subgraph is not None:
        declared = [Socket(port.name, port.type, links.get(port.name)) for port in placed.subgraph.inputs]
    elif placed.schema is not None:
        inputs = placed.schema.inputs
        names = [*(n for n in inputs if not is_widget(inputs[n])), *(n for n in inputs if is_widget(inputs[n]))]
        declared = []
        for name in names:
            kind, own = inputs[name].kind, name if is_widget(inputs[name]) else None
            if kind != _GROWING:
                declared.append(Socket(name, _socket_type(kind), links.get(name), own))
            if kind.startswith(_DYNAMIC):
                declared.extend(socket for socket in placed.node.inputs if socket.name.startswith(f"{name}."))
    else:
        declared = []
    known = {socket.name for socket in declared}
    return (*declared, *(socket for socket in placed.node.inputs if socket.name not in known))


def _socket_type(kind: str) -> str:
    """A type as the editor compares it: what is dynamic may be any."""
    return "*" if kind.startswith(_DYNAMIC) else kind


def _outputs(placed: Placed) -> tuple[str, ...]:
    declared = placed.schema.outputs if placed.schema else ()
    return (*declared, *placed.node.outputs[len(declared) :])


# --- Following links ------------------------------------------------------------------------------------

Source = Link | Promoted | None
"""What an input has: an output of a node, a widget of a subgraph node, or nothing."""


def source_of(placed: Placed, socket: int) -> Source:
    """What the input at that place gets. Raises GuiFormatWorkflow for a link to nowhere, or in a circle."""
    return _Way().of_input(placed, socket, None)


class _Way:
    """One walk against the direction of the links."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, bool, int]] = set()

    def of_input(self, placed: Placed, socket: int, kind: str | None) -> Source:
        self._step(placed, True, socket)
        link_id = placed.inputs[socket].link
        if link_id is None:
            return None
        link = placed.graph.links.get(link_id)
        if link is None:
            refuse(f"its input {placed.inputs[socket].name!r} is connected to a link that is not there", *_at(placed))
        if link.origin == SUBGRAPH_INPUT and placed.host is not None:
            return self._of_host(placed, placed.host, link.origin_slot)
        origin = placed.siblings.get(link.origin)
        if origin is None:
            refuse(f"its input {placed.inputs[socket].name!r} is connected to a node that is not there", *_at(placed))
        return self.of_output(origin, link.origin_slot, kind or placed.inputs[socket].type)

    def _of_host(self, placed: Placed, host: Placed, slot: int) -> Source:
        """What comes in through an end of the subgraph."""
        if host.subgraph is None or not 0 <= slot < len(host.subgraph.inputs):
            refuse("it is connected to an input that its subgraph does not have", *_at(placed))
        # Where nothing comes from outside, as from a primitive, the subgraph node's own widget holds the value.
        return self.of_input(host, slot, None) or Promoted(host, slot)

    def of_output(self, placed: Placed, slot: int, kind: str) -> Source:
        self._step(placed, False, slot)
        if placed.node.mode == MUTED:
            return None
        if placed.node.mode == BYPASSED:
            socket = _bypass(placed, slot, kind)
            return None if socket is None else self.of_input(placed, socket, None)
        if placed.subgraph is not None:
            return self._of_subgraph(placed, placed.subgraph, slot, kind)
        if placed.node.class_type in _SETTER_OF:
            setter = _setter(placed)
            return self.of_input(setter, slot, kind) if slot < len(setter.inputs) else None
        if placed.is_virtual:
            return self.of_input(placed, slot, kind) if slot < len(placed.inputs) else None
        return Link(placed.id, slot)

    def _of_subgraph(self, placed: Placed, subgraph: EditorGraph, slot: int, kind: str) -> Source:
        if not 0 <= slot < len(subgraph.outputs):
            refuse(f"another node takes its output {slot}, which its subgraph does not have", *_at(placed))
        if not placed.inner or not subgraph.outputs[slot].links:
            return None
        link = subgraph.links.get(subgraph.outputs[slot].links[0])
        if link is None:
            refuse(f"its output {slot} is connected to a link that is not there", *_at(placed))
        if link.origin == SUBGRAPH_INPUT:
            refuse(f"its output {slot} is connected to an input of its own subgraph", *_at(placed))
        origin = placed.inner.get(link.origin)
        if origin is None:
            refuse(f"its output {slot} is connected to a node that is not there", *_at(placed))
        return self.of_output(origin, link.origin_slot, kind)

    def _step(self, placed: Placed, is_input: bool, slot: int) -> None:
        step = (placed.id, is_input, slot)
        if step in self._seen:
            refuse("its links go in a circle", *_at(placed))
        self._seen.add(step)


def users_of(placed: Placed) -> Iterator[tuple[Placed, int]]:
    """The inputs beside it that are connected to its first output."""
    for other in placed.siblings.values():
        for number, socket in enumerate(other.inputs):
            link = placed.graph.links.get(socket.link) if socket.link is not None else None
            if link and link.origin == placed.node.id and link.origin_slot == 0:
                yield other, number


def _at(placed: Placed) -> tuple[EditorNode, str]:
    return placed.node, placed.id


def _setter(placed: Placed) -> Placed:
    """The node that sets what a getter gets: they name it alike."""
    name, kind = _first(placed.node), _SETTER_OF[placed.node.class_type]
    found = [
        other for other in placed.siblings.values() if other.node.class_type == kind and _first(other.node) == name
    ]
    if not found or not name:
        refuse(f"nothing beside it sets {name[:80]!r}", *_at(placed))
    if len(found) > 1:
        refuse(f"several nodes beside it set {name[:80]!r}", *_at(placed))
    return found[0]


def _first(node: EditorNode) -> str:
    """The name that a setter or a getter has."""
    name = node.values[0] if isinstance(node.values, list) and node.values else None
    return name if isinstance(name, str) else ""


def _bypass(placed: Placed, slot: int, kind: str) -> int | None:
    """The input that a bypassed node hands on in place of an output, for an input of some type."""
    inputs = placed.inputs
    if kind in ("*", ""):
        return (slot if slot < len(inputs) else 0) if inputs else None
    given = placed.outputs[slot] if 0 <= slot < len(placed.outputs) else "*"
    fits = [number for number, socket in enumerate(inputs) if _fit(socket.type, given) and _fit(socket.type, kind)]
    if slot in fits:
        return slot
    same = [number for number, socket in enumerate(inputs) if socket.type == kind]
    return next(iter([*same, *fits]), None)


def _fit(one: str, other: str) -> bool:
    """Whether the editor lets an output of one type into an input of the other; both may name several."""
    if one in ("", "*") or other in ("", "*"):
        return True
    return bool(set(one.lower().split(",")) & set(other.lower().split(",")))
