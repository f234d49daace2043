"""Where an input's value comes from: through reroutes, Set/Get nodes, bypassed nodes, subgraph inputs and outputs."""

from __future__ import annotations

from typing import NamedTuple

from ..workflow.graph import Link
from .document import BYPASSED, MUTED, SUBGRAPH_INPUT, EditorGraph, EditorNode, refuse
from .packs import SETTER_OF
from .placing import PRIMITIVE, PlacedNode, types_match, variable_name


class PromotedWidget(NamedTuple):
    """An input whose value is that of a promoted widget on the subgraph node around it (`host`)."""

    host: PlacedNode
    socket: int


class FromPrimitive(NamedTuple):
    """An input whose value a primitive has put into its widget, or into that of the subgraph node around it."""

    primitive: PlacedNode
    host: PlacedNode | None = None
    socket: int = 0


Source = Link | PromotedWidget | FromPrimitive | None
"""The source of an input: an output of a node, a widget of a subgraph node, a primitive, or nothing."""


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
    """Follows links upstream. Each input and output is followed once, however many nodes are linked through it.

    `unset` are the Get nodes that were met of which no node sets the name: they give nothing.
    """

    def __init__(self) -> None:
        self.unset: dict[str, PlacedNode] = {}
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
            refuse("its links form a cycle", *_location(step.placed))
        self._visited.add(step.key)

    def _after_input(self, step: _Step) -> Source | _Step:
        placed, socket = step.placed, step.placed.inputs[step.number]
        if socket.link is None:
            return None
        link = placed.graph.links.get(socket.link)
        if link is None:
            refuse(f"its input {socket.name!r} is connected to a link that does not exist", *_location(placed))
        if link.origin == SUBGRAPH_INPUT and placed.host is not None:
            return self._source_of_subgraph_input(placed, placed.host, link.origin_slot)
        origin = placed.siblings.get(link.origin)
        if origin is None:
            refuse(f"its input {socket.name!r} is connected to a node that does not exist", *_location(placed))
        return _Step(origin, False, link.origin_slot)

    def _source_of_subgraph_input(self, placed: PlacedNode, host: PlacedNode, slot: int) -> Source:
        """The source of an input inside a subgraph that is linked to an input of the subgraph."""
        if host.subgraph is None or not 0 <= slot < len(host.subgraph.inputs):
            refuse("it is connected to an input that its subgraph does not have", *_location(placed))
        if host.inputs[slot].link is None:
            return PromotedWidget(host, slot)
        source = self.source_of(host, slot)
        return FromPrimitive(source.primitive, host, slot) if isinstance(source, FromPrimitive) else source

    def _after_output(self, step: _Step) -> Source | _Bypass | _Step:
        placed, slot = step.placed, step.number
        if placed.node.mode == MUTED:
            return None
        if placed.node.mode == BYPASSED:
            return _Bypass(placed, slot)
        if placed.subgraph is not None:
            return _after_subgraph_output(placed, placed.subgraph, slot)
        return self._through(placed, slot) if placed.is_virtual else Link(placed.id, slot)

    def _through(self, placed: PlacedNode, slot: int) -> _Step | FromPrimitive | None:
        """What an output of a node that only the editor knows gives: the input of that number, or what a Set has."""
        if placed.node.class_type == PRIMITIVE:
            return FromPrimitive(placed)
        passed: PlacedNode | None = placed
        if placed.node.class_type in SETTER_OF:
            passed = _setter(placed)
            if passed is None:
                self.unset[placed.id] = placed
        return _Step(passed, True, slot) if passed is not None and slot < len(passed.inputs) else None


def _after_subgraph_output(placed: PlacedNode, subgraph: EditorGraph, slot: int) -> _Step | None:
    if not 0 <= slot < len(subgraph.outputs):
        refuse(f"another node is linked to its output {slot}, which its subgraph does not have", *_location(placed))
    found = (subgraph.links.get(link) for link in subgraph.outputs[slot].links)
    link = next((link for link in found if link), None)
    if not placed.inner or link is None:
        return None
    if link.origin == SUBGRAPH_INPUT:
        refuse(f"its output {slot} is connected to an input of its own subgraph", *_location(placed))
    origin = placed.inner.get(link.origin)
    if origin is None:
        refuse(f"its output {slot} is connected to a node that does not exist", *_location(placed))
    return _Step(origin, False, link.origin_slot)


def _location(placed: PlacedNode) -> tuple[EditorNode, str]:
    return placed.node, placed.id


def _setter(placed: PlacedNode) -> PlacedNode | None:
    """The Set node of a Get node: both have the same name as their value. It may be in a graph around it."""
    name, kind = variable_name(placed.node), SETTER_OF[placed.node.class_type]
    scope: PlacedNode | None = placed
    while scope is not None and name:
        found = scope.siblings.setters.get((kind, name), [])
        if len(found) > 1:
            refuse(f"several other nodes set {name[:80]!r}", *_location(placed))
        if found:
            return found[0]
        scope = scope.host
    return None


def _bypass_input(placed: PlacedNode, slot: int, kind: str) -> int | None:
    """The input that a bypassed node passes through in place of an output, for a target of type `kind`."""
    inputs = placed.inputs
    if kind in ("*", ""):
        return (slot if slot < len(inputs) else 0) if inputs else None
    output_type = placed.outputs[slot] if 0 <= slot < len(placed.outputs) else "*"
    fitting = [
        number
        for number, socket in enumerate(inputs)
        if types_match(socket.type, output_type) and types_match(socket.type, kind)
    ]
    if slot in fitting:
        return slot
    same = [number for number, socket in enumerate(inputs) if socket.type == kind]
    return next(iter([*same, *fitting]), None)
