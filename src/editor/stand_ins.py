"""The schema of a node whose class nobody here knows, as far as the saved node shows it: for drafts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..workflow.schemas import STAND_IN, InputSchema, NodeSchema
from .document import GROUP_NODE_PREFIXES, SUBGRAPH_ID, EditorNode
from .packs import BROADCASTERS
from .widgets import CONTROL_VALUES, SEED_INPUTS, is_widget


def schema_of_saved(node: EditorNode) -> NodeSchema | None:
    """Its sockets and widgets, and the types of its outputs. Widgets that the file does not name are `value_1`, ….

    Newer editors save a socket for each widget, and with `named` the names of all values; older ones only the values.
    None for what is no node by itself: one that only broadcasts, a group node, a subgraph that is not in the file.
    """
    is_group = node.class_type.startswith(GROUP_NODE_PREFIXES) or SUBGRAPH_ID.fullmatch(node.class_type)
    if is_group or node.class_type in BROADCASTERS:
        return None
    sockets = {socket.name: InputSchema(socket.type, {}, False) for socket in node.inputs if not socket.widget}
    named = node.values if isinstance(node.values, Mapping) else node.named
    widgets = _by_name(node, named) if named is not None else _by_socket(node, list(node.values))
    return NodeSchema({**sockets, **widgets}, node.outputs, False, False, STAND_IN, node.class_type)


def _by_name(node: EditorNode, named: Mapping[str, Any]) -> dict[str, InputSchema]:
    kinds = {socket.widget: socket.type for socket in node.inputs if socket.widget}
    return {str(name): _widget(kinds.get(name, "COMBO")) for name in named}


def _by_socket(node: EditorNode, values: Sequence[Any]) -> dict[str, InputSchema]:
    sockets = [(socket.widget, socket.type) for socket in node.inputs if socket.widget]
    widgets = dict(_in_turn(sockets, values))
    saved = sum(2 if widget.parameters.get("control_after_generate") else 1 for widget in widgets.values())
    return widgets if saved == len(values) else {f"value_{n}": _widget("COMBO") for n in range(1, len(values) + 1)}


def _in_turn(sockets: Sequence[tuple[str, str]], values: Sequence[Any]) -> Iterator[tuple[str, InputSchema]]:
    """The widgets with sockets; a number that is followed by what the editor does with it has a widget for that."""
    place = 0
    for name, kind in sockets:
        after = values[place + 1] if place + 1 < len(values) else None
        has_control = kind == "INT" and isinstance(after, str) and after in CONTROL_VALUES
        yield name, _widget(kind, has_control, name)
        place += 2 if has_control else 1


def _widget(kind: str, has_control: bool = False, name: str = "") -> InputSchema:
    """A widget of a type; one that the editor has no widget for takes any value, as a list of options does."""
    parameters = {"control_after_generate": has_control} if has_control or name in SEED_INPUTS else {}
    widget = InputSchema(kind, parameters, False)
    return widget if is_widget(widget) else InputSchema("COMBO", {}, False)
