"""The editor's App Mode: the inputs and outputs that a file's author chose, as places in the prompt.

A file holds them in `extra.linearData`: `{"inputs": [[node, widget name, config?], …], "outputs": [node id, …]}`. A
node is told by its id, by `SUBGRAPH:ID`, by `GRAPH:ID:WIDGET` with both parts percent-encoded, or, in older files, by
the id of a node inside a subgraph that shows its widget.
"""

from __future__ import annotations

import urllib.parse
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from ..workflow.graph import Slot
from .document import Document, Socket
from .faces import proxies_of
from .placing import PRIMITIVE, PlacedNode, consumers_of

_MAX_ENTRIES = 300
_MAX_NAME_LENGTH = 200


@dataclass(frozen=True)
class AppInput:
    """One input: its name as the editor shows it, and the inputs of the prompt that have its value, all of them."""

    name: str
    targets: tuple[Slot, ...]


@dataclass(frozen=True)
class App:
    """The inputs in the author's order, each with another name, and the ids of the output nodes."""

    inputs: tuple[AppInput, ...]
    outputs: tuple[str, ...]


def read_app(document: Document, placed_nodes: Iterable[PlacedNode], prompt: Mapping[str, Any]) -> App | None:
    """What the author chose, without what is not in the prompt any more; None if that is nothing."""
    inputs, outputs = document.app.get("inputs"), document.app.get("outputs")
    if not inputs and not outputs:
        return None
    reader = _Reader(placed_nodes, prompt)
    found = list(dict.fromkeys(entry for saved in _entries(inputs) if (entry := reader.input_of(saved))))
    unique = dict.fromkeys(node_id for saved in _entries(outputs) for node_id in reader.outputs_of(saved))
    return App(tuple(_with_unique_names(found)), tuple(unique)) if found or unique else None


def _entries(saved: Any) -> list[Any]:
    return saved[:_MAX_ENTRIES] if isinstance(saved, list) else []


@dataclass(frozen=True)
class _Found:
    name: str
    placed: PlacedNode
    targets: tuple[Slot, ...]


def _with_unique_names(found: list[_Found]) -> Iterator[AppInput]:
    """The inputs, with the node's title in the name where two are equal, its id where those are too, or a number."""
    counts = Counter(entry.name for entry in found)
    titled = [f"{entry.name} ({entry.placed.title})" if counts[entry.name] > 1 else entry.name for entry in found]
    counts = Counter(titled)
    taken = set[str]()
    for entry, name in zip(found, titled, strict=True):
        exact = f"{entry.name} ({entry.placed.title}, node {entry.placed.id})" if counts[name] > 1 else name
        exact = exact[:_MAX_NAME_LENGTH]
        numbered = (f"{exact} {number}" for number in count(2))
        unique = exact if exact not in taken else next(name for name in numbered if name not in taken)
        taken.add(unique)
        yield AppInput(unique, entry.targets)


