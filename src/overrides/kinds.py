"""The table of the kinds of overrides, and the inputs of a workflow that each kind sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import NoOverrideTarget
from ..workflow.graph import Link, Slot, unique
from ..workflow.typed import VALUE_TYPES, TypedGraph, per_node
from . import prompts, sampling, sizes, slots
from .origins import Origin, computed_at, held_input, origin_of, uses_of
from .places import Place


@dataclass(frozen=True)
class OverrideKind:
    """One kind of override.

    `fields` are the job's input fields with its values, `node_field` is the one that names a node, and `takes`
    describes the value in messages. `inputs` returns the inputs of a node that take the value, `find` the places found
    by following links. `holds` is the type that a primitive node's value must have if the caller names that node.
    `shares` tells whether an input that takes its value from the same primitive node is meant too, with the number of
    the field. `usual_id` is the id that such a node usually has; `is_usual` tells whether the node with that id may be
    used if `find` finds none. `must_agree`: the override is ambiguous if the places found hold different values.
    `overwrites`: a value that another node computes is overwritten.
    """

    fields: tuple[str, ...]
    node_field: str
    takes: str
    inputs: Callable[[TypedGraph, str], tuple[str, ...]]
    find: Callable[[TypedGraph], list[Place]]
    shares: Callable[[TypedGraph, Slot, int], bool]
    holds: type | tuple[type, ...]
    usual_id: str = ""
    is_usual: Callable[[TypedGraph, str], bool] = TypedGraph.is_live
    must_agree: bool = True
    overwrites: bool = True

    @property
    def name(self) -> str:
        """Its name in messages."""
        return " and ".join(self.fields)


class Write(NamedTuple):
    """The inputs to write a value to, and what the caller should know about that.

    `source` is the output that gave these inputs their number, if they are all that take it.
    """

    slots: tuple[Slot, ...]
    hint: str = ""
    source: Link | None = None


def _sharing(*words: str) -> Callable[[TypedGraph, Slot, int], bool]:
    """Inputs are meant too if their names have the field's word."""
    return lambda graph, use, number: words[number] in slots.last_name(use.name)


def _is_positive(graph: TypedGraph, use: Slot, _: int) -> bool:
    return not _is_negative(graph, use, 0)


def _is_negative(graph: TypedGraph, use: Slot, _: int) -> bool:
    return slots.is_negative(use.name) or use in prompts.negative_texts(graph)


def _negative_texts(graph: TypedGraph, node_id: str) -> tuple[str, ...]:
    own = slots.negative_inputs(graph, node_id)
    return own or (slots.prompt_inputs(graph, node_id) if slots.is_encoder(graph, node_id) else ())


PROMPT = OverrideKind(
    ("prompt",), "prompt_node_id", "a prompt text", slots.prompt_inputs, prompts.find_prompts, _is_positive, str,
    usual_id="6", is_usual=prompts.may_be_prompt, overwrites=False,
)  # fmt: skip
NEGATIVE_PROMPT = OverrideKind(
    ("negative_prompt",), "negative_prompt_node_id", "a negative prompt text", _negative_texts,
    prompts.find_negative_prompts, _is_negative, str, overwrites=False,
)  # fmt: skip
SEED = OverrideKind(
    ("seed",), "seed_node_id", "a seed", slots.seed_inputs, sampling.find_seeds, _sharing("seed"), int,
    must_agree=False,
)  # fmt: skip
SIZE = OverrideKind(
    ("width", "height"), "size_node_id", "a width and a height", slots.size_inputs, sizes.find_sizes,
    _sharing("width", "height"), (), usual_id="27", is_usual=sizes.draws_of_a_size,
)  # fmt: skip
BATCH_SIZE = OverrideKind(
    ("batch_size",), "batch_size_node_id", "a batch size", slots.batch_inputs, sizes.find_batches,
    _sharing("batch"), int,
)  # fmt: skip


