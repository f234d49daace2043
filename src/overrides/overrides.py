"""Applies a job's overrides to a workflow.

Each kind of override goes into, in this order: the node that the caller named; else the nodes found by following
links, all of them if they agree (equal text, equal size, any seeds); else, of several that differ, the one with the
usual id; else, if none is found, the node with the usual id if it takes such a value. Everything else is an error
that lists the candidates. What depends on a value, or stands for the same, follows it (`followers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import AmbiguousOverrideTarget, InvalidInput, NoOverrideTarget
from ..workflow.checks import check_json
from ..workflow.core_classes import core_schemas
from ..workflow.graph import Graph, Link, Slot, Workflow, editable_copy
from ..workflow.schemas import InputSchema, NodeSchema
from ..workflow.typed import TypedGraph
from .followers import follow, left_alone
from .kinds import KINDS, SEED, OverrideKind, Write, named_place, usual_place, writes_of
from .loras import Lora, insert_loras
from .places import Place, places_of, value_at, values_of
from .sampling import find_seeds
from .slots import seed_inputs

Schemas = Mapping[str, NodeSchema | None]
"""Node class -> its schema, None for one that is not known."""

_RANDOM = -1  # a seed: another one each time


@dataclass(frozen=True)
class Overrides:
    """The changes that a job requests in its workflow; None leaves a value as it is.

    `seed` is 0 to 2^64-1; `width` and `height`, in pixels, must be given together. `node_ids` maps an input field that
    names a node (`prompt_node_id`, …) to the id of that node. `drawn_seed` is what a seed of -1 in the workflow
    becomes: "another each time", as in many nodes. `set_by_inputs` are the inputs that the job's
    `inputs` have set, and under which name: none of these may go there.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    batch_size: int | None = None
    length: int | None = None
    fps: float | None = None
    steps: int | None = None
    cfg: float | None = None
    guidance: float | None = None
    denoise: float | None = None
    sampler_name: str | None = None
    scheduler: str | None = None
    loras: tuple[Lora, ...] = ()
    node_ids: Mapping[str, str] = field(default_factory=dict)
    drawn_seed: int | None = None
    set_by_inputs: Mapping[Slot, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AppliedOverrides:
    """A workflow with overrides applied: which inputs they changed, and hints about that for the caller.

    `seeds` are those that the workflow had before, without duplicates.
    """

    workflow: Workflow
    changed: tuple[Slot, ...] = ()
    hints: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class OverridableField:
    """A value of a workflow that a job can override by name: its current value and the node that it is in.

    `candidates` is not empty if several nodes could be meant and the job has to name one; there is no value then.
    """

    name: str
    value: Any
    node_id: str
    title: str
    candidates: tuple[Mapping[str, str], ...] = ()
    schema: InputSchema | None = None
    """Of the input that takes the value, also where another node holds it; None if its class is not known."""


def overridable_fields(workflow: Workflow, schemas: Schemas | None = None) -> list[OverridableField]:
    """The values of a checked workflow that can be overridden. `schemas`: else those of ComfyUI's own classes."""
    graph = _typed(workflow, schemas)
    found = list[OverridableField]()
    for kind in KINDS:
        try:
            place = _found_places(graph, kind)[0][0]
            writes = writes_of(graph, kind, place)
        except (AmbiguousOverrideTarget, NoOverrideTarget) as error:
            if isinstance(error, AmbiguousOverrideTarget):
                found.extend(
                    OverridableField(name, None, "", "", tuple(error.details["candidates"])) for name in kind.fields
                )
            continue
        node_id, title = place.node_id, graph.title(place.node_id)
        found.extend(
            OverridableField(name, _value_of(graph, write), node_id, title, schema=graph.input_schema(node_id, taker))
            for name, write, taker in zip(kind.fields, writes, place.inputs, strict=False)
        )
    return found


def apply_overrides(workflow: Workflow, overrides: Overrides, schemas: Schemas | None = None) -> AppliedOverrides:
    """A copy of a checked workflow with the overrides applied. `schemas`: else those of ComfyUI's own classes.

    Raises NoOverrideTarget or AmbiguousOverrideTarget, which list the nodes that could be meant.
    """
    graph = _typed(workflow, schemas)
    edit = _WorkflowEdit(graph, overrides.set_by_inputs)
    for kind in KINDS:
        values, named = [getattr(overrides, name) for name in kind.fields], overrides.node_ids.get(kind.node_field)
        asks_nothing = values == [""] and named is None and not kind.find(graph)  # forms send empty texts
        if None not in values and not asks_nothing:
            edit.apply(kind, values, named)
    if overrides.drawn_seed is not None:
        edit.draw_seeds(overrides.drawn_seed)
    changed = edit.changed_workflow
    if overrides.loras:
        changed = insert_loras(graph, changed, overrides.loras, overrides.node_ids.get("loras_node_id"))
    hints = tuple(dict.fromkeys(edit.hints))
    seeds = dict.fromkeys(overrides.drawn_seed if seed == _RANDOM else seed for seed in _seeds(graph))
    return AppliedOverrides(
        changed, tuple(dict.fromkeys(edit.changed)), hints, tuple(s for s in seeds if s is not None)
    )


def _typed(workflow: Workflow, schemas: Schemas | None) -> TypedGraph:
    return TypedGraph(workflow, core_schemas() if schemas is None else schemas)


def set_inputs(workflow: Workflow, requested: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Slot, ...]]:
    """A copy with inputs set from `{node id: {"inputs": {name: value}}}`, and which ones; it has to be checked again.

    Raises NoOverrideTarget for a node that the workflow does not have, InvalidInput for another shape.
    """
    check_json(requested, "overrides")
    graph, changed = Graph(workflow), editable_copy(workflow)
    slots: list[Slot] = []
    for node_id, node_change in requested.items():
        if node_id not in graph:
            known = graph.describe_all(list(graph))
            raise NoOverrideTarget(f"overrides: the workflow has no node {node_id[:80]!r}; it has {known}")
        inputs = node_change.get("inputs") if isinstance(node_change, dict) and len(node_change) == 1 else None
        if not isinstance(inputs, dict):
            raise InvalidInput(
                f'overrides: the change of node {node_id[:80]!r} must be like {{"inputs": {{"text": "a cat"}}}}'
            )
        changed[node_id]["inputs"].update(inputs)
        slots.extend(Slot(node_id, str(name)) for name in inputs)
    return changed, tuple(slots)


