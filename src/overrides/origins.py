"""Where the value of an input stands: in the input itself, or in a node upstream that holds it for others.

Primitive nodes hold a value. Reroutes, switches with a constant condition and nodes that only show something hand it
on. All other nodes compute with it: a text from the texts that they join, a number from those of an expression.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..workflow.graph import Link, Slot, as_link, dependencies_first
from ..workflow.typed import ANY, VALUE_TYPES, TypedGraph, per_node
from .slots import prompt_inputs

_MAX_HOLDERS = 20  # that a computed value is traced to
# Inputs of primitive nodes that hold the value, where the class is not known and has others too.
_VALUE_INPUTS = ("value", "string", "text", "prompt", "seed", "number", "int", "float")
_NUMBERS = frozenset({"INT", "FLOAT"})


@dataclass(frozen=True)
class Origin:
    """Where a value comes from.

    `slots` are the inputs that hold it, or from which it is computed if `computed_by` names a node that does so.
    """

    slots: tuple[Slot, ...] = ()
    computed_by: str = ""
    is_partial: bool = False
    """Whether it may come from more than that: a node of an unknown class is among those that compute it."""

    @property
    def slot(self) -> Slot | None:
        """The one input that holds the value or from which it is computed; None if there are several or none."""
        return self.slots[0] if len(self.slots) == 1 and not self.is_partial else None

    @property
    def is_plain(self) -> bool:
        """Whether the value is the one that its input holds."""
        return not self.computed_by and len(self.slots) == 1


def origin_of(graph: TypedGraph, node_id: str, name: str) -> Origin:
    """Where the value of an input comes from; the input itself if it is not linked."""
    link = graph.link(node_id, name)
    if link is None:
        return Origin((Slot(node_id, name),))
    return graph.once(_origins).get(link, Origin(computed_by=link.node_id))


def computed_at(graph: TypedGraph, slot: Slot) -> Link:
    """The output that decides a linked number: that of the first node that does not compute it from one other."""
    link = graph.link(*slot)
    assert link is not None
    known: dict[Link, Link] = graph.answers[computed_at]
    chain = list[Link]()
    while link not in known and (source := _computed_from(graph, link)):
        chain.append(link)
        link = source
    decides = known.get(link, link)
    known.update(dict.fromkeys([*chain, link], decides))
    return decides


def _computed_from(graph: TypedGraph, link: Link) -> Link | None:
    """The one value from which a node computes what it gives."""
    kind = graph.output_type(link)
    sources = [source for _, source in graph.live_links(link.node_id) if _is_value(graph.output_type(source))]
    return sources[0] if kind != ANY and len(sources) == 1 and _may_become(graph, sources[0], kind) else None


def _is_value(kind: str) -> bool:
    return set(kind.split(",")) <= VALUE_TYPES


def uses_of(graph: TypedGraph, slot: Slot) -> list[Slot]:
    """The inputs that take a primitive node's value as it is: behind nodes that hand it on, not that compute."""
    known: dict[Slot, list[Slot]] = graph.answers[uses_of]
    if slot not in known:
        known[slot] = _find_uses(graph, slot)
    return known[slot]


def _find_uses(graph: TypedGraph, slot: Slot) -> list[Slot]:
    found: list[Slot] = []
    queue, seen = [slot.node_id], {slot.node_id}
    while queue:
        for consumer, name in graph.live_consumers(queue.pop()):
            if origin_of(graph, consumer, name) != Origin((slot,)):
                continue
            if not _gives_only_values(graph, consumer):
                found.append(Slot(consumer, name))
            elif _is_unchanged(graph, consumer) and consumer not in seen:
                seen.add(consumer)
                queue.append(consumer)
    return found


def _origins(graph: TypedGraph) -> dict[Link, Origin]:
    """The origin of every output that an input of the workflow is linked to and that gives a value."""
    found: dict[Link, Origin] = {}
    wanted: dict[str, set[Link]] = {}
    for node_id in graph:
        for _, link in graph.links(node_id):
            wanted.setdefault(link.node_id, set()).add(link)
    for node_id in graph.once(dependencies_first):
        for link in wanted.get(node_id, ()):
            kind = graph.output_type(link)
            if kind == ANY or _is_value(kind):
                found[link] = _origin_of_output(graph, link, kind, found)
    return found