LENGTH = OverrideKind(
    ("length",), "length_node_id", "a number of frames", slots.length_inputs, sizes.find_lengths,
    lambda graph, use, _: use.name in slots.length_inputs(graph, use.node_id), int,
)  # fmt: skip
FPS = OverrideKind(
    ("fps",), "fps_node_id", "a number of frames per second", slots.fps_inputs, sizes.find_fps,
    lambda graph, use, _: use.name in slots.fps_inputs(graph, use.node_id), (int, float),
)  # fmt: skip


def _sampling_kind(name: str, word: str, takes: str, holds: type | tuple[type, ...]) -> OverrideKind:
    setting = sampling.SAMPLING_SETTINGS[name]
    return OverrideKind((name,), f"{name}_node_id", takes, setting.inputs, setting.find, _sharing(word), holds)


STEPS = _sampling_kind("steps", "step", "a number of steps", int)
KINDS = (
    PROMPT,
    NEGATIVE_PROMPT,
    SEED,
    SIZE,
    BATCH_SIZE,
    LENGTH,
    FPS,
    STEPS,
    _sampling_kind("cfg", "cfg", "a cfg", (int, float)),
    _sampling_kind("guidance", "guidance", "a guidance", (int, float)),
    _sampling_kind("denoise", "denoise", "a denoise", (int, float)),
    _sampling_kind("sampler_name", "sampler", "a sampler's name", str),
    _sampling_kind("scheduler", "scheduler", "a scheduler's name", str),
)
NODE_FIELDS = (*(kind.node_field for kind in KINDS), "loras_node_id")
"""The names of the input fields that name a node."""


# --- Which places --------------------------------------------------------------------------------------


def usual_place(graph: TypedGraph, kind: OverrideKind) -> Place:
    """The node with the usual id, if no other was found. Raises NoOverrideTarget unless it takes such a value."""
    usual = kind.usual_id
    if usual in graph and inputs_of(graph, kind, usual) and kind.is_usual(graph, usual):
        return Place(usual, inputs_of(graph, kind, usual))
    pictures = sizes.pictures_of_a_size(graph) if kind is SIZE else []
    because = f": the size comes from {graph.describe_all(pictures)}" if pictures else ""
    raise no_target(graph, kind, f"{kind.name}: no node of the workflow accepts {kind.takes}{because}")


def named_place(graph: TypedGraph, kind: OverrideKind, node_id: str) -> Place:
    """The node that the caller named. Raises NoOverrideTarget unless it is there and takes such a value."""
    if node_id not in graph:
        raise no_target(graph, kind, f"{kind.node_field}: the workflow has no node {node_id[:80]!r}")
    names = inputs_of(graph, kind, node_id)
    if not names:
        raise no_target(graph, kind, f"{kind.node_field}: node {graph.describe(node_id)} does not accept {kind.takes}")
    return Place(node_id, names)


def inputs_of(graph: TypedGraph, kind: OverrideKind, node_id: str) -> tuple[str, ...]:
    """The inputs of a node that take a value of this kind; of a primitive node, its value if the type fits."""
    names = kind.inputs(graph, node_id)
    if names or not kind.holds:
        return names
    return tuple(
        name
        for name, value in graph.inputs(node_id).items()
        if isinstance(value, kind.holds) and not isinstance(value, bool) and name in _held_inputs(graph, node_id)
    )[:1]


@per_node
def _held_inputs(graph: TypedGraph, node_id: str) -> set[str | None]:
    """The inputs whose value other nodes take from this one."""
    links = {graph.link(consumer, name) for consumer, name in graph.consumers(node_id)}
    return {held_input(graph, link, graph.output_type(link)) for link in links if link}


# --- Which inputs ---------------------------------------------------------------------------------------


def writes_of(graph: TypedGraph, kind: OverrideKind, place: Place, is_named: bool = False) -> list[Write]:
    """Where to write the values of a place to, for each of its inputs.

    That is the input, or a primitive node that holds its value for nothing else. A text that another node computes
    from a single one goes there; a number that another node computes is written to all that take it.
    Raises NoOverrideTarget for a text that is computed from several.
    """
    writes = list[Write]()
    for number, name in enumerate(place.inputs):
        own, field = Slot(place.node_id, name), number if len(kind.fields) > 1 else 0
        origin, holder = origin_of(graph, *own), _holder(graph, kind, own, field)
        if holder is not None:
            told = "" if origin.is_plain else _told_computed(graph, kind, own, holder, origin.computed_by)
            writes.append(Write((holder,), told))
        elif origin.is_plain or is_named:
            writes.append(Write((own,)))
        elif kind.overwrites:
            source = computed_at(graph, own)
            hint = f"{kind.name}: taken from the job, no longer from node {graph.describe(source.node_id)}"
            writes.append(Write(_users_of(graph, kind, source, field), hint, source))
        else:
            raise _computed(graph, kind, own, origin)
    return writes