def _seeds(graph: TypedGraph) -> list[int]:
    """The seeds that a workflow runs with, without duplicates."""
    values = (value for place in find_seeds(graph) for value in values_of(graph, place))
    return list(dict.fromkeys(value for value in values if type(value) is int))


class _WorkflowEdit:
    """A copy of a workflow that overrides are applied to; nodes are looked up in the original workflow."""

    def __init__(self, graph: TypedGraph, set_by_inputs: Mapping[Slot, str] | None = None) -> None:
        self.changed_workflow = editable_copy(graph.workflow)
        self.changed: list[Slot] = []
        self.hints: list[str] = []
        self._graph = graph
        self._override_of_slot = dict(set_by_inputs or {})
        self._replaced: set[tuple[Link, tuple[Slot, ...], str]] = set()
        """Outputs whose number all that took it have no more, with the first of these, by which override."""

    def apply(self, kind: OverrideKind, values: list[Any], named: str | None) -> None:
        """Apply one kind of override."""
        graph, is_named = self._graph, named is not None
        places, hint = _found_places(graph, kind) if named is None else ([named_place(graph, kind, named)], "")
        self.hints.extend([hint] if hint else [])
        for place in places:
            writes = writes_of(graph, kind, place, is_named)
            of_inputs = values if len(values) == len(writes) else values * len(writes)
            for write, value in zip(writes, of_inputs, strict=True):
                self._write(write, value, kind.name)
        for change in follow(graph, kind, places, values, is_named):
            self._write(change.write, change.value, kind.name)
        if not is_named:
            self.hints.extend(left_alone(graph, kind, places, set(self.changed)))

    def draw_seeds(self, seed: int) -> None:
        """Put a number in place of every seed that is still -1, which stands for another one each time."""
        graph = self._graph
        for place in places_of(graph, graph.live, seed_inputs):
            for name, write in zip(place.inputs, writes_of(graph, SEED, place), strict=True):
                is_random = value_at(graph, place.node_id, name) in (_RANDOM, str(_RANDOM))
                if is_random and write.slots[0] not in self.changed:
                    slot = write.slots[0]
                    self.changed_workflow[slot.node_id]["inputs"][slot.name] = seed
                    self.changed.append(slot)

    def _write(self, write: Write, value: Any, override: str) -> None:
        self.hints.extend([write.hint] if write.hint else [])
        if write.source is not None:
            if (write.source, write.slots[:1], override) in self._replaced:
                return
            self._replaced.add((write.source, write.slots[:1], override))
        for slot in write.slots:
            self._set(slot, value, override)

    def _set(self, slot: Slot, value: Any, override: str) -> None:
        other = self._override_of_slot.setdefault(slot, override)
        if other != override:  # one of them would be lost
            place = f"{slot.name} of node {self._graph.describe(slot.node_id)}"
            raise NoOverrideTarget(
                f"{other} and {override} would both go into {place}; name another node, or leave one out"
            )
        self.changed_workflow[slot.node_id]["inputs"][slot.name] = value
        self.changed.append(slot)


def _found_places(graph: TypedGraph, kind: OverrideKind) -> tuple[list[Place], str]:
    """The places found by following links, and a hint; of several whose values differ, the one with the usual id."""
    found = kind.find(graph)
    if not kind.must_agree or _agree(graph, found):
        return found or [usual_place(graph, kind)], ""
    usual = [p for p in found if p.node_id == kind.usual_id and kind.is_usual(graph, p.node_id)]
    node_ids = [place.node_id for place in found]
    if not usual:
        raise AmbiguousOverrideTarget(
            f"{kind.name}: several nodes match; name one with {kind.node_field}: {graph.describe_all(node_ids)}",
            candidates=graph.candidates(node_ids),
        )
    others = graph.describe_all([node_id for node_id in node_ids if node_id != kind.usual_id])
    return usual, (
        f"{kind.name} went into node {graph.describe(kind.usual_id)}, which has the usual id; these have other "
        f"values and were left unchanged: {others}; {kind.node_field} names another"
    )


def _value_of(graph: TypedGraph, write: Write) -> Any:
    """The value that a write would replace; None if a node computes it."""
    if write.source is not None or len(write.slots) != 1:
        return None
    slot = write.slots[0]
    return graph.inputs(slot.node_id)[slot.name] if graph.link(*slot) is None else None


def _agree(graph: TypedGraph, places: list[Place]) -> bool:
    """Whether all places hold the same value."""
    values = [values_of(graph, place) for place in places]
    return all(value == values[0] for value in values)
