"""Applies a job's overrides to a workflow.

Each kind of override goes into, in this order: the node that the caller named; else the nodes found by following
links, all of them if they agree (equal text, equal size, any seeds); else, of several that differ, the one with the
usual id; else, if none is found, the node with the usual id if it takes such a value. Everything else is an error
that lists the candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import AmbiguousOverrideTarget, InvalidInput, NoOverrideTarget
from . import targets
from .checks import check_json
from .graph import Graph, Workflow, editable_copy, with_dependencies, with_dependents
from .loras import Lora, insert_loras
from .override_kinds import KINDS, SIZE, OverrideKind, named_node, slots_of, usual_node, value_of
from .slots import Slot, seed_inputs, size_inputs, value_slot


@dataclass(frozen=True)
class Overrides:
    """The changes that a job requests in its workflow; None leaves a value as it is.

    `seed` is 0 to 2^64-1; `width` and `height`, in pixels, must be given together. `node_ids` maps an input field that
    names a node (`prompt_node_id`, …) to the id of that node.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    batch_size: int | None = None
    steps: int | None = None
    cfg: float | None = None
    guidance: float | None = None
    denoise: float | None = None
    sampler_name: str | None = None
    scheduler: str | None = None
    loras: tuple[Lora, ...] = ()
    node_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AppliedOverrides:
    """A workflow with overrides applied: which inputs they changed, and hints about that for the caller."""

    workflow: dict[str, Any]
    changed: tuple[Slot, ...] = ()
    hints: tuple[str, ...] = ()


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


def overridable_fields(workflow: Workflow) -> list[OverridableField]:
    """The values of a checked workflow that can be overridden."""
    graph, edit, found = Graph(workflow), _WorkflowEdit(workflow), list[OverridableField]()
    for kind in KINDS:
        try:
            node_id = edit.found_nodes(kind)[0]
            slots = slots_of(graph, kind, node_id)
        except AmbiguousOverrideTarget as error:
            found.extend(
                OverridableField(name, None, "", "", tuple(error.details["candidates"])) for name in kind.fields
            )
        except NoOverrideTarget:
            continue
        else:
            values = [graph.inputs(slot.node_id)[slot.name] for slot in slots]
            title = graph.title(node_id)
            found.extend(
                OverridableField(name, v, node_id, title) for name, v in zip(kind.fields, values, strict=False)
            )
    return found


def apply_overrides(workflow: Workflow, overrides: Overrides) -> AppliedOverrides:
    """A copy of a checked workflow with the overrides applied.

    Raises NoOverrideTarget or AmbiguousOverrideTarget, which list the nodes that could be meant.
    """
    edit = _WorkflowEdit(workflow)
    for kind in KINDS:
        values = [getattr(overrides, name) for name in kind.fields]
        if None not in values:
            edit.apply(kind, values, overrides.node_ids.get(kind.node_field))
    changed = edit.changed_workflow
    if overrides.loras:
        changed = insert_loras(changed, overrides.loras, overrides.node_ids.get("loras_node_id"))
    return AppliedOverrides(changed, tuple(dict.fromkeys(edit.changed)), tuple(edit.hints))


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
                f'overrides: what is to change in node {node_id[:80]!r} must be like {{"inputs": {{"text": "a cat"}}}}'
            )
        changed[node_id]["inputs"].update(inputs)
        slots.extend(Slot(node_id, str(name)) for name in inputs)
    return changed, tuple(slots)


def seeds_of(workflow: Workflow) -> list[int]:
    """The seeds of a workflow's samplers and noise nodes, without duplicates."""
    graph = Graph(workflow)
    slots = (
        value_slot(graph, node_id, name)
        for node_id in targets.find_seed_nodes(graph)
        for name in seed_inputs(graph, node_id)
    )
    values = (graph.inputs(slot.node_id)[slot.name] for slot in slots if slot)
    return list(dict.fromkeys(value for value in values if type(value) is int))