def _users_of(graph: TypedGraph, kind: OverrideKind, source: Link, field: int) -> tuple[Slot, ...]:
    """The inputs that take a computed number, and that an override of it is meant for."""
    known: dict[tuple[Link, str], tuple[Slot, ...]] = graph.answers[_users_of]
    key = (source, kind.fields[field])
    if key not in known:
        users = (Slot(*user) for user in graph.live_consumers(source.node_id) if graph.link(*user) == source)
        known[key] = tuple(user for user in users if _takes_number(graph, kind, user, field))
    return known[key]


def _takes_number(graph: TypedGraph, kind: OverrideKind, user: Slot, field: int) -> bool:
    """Whether an input that takes a computed number is meant, or goes on computing with it."""
    is_number = bool({"INT", "FLOAT"} & {*graph.input_type(*user).split(",")})
    computes = is_number and not graph.output_types(user.node_id) - VALUE_TYPES
    return computes or kind.shares(graph, user, field)


def _holder(graph: TypedGraph, kind: OverrideKind, own: Slot, number: int) -> Slot | None:
    """The one input that holds the value of an input, or from which it is computed, if that is for nothing else."""
    slot = origin_of(graph, *own).slot
    if slot is not None and kind is NEGATIVE_PROMPT and slot.name in slots.prompt_inputs(graph, slot.node_id):
        slot = Slot(slot.node_id, next(iter(slots.negative_inputs(graph, slot.node_id)), slot.name))
    return slot if slot is not None and (slot == own or _is_for(graph, kind, slot, number)) else None


def _is_for(graph: TypedGraph, kind: OverrideKind, slot: Slot, number: int) -> bool:
    """Whether all that take the value of a primitive node are meant."""
    known: dict[tuple[Slot, str], bool] = graph.answers[_is_for]
    key = (slot, kind.fields[number])
    if key not in known:
        known[key] = all(kind.shares(graph, use, number) for use in uses_of(graph, slot))
    return known[key]


def _computed(graph: TypedGraph, kind: OverrideKind, own: Slot, origin: Origin) -> NoOverrideTarget:
    source, node = graph.describe(origin.computed_by), graph.describe(own.node_id)
    candidates = unique(slot.node_id for slot in origin.slots)
    return no_target(graph, kind, f"{kind.name}: {own.name} of node {node} is computed by node {source}", candidates)


def _told_computed(graph: TypedGraph, kind: OverrideKind, own: Slot, holder: Slot, computed_by: str) -> str:
    return (
        f"{kind.name} went into {holder.name} of node {graph.describe(holder.node_id)}, from which node "
        f"{graph.describe(computed_by)} makes {own.name} of node {graph.describe(own.node_id)}"
    )


# --- Candidates for the message --------------------------------------------------------------------------


def no_target(
    graph: TypedGraph, kind: OverrideKind, problem: str, candidates: list[str] | None = None
) -> NoOverrideTarget:
    """The error for an override without a place, which lists the nodes that could be named instead."""
    found = candidates or [node_id for node_id in graph.live if inputs_of(graph, kind, node_id)]
    if kind is NEGATIVE_PROMPT and not candidates:
        positive = {place.node_id for place in prompts.find_prompts(graph)}
        found = [node_id for node_id in found if node_id not in positive]
    name_one = f"name one with {kind.node_field}: {graph.describe_all(found)}"
    remedy = name_one if found else f"leave {kind.name} out, or name the node to change with {kind.node_field}"
    return NoOverrideTarget(f"{problem}; {remedy}", candidates=graph.candidates(found))
