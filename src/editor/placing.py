"""The nodes of a file at their places: each node of the workflow, and each node of every instance of a subgraph.

A `PlacedNode` has the id of its node in the prompt: the ids of the subgraph nodes around it and its own, joined by
colons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ..workflow.schemas import NodeSchema
from .document import Document, EditorGraph, EditorNode, Socket, refuse
from .widgets import is_widget

SETTER_OF = {"GetNode": "SetNode", "easy getNode": "easy setNode"}
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
        *SETTER_OF,
        *SETTER_OF.values(),
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
            if placed.node.class_type in SETTER_OF.values():
                found.setdefault((placed.node.class_type, variable_name(placed.node)), []).append(placed)
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


def variable_name(node: EditorNode) -> str:
    """The name in a Set or Get node: its first widget value."""
    name = node.values[0] if isinstance(node.values, list) and node.values else None
    return name if isinstance(name, str) else ""


def consumers_of(placed: PlacedNode) -> list[tuple[PlacedNode, int]]:
    """The inputs of nodes in the same graph that are linked to its first output."""
    return placed.siblings.consumers.get(placed.node.id, [])