class _WorkflowEdit:
    """A copy of a workflow that overrides are applied to; nodes are looked up in the original workflow."""

    def __init__(self, workflow: Workflow) -> None:
        self.changed_workflow = editable_copy(workflow)
        self.changed: list[Slot] = []
        self.hints: list[str] = []
        self._graph = Graph(workflow)
        self._override_of_slot: dict[Slot, str] = {}

    def apply(self, kind: OverrideKind, values: list[Any], named: str | None) -> None:
        """Apply one kind of override."""
        graph = self._graph
        nodes = [named_node(graph, kind, named)] if named is not None else self.found_nodes(kind)
        for node_id in nodes:
            self._set_values(slots_of(graph, kind, node_id, is_named=named is not None), values, kind.name)
        if kind is SIZE:
            self._follow_size(nodes, values)
        if kind.fields == ("steps",):
            self._follow_steps(nodes, values[0], is_named=named is not None)

    def found_nodes(self, kind: OverrideKind) -> list[str]:
        """The nodes found by following links; of several whose values differ, the one with the usual id."""
        graph, found = self._graph, kind.find(self._graph)
        if kind.must_agree and len({value_of(graph, kind, node_id) for node_id in found}) > 1:
            if kind.usual_id not in found:
                raise AmbiguousOverrideTarget(
                    f"{kind.name}: several nodes could be meant; name one with {kind.node_field}: "
                    f"{graph.describe_all(found)}",
                    candidates=graph.candidates(found),
                )
            others = graph.describe_all([node_id for node_id in found if node_id != kind.usual_id])
            self.hints.append(
                f"{kind.name} went into node {graph.describe(kind.usual_id)}, which has the usual id; these differ "
                f"from it and were left alone: {others}; {kind.node_field} names another"
            )
            return [kind.usual_id]
        return found or [usual_node(graph, kind)]

    def _refuse_conflict(self, slots: list[Slot], override: str) -> None:
        """Refuse two overrides for the same input: one of them would be lost."""
        for slot in slots:
            other = self._override_of_slot.setdefault(slot, override)
            if other != override:
                place = f"{slot.name} of node {self._graph.describe(slot.node_id)}"
                raise NoOverrideTarget(
                    f"{other} and {override} would both go into {place}; name another node, or leave one out"
                )

    def _set_values(self, slots: Iterable[Slot], values: list[Any], override: str) -> None:
        slots = list(slots)
        self._refuse_conflict(slots, override)
        for slot, value in zip(slots, values if len(values) == len(slots) else values * len(slots), strict=True):
            self.changed_workflow[slot.node_id]["inputs"][slot.name] = value
            self.changed.append(slot)

    def _follow_size(self, size_nodes: list[str], size: list[int]) -> None:
        """Adapt what depends on the size: the shift of `ModelSamplingFlux`, and a second pass that upscales.

        The nodes, which set the size, all had the same.
        """
        samplers = targets.samplers_of(self._graph, size_nodes)
        for node_id in self._of_class("ModelSamplingFlux", samplers):
            slots = [slot for name in ("width", "height") if (slot := value_slot(self._graph, node_id, name))]
            if len(slots) == 2:
                self._set_values(slots, size, SIZE.name)
        first = size_nodes[0]
        old = [self._graph.inputs(first)[name] for name in size_inputs(self._graph, first)]
        for node_id in targets.find_latent_upscales(self._graph, samplers):
            fixed = [Slot(node_id, name) for name in ("width", "height")]
            sides = [self._graph.inputs(node_id)[name] for name in ("width", "height")]
            if all(type(side) is int and side > 0 for side in [*old, *sides]):
                sides = [max(8, round(s * new / was / 8) * 8) for s, new, was in zip(sides, size, old, strict=True)]
                self._set_values(fixed, sides, SIZE.name)
                self.hints.append(
                    f"node {self._graph.describe(node_id)} enlarges to {sides[0]} x {sides[1]}, as much as before"
                )
        for node_id in targets.find_image_scales(self._graph, samplers):
            self.hints.append(
                f"node {self._graph.describe(node_id)} still brings pictures to its own size; overrides can change it"
            )

    def _of_class(self, class_type: str, users: list[str]) -> list[str]:
        """The nodes of one class that the given nodes depend on."""
        return [n for n in with_dependencies(self._graph, users) if self._graph.class_of(n) == class_type]

    def _follow_steps(self, nodes: list[str], steps: int, is_named: bool) -> None:
        """Rescale where a sampler of only a part of the steps starts or ends: KSamplerAdvanced, SplitSigmas.

        The nodes, which hold the steps, all had the same number.
        """
        graph, slot = self._graph, value_slot(self._graph, nodes[0], "steps")
        old = graph.inputs(slot.node_id)[slot.name] if slot else None
        downstream = with_dependents(graph, nodes)
        splits = [n for n in graph if graph.class_of(n) == "SplitSigmas" and n in downstream]
        boundaries = [Slot(node_id, name) for node_id in nodes for name in ("start_at_step", "end_at_step")]
        boundaries += [Slot(n, "step") for n in splits]
        for boundary in boundaries:
            step = graph.inputs(boundary.node_id).get(boundary.name)
            if type(step) is int and type(old) is int and 0 < step < old:
                self._set_values([boundary], [min(max(1, round(step * steps / old)), max(1, steps - 1))], "steps")
                if is_named:
                    self.hints.append(
                        f"{boundary.name} of node {graph.describe(boundary.node_id)} follows its steps; "
                        "other samplers' do not"
                    )
