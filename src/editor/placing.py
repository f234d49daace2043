"""The nodes of a file at their places: each node of the workflow, and each node of every instance of a subgraph.

A `PlacedNode` has the id of its node in the prompt: the ids of the subgraph nodes around it and its own, joined by
colons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..workflow.schemas import NodeSchema
from .document import Document, EditorGraph, EditorNode, Socket, refuse
from .packs import EDITOR_CLASSES, SETTER_OF, is_broadcaster
from .stand_ins import schema_of_saved
from .widgets import is_widget

PRIMITIVE = "PrimitiveNode"
PROXY_WIDGETS = "proxyWidgets"
"""The property in which older editors save the widgets that a subgraph node shows."""
VIRTUAL_CLASSES = EDITOR_CLASSES | {PRIMITIVE, "Note", "MarkdownNote", "Reroute"}
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
    def free_inputs(self) -> dict[str, str]:
        """A node with an input of that type that has no link, by type; of widgets those that the file has, too."""
        found: dict[str, str] = {}
        for placed in self.values():
            node = placed.node
            if node.is_active and node.class_type not in VIRTUAL_CLASSES and not is_broadcaster(node):
                saved = {socket.name for socket in node.inputs}
                for socket in placed.inputs:
                    if socket.link is None and (socket.widget is None or socket.name in saved):
                        for part in socket.type.lower().split(","):
                            found.setdefault(part or "*", placed.id)
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
        known = self.subgraph.name if self.subgraph else self.schema.title if self.schema else ""
        return self.node.title or known or self.node.class_type

    @cached_property
    def ports(self) -> dict[str, int]:
        """The inputs of a subgraph node by name: their numbers."""
        ports = self.subgraph.inputs if self.subgraph else ()
        return {port.name: number for number, port in reversed(list(enumerate(ports)))}

    @cached_property
    def linked_widgets(self) -> dict[tuple[str, str], int]:
        """By node and widget inside a subgraph: the number of its input that is linked to it first."""
        found: dict[tuple[str, str], int] = {}
        for number, port in enumerate(self.subgraph.inputs if self.subgraph else ()):
            first = next((target for link in port.links if (target := self.inner.by_link.get(link))), None)
            if first:
                inner, socket = first[0], first[0].inputs[first[1]]
                name = socket.name if inner.subgraph is not None else socket.widget or ""
                found.setdefault((inner.node.id, name), number)
        return found

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
            refuse(f"its subgraphs are nested more than {_MAX_SUBGRAPH_DEPTH} deep, or contain themselves")
        numbers = {node_id: number for number, node_id in enumerate(graph.nodes)}
        for node in sorted(graph.nodes.values(), key=lambda node: node.order):
            self._check()
            node_id = f"{host.id}:{node.id}" if host else node.id
            schema = self._schemas.get(node.class_type)
            if schema is not None and schema.is_stand_in:
                schema = schema_of_saved(node)
            placed = PlacedNode(node_id, node, graph, schema, host)
            placed.siblings, placed.subgraph = siblings, self._document.subgraphs.get(node.class_type)
            placed.inputs, placed.outputs = _with_broadcasts(placed, _sockets(placed)), _outputs(placed)
            around = host.file_position[:-1] if host else ()
            placed.file_position = (*around, numbers[node.id], len(graph.nodes))
            siblings[node.id] = placed
            self.placed_nodes.append(placed)
            proxies = node.properties.get(PROXY_WIDGETS)
            self._size += len(proxies) if isinstance(proxies, list) else 0
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
    saved = {socket.name: socket for socket in placed.node.inputs}
    if placed.subgraph is not None:
        declared = [_as_saved(Socket(port.name, port.type), saved) for port in placed.subgraph.inputs]
    elif placed.schema is not None:
        inputs = placed.schema.inputs
        names = [*(n for n in inputs if not is_widget(inputs[n])), *(n for n in inputs if is_widget(inputs[n]))]
        declared = []
        for name in names:
            kind, widget = inputs[name].kind, name if is_widget(inputs[name]) else None
            if kind != _AUTOGROW:
                declared.append(_as_saved(Socket(name, kind, widget=widget), saved))
            if kind.startswith(_DYNAMIC_PREFIX):
                declared.extend(socket for socket in placed.node.inputs if socket.name.startswith(f"{name}."))
    else:
        declared = []
    known = {socket.name for socket in declared}
    return (*declared, *(socket for socket in placed.node.inputs if socket.name not in known))


def _as_saved(declared: Socket, saved: Mapping[str, Socket]) -> Socket:
    """A socket of the class with what the file has of it; the editor itself finds what a dynamic type is."""
    found = saved.get(declared.name)
    kind = declared.type
    if kind.startswith(_DYNAMIC_PREFIX):
        kind = found.type if found and not found.type.startswith(_DYNAMIC_PREFIX) else "*"
    return replace(declared, type=kind, link=found.link, label=found.label) if found else replace(declared, type=kind)


def _outputs(placed: PlacedNode) -> tuple[str, ...]:
    declared, saved = placed.schema.outputs if placed.schema else (), placed.node.outputs
    types = (
        (saved[number] if number < len(saved) else "*") if kind.startswith(_DYNAMIC_PREFIX) else kind
        for number, kind in enumerate(declared)
    )
    return (*types, *saved[len(declared) :])


def _with_broadcasts(placed: PlacedNode, sockets: tuple[Socket, ...]) -> tuple[Socket, ...]:
    """The sockets with the links that Use Everywhere makes to them while the editor queues.

    Its list counts the sockets of the running editor, which older versions of the editor saved all, and newer ones
    without those of widgets that have no link.
    """
    for broadcast in (placed.graph.broadcasts or {}).get(placed.node.id, ()):
        saved = placed.node.inputs[broadcast.slot].name if broadcast.slot < len(placed.node.inputs) else None
        candidates = [n for n, socket in enumerate(sockets) if n == broadcast.slot or socket.name == saved]
        fitting = [n for n in candidates if types_match(sockets[n].type, broadcast.type)]
        if len(fitting) != 1:
            refuse("extra.ue_links does not identify one of its inputs", placed.node, placed.id)
        link = replace(sockets[fitting[0]], link=broadcast.link_id)
        sockets = (*sockets[: fitting[0]], link, *sockets[fitting[0] + 1 :])
    return sockets


def types_match(one: str, other: str) -> bool:
    """Whether the editor links an output of one type to an input of the other; both may be comma-separated lists."""
    if one in ("", "*") or other in ("", "*"):
        return True
    return bool(set(one.lower().split(",")) & set(other.lower().split(",")))


def variable_name(node: EditorNode) -> str:
    """The name in a Set or Get node: its first widget value."""
    name = node.values[0] if isinstance(node.values, list) and node.values else None
    return name if isinstance(name, str) else ""


def consumers_of(placed: PlacedNode) -> list[tuple[PlacedNode, int]]:
    """The inputs of nodes in the same graph that are linked to its first output."""
    return placed.siblings.consumers.get(placed.node.id, [])