class _Reader:
    """Reads entries of `extra.linearData`."""

    def __init__(self, placed_nodes: Iterable[PlacedNode], prompt: Mapping[str, Any]) -> None:
        self._placed = {placed.id: placed for placed in placed_nodes}
        self._prompt = prompt
        self._found: dict[tuple[str, str], _Found | None] = {}
        """What is known of widgets, by node id and name."""

    def input_of(self, saved: Any) -> _Found | None:
        """An entry of `inputs` as its node, the name of its widget, and where that goes."""
        if not isinstance(saved, list) or len(saved) < 2 or not isinstance(saved[1], str):
            return None
        found = self._widget_of(saved[0], saved[1])
        if found is None:
            return None
        placed, name = found
        if (placed.id, name) not in self._found:
            is_shown = placed.node.mode == 0 and not _is_linked(placed, name)
            targets = tuple(dict.fromkeys(self._targets(placed, name))) if is_shown else ()
            self._found[placed.id, name] = _Found(_label(placed, name), placed, targets) if targets else None
        return self._found[placed.id, name]

    def outputs_of(self, saved: Any) -> Iterator[str]:
        """The nodes of the prompt that an entry of `outputs` means: of a subgraph node the output nodes inside."""
        placed = self._placed.get(_id_text(saved).rpartition(":")[2])
        for node in _inside(placed) if placed else ():
            is_output = node is placed or (node.schema is not None and node.schema.is_output)
            if is_output and node.id in self._prompt:
                yield node.id

    def _widget_of(self, saved: Any, name: str) -> tuple[PlacedNode, str] | None:
        parts = _id_text(saved).split(":")
        node_id = parts[0]
        if len(parts) == 3:
            node_id, name = urllib.parse.unquote(parts[1]), urllib.parse.unquote(parts[2])
        elif len(parts) == 2:
            node_id = parts[1]
        placed = self._placed.get(node_id)
        if placed is not None and placed.host is None:
            return placed, name
        return self._shown_by(node_id, name) if len(parts) == 1 else None

    def _shown_by(self, inner_id: str, name: str) -> tuple[PlacedNode, str] | None:
        """The widget of the one subgraph node that shows the widget of a node inside it."""
        found = self._shown_widgets.get((inner_id, name), [])
        return found[0] if len(found) == 1 else None

    @cached_property
    def _shown_widgets(self) -> dict[tuple[str, str], list[tuple[PlacedNode, str]]]:
        """By node and widget inside subgraph nodes: the input that is linked to it, else itself if it is shown."""
        shown: dict[tuple[str, str], list[tuple[PlacedNode, str]]] = {}
        for host in self._placed.values():
            if host.host is None and host.subgraph is not None:
                linked = {key: (host, host.subgraph.inputs[n].name) for key, n in host.linked_widgets.items()}
                others = {(proxy.node_id, proxy.name) for proxy in proxies_of(host.node) or ()} - linked.keys()
                own = {key: (host.inner[key[0]], key[1]) for key in others if key[0] in host.inner}
                for key, widget in {**linked, **own}.items():
                    shown.setdefault(key, []).append(widget)
        return shown

    def _targets(self, placed: PlacedNode, name: str) -> Iterator[Slot]:
        """The places of the prompt that the value of a widget goes to."""
        waiting, seen = deque([(placed, name)]), set[tuple[str, str]]()
        while waiting:
            placed, name = waiting.popleft()
            if (placed.id, name) in seen:
                continue
            seen.add((placed.id, name))
            if placed.subgraph is not None:
                waiting.extend(_behind(placed, name))
            elif placed.node.class_type == PRIMITIVE:
                consumers = consumers_of(placed) if name == "value" else []
                waiting.extend((consumer, consumer.inputs[number].name) for consumer, number in consumers)
            elif name in (inputs := self._inputs(placed)) and not isinstance(inputs[name], list):
                yield Slot(placed.id, name)

    def _inputs(self, placed: PlacedNode) -> Mapping[str, Any]:
        entry = self._prompt.get(placed.id)
        return entry["inputs"] if entry else {}


def _behind(host: PlacedNode, name: str) -> Iterator[tuple[PlacedNode, str]]:
    """The widgets inside a subgraph that one of its inputs leads to, or that it shows without an input."""
    ports = host.subgraph.inputs if host.subgraph else ()
    numbers = [number for number, port in enumerate(ports) if port.name == name]
    for number in numbers:
        for inner, socket in _linked(host, number):
            yield inner, _widget_name(inner, socket) or inner.inputs[socket].name
    for proxy in () if numbers else proxies_of(host.node) or ():
        inner_node = host.inner.get(proxy.node_id)
        if proxy.name == name and inner_node is not None:
            yield inner_node, name


def _linked(host: PlacedNode, number: int) -> Iterator[tuple[PlacedNode, int]]:
    """The inputs inside a subgraph that are linked to its input with that number."""
    port = host.subgraph.inputs[number] if host.subgraph else None
    for link in port.links if port else ():
        if found := host.inner.by_link.get(link):
            yield found


def _inside(placed: PlacedNode) -> Iterator[PlacedNode]:
    """A node, or those inside a subgraph node."""
    if placed.subgraph is None:
        yield placed
    for inner in placed.inner.values():
        yield from _inside(inner)


def _widget_name(placed: PlacedNode, number: int) -> str:
    socket = placed.inputs[number]
    return socket.name if placed.subgraph is not None else socket.widget or ""


def _socket(placed: PlacedNode, name: str) -> Socket | None:
    names = (socket for socket in placed.inputs if name in (socket.widget, socket.name))
    return next(names, None)


def _is_linked(placed: PlacedNode, name: str) -> bool:
    socket = _socket(placed, name)
    return socket is not None and socket.link is not None


def _label(placed: PlacedNode, name: str) -> str:
    """The name of a widget as the editor shows it: the user's, else that of the class, else its own."""
    socket = _socket(placed, name)
    declared = placed.schema.inputs.get(name) if placed.schema else None
    shown = declared.parameters.get("display_name") if declared else None
    return (socket.label if socket else "") or (shown if isinstance(shown, str) else "") or name


def _id_text(value: Any) -> str:
    """A saved id as text, which may be a number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)[:1000] if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
