"""The value of every widget, as the editor has it after it has opened a file and is about to queue."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..workflow.schemas import InputSchema, NodeSchema
from .document import refuse
from .dynamic_prompts import choose_texts
from .placing import PRIMITIVE, PlacedNode, consumers_of
from .widgets import SEED_INPUTS, Widget, widgets_of

# Classes in whose `filename_prefix` the editor itself replaces dates and the values of other nodes.
_SAVE_CLASSES = frozenset(
    {
        "SaveImage",
        "SaveVideo",
        "SaveAnimatedWEBP",
        "SaveWEBM",
        "SaveAudio",
        "SaveGLB",
        "SaveAnimatedPNG",
        "CLIPSave",
        "VAESave",
        "ModelSave",
        "LoraSave",
        "SaveLatent",
    }
)
_MAX_NAME_LENGTH = 4096  # characters; PATH_MAX of Linux
_SAMPLERS = ("KSampler", "KSamplerAdvanced")
_REPLACE_PROPERTY = "Run widget replace on values"
_PROXY_WIDGETS = "proxyWidgets"
_SEARCH_NAME_PROPERTY = "Node name for S&R"
_PLACEHOLDER = re.compile("%([^%]+)%")
_INVALID_IN_NAME = re.compile(r'[/?<>\\:*|"\x00-\x1F\x7F]')
_DATE_PART = re.compile("d{1,2}|h{1,2}|m{1,2}|M{1,2}|s{1,2}|y{2,4}")
# In node packs that save widget values by name: a widget that is saved but not sent.
_UNSENT_WIDGET = "videopreview"


@dataclass(frozen=True)
class ConversionContext:
    """The inputs of a conversion besides the file: the local time, and how an option of `{a|b}` is chosen."""

    now: time.struct_time
    choose: Callable[[Sequence[str]], str] = random.choice


class Values:
    """The values of the widgets of all placed nodes."""

    def __init__(self, placed_nodes: Iterable[PlacedNode], context: ConversionContext) -> None:
        self._placed_nodes, self._context = list(placed_nodes), context
        self._values: dict[str, dict[str, Any]] = {}
        """By the id of a placed node: name of a widget -> its value."""
        self._widgets: dict[str, list[Widget]] = {}
        self._promoted: dict[str, dict[int, Any]] = {}
        """By the id of a subgraph node: number of an input -> the value of its promoted widget."""
        last_to_first = sorted(self._placed_nodes, key=lambda placed: placed.file_position, reverse=True)
        self._by_title = {placed.title: placed.id for placed in last_to_first}
        """By title: the id of the first node with it."""
        self._by_search_name = {
            name: placed.id
            for placed in last_to_first
            if isinstance(name := placed.node.properties.get(_SEARCH_NAME_PROPERTY), str)
        }
        for placed in self._placed_nodes:
            if placed.schema is not None and placed.subgraph is None:
                self._widgets[placed.id], self._values[placed.id] = _saved_values(placed, placed.schema)
        for placed in reversed(self._placed_nodes):  # inner subgraph nodes first
            if placed.subgraph is not None and placed.inner:
                self._promoted[placed.id] = self._promoted_values(placed)
        for placed in self._placed_nodes:
            if placed.node.class_type == PRIMITIVE:
                self._apply_primitive(placed)

    def sent_inputs(self, placed: PlacedNode) -> dict[str, Any]:
        """The inputs that a node's widgets contribute to the prompt: name -> value."""
        node_values = self._values.get(placed.id, {})
        known = {widget.name: widget for widget in self._widgets.get(placed.id, ())}
        return {
            name: self._queued_value(placed, known.get(name), value)
            for name, value in node_values.items()
            if name not in known or known[name].is_sent
        }

    def promoted_value(self, host: PlacedNode, socket: int) -> Any:
        """The value of the widget at an input of a subgraph node; None if there is no widget."""
        return self._promoted.get(host.id, {}).get(socket)

    def has_promoted(self, host: PlacedNode, socket: int) -> bool:
        """Whether a subgraph node has a widget at that input."""
        return socket in self._promoted.get(host.id, {})

    # --- Subgraphs and primitives ------------------------------------------------------------------------

    def _promoted_values(self, host: PlacedNode) -> dict[int, Any]:
        """The widgets of a subgraph node: input number -> its own saved value, else that of the inner widget."""
        found: dict[int, Any] = {}
        for number, port in enumerate(host.subgraph.inputs if host.subgraph else ()):
            inner = [value for link in port.links for value in self._inner_value(host, link)]
            if inner:
                found[number] = inner[0]
        saved = host.node.values if isinstance(host.node.values, list) else []
        proxies = host.node.properties.get(_PROXY_WIDGETS)
        if not isinstance(proxies, list):
            if saved and len(saved) != len(found):
                refuse(f"it has {len(saved)} values for the {len(found)} widgets of its inputs", host.node, host.id)
            return {**found, **dict(zip(found, saved, strict=False))}
        self._check_proxies(host, found, proxies, saved)
        return found

    def _check_proxies(self, host: PlacedNode, found: Mapping[int, Any], proxies: list[Any], saved: list[Any]) -> None:
        """Refuse a file in which an older editor has saved other values than the inner widgets have.

        Newer versions show the inner widgets.
        """
        if len(proxies) != len(saved):
            return
        numbers = {port.name: number for number, port in enumerate(host.subgraph.inputs if host.subgraph else ())}
        for proxy, value in zip(proxies, saved, strict=True):
            name = proxy[1] if isinstance(proxy, list) and len(proxy) > 1 and str(proxy[0]) == "-1" else None
            number = numbers.get(name) if isinstance(name, str) else None
            if number is not None and number in found and value is not None and value != found[number]:
                refuse(
                    f"its input {name!r} has one value and the node inside another; which of them is sent depends on "
                    "the editor's version",
                    host.node,
                    host.id,
                )

    def _inner_value(self, host: PlacedNode, link: str) -> list[Any]:
        """The value of the widget that a link from an input of a subgraph leads to; an empty list if there is none."""
        target = host.inner.by_link.get(link)
        return self._value_at(*target) if target else []

    def _apply_primitive(self, primitive: PlacedNode) -> None:
        """Copy a primitive's value to the widgets that it is linked to."""
        consumers = consumers_of(primitive)
        saved = primitive.node.values
        if isinstance(saved, list) and saved:
            value = saved[0]
        else:
            own = [value for consumer, number in consumers for value in self._value_at(consumer, number)]
            if not own:
                return
            value = own[0]
        if isinstance(value, str) and primitive.node.properties.get(_REPLACE_PROPERTY):
            value = self._replace_placeholders(value)
        for consumer, number in consumers:
            if consumer.subgraph is not None and self.has_promoted(consumer, number):
                self._promoted[consumer.id][number] = value
            elif (name := consumer.inputs[number].widget) in self._values.get(consumer.id, {}):
                self._values[consumer.id][str(name)] = value

    def _value_at(self, placed: PlacedNode, number: int) -> list[Any]:
        if placed.subgraph is not None:
            return [self.promoted_value(placed, number)] if self.has_promoted(placed, number) else []
        node_values, name = self._values.get(placed.id, {}), placed.inputs[number].widget
        return [node_values[name]] if name in node_values else []

    # --- How the editor changes a value when it queues ----------------------------------------------------

    def _queued_value(self, placed: PlacedNode, widget: Widget | None, value: Any) -> Any:
        class_type = placed.node.class_type
        if isinstance(value, str):
            if widget and widget.name == "filename_prefix" and class_type in _SAVE_CLASSES:
                value = self._replace_placeholders(value)
            if widget and widget.schema and widget.schema.parameters.get("dynamicPrompts") is True:
                value = choose_texts(value, self._context.choose)
            if widget and widget.name == "sampler_name" and class_type in _SAMPLERS:
                value = value.removeprefix("sample_")
        if widget and widget.kind == "CURVE" and isinstance(value, list):
            return {"__type__": "CURVE", **wrap_list(value)}
        return wrap_list(value)

    def _replace_placeholders(self, text: str) -> str:
        """Replace `%date:yyyy-MM-dd%` and `%node.widget%`; others stay, because ComfyUI itself replaces some."""
        if len(text) > _MAX_NAME_LENGTH:
            return text

        def replacement(match: re.Match[str]) -> str:
            found = self._placeholder_value(match[1])
            return match[0] if found is None else found[:_MAX_NAME_LENGTH]

        return _PLACEHOLDER.sub(replacement, text)

    def _placeholder_value(self, text: str) -> str | None:
        name, dot, widget = text.partition(".")
        if not dot or "." in widget:
            return self._format_date(text[5:]) if text.startswith("date:") else None
        node_id = self._by_search_name.get(name) or self._by_title.get(name)
        node_values = self._values.get(node_id, {}) if node_id else {}
        if widget not in node_values:
            return None
        return _INVALID_IN_NAME.sub("_", _as_text(node_values[widget]))

    def _format_date(self, pattern: str) -> str:
        now = self._context.now
        parts = {
            "d": now.tm_mday, "M": now.tm_mon, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec,
        }  # fmt: skip

        def part(match: re.Match[str]) -> str:
            text = match[0]
            if text[0] == "y":
                return {2: f"{now.tm_year % 100:02}", 4: str(now.tm_year)}.get(len(text), text)
            return f"{parts[text[0]]:02}" if len(text) == 2 else str(parts[text[0]])

        return _DATE_PART.sub(part, pattern)


