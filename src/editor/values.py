"""The value of every widget, as the editor holds it after it has opened a file and is about to queue."""

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
from .links import PRIMITIVE, Placed, users_of
from .widgets import SEEDS, Widget, widgets_of

# Classes in whose `filename_prefix` the editor itself puts dates and values of other nodes.
_SAVERS = frozenset(
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
_LONGEST_NAME = 4096  # of Linux
_SAMPLERS = ("KSampler", "KSamplerAdvanced")
_REPLACES = "Run widget replace on values"
_PROXIES = "proxyWidgets"
_SEARCH_NAME = "Node name for S&R"
_PLACEHOLDER = re.compile("%([^%]+)%")
_NOT_IN_A_NAME = re.compile(r'[/?<>\\:*|"\x00-\x1F\x7F]')
_DATE_PART = re.compile("d{1,2}|h{1,2}|m{1,2}|M{1,2}|s{1,2}|y{2,4}")
# Widgets of node packs that save their values by name, and do not send this one.
_PREVIEW = "videopreview"


@dataclass(frozen=True)
class Moment:
    """What a conversion takes from outside: the local time, and which of several a `{a|b}` gives."""

    now: time.struct_time
    choose: Callable[[Sequence[str]], str] = random.choice


class Values:
    """The values of the widgets of all placed nodes."""

    def __init__(self, places: Iterable[Placed], moment: Moment) -> None:
        self._places, self._moment = list(places), moment
        self._held: dict[str, dict[str, Any]] = {}
        """By placed id: name of a widget to its value."""
        self._widgets: dict[str, list[Widget]] = {}
        self._promoted: dict[str, dict[int, Any]] = {}
        """By the id of a subgraph node: number of an input to the value of the widget there."""
        in_file = sorted(self._places, key=lambda placed: placed.place, reverse=True)
        self._by_title = {placed.title: placed.id for placed in in_file}
        """The first node of that title."""
        self._by_search_name = {
            name: placed.id for placed in in_file if isinstance(name := placed.node.properties.get(_SEARCH_NAME), str)
        }
        for placed in self._places:
            if placed.schema is not None and placed.subgraph is None:
                self._widgets[placed.id], self._held[placed.id] = _saved_values(placed, placed.schema)
        for placed in reversed(self._places):  # inner subgraph nodes first
            if placed.subgraph is not None and placed.inner:
                self._promoted[placed.id] = self._promoted_of(placed)
        for placed in self._places:
            if placed.node.class_type == PRIMITIVE:
                self._apply(placed)

    def sent(self, placed: Placed) -> dict[str, Any]:
        """What a node's widgets send."""
        held = self._held.get(placed.id, {})
        known = {widget.name: widget for widget in self._widgets.get(placed.id, ())}
        return {
            name: self._final(placed, known.get(name), value)
            for name, value in held.items()
            if name not in known or known[name].is_sent
        }

    def promoted(self, host: Placed, socket: int) -> Any:
        """What the widget at an input of a subgraph node holds; None if there is none."""
        return self._promoted.get(host.id, {}).get(socket)

    def has_promoted(self, host: Placed, socket: int) -> bool:
        """Whether there is a widget at that input."""
        return socket in self._promoted.get(host.id, {})

    # --- Subgraphs and primitives ------------------------------------------------------------------------

    def _promoted_of(self, host: Placed) -> dict[int, Any]:
        """The widgets that a subgraph node has by its inputs, each with its own value where the file has one."""
        found: dict[int, Any] = {}
        for number, port in enumerate(host.subgraph.inputs if host.subgraph else ()):
            inner = [value for link in port.links for value in self._behind(host, link)]
            if inner:
                found[number] = inner[0]
        saved = host.node.values if isinstance(host.node.values, list) else []
        proxies = host.node.properties.get(_PROXIES)
        if not isinstance(proxies, list):
            if saved and len(saved) != len(found):
                refuse(f"it has {len(saved)} values for the {len(found)} widgets of its inputs", host.node, host.id)
            return {**found, **dict(zip(found, saved, strict=False))}
        self._check_proxies(host, found, proxies, saved)
        return found

    def _check_proxies(self, host: Placed, found: Mapping[int, Any], proxies: list[Any], saved: list[Any]) -> None:
        """Newer versions show the widgets inside: refuse a file in which an older one has left other values."""
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

    def _behind(self, host: Placed, link: str) -> list[Any]:
        """The value of the widget at the inner end of a link from an input of a subgraph."""
        for placed in host.inner.values():
            for number, socket in enumerate(placed.inputs):
                if socket.link == link:
                    if placed.subgraph is not None:
                        return [self.promoted(placed, number)] if self.has_promoted(placed, number) else []
                    held = self._held.get(placed.id, {})
                    return [held[socket.widget]] if socket.widget in held else []
        return []

    def _apply(self, primitive: Placed) -> None:
        """Put a primitive's value into the widgets that it is connected to."""
        users = list(users_of(primitive))
        saved = primitive.node.values
        if isinstance(saved, list) and saved:
            value = saved[0]
        else:
            own = [value for user, number in users for value in self._value_at(user, number)]
            if not own:
                return
            value = own[0]
        if isinstance(value, str) and primitive.node.properties.get(_REPLACES):
            value = self._replaced(value)
        for user, number in users:
            if user.subgraph is not None and self.has_promoted(user, number):
                self._promoted[user.id][number] = value
            elif (name := user.inputs[number].widget) in self._held.get(user.id, {}):
                self._held[user.id][str(name)] = value

    def _value_at(self, placed: Placed, number: int) -> list[Any]:
        if placed.subgraph is not None:
            return [self.promoted(placed, number)] if self.has_promoted(placed, number) else []
        held, name = self._held.get(placed.id, {}), placed.inputs[number].widget
        return [held[name]] if name in held else []

    # --- What the editor does to a value when it queues ---------------------------------------------------

    def _final(self, placed: Placed, widget: Widget | None, value: Any) -> Any:
        class_type = placed.node.class_type
        if isinstance(value, str):
            if widget and widget.name == "filename_prefix" and class_type in _SAVERS:
                value = self._replaced(value)
            if widget and widget.schema and widget.schema.parameters.get("dynamicPrompts") is True:
                value = choose_texts(value, self._moment.choose)
            if widget and widget.name == "sampler_name" and class_type in _SAMPLERS:
                value = value.removeprefix("sample_")
        if widget and widget.kind == "CURVE" and isinstance(value, list):
            return {"__type__": "CURVE", **wrapped(value)}
        return wrapped(value)

    def _replaced(self, text: str) -> str:
        """`%date:yyyy-MM-dd%` and `%node.widget%` by what they mean; anything else stays, also for ComfyUI itself."""
        if len(text) > _LONGEST_NAME:
            return text

        def meaning(match: re.Match[str]) -> str:
            found = self._meaning(match[1])
            return match[0] if found is None else found[:_LONGEST_NAME]

        return _PLACEHOLDER.sub(meaning, text)

    def _meaning(self, text: str) -> str | None:
        name, dot, widget = text.partition(".")
        if not dot or "." in widget:
            return self._date(text[5:]) if text.startswith("date:") else None
        named = self._by_search_name.get(name) or self._by_title.get(name)
        held = self._held.get(named, {}) if named else {}
        if widget not in held:
            return None
        return _NOT_IN_A_NAME.sub("_", _as_text(held[widget]))

    def _date(self, form: str) -> str:
        now = self._moment.now
        parts = {
            "d": now.tm_mday, "M": now.tm_mon, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec,
        }  # fmt: skip

        def part(match: re.Match[str]) -> str:
            text = match[0]
            if text[0] == "y":
                return {2: f"{now.tm_year % 100:02}", 4: str(now.tm_year)}.get(len(text), text)
            return f"{parts[text[0]]:02}" if len(text) == 2 else str(parts[text[0]])

        return _DATE_PART.sub(part, form)


def wrapped(value: Any) -> Any:
    """A list as ComfyUI takes it for a value: bare, it would be a link."""
    return {"__value__": value} if isinstance(value, list) else value


def _as_text(value: Any) -> str:
    """As JavaScript puts a value into a text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _saved_values(placed: Placed, schema: NodeSchema) -> tuple[list[Widget], dict[str, Any]]:
    """The widgets of a node and what the file says they hold. Raises GuiFormatWorkflow if the two do not fit."""
    node, saved = placed.node, placed.node.values
    if isinstance(saved, dict):
        widgets = widgets_of(node.class_type, schema, saved)
        missing = [widget.name for widget in widgets if widget.is_sent and widget.name not in saved]
        if missing and node.is_active:
            refuse(f"it has no value for {', '.join(missing)[:200]}", node, placed.id)
        return widgets, {name: value for name, value in saved.items() if name != _PREVIEW}
    widgets = widgets_of(node.class_type, schema, saved)
    in_file = [widget for widget in widgets if widget.is_saved]
    values = _without_former(schema, widgets, saved)
    pairs, left = list(zip(in_file, values, strict=False)), values[len(in_file) :]
    is_short = any(widget.is_sent for widget in in_file[len(values) :])
    # What a node shows of its last run, which it does not send: a text, of partner nodes and of those without widgets.
    shows = not in_file or schema.is_partner
    has_more = any(not _is_nothing(value) and not (shows and isinstance(value, str)) for value in left)
    is_unsure = has_more or ((is_short or left) and not all(widget.fits(value) for widget, value in pairs))
    if is_unsure and node.is_active:
        refuse(
            f"its file has {len(saved)} values for its {len(in_file)} widgets, so which is which is not sure: the "
            "node's class has changed since the file was saved",
            node,
            placed.id,
        )
    return widgets, {**{widget.name: widget.default for widget in widgets}, **{w.name: value for w, value in pairs}}


def _is_nothing(value: Any) -> bool:
    """Whether a value that no widget takes is empty: of a button, of a preview."""
    return value is None or value is False or value == ""


def _without_former(schema: NodeSchema, widgets: Sequence[Widget], values: list[Any]) -> list[Any]:
    """Without the values of inputs that were widgets once and are sockets now, if the file has as many as there were.

    So does the editor, but older versions lose count behind a seed.
    """
    names = {widget.name for widget in widgets}
    former = [name in names for name, config in schema.inputs.items() for name in _former(name, config, names)]
    if all(former) or len(former) != len(values):
        return values
    return [value for value, is_widget in zip(values, former, strict=True) if is_widget]


def _former(name: str, config: InputSchema, names: Collection[str]) -> list[str]:
    """The widgets that an input had when all were widgets: itself and what becomes of it; none of a plain socket."""
    if name not in names and not config.parameters.get("forceInput"):
        return []
    has_control = config.parameters.get("control_after_generate") or name in SEEDS
    return [name, name] if has_control else [name]
