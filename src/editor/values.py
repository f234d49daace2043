"""The value of every widget, as the editor has it after it has opened a file and is about to queue."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..workflow.schemas import CUSTOM_COMBO
from .dynamic_prompts import choose_texts
from .faces import Face, face_values, proxies_of
from .packs import drawn_seed
from .placeholders import Placeholders
from .placing import PRIMITIVE, PlacedNode, consumers_of
from .saved_values import saved_values
from .widgets import Widget, index_of_choice

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
_SAMPLERS = ("KSampler", "KSamplerAdvanced")
_REPLACE_PROPERTY = "Run widget replace on values"
_INNER_SHOWN = ((1, 41), (1, 47))
"""Editors from the first version to before the second show the inner widgets on a subgraph node, and save none."""


@dataclass(frozen=True)
class ConversionContext:
    """The inputs of a conversion besides the file: the local time, and what is left to chance.

    `choose` takes an option of `{a|b}`; `draw` gives a seed, a whole number from the first to below the second.
    """

    now: time.struct_time
    choose: Callable[[Sequence[str]], str] = random.choice
    draw: Callable[[int, int], int] = random.randrange


class Values:
    """The values of the widgets of all placed nodes. `warnings` tell where the editor's versions differ."""

    def __init__(
        self, placed_nodes: Iterable[PlacedNode], context: ConversionContext, version: tuple[int, ...] | None
    ) -> None:
        self._placed_nodes, self._context = list(placed_nodes), context
        self.warnings: list[str] = []
        self._version = version
        self._shows_inner = version is not None and _INNER_SHOWN[0] <= version[:2] < _INNER_SHOWN[1]
        self._values: dict[str, dict[str, Any]] = {}
        """By the id of a placed node: name of a widget -> its value."""
        self._widgets: dict[str, list[Widget]] = {}
        self._promoted: dict[str, dict[int, Any]] = {}
        """By the id of a subgraph node: number of an input -> the value of its promoted widget."""
        self._inside: dict[str, dict[int, Any]] = {}
        """The same of the widgets inside."""
        self._as_it_is: set[tuple[str, str]] = set()
        """Widgets (node id, name) whose value is sent as it is: a subgraph node shows them."""
        self._shown_primitives: dict[str, Any] = {}
        """By the id of a primitive that a subgraph node shows: the value there."""
        self._placeholders = Placeholders(self._placed_nodes, self._values, context.now)
        for placed in self._placed_nodes:
            if placed.schema is not None and placed.subgraph is None:
                self._widgets[placed.id], self._values[placed.id] = saved_values(placed, placed.schema, self.warnings)
        for placed in reversed(self._placed_nodes):  # inner subgraph nodes first
            if placed.subgraph is not None and placed.inner:
                self._read_face(placed)
        for placed in self._placed_nodes:
            if placed.node.class_type == PRIMITIVE:
                self._apply_primitive(placed)

    def sent_inputs(self, placed: PlacedNode) -> dict[str, Any]:
        """The inputs that a node's widgets contribute to the prompt: name -> value."""
        node_values = self._values.get(placed.id, {})
        known = {widget.name: widget for widget in self._widgets.get(placed.id, ())}
        sent = {
            name: self._queued_value(placed, known.get(name), value)
            for name, value in node_values.items()
            if name not in known or known[name].is_sent
        }
        if placed.schema is not None:
            for name, value in sent.items():
                seed = drawn_seed(placed.node, placed.schema, name, node_values, self._context.draw)
                sent[name] = value if seed is None else seed
        return sent

    def with_index(self, placed: PlacedNode, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a Custom Combo with the place of its choice among its options, which the editor works out."""
        if placed.node.class_type != CUSTOM_COMBO or "index" not in inputs:
            return inputs
        own = self._values.get(placed.id, {}).get("choice")
        index = index_of_choice(inputs, own if isinstance(inputs.get("choice"), list) else inputs.get("choice"))
        if index != index_of_choice(inputs, own):
            self.warnings.append(
                f"node {placed.id} ({placed.title[:80]}): the editor's versions differ in its index; the value sent "
                f"is {index}, the index of the selected choice, as in the newest version"
            )
        return {**inputs, "index": index}

    @property
    def has_own_faces(self) -> bool:
        """Whether a subgraph node keeps the values of its widgets itself, so that a primitive reaches none inside."""
        return self._version is None or self._version[:2] >= _INNER_SHOWN[1]

    def warn_of_primitive(self, primitive: PlacedNode, host: PlacedNode, socket: int) -> None:
        """Tell that a primitive does not reach the nodes inside a subgraph, if they have another value."""
        name = host.inputs[socket].name
        if self._inside.get(host.id, {}).get(socket) != self.promoted_value(host, socket):
            self.warnings.append(
                f"node {host.id} ({host.title[:80]}): the value of {name[:80]!r} inside is sent, not that of the "
                f"linked primitive {primitive.id}, as the editor does since version 1.47"
            )

    def promoted_value(self, host: PlacedNode, socket: int) -> Any:
        """The value of the widget at an input of a subgraph node; None if there is no widget."""
        return self._promoted.get(host.id, {}).get(socket)

    def has_promoted(self, host: PlacedNode, socket: int) -> bool:
        """Whether a subgraph node has a widget at that input."""
        return socket in self._promoted.get(host.id, {})

    # --- Subgraphs and primitives ------------------------------------------------------------------------

    def _read_face(self, host: PlacedNode) -> None:
        """Read the widgets of a subgraph node: its own saved values, else those of the widgets inside.

        Editors of some versions show the inner widgets there; a file of theirs has those. Newer ones keep the values
        of each subgraph node, and give a node inside that an older file names (`proxyWidgets`) such a widget too.
        """
        inner: dict[int, Any] = {}
        for number, port in enumerate(host.subgraph.inputs if host.subgraph else ()):
            found = [value for link in port.links for value in self._inner_value(host, link)]
            if found:
                inner[number] = found[0]
        face = face_values(host, inner)
        if self._differs(host, inner, face):
            self._warn_of_face(host)
        if face.is_by_name:
            self.warnings.append(
                f"node {host.id} ({host.title[:80]}): a class inside has changed since the file was saved; the "
                "values of its inputs are matched by name"
            )
        if face.unsteady:
            self.warnings.append(
                f"node {host.id} ({host.title[:80]}): for {', '.join(face.unsteady)[:200]} the last saved values "
                "are sent; the newest version of the editor shows others, or none, after opening the file"
            )
        self._inside[host.id] = inner
        self._promoted[host.id] = dict(inner) if self._shows_inner else {**inner, **face.values}
        if not self._shows_inner:
            for shown in face.shown:
                self._set_shown(shown.target, shown.name, shown.value)
            self._as_it_is.update((target.id, name) for target, name in face.as_it_is)

    def _differs(self, host: PlacedNode, inner: Mapping[int, Any], face: Face) -> bool:
        """Whether the editor's versions send different values of a subgraph node's widgets."""
        proxies = proxies_of(host.node)
        if self._shows_inner and any(_goes_to_dynamic_input(host, proxy.node_id) for proxy in proxies or ()):
            return True
        if not self._shows_inner and (self._version is not None or proxies is None):
            return False
        is_own = any(number in face.values and face.values[number] != value for number, value in inner.items())
        return is_own or any(self._value_of(shown.target, shown.name) != shown.value for shown in face.shown)

    def _warn_of_face(self, host: PlacedNode) -> None:
        chosen, other = ("inside", "on the subgraph node") if self._shows_inner else ("on the subgraph node", "inside")
        version = "its own" if self._shows_inner else "the newest"
        self.warnings.append(
            f"node {host.id} ({host.title[:80]}): the editor's versions send different values for its inputs; those "
            f"{chosen} are sent, as {version} version of the editor does, not those {other}"
        )

    def _value_of(self, placed: PlacedNode, name: str) -> Any:
        if placed.node.class_type == PRIMITIVE:
            saved = placed.node.values
            return saved[0] if isinstance(saved, list) and saved else None
        number = placed.ports.get(name)
        return self._values.get(placed.id, {}).get(name) if number is None else self.promoted_value(placed, number)

    def _set_shown(self, placed: PlacedNode, name: str, value: Any) -> None:
        """Set a widget inside a subgraph from the widget that the subgraph node shows for it."""
        number = placed.ports.get(name)
        if placed.node.class_type == PRIMITIVE:
            self._shown_primitives[placed.id] = value
        elif number is not None:
            self._promoted.setdefault(placed.id, {})[number] = value
        elif name in self._values.get(placed.id, {}):
            self._values[placed.id][name] = value

    def _inner_value(self, host: PlacedNode, link: str) -> list[Any]:
        """The value of the widget that a link from an input of a subgraph leads to; an empty list if there is none."""
        target = host.inner.by_link.get(link)
        return self._value_at(*target) if target else []

    def _apply_primitive(self, primitive: PlacedNode) -> None:
        """Copy a primitive's value to the widgets that it is linked to."""
        consumers = consumers_of(primitive)
        saved = primitive.node.values
        if primitive.id in self._shown_primitives:
            value = self._shown_primitives[primitive.id]
        elif isinstance(saved, list) and saved:
            value = saved[0]
        else:
            own = [value for consumer, number in consumers for value in self._value_at(consumer, number)]
            if not own:
                return
            value = own[0]
        if isinstance(value, str) and primitive.node.properties.get(_REPLACE_PROPERTY):
            value = self._placeholders.replace(value)
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
        is_as_it_is = widget is not None and (placed.id, widget.name) in self._as_it_is
        if isinstance(value, str) and not is_as_it_is:
            if widget and widget.name == "filename_prefix" and class_type in _SAVE_CLASSES:
                value = self._placeholders.replace(value)
            if widget and widget.schema and widget.schema.parameters.get("dynamicPrompts") is True:
                value = choose_texts(value, self._context.choose)
            if widget and widget.name == "sampler_name" and class_type in _SAMPLERS:
                value = value.removeprefix("sample_")
        if widget and widget.kind == "CURVE" and isinstance(value, list):
            return {"__type__": "CURVE", **wrap_list(value)}
        return wrap_list(value)


def wrap_list(value: Any) -> Any:
    """Wrap a list so that ComfyUI takes it as a value: unwrapped, it would be a link."""
    return {"__value__": value} if isinstance(value, list) else value


def _goes_to_dynamic_input(host: PlacedNode, inner_id: str) -> bool:
    """Whether a primitive inside leads to an input that a choice brings: newer editors mistake it for another."""
    primitive = host.inner.get(inner_id)
    if primitive is None or primitive.node.class_type != PRIMITIVE:
        return False
    return any("." in consumer.inputs[number].name for consumer, number in consumers_of(primitive))