def wrap_list(value: Any) -> Any:
    """Wrap a list so that ComfyUI takes it as a value: unwrapped, it would be a link."""
    return {"__value__": value} if isinstance(value, list) else value


def _as_text(value: Any) -> str:
    """A value as text, as JavaScript converts it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _saved_values(placed: PlacedNode, schema: NodeSchema) -> tuple[list[Widget], dict[str, Any]]:
    """The widgets of a node and their values in the file. Raises GuiFormatWorkflow if the two do not match."""
    node, saved = placed.node, placed.node.values
    if isinstance(saved, dict):
        widgets = widgets_of(node.class_type, schema, saved)
        missing = [widget.name for widget in widgets if widget.is_sent and widget.name not in saved]
        if missing and node.is_active:
            refuse(f"it has no value for {', '.join(missing)[:200]}", node, placed.id)
        return widgets, {name: value for name, value in saved.items() if name != _UNSENT_WIDGET}
    widgets = widgets_of(node.class_type, schema, saved)
    saved_widgets = [widget for widget in widgets if widget.is_saved]
    values = _without_former_widgets(schema, widgets, saved)
    pairs, surplus = list(zip(saved_widgets, values, strict=False)), values[len(saved_widgets) :]
    is_short = any(widget.is_sent for widget in saved_widgets[len(values) :])
    # Partner nodes and nodes without widgets save a text that they show of their last run. It is not sent.
    shows_text = not saved_widgets or schema.is_partner
    has_more = any(not _is_empty(value) and not (shows_text and isinstance(value, str)) for value in surplus)
    is_unsure = has_more or ((is_short or surplus) and not all(widget.fits(value) for widget, value in pairs))
    if is_unsure and node.is_active:
        refuse(
            f"its file has {len(saved)} values for its {len(saved_widgets)} widgets, so which is which is not sure: "
            "the node's class has changed since the file was saved",
            node,
            placed.id,
        )
    return widgets, {**{widget.name: widget.default for widget in widgets}, **{w.name: value for w, value in pairs}}


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
