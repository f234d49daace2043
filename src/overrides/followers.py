"""What follows an override: other inputs that stand for the same, or that depend on it.

prompt  every other prompt of that role with the same text
size    every other width and height that is the old size; the size that a model's shift or a scheduler is told; an
        enlarged latent, as much as before; a list of sizes, which is set to its entry for a size of one's own
steps   where a sampler of a part of the steps starts and ends, by its share
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..workflow.graph import Slot, with_dependencies, with_dependents
from ..workflow.typed import TypedGraph
from .kinds import BATCH_SIZE, NEGATIVE_PROMPT, PROMPT, SEED, SIZE, STEPS, OverrideKind, Write, writes_of
from .origins import origin_of, uses_of
from .places import Place, value_at, values_of
from .prompts import find_prompts, negative_texts
from .roles import is_generator, makers
from .slots import is_encoder, is_negative, last_name, negative_inputs, size_pairs, words_of

_CUT = re.compile(r"^(start|end)_(at_)?step$")
_SIZE_LIST = frozenset({"size", "resolution", "ratio", "preset", "dimensions"})


class Change(NamedTuple):
    """What follows an override: where to write which value; nowhere, if there is only something to tell."""

    write: Write
    value: Any = None


def _told(hint: str) -> Change:
    return Change(Write((), hint))


def follow(
    graph: TypedGraph, kind: OverrideKind, places: Sequence[Place], values: Sequence[Any], is_named: bool
) -> Iterator[Change]:
    """What follows an override that goes into these places of the workflow `graph`, as it was before."""
    if kind is SIZE:
        yield from _follow_size(graph, places, values)
    elif kind is STEPS:
        yield from _follow_steps(graph, places, values[0], is_named)
    elif kind in (PROMPT, NEGATIVE_PROMPT) and not is_named:
        yield from _follow_prompt(graph, kind, places, values[0])


def _changes(graph: TypedGraph, kind: OverrideKind, place: Place, values: Sequence[Any]) -> Iterator[Change]:
    """The changes that put values into a place."""
    yield from (Change(write, value) for write, value in zip(writes_of(graph, kind, place), values, strict=True))


# --- Prompt -----------------------------------------------------------------------------------------------


def _follow_prompt(graph: TypedGraph, kind: OverrideKind, places: Sequence[Place], text: str) -> Iterator[Change]:
    meant = {Slot(place.node_id, name) for place in places for name in place.inputs}
    held = (origin_of(graph, *slot).slot for slot in meant)
    values = (graph.inputs(slot.node_id)[slot.name] for slot in held if slot is not None)
    old = {value for value in values if isinstance(value, str) and value.strip()}
    if not old:
        return
    for place in _prompts(graph, kind):
        same = [n for n, value in zip(place.inputs, values_of(graph, place), strict=True) if _is_one_of(value, old)]
        other = Place(place.node_id, tuple(n for n in same if Slot(place.node_id, n) not in meant))
        yield from _changes(graph, kind, other, [text] * len(other.inputs))


def _prompts(graph: TypedGraph, kind: OverrideKind) -> Iterator[Place]:
    """The texts that may be prompts of a role: those of encoders and generators, and others that are called so."""
    of_other = _is_positive_text if kind is NEGATIVE_PROMPT else _is_negative_text
    for node_id in graph.live:
        is_prompted = is_encoder(graph, node_id) or is_generator(graph, node_id)
        texts = (name for name, kind in graph.input_types(node_id).items() if kind == "STRING")
        called = (name for name in texts if is_prompted or words_of(last_name(name)) & {"prompt", "text"})
        yield Place(node_id, tuple(name for name in called if not of_other(graph, node_id, name)))


def _is_negative_text(graph: TypedGraph, node_id: str, name: str) -> bool:
    if is_negative(name) or Slot(node_id, name) in negative_texts(graph):
        return True
    return node_id in graph.once(_only_negative)


def _only_negative(graph: TypedGraph) -> set[str]:
    """The nodes with a negative text and no positive one."""
    return {slot.node_id for slot in negative_texts(graph)} - {place.node_id for place in find_prompts(graph)}


def _is_positive_text(graph: TypedGraph, node_id: str, name: str) -> bool:
    is_prompted = is_encoder(graph, node_id) or is_generator(graph, node_id)
    return is_prompted and not _is_negative_text(graph, node_id, name)


def _is_one_of(value: object, texts: set[str]) -> bool:
    return isinstance(value, str) and value in texts


# --- Size -------------------------------------------------------------------------------------------------


def _follow_size(graph: TypedGraph, places: Sequence[Place], size: Sequence[int]) -> Iterator[Change]:
    old, meant = values_of(graph, places[0]), set(places)
    told = _told_the_size(graph)
    for node_id in graph.live:
        for pair in size_pairs(graph, node_id):
            is_same = node_id in told or values_of(graph, Place(node_id, pair)) == old
            if is_same and Place(node_id, pair) not in meant:
                yield from _changes(graph, SIZE, Place(node_id, pair), size)
    for place in places:
        yield from _own_size_chosen(graph, place)
    yield from _follow_enlarging(graph, places, old, size)
    parts = [node_id for node_id in graph.live if _is_part(graph, node_id, _numbers(old))]
    if parts:
        yield _told(f"areas and masks keep their size: {graph.describe_all(parts)}")


def _is_part(graph: TypedGraph, node_id: str, size: Sequence[int]) -> bool:
    """Whether a node sets an area or a mask that may be a part of a picture of that size, but is not all of it."""
    names = graph.inputs(node_id).keys()
    if not {"width", "height"} <= names or not ({"x", "y"} <= names or graph.output_types(node_id) == {"MASK"}):
        return False
    sides = _numbers(values_of(graph, Place(node_id, ("width", "height"))))
    if not sides or not size or "IMAGE" in graph.output_types(node_id):
        return False
    return all(side <= whole for side, whole in zip(sides, size, strict=True)) and (
        {"x", "y"} <= names or sides != size
    )


def _told_the_size(graph: TypedGraph) -> set[str]:
    """The nodes behind the makers that are told the size of the picture: they give a model or a schedule."""
    needed = with_dependencies(graph, makers(graph))
    return {
        node_id for node_id in needed if graph.output_types(node_id) & {"MODEL", "SIGMAS"} and graph.is_live(node_id)
    }


def _own_size_chosen(graph: TypedGraph, place: Place) -> Iterator[Change]:
    """Of a list of sizes beside a width and a height the entry for these."""
    group = place.inputs[0][: len(place.inputs[0]) - len(last_name(place.inputs[0]))]
    for name, value in graph.inputs(place.node_id).items():
        schema = graph.input_schema(place.node_id, name)
        if (
            schema is None
            or not schema.options
            or name != group + last_name(name)
            or not words_of(last_name(name)) & _SIZE_LIST
        ):
            continue
        own = next((option for option in schema.options if str(option).lower() == "custom"), None)
        if own is not None and value != own:
            told = f"{name} of node {graph.describe(place.node_id)} is {own!r} now"
            yield Change(Write((Slot(place.node_id, name),), told), own)


def _follow_enlarging(
    graph: TypedGraph, places: Sequence[Place], old: Sequence[object], size: Sequence[int]
) -> Iterator[Change]:
    """Latents that are enlarged to a size keep their share of it; pictures that are brought to one are only told."""
    behind, meant = with_dependents(graph, [place.node_id for place in places]), set(places)
    for node_id in graph.live:
        pairs = [pair for pair in size_pairs(graph, node_id) if Place(node_id, pair) not in meant]
        kinds = {kind for _, kind, _ in graph.typed_links(node_id)} & {"LATENT", "IMAGE"} if pairs else set()
        if node_id not in behind or not kinds & graph.output_types(node_id):
            continue
        for pair in pairs:
            sides, were = _numbers(values_of(graph, Place(node_id, pair))), _numbers(old)
            if not sides or sides == were:
                continue
            node = graph.describe(node_id)
            if "LATENT" in kinds and were:
                share = [max(8, round(s * new / was / 8) * 8) for s, new, was in zip(sides, size, were, strict=True)]
                yield from _changes(graph, SIZE, Place(node_id, pair), share)
                yield _told(f"node {node} enlarges to {share[0]} x {share[1]}, as much as before")
            else:
                yield _told(f"node {node} still resizes images to its own size; overrides can change it")


def _numbers(values: Sequence[object]) -> list[int]:
    """The values if they all are numbers of pixels, else none."""
    numbers = [value for value in values if type(value) is int and value > 0]
    return numbers if len(numbers) == len(values) else []


# --- Steps ------------------------------------------------------------------------------------------------


def _follow_steps(graph: TypedGraph, places: Sequence[Place], steps: int, is_named: bool) -> Iterator[Change]:
    """Rescale where samplers of a part of the steps start and end, and where a schedule is split."""
    old = values_of(graph, places[0])[0]
    held = origin_of(graph, places[0].node_id, places[0].inputs[0]).slots
    for cut in _cuts(graph, [place.node_id for place in places]):
        where = f"{cut.name} of node {graph.describe(cut.node_id)}"
        origin, value = origin_of(graph, *cut), value_at(graph, *cut)
        if set(held) & set(origin.slots):
            continue  # it follows by itself
        if type(value) is int and type(old) is int:
            if 0 < value <= old:
                share = min(max(1, round(value * steps / old)), max(1, steps - 1))
                yield Change(Write((_cut_slot(graph, cut),)), steps if value == old else share)
                if is_named:
                    yield _told(f"{where} follows its steps; those of other samplers do not")
        elif type(value) is not int:
            yield _told(f"{where} is computed by another node and does not follow the steps")


def _cuts(graph: TypedGraph, node_ids: Sequence[str]) -> Iterator[Slot]:
    """The inputs that cut the steps of these samplers or schedulers."""
    schedulers = [n for n in node_ids if "SIGMAS" in graph.output_types(n)]
    behind = with_dependents(graph, schedulers)
    for node_id in graph.live:
        takes = {kind for _, kind, _ in graph.typed_links(node_id)}
        splits = node_id in behind and "SIGMAS" in takes & graph.output_types(node_id)
        for name in graph.inputs(node_id):
            if (node_id in node_ids and _CUT.match(last_name(name))) or (splits and last_name(name) == "step"):
                yield Slot(node_id, name)


def _cut_slot(graph: TypedGraph, cut: Slot) -> Slot:
    """Where a cut is written to: a primitive node that holds it for cuts alone, else the cut itself."""
    slot = origin_of(graph, *cut).slots[0]
    return slot if all("step" in use.name and "steps" not in use.name for use in uses_of(graph, slot)) else cut


# --- What does not follow -----------------------------------------------------------------------------------


def left_alone(graph: TypedGraph, kind: OverrideKind, places: Sequence[Place], changed: set[Slot]) -> list[str]:
    """A hint about nodes that take such a value, and keep theirs, since their result does not become the output.

    Seeds, sizes and batch sizes that differ from those that were changed are another matter.
    """
    old = [values_of(graph, place) for place in places] if kind in (SEED, SIZE, BATCH_SIZE) else None
    takes_text = kind in (PROMPT, NEGATIVE_PROMPT)
    others = [
        node_id
        for node_id in graph.live
        if (names := kind.inputs(graph, node_id))
        and not any(_is_changed(graph, Slot(node_id, name), changed) for name in names)
        and (_is_left_prompt(graph, kind, node_id, names) if takes_text else _has_value(graph, node_id, names, old))
    ]
    return [f"{kind.name} was left as it is in {graph.describe_all(others)}"] if others else []


def _is_changed(graph: TypedGraph, slot: Slot, changed: set[Slot]) -> bool:
    return slot in changed or any(holder in changed for holder in origin_of(graph, *slot).slots)


def _has_value(graph: TypedGraph, node_id: str, names: Sequence[str], old: list[list[object]] | None) -> bool:
    values = values_of(graph, Place(node_id, tuple(names)))
    return all(isinstance(value, (int, float, str)) for value in values) and (old is None or values in old)


def _is_left_prompt(graph: TypedGraph, kind: OverrideKind, node_id: str, names: Sequence[str]) -> bool:
    """Whether a node has a text of the role: what a sampler or a generator makes of it is on the way to the output."""
    is_prompt = is_encoder(graph, node_id) or is_generator(graph, node_id)
    is_of_role = (Slot(node_id, names[0]) in negative_texts(graph)) == (kind is NEGATIVE_PROMPT)
    texts = values_of(graph, Place(node_id, tuple(names)))
    has_text = any(not isinstance(text, str) or text.strip() for text in texts)
    return is_prompt and is_of_role and has_text and (kind is PROMPT or bool(negative_inputs(graph, node_id)))
