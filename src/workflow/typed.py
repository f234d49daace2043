"""A workflow with the types of its inputs and outputs, and which of its nodes an output needs.

Types are those of the node classes' schemas. Where a class is not known, or does not say (`*`, V3's match-type), the
type is that of what is linked, else the one that inputs of such a name usually have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache, wraps
from typing import Any, NamedTuple, TypeVar

from .graph import Graph, Link, Workflow, as_link, dependencies_first
from .schemas import InputSchema, NodeSchema, input_schema

ANY = "*"
"""A type that is not known, or any type."""

VALUE_TYPES = frozenset({"STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"})
"""Types of what a person types in; everything else only nodes make."""

# Types that inputs of such names have in nearly every class, for classes that are not known.
_USUAL_TYPES = {
    "model": "MODEL",
    "clip": "CLIP",
    "vae": "VAE",
    "guider": "GUIDER",
    "sigmas": "SIGMAS",
    "sampler": "SAMPLER",
    "noise": "NOISE",
    **dict.fromkeys(("positive", "negative", "conditioning", "text_embeds"), "CONDITIONING"),
    **dict.fromkeys(("latent", "latent_image", "samples", "latents"), "LATENT"),
    **dict.fromkeys(("image", "images", "pixels"), "IMAGE"),
}
_TYPES_OF_VALUES: dict[type, str] = {str: "STRING", bool: "BOOLEAN", int: "INT", float: "FLOAT"}

_BRANCHES = {
    True: re.compile(r"(^|_)(true|tt)(_|$)", re.IGNORECASE),
    False: re.compile(r"(^|_)(false|ff)(_|$)", re.IGNORECASE),
}
_SELECTORS = frozenset({"select", "index", "input", "selected", "selected_input"})
_LAST_NUMBER = re.compile(r"(\d+)$")
_MAX_NAMES = 10_000  # of types and inputs, of which is kept what they are
_NONE: frozenset[str] = frozenset()
_MAX_HOLDERS = 10  # one behind the other
_PREFIX_INPUT = "filename_prefix"


class TypedGraph(Graph):
    """A checked workflow together with the schemas of its classes, as far as they are known."""

    def __init__(self, workflow: Workflow, schemas: Mapping[str, NodeSchema | None]) -> None:
        super().__init__(workflow)
        self._schemas = {node_id: schemas.get(node["class_type"]) for node_id, node in workflow.items()}
        self._output_types: dict[Link, str] = {}
        self._input_types: dict[str, dict[str, str]] = {node_id: {} for node_id in workflow}
        for node_id in self.once(dependencies_first):
            schema = self._schemas[node_id]
            declared = schema.inputs if schema is not None else {}
            types = self._input_types[node_id]
            for name, value in self.inputs(node_id).items():
                is_plain = name in declared and _is_concrete(declared[name].kind)
                types[name] = declared[name].kind if is_plain else self._type_of_input(node_id, name, value)

    # --- Types ------------------------------------------------------------------------------------------

    def schema(self, node_id: str) -> NodeSchema | None:
        """The schema of a node's class, None if it is not known."""
        return self._schemas[node_id]

    def input_schema(self, node_id: str, name: str) -> InputSchema | None:
        """The schema of an input, None if it is not known."""
        schema = self._schemas[node_id]
        return input_schema(schema, self.inputs(node_id), name) if schema else None

    def input_types(self, node_id: str) -> Mapping[str, str]:
        """The types of a node's inputs, by name; none for a node in a circle."""
        return self._input_types[node_id]

    def input_type(self, node_id: str, name: str) -> str:
        """The type of an input that the node has."""
        return self._input_types[node_id].get(name, ANY)

    def output_type(self, link: Link) -> str:
        """The type of what a link brings."""
        if link not in self._output_types:
            self._output_types[link] = self._type_of_output(link)
        return self._output_types[link]

    def declared_type(self, link: Link) -> str:
        """The type that a class says a link brings: its own node's, else one that takes it; "" if none is known."""
        if self.schema(link.node_id) is not None:
            return self.output_type(link) if self.output_type(link) != ANY else ""
        consumers = (c for c in self.consumers(link.node_id) if self.link(*c) == link)
        schemas = (self.input_schema(*consumer) for consumer in consumers)
        return next((schema.kind for schema in schemas if schema is not None and _is_concrete(schema.kind)), "")

    def output_name(self, link: Link) -> str:
        """The name of the output at which a link starts, "" if it is not known."""
        schema = self.schema(link.node_id)
        names = schema.output_names if schema else ()
        return names[link.slot] if 0 <= link.slot < len(names) else ""

    def output_types(self, node_id: str) -> frozenset[str]:
        """The types of what a node gives: those that its class declares, and those that others take from it."""
        return _output_types(self, node_id)

    def typed_links(self, node_id: str) -> list[tuple[str, str, Link]]:
        """The linked inputs of a node that count: (input name, type of what comes, link)."""
        return _typed_links(self, node_id)

    def type_of_link(self, node_id: str, name: str, link: Link) -> str:
        """The type of what comes through a linked input."""
        kind = self.output_type(link)
        return kind if kind != ANY else self.input_type(node_id, name)

    def _type_of_input(self, node_id: str, name: str, value: Any) -> str:
        schema = self.input_schema(node_id, name)
        if schema is not None and _is_concrete(schema.kind):
            return schema.kind
        link = as_link(value)
        if link is None:
            return _TYPES_OF_VALUES.get(type(value), ANY)
        found = self.output_type(link)
        return found if found != ANY else _USUAL_TYPES.get(name, ANY)

    def _type_of_output(self, link: Link) -> str:
        schema = self.schema(link.node_id)
        if schema is not None:
            if not 0 <= link.slot < len(schema.outputs):
                return ANY
            if _is_concrete(schema.outputs[link.slot]):
                return schema.outputs[link.slot]
            handed_on = {
                self.type_of_link(link.node_id, name, source)
                for name, source in self.links(link.node_id)
                if (known := self.input_schema(link.node_id, name)) is not None and not _is_concrete(known.kind)
            } - {ANY}
            return handed_on.pop() if len(handed_on) == 1 else ANY
        return next(self._types_wanted(link), ANY)

    def _types_wanted(self, link: Link) -> Iterator[str]:
        """The types that known classes take of an output."""
        for consumer, name in self.consumers(link.node_id):
            if self.link(consumer, name) == link:
                schema = self.input_schema(consumer, name)
                if schema is not None and _is_concrete(schema.kind):
                    yield schema.kind
                elif self.schema(consumer) is None and name in _USUAL_TYPES:
                    yield _USUAL_TYPES[name]

    # --- What counts --------------------------------------------------------------------------------------

    @cached_property
    def outputs(self) -> list[str]:
        """The output nodes. If none of them is an end of the workflow, its ends; also those of classes not known."""
        found = [n for n in self if (schema := self.schema(n)) and schema.is_output]
        ends = [node_id for node_id in self if not self.feeds_others(node_id)]
        unknown = [node_id for node_id in ends if self.schema(node_id) is None]
        return [*found, *(unknown if {*found, *unknown} & {*ends} else ends)]

    @cached_property
    def main_outputs(self) -> list[str]:
        """The output nodes whose files are kept; if there are none, all of them."""
        return [node_id for node_id in self.outputs if _PREFIX_INPUT in self.inputs(node_id)] or self.outputs

    @cached_property
    def live(self) -> list[str]:
        """The nodes that an output needs. The others do not run, whatever stands in them."""
        seen, queue = set(), list(self.outputs)
        while queue:
            node_id = queue.pop()
            if node_id not in seen:
                seen.add(node_id)
                queue.extend(link.node_id for _, link in self.live_links(node_id))
        return [node_id for node_id in self if node_id in seen]

    @cached_property
    def _live(self) -> frozenset[str]:
        return frozenset(self.live)

    def is_live(self, node_id: str) -> bool:
        """Whether an output needs the node."""
        return node_id in self._live

    def live_consumers(self, node_id: str) -> list[tuple[str, str]]:
        """The inputs linked to a node that count: (node id, input name)."""
        return [
            (consumer, name)
            for consumer, name in self.consumers(node_id)
            if self.is_live(consumer) and name not in self.unchosen_inputs(consumer)
        ]

    def live_links(self, node_id: str) -> Iterable[tuple[str, Link]]:
        """The linked inputs of a node, without those that a switch with a constant condition does not choose."""
        links, switch = self.links(node_id), self._switches.get(node_id)
        return [(name, link) for name, link in links if name not in switch.others] if switch else links

    def constant(self, node_id: str, name: str) -> Any:
        """The value of an input, if it stands there or in a node not far behind it that only holds it; else None."""
        value = self.inputs(node_id).get(name)
        for _ in range(_MAX_HOLDERS):
            link = as_link(value)
            if link is None:
                return value
            inputs = self.inputs(link.node_id)
            if len(inputs) != 1:
                return None
            value = next(iter(inputs.values()))
        return None

    def chosen_input(self, node_id: str) -> str | None:
        """The input that a switch with a constant condition hands on; None for every other node."""
        switch = self._switches.get(node_id)
        return switch.chosen if switch else None

    def unchosen_inputs(self, node_id: str) -> frozenset[str]:
        """The linked inputs that a switch with a constant condition does not hand on."""
        switch = self._switches.get(node_id)
        return switch.others if switch else _NONE

    @cached_property
    def _switches(self) -> dict[str, _Switch]:
        """The switches whose condition is constant."""
        found = {node_id: _switch_of(self, node_id) for node_id in self}
        return {node_id: switch for node_id, switch in found.items() if switch is not None}


