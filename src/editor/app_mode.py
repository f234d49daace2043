"""The editor's App Mode: the inputs and outputs that a file's author chose, as places in the prompt.

A file holds them in `extra.linearData`: `{"inputs": [[node, widget name, config?], …], "outputs": [node id, …]}`. A
node is told by its id, by `SUBGRAPH:ID`, by `GRAPH:ID:WIDGET` with both parts percent-encoded, or, in older files, by
the id of a node inside a subgraph that shows its widget.
"""

from __future__ import annotations

import difflib
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from ..overrides import Slot
from .document import Document, Socket
from .faces import proxies_of
from .placing import PRIMITIVE, PlacedNode, consumers_of
from .values import wrap_list

_MAX_ENTRIES, _MAX_TARGETS, _MAX_LISTED = 300, 1000, 30
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


def set_inputs_of_app(
    prompt: Mapping[str, Any], app: App | None, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[Slot, str]]:
    """A copy of a prompt with values under the names that its author chose, and for each input set what it is called.

    Raises InvalidInput for a name that there is not.
    """
    inputs = {entry.name: entry.targets for entry in app.inputs} if app else {}
    changed = {node_id: {**node, "inputs": {**node["inputs"]}} for node_id, node in prompt.items()}
    called: dict[Slot, str] = {}
    for name, value in given.items():
        if name not in inputs:
            raise _unknown_input(name, list(inputs))
        for slot in inputs[name]:
            if slot.node_id in changed:
                changed[slot.node_id]["inputs"][slot.name] = wrap_list(value)
                called[slot] = f"inputs[{name!a}]"
    return changed, called


def _unknown_input(name: str, known: list[str]) -> InvalidInput:
    if not known:
        return InvalidInput(
            "inputs: the workflow's author chose none (in the editor's App Mode, in a file as it saves it); overrides "
            "can set any input of any node",
            field="inputs",
        )
    near = difflib.get_close_matches(name[:_MAX_NAME_LENGTH], known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    names = ", ".join(repr(known_name) for known_name in known[:_MAX_LISTED])
    return InvalidInput(
        f"inputs: the workflow's author chose no input {name[:80]!a}; {hint}There are {names}", field="inputs"
    )


def read_app(document: Document, placed_nodes: Iterable[PlacedNode], prompt: Mapping[str, Any]) -> App | None:
    """What the author chose, without what is not in the prompt any more; None if that is nothing."""
    inputs, outputs = document.app.get("inputs"), document.app.get("outputs")
    if not inputs and not outputs:
        return None
    reader = _Reader({placed.id: placed for placed in placed_nodes}, prompt)
    found = [entry for saved in _entries(inputs) if (entry := reader.input_of(saved))]
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
    """The inputs, with the title of the node in the name where two are equal, and its id where those are too."""
    names = [entry.name for entry in found]
    titled = [f"{entry.name} ({entry.placed.title})" for entry in found]
    for number, entry in enumerate(found):
        name = names[number]
        if names.count(name) > 1:
            name = titled[number]
            if titled.count(name) > 1:
                name = f"{entry.name} ({entry.placed.title}, node {entry.placed.id})"
        yield AppInput(name[:_MAX_NAME_LENGTH], entry.targets)


@dataclass(frozen=True)
class _Reader:
    placed: Mapping[str, PlacedNode]
    prompt: Mapping[str, Any]

    def input_of(self, saved: Any) -> _Found | None:
        """An entry of `inputs` as its node, the name of its widget, and where that goes."""
        if not isinstance(saved, list) or len(saved) < 2 or not isinstance(saved[1], str):
            return None
        found = self._widget_of(saved[0], saved[1])
        if found is None:
            return None
        placed, name = found
        targets = tuple(dict.fromkeys(self._targets(placed, name)))[:_MAX_TARGETS]
        is_shown = placed.node.mode == 0 and not _is_linked(placed, name)
        return _Found(_label(placed, name), placed, targets) if is_shown and targets else None

    def outputs_of(self, saved: Any) -> Iterator[str]:
        """The nodes of the prompt that an entry of `outputs` means: of a subgraph node the output nodes inside."""
        placed = self.placed.get(_id_text(saved).rpartition(":")[2])
        for node in _inside(placed) if placed else ():
            is_output = node is placed or (node.schema is not None and node.schema.is_output)
            if is_output and node.id in self.prompt:
                yield node.id

    def _widget_of(self, saved: Any, name: str) -> tuple[PlacedNode, str] | None:
        parts = _id_text(saved).split(":")
        node_id = parts[0]
        if len(parts) == 3:
            node_id, name = urllib.parse.unquote(parts[1]), urllib.parse.unquote(parts[2])
        elif len(parts) == 2:
            node_id = parts[1]
        placed = self.placed.get(node_id)
        if placed is not None and placed.host is None:
            return placed, name
        return self._shown_by(node_id, name) if len(parts) == 1 else None

    def _shown_by(self, inner_id: str, name: str) -> tuple[PlacedNode, str] | None:
        """The widget of the one subgraph node that shows the widget of a node inside it."""
        hosts = (placed for placed in self.placed.values() if placed.host is None and placed.subgraph is not None)
        found = [widget for host in hosts for widget in _shown_widgets(host, inner_id, name)]
        return found[0] if len(found) == 1 else None

    def _targets(self, placed: PlacedNode, name: str) -> Iterator[Slot]:
        """The places of the prompt that the value of a widget goes to."""
        waiting, seen = [(placed, name)], set[tuple[str, str]]()
        while waiting:
            placed, name = waiting.pop(0)
            if (placed.id, name) in seen or len(seen) > _MAX_TARGETS:
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
        entry = self.prompt.get(placed.id)
        return entry["inputs"] if entry else {}


def _shown_widgets(host: PlacedNode, inner_id: str, name: str) -> list[tuple[PlacedNode, str]]:
    """The input of a subgraph node that is linked to a widget inside; else that widget, if it shows it otherwise."""
    number = host.linked_widgets.get((inner_id, name))
    if number is not None and host.subgraph is not None:
        return [(host, host.subgraph.inputs[number].name)]
    inner = host.inner.get(inner_id)
    is_shown = any((proxy.node_id, proxy.name) == (inner_id, name) for proxy in proxies_of(host.node) or ())
    return [(inner, name)] if inner is not None and is_shown else []


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
