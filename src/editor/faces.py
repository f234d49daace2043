"""The face of a subgraph node: the widgets that it has for widgets inside, and their values in the file.

As the editor reads them since version 1.47, and what it makes of the `proxyWidgets` of older files: an entry for each
widget that the subgraph node shows, `[node id inside, widget name]`, or `["-1", input name]`, in the order of its
values. The frontend's `SubgraphNode` and `proxyWidgetMigration` tell these rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .document import EditorNode, refuse
from .placing import PRIMITIVE, PROXY_WIDGETS, PlacedNode, consumers_of

_QUARANTINE = "proxyWidgetErrorQuarantine"
_OWN_INPUT = "-1"
_PREFIX = re.compile(r"\s*[0-9]+\s*:\s*")
_MAX_PROXIES = 300


class Proxy(NamedTuple):
    """A widget that a subgraph node shows: the id of the node inside, the widget's name, and the node inside that."""

    node_id: str
    name: str
    inner_id: str


class Shown(NamedTuple):
    """A value on a subgraph node for a widget of a node inside; `number` is its place among the values."""

    number: int
    target: PlacedNode
    name: str
    value: Any


@dataclass(frozen=True)
class Face:
    """The values of a subgraph node by the number of its input, and those for widgets of nodes inside.

    `as_it_is` are the widgets inside that the newer editor shows on the subgraph node: their values are sent as they
    are, without what a script makes of them. `is_by_name`: the values were taken by the names that are saved too.
    `unsteady` are the names of widgets for which the editor sends another value once it has opened the file again: it
    has nothing for them on the subgraph node, or what it had put aside of an older file.
    """

    values: Mapping[int, Any]
    shown: tuple[Shown, ...]
    as_it_is: tuple[tuple[PlacedNode, str], ...]
    is_by_name: bool = False
    unsteady: tuple[str, ...] = ()


def proxies_of(node: EditorNode) -> list[Proxy] | None:
    """The widgets that an older editor's subgraph node shows; None if the file has no list of them."""
    saved = node.properties.get(PROXY_WIDGETS)
    if not isinstance(saved, list):
        return None
    found = []
    for entry in saved[:_MAX_PROXIES]:
        parts = [part for part in entry[:3] if isinstance(part, (str, int))] if isinstance(entry, list) else []
        if len(parts) >= 2:
            found.append(Proxy(str(parts[0]), str(parts[1]), str(parts[2]) if len(parts) > 2 else ""))
    return found


def face_values(host: PlacedNode, inner: Mapping[int, Any]) -> Face:
    """What the file has for the widgets of a subgraph node. `inner` are its inputs with widgets, and their own values.

    Raises GuiFormatWorkflow if the file has another number of values, and no names for them.
    """
    node, proxies = host.node, proxies_of(host.node) or []
    saved = node.values if isinstance(node.values, list) else []
    is_by_name = bool(saved) and len(saved) != len(inner) and not proxies
    values = _by_name(host, inner) if is_by_name else dict(zip(inner, saved, strict=False))
    ports = host.subgraph.inputs if host.subgraph else ()
    aside = {host.ports[name]: value for name, value in _quarantined(node) if host.ports.get(name) in inner}
    others = tuple(ports[number].name for number, value in aside.items() if values.get(number, value) != value)
    values = {**aside, **values}
    shown, as_it_is, empty = [], [], []
    for number, proxy in enumerate(proxies):
        is_there = number < len(saved) and saved[number] is not None
        is_own = proxy.node_id == _OWN_INPUT
        own = host.ports.get(proxy.name) if is_own else host.linked_widgets.get((proxy.node_id, proxy.name))
        if own in inner:
            if is_there and own is not None:
                values[own] = saved[number]
        elif target := _target(host, proxy):
            if is_there:
                shown.append(Shown(number, *target, saved[number]))
            elif number < len(saved) and not _is_control(proxy.name):
                empty.append(proxy.name)
            as_it_is.extend(_reached(*target))
    return Face(values, tuple(shown), tuple(as_it_is), is_by_name, (*empty, *others))


def _is_control(name: str) -> bool:
    return name.startswith("control_")


def _by_name(host: PlacedNode, inner: Mapping[int, Any]) -> dict[int, Any]:
    named, ports = host.node.named, host.subgraph.inputs if host.subgraph else ()
    if named is None:
        count = len(host.node.values)
        refuse(f"it has {count} values for the {len(inner)} widgets of its inputs", host.node, host.id)
    return {number: named[ports[number].name] for number in inner if ports[number].name in named}


def _quarantined(node: EditorNode) -> Iterable[tuple[str, Any]]:
    """Values that the editor has kept of older files, by the name of the input."""
    saved = node.properties.get(_QUARANTINE)
    found: dict[str, Any] = {}
    for entry in saved[:_MAX_PROXIES] if isinstance(saved, list) else ():
        original = entry.get("originalEntry") if isinstance(entry, Mapping) else None
        if isinstance(original, list) and len(original) > 1 and original[0] == _OWN_INPUT and "hostValue" in entry:
            found.setdefault(str(original[1]), entry["hostValue"])
    return found.items()


def _target(host: PlacedNode, proxy: Proxy) -> tuple[PlacedNode, str] | None:
    """The node inside that a proxy names, and the name of its widget, or of its input if it is a subgraph node."""
    target = host.inner.get(proxy.node_id)
    if target is None or proxy.name.startswith("$$"):  # a preview
        return None
    if target.subgraph is None:
        return target, proxy.name
    name = proxy.name
    while (match := _PREFIX.match(name)) and match.end() < len(name):
        name = name[match.end() :]
    number = None if proxy.inner_id else target.ports.get(name)
    if number is None:
        sources = (number for (inner, widget), number in target.linked_widgets.items()
                   if widget == name and proxy.inner_id in ("", inner))  # fmt: skip
        number = min(sources, default=None)
    return None if number is None else (target, target.subgraph.inputs[number].name)


def _reached(target: PlacedNode, name: str) -> list[tuple[PlacedNode, str]]:
    """The widgets that a shown widget is the value of: of a primitive those that it is linked to."""
    if target.node.class_type != PRIMITIVE:
        return [(target, name)]
    return [(consumer, consumer.inputs[number].widget or "") for consumer, number in consumers_of(target)]