Answer = TypeVar("Answer")


def per_node(ask: Callable[[TypedGraph, str], Answer]) -> Callable[[TypedGraph, str], Answer]:
    """A question about a node of a graph, which is answered once."""

    @wraps(ask)
    def answer(graph: TypedGraph, node_id: str) -> Answer:
        known: dict[str, Answer] = graph.answers[ask]
        if node_id in known:
            return known[node_id]
        found = known[node_id] = ask(graph, node_id)
        return found

    return answer


@per_node
def _output_types(graph: TypedGraph, node_id: str) -> frozenset[str]:
    schema = graph.schema(node_id)
    links = [graph.link(consumer, name) for consumer, name in graph.consumers(node_id)]
    of_links = {graph.output_type(link) for link in links if link}
    return frozenset(of_links.union(t for t in schema.outputs if _is_concrete(t)) if schema else of_links)


@per_node
def _typed_links(graph: TypedGraph, node_id: str) -> list[tuple[str, str, Link]]:
    return [(name, graph.type_of_link(node_id, name, link), link) for name, link in graph.live_links(node_id)]


class _Switch(NamedTuple):
    """What a switch hands on by its constant condition, and the linked inputs that it does not."""

    chosen: str
    others: frozenset[str]


def _switch_of(graph: TypedGraph, node_id: str) -> _Switch | None:
    inputs = graph.inputs(node_id)
    linked = [name for name, _ in graph.links(node_id)]
    if not linked:
        return None
    branches = {name: branch for name in inputs if (branch := _branch_of(name)) is not None}
    for name in inputs:
        if name.lower() in _SELECTORS and type(condition := graph.constant(node_id, name)) is int:
            return _by_number([n for n in inputs if n != name], condition, linked)
        if branches and name not in branches and type(condition := graph.constant(node_id, name)) is bool:
            chosen = [n for n, branch in branches.items() if branch is condition]
            others = (n for n, branch in branches.items() if branch is not condition and n in linked)
            return _Switch(chosen[0], frozenset(others)) if chosen else None
    return None


@lru_cache(_MAX_NAMES)
def _branch_of(name: str) -> bool | None:
    """The condition for which a switch hands on the input of that name; None for any other name."""
    return next((condition for condition, pattern in _BRANCHES.items() if pattern.search(name)), None)


def _by_number(names: list[str], chosen: int, linked: list[str]) -> _Switch | None:
    """The one of the numbered inputs that a selector chooses, None if there is none of that number."""
    numbers = {name: int(match[1][-9:]) for name in names if (match := _LAST_NUMBER.search(name))}
    found = next((name for name, number in numbers.items() if number == chosen), None)
    others = frozenset(name for name in numbers if name in linked and numbers[name] != chosen)
    return _Switch(found, others) if found is not None else None


@lru_cache(_MAX_NAMES)
def _is_concrete(kind: str) -> bool:
    return kind not in (ANY, "") and not kind.startswith("COMFY_")
