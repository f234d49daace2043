"""The workflow with prompt, seed and size put in: a row of a table for each kind of override.

For each kind, in this order: the node that the caller named; else the nodes that following the links finds, all of
them if they agree (equal text, equal size, any seeds); else, of several that differ, the one with the usual id;
else, where nothing is found, the node with the usual id if it takes such a value. What remains is an error that
lists the candidates.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import AmbiguousOverrideTarget, NoOverrideTarget
from . import targets
from .graph import Graph, Workflow
from .targets import Slot


@dataclass(frozen=True)
class Overrides:
    """What a job wants changed in its workflow; None leaves it as it is.

    `seed` is 0 to 2^64-1; `width` and `height`, in pixels, come together. A `*_node_id` names the node to change.
    """

    prompt: str | None = None
    prompt_node_id: str | None = None
    seed: int | None = None
    seed_node_id: str | None = None
    width: int | None = None
    height: int | None = None
    size_node_id: str | None = None


@dataclass(frozen=True)
class _Kind:
    """One kind of override: how people call it, where it usually is, and how its nodes are found.

    `is_usual` says whether the node with the usual id may be taken where nothing was found.
    """

    name: str
    node_field: str
    usual_id: str
    takes: str
    inputs: Callable[[Graph, str], tuple[str, ...]]
    find: Callable[[Graph], list[str]]
    is_usual: Callable[[Graph, str], bool]
    must_agree: bool = True


_PROMPT = _Kind(
    "prompt",
    "prompt_node_id",
    "6",
    "a prompt text",
    targets.text_inputs,
    targets.find_prompt_nodes,
    targets.may_be_prompt,
)
_SEED = _Kind(
    "seed",
    "seed_node_id",
    "25",
    "a seed",
    targets.seed_inputs,
    targets.find_seed_nodes,
    lambda graph, node_id: True,
    must_agree=False,
)
_SIZE = _Kind(
    "width and height",
    "size_node_id",
    "27",
    "a width and a height",
    targets.size_inputs,
    targets.find_size_nodes,
    targets.makes_empty,
)


def apply_overrides(workflow: Workflow, overrides: Overrides) -> dict[str, Any]:
    """A copy of a checked workflow with the overrides put in.

    Raises NoOverrideTarget or AmbiguousOverrideTarget, which list the nodes that could be meant.
    """
    graph = Graph(workflow)
    changed: dict[str, Any] = copy.deepcopy(dict(workflow))
    if overrides.prompt is not None:
        for node_id in _nodes(graph, _PROMPT, overrides.prompt_node_id):
            for slot in _slots(graph, _PROMPT, node_id, is_named=overrides.prompt_node_id is not None):
                _put(changed, slot, overrides.prompt)
    if overrides.seed is not None:
        for node_id in _nodes(graph, _SEED, overrides.seed_node_id):
            for slot in _slots(graph, _SEED, node_id, is_named=overrides.seed_node_id is not None):
                _put(changed, slot, overrides.seed)
    if overrides.width is not None and overrides.height is not None:
        for node_id in _nodes(graph, _SIZE, overrides.size_node_id):
            for sized in [node_id, *_following_size(graph, node_id)]:
                width, height = _slots(graph, _SIZE, sized, is_named=overrides.size_node_id is not None)
                _put(changed, width, overrides.width)
                _put(changed, height, overrides.height)
    return changed


def _put(workflow: dict[str, Any], slot: Slot, value: object) -> None:
    workflow[slot.node_id]["inputs"][slot.name] = value


def _following_size(graph: Graph, size_node: str) -> list[str]:
    """`ModelSamplingFlux` nodes of the samplers that use this size: its shift is computed from width and height."""
    samplers = targets.samplers_of(graph, size_node)
    found = targets.find_nodes_behind(graph, samplers, "ModelSamplingFlux")
    return [node_id for node_id in found if all(targets.holder(graph, node_id, name) for name in ("width", "height"))]


# --- Which nodes ---------------------------------------------------------------------------------------


def _nodes(graph: Graph, kind: _Kind, named: str | None) -> list[str]:
    if named is not None:
        return [_named_node(graph, kind, named)]
    found = kind.find(graph)
    if kind.must_agree and len({_held(graph, kind, node_id) for node_id in found}) > 1:
        if kind.usual_id in found:
            return [kind.usual_id]
        raise AmbiguousOverrideTarget(
            f"{kind.name}: several nodes could be meant; name one with {kind.node_field}: {_listed(graph, found)}",
            candidates=_candidates(graph, found),
        )
    usual = kind.usual_id
    if not found and usual in graph and _inputs(graph, kind, usual) and kind.is_usual(graph, usual):
        return [usual]
    if not found:
        raise _no_target(graph, kind, f"{kind.name}: found no node in the workflow that takes {kind.takes}")
    return found


def _named_node(graph: Graph, kind: _Kind, node_id: str) -> str:
    if node_id not in graph:
        raise _no_target(graph, kind, f"{kind.node_field}: the workflow has no node {node_id[:80]!r}")
    if not _inputs(graph, kind, node_id):
        raise _no_target(graph, kind, f"{kind.node_field}: node {graph.describe(node_id)} does not take {kind.takes}")
    return node_id


def _inputs(graph: Graph, kind: _Kind, node_id: str) -> tuple[str, ...]:
    """The inputs of a node that a value of this kind goes into; of a primitive node, its value if the type fits."""
    names = kind.inputs(graph, node_id)
    held = targets.primitive_input(graph, node_id)
    if names or held is None or kind is _SIZE:
        return names
    wanted = str if kind is _PROMPT else int
    return (held,) if isinstance(graph.inputs(node_id)[held], wanted) else ()


def _slots(graph: Graph, kind: _Kind, node_id: str, is_named: bool = False) -> list[Slot]:
    """Where the value is to be written: in the node, or in a primitive node that holds it for no other purpose.

    An input that another node computes can be overwritten only in a node that the caller has named.
    """
    slots = []
    for name in _inputs(graph, kind, node_id):
        slot = targets.holder(graph, node_id, name)
        if slot is not None:
            slots.append(slot)
        elif is_named:
            slots.append(Slot(node_id, name))
        else:
            link = graph.link(node_id, name)
            source = graph.describe(link.node_id) if link else "another node"
            raise _no_target(
                graph, kind, f"{kind.name}: {name} of node {graph.describe(node_id)} is computed by node {source}"
            )
    return slots


def _held(graph: Graph, kind: _Kind, node_id: str) -> str:
    """What a node now holds for this kind, to tell whether several nodes agree."""
    slots = [targets.holder(graph, node_id, name) or Slot(node_id, name) for name in kind.inputs(graph, node_id)]
    return repr([graph.inputs(slot.node_id)[slot.name] for slot in slots])


# --- Candidates for the message --------------------------------------------------------------------------


def _no_target(graph: Graph, kind: _Kind, problem: str) -> NoOverrideTarget:
    fitting = [node_id for node_id in graph if _inputs(graph, kind, node_id)]
    one = f"name one with {kind.node_field}: {_listed(graph, fitting)}"
    remedy = one if fitting else f"leave {kind.name} out, or name the node to change with {kind.node_field}"
    return NoOverrideTarget(f"{problem}; {remedy}", candidates=_candidates(graph, fitting))


def _listed(graph: Graph, node_ids: list[str]) -> str:
    shown = ", ".join(graph.describe(node_id) for node_id in node_ids[:20])
    return shown if len(node_ids) <= 20 else f"{shown} and {len(node_ids) - 20} more"


def _candidates(graph: Graph, node_ids: list[str]) -> list[dict[str, str]]:
    return [
        {"node_id": node_id[:200], "class_type": graph.class_of(node_id)[:200], "title": graph.title(node_id)[:200]}
        for node_id in node_ids[:20]
    ]