def _origin_of_output(graph: TypedGraph, link: Link, kind: str, known: dict[Link, Origin]) -> Origin:
    node_id = link.node_id
    held = graph.chosen_input(node_id) or held_input(graph, link, kind)
    if held is not None and held in graph.inputs(node_id):
        source = graph.link(node_id, held)
        found = known.get(source, Origin(computed_by=node_id)) if source else Origin((Slot(node_id, held),))
        return _without_refining(graph, node_id, found, known)
    sources = {name: source for name, source in graph.live_links(node_id) if _may_become(graph, source, kind)}
    if len(sources) == 1 and _hands_values_on(graph, node_id):
        return known.get(next(iter(sources.values())), Origin(computed_by=node_id))
    prompts = prompt_inputs(graph, node_id) if kind in ("STRING", ANY) else ()
    of_prompts = [source for name, source in sources.items() if name in prompts]
    traced = [known.get(source, Origin(is_partial=True)) for source in of_prompts or sources.values()]
    slots = dict.fromkeys(slot for origin in traced for slot in origin.slots)
    own = (Slot(node_id, name) for name in prompts if not sources)
    is_partial = any(origin.is_partial for origin in traced) or (graph.schema(node_id) is None and not prompts)
    return Origin((*slots, *own)[: _MAX_HOLDERS + 1], node_id, is_partial)


def _without_refining(graph: TypedGraph, node_id: str, found: Origin, known: dict[Link, Origin]) -> Origin:
    """Of the texts from which a switch's value is computed the one that it would hand on unchanged otherwise."""
    others = (graph.link(node_id, name) for name in graph.unchosen_inputs(node_id))
    plain = {slot for link in others if link and known.get(link, Origin()).is_plain for slot in known[link].slots}
    same = plain & set(found.slots)
    return Origin((same.pop(),), found.computed_by) if len(found.slots) > 1 and len(same) == 1 else found


def _may_become(graph: TypedGraph, source: Link, kind: str) -> bool:
    """Whether an output of that type may be what a link brings, or computed from it."""
    given = {*graph.output_type(source).split(",")}
    wanted = {*kind.split(",")}
    if ANY in given | wanted:
        return given != {"BOOLEAN"}  # the condition of a switch, not what it hands on
    return bool(given & wanted) or (bool(given & _NUMBERS) and bool(wanted & _NUMBERS))


def held_input(graph: TypedGraph, link: Link, kind: str) -> str | None:
    """The input whose value a node gives at an output unchanged: the only one, or the one of the output's name."""
    inputs, schema = graph.inputs(link.node_id), graph.schema(link.node_id)
    if schema is None:
        return _held_by_unknown(graph, link.node_id, link, kind)
    visible = [name for name, config in schema.inputs.items() if config.kind in VALUE_TYPES]
    if len(schema.inputs) == 1 and len(visible) == 1 and len(schema.outputs) == 1:
        return visible[0] if visible[0] in inputs and schema.outputs[0] == schema.inputs[visible[0]].kind else None
    called = graph.output_name(link).lower()
    if called == kind.lower():  # no name, only its type
        return None
    return next((n for n in visible if n in inputs and n.lower() == called and schema.inputs[n].kind == kind), None)


def _held_by_unknown(graph: TypedGraph, node_id: str, link: Link, kind: str) -> str | None:
    """The value input of a node of an unknown class: one named as what takes it, its only one, or one named so."""
    inputs = graph.inputs(node_id)
    takers = {name for consumer, name in graph.consumers(node_id) if graph.link(consumer, name) == link}
    same = [name for name in inputs if name in takers]
    if len(takers) == 1 and same:
        return same[0]
    if any(as_link(value) for value in inputs.values()):
        return None
    fitting = [name for name in inputs if kind == ANY or _may_be(graph.input_type(node_id, name), kind)]
    if len(inputs) > 1 and "primitive" not in graph.class_of(node_id).lower() and "seed" not in inputs:
        return None
    return next(
        (name for name in _VALUE_INPUTS if name in fitting), fitting[0] if len(inputs) == len(fitting) == 1 else None
    )


def _may_be(given: str, wanted: str) -> bool:
    """Whether a value of one type may be one of the other: a text may be an option, a whole number a number."""
    return given in wanted.split(",") or {given, wanted} <= _NUMBERS or {given, wanted} <= {"STRING", "COMBO"}


@per_node
def _hands_values_on(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node gives what it takes: it has one linked input that counts and nothing to compute with.

    An output node that does so only shows it.
    """
    schema, linked = graph.schema(node_id), [name for name, _ in graph.live_links(node_id)]
    if schema is None:
        return len(linked) == 1 == len(graph.inputs(node_id))
    return len(linked) == 1 and (schema.is_output or len(schema.inputs) == 1)


@per_node
def _gives_only_values(graph: TypedGraph, node_id: str) -> bool:
    kinds = graph.output_types(node_id)
    return bool(kinds) and all(kind == ANY or _is_value(kind) for kind in kinds)


def _is_unchanged(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node gives a value that it takes as it is."""
    return graph.chosen_input(node_id) is not None or _hands_values_on(graph, node_id)
