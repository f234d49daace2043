"""The values of a node's widgets as they stand in the file, by the names of the widgets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..workflow.schemas import CUSTOM_COMBO, InputSchema, NodeSchema
from .document import refuse
from .packs import script_values, values_by_name, with_script_widgets
from .placing import PlacedNode
from .widgets import IMAGE_COMPARE, SEED_INPUTS, Widget, unknown_choice, widgets_of

_CONTROLS = "control_"  # the names of what becomes of a value after the run begin so


def saved_values(placed: PlacedNode, schema: NodeSchema, warnings: list[str]) -> tuple[list[Widget], dict[str, Any]]:
    """The widgets of a node and their values in the file; what is not sure but sent is told in `warnings`.

    Raises GuiFormatWorkflow if the two do not match.
    """
    node, by_name = placed.node, values_by_name(placed.node)
    made = script_values(node)
    if made is not None:
        return [], made
    if by_name is not None:
        widgets = with_script_widgets(node, widgets_of(node.class_type, schema, by_name))
        return widgets, {**_defaults(placed, widgets, by_name), **by_name}
    saved = list(node.values)
    widgets = with_script_widgets(node, widgets_of(node.class_type, schema, saved))
    problem = "" if node.class_type == CUSTOM_COMBO else _mismatch(schema, widgets, saved)
    if not problem or not node.is_active:
        saved_widgets = [widget for widget in widgets if widget.is_saved]
        values = _without_former_widgets(schema, widgets, saved)
        pairs = {w.name: w.opened(value) for w, value in zip(saved_widgets, values, strict=False)}
        return widgets, {**{widget.name: widget.default for widget in widgets}, **pairs}
    if node.named is None:
        refuse(unknown_choice(schema, saved) or problem, node, placed.id)
    return _named_values(placed, schema, node.named, warnings)


def _named_values(
    placed: PlacedNode, schema: NodeSchema, named: Mapping[str, Any], warnings: list[str]
) -> tuple[list[Widget], dict[str, Any]]:
    """The values of a node whose class has changed since, by the names that newer editors save too."""
    node = placed.node
    widgets = with_script_widgets(node, widgets_of(node.class_type, schema, named))
    missing = [widget.name for widget in _without_value(widgets, named)]
    names = {widget.name for widget in widgets}
    unknown = [name for name in named if name not in names and not name.startswith(_CONTROLS)]
    left_out = [name for name in unknown if not _is_empty(named[name])]
    problem = unknown_choice(schema, named)
    if problem:
        refuse(problem, node, placed.id)
    parts = ((missing, "uses the default for"), (left_out, "no longer has an input for the saved"))
    told = [f"{text} {', '.join(map(str, found))[:200]}" for found, text in parts if found]
    warnings.append(
        f"node {placed.id} ({node.class_type[:80]}): its class has changed since the file was saved; its values are "
        f"matched by name{''.join(f', and it {part}' for part in told)}"
    )
    values = {widget.name: widget.opened(named[widget.name]) for widget in widgets if widget.name in named}
    return widgets, {**_defaults(placed, widgets, named), **values}


def _defaults(placed: PlacedNode, widgets: Sequence[Widget], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the widgets that have no value in the file. Raises GuiFormatWorkflow if there is none."""
    missing = _without_value(widgets, saved)
    without = ", ".join(widget.name for widget in missing if widget.default is None)[:200]
    if without and placed.node.is_active:
        refuse(f"the file has no value for {without}, and its class has no default", placed.node, placed.id)
    return {widget.name: widget.default for widget in missing}


def _without_value(widgets: Sequence[Widget], saved: Mapping[str, Any]) -> list[Widget]:
    return [widget for widget in widgets if widget.is_sent and widget.is_saved and widget.name not in saved]


def _mismatch(schema: NodeSchema, widgets: Sequence[Widget], saved: list[Any]) -> str:
    """Why it is not sure which saved value is which; empty if it is."""
    saved_widgets = [widget for widget in widgets if widget.is_saved]
    values = _without_former_widgets(schema, widgets, saved)
    pairs, surplus = list(zip(saved_widgets, values, strict=False)), values[len(saved_widgets) :]
    is_short = any(widget.is_sent for widget in saved_widgets[len(values) :])
    # Partner nodes and nodes without widgets save a text that they show of their last run. It is not sent.
    shows_text = not saved_widgets or schema.is_partner
    shown = (dict, list, str) if any(w.kind == IMAGE_COMPARE for w in widgets) else (str,) if shows_text else ()
    repeated = [value for widget, value in pairs if widget.kind == "COLOR"]  # formerly there were two of it
    has_more = any(not _is_empty(v) and not isinstance(v, shown) and v not in repeated for v in surplus)
    if has_more or ((is_short or surplus) and not all(widget.fits(value) for widget, value in pairs)):
        return (
            f"its file has {len(saved)} values for its {len(saved_widgets)} widgets, so they cannot be matched: the "
            "node's class has changed since the file was saved"
        )
    return ""


def _is_empty(value: Any) -> bool:
    """Whether a surplus value is empty, like that of a button or of a preview."""
    return value is None or value is False or value == ""


def _without_former_widgets(schema: NodeSchema, widgets: Sequence[Widget], values: list[Any]) -> list[Any]:
    """Drop the values of inputs that used to be widgets and are sockets now, if the file has that many values.

    The editor does so too, but older versions miscount after a seed.
    """
    names = {widget.name for widget in widgets}
    still_widgets = [
        name in names for name, config in schema.inputs.items() for name in _former_widgets(name, config, names)
    ]
    if all(still_widgets) or len(still_widgets) != len(values):
        return values
    return [value for value, is_widget in zip(values, still_widgets, strict=True) if is_widget]


def _former_widgets(name: str, config: InputSchema, names: Collection[str]) -> list[str]:
    """The widgets that an input had formerly: its own and `control_after_generate`; none for a plain socket."""
    if name not in names and not config.parameters.get("forceInput"):
        return []
    has_control = config.parameters.get("control_after_generate") or name in SEED_INPUTS
    return [name, name] if has_control else [name]
