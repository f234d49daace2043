"""The table of the kinds of overrides, and the inputs of a workflow that each kind sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import NoOverrideTarget
from . import sampling, slots, targets
from .graph import Graph
from .slots import Slot


@dataclass(frozen=True)
class OverrideKind:
    """One kind of override.

    `fields` are the job's input fields with its values, `node_field` is the one that names a node, and `takes`
    describes the value in messages. `inputs` returns the inputs of a node that take the value, `find` the nodes found
    by following links. `holds` is the type that a primitive node's value must have if the caller names that node.
    `usual_id` is the id that such a node usually has; `is_usual` tells whether the node with that id may be used if
    `find` finds none. `must_agree`: the override is ambiguous if the nodes found hold different values.
    """

    fields: tuple[str, ...]
    node_field: str
    takes: str
    inputs: Callable[[Graph, str], tuple[str, ...]]
    find: Callable[[Graph], list[str]]
    holds: type | tuple[type, ...]
    usual_id: str = ""
    is_usual: Callable[[Graph, str], bool] = lambda graph, node_id: True
    must_agree: bool = True

    @property
    def name(self) -> str:
        """Its name in messages."""
        return " and ".join(self.fields)


PROMPT = OverrideKind(
    ("prompt",), "prompt_node_id", "a prompt text", slots.text_inputs, targets.find_prompt_nodes, str,
    usual_id="6", is_usual=targets.may_be_prompt,
)  # fmt: skip
NEGATIVE_PROMPT = OverrideKind(
    ("negative_prompt",), "negative_prompt_node_id", "a negative prompt text", slots.negative_text_inputs,
    targets.find_negative_prompt_nodes, str,
)  # fmt: skip
SEED = OverrideKind(
    ("seed",), "seed_node_id", "a seed", slots.seed_inputs, targets.find_seed_nodes, int,
    usual_id="25", must_agree=False,
)  # fmt: skip
SIZE = OverrideKind(
    ("width", "height"), "size_node_id", "a width and a height", slots.size_inputs, targets.find_size_nodes, (),
    usual_id="27", is_usual=targets.makes_empty_latent,
)  # fmt: skip
BATCH_SIZE = OverrideKind(
    ("batch_size",), "batch_size_node_id", "a batch size", slots.batch_inputs, targets.find_batch_nodes, int,
)  # fmt: skip


def _sampling_kind(name: str, takes: str, holds: type | tuple[type, ...]) -> OverrideKind:
    setting = sampling.SAMPLING_SETTINGS[name]
    return OverrideKind((name,), f"{name}_node_id", takes, setting.inputs, setting.find, holds)


KINDS = (
    PROMPT,
    NEGATIVE_PROMPT,
    SEED,
    SIZE,
    BATCH_SIZE,
    _sampling_kind("steps", "a number of steps", int),
    _sampling_kind("cfg", "a cfg", (int, float)),
    _sampling_kind("guidance", "a guidance", (int, float)),
    _sampling_kind("denoise", "a denoise", (int, float)),
    _sampling_kind("sampler_name", "a sampler's name", str),
    _sampling_kind("scheduler", "a scheduler's name", str),
)
NODE_FIELDS = (*(kind.node_field for kind in KINDS), "loras_node_id")
"""The names of the input fields that name a node."""


# --- Which nodes ---------------------------------------------------------------------------------------


def usual_node(graph: Graph, kind: OverrideKind) -> str:
    """The node with the usual id, if no other was found. Raises NoOverrideTarget unless it takes such a value."""
    usual = kind.usual_id
    if usual in graph and _inputs(graph, kind, usual) and kind.is_usual(graph, usual):
        return usual
    raise _no_target(graph, kind, f"{kind.name}: found no node in the workflow that takes {kind.takes}")


def named_node(graph: Graph, kind: OverrideKind, node_id: str) -> str:
    """The node that the caller named. Raises NoOverrideTarget unless it is there and takes such a value."""
    if node_id not in graph:
        raise _no_target(graph, kind, f"{kind.node_field}: the workflow has no node {node_id[:80]!r}")
    if not _inputs(graph, kind, node_id):
        raise _no_target(graph, kind, f"{kind.node_field}: node {graph.describe(node_id)} does not take {kind.takes}")
    return node_id


def _inputs(graph: Graph, kind: OverrideKind, node_id: str) -> tuple[str, ...]:
    """The inputs of a node that take a value of this kind; of a primitive node, its value if the type fits."""
    names = kind.inputs(graph, node_id)
    value_input = slots.primitive_input(graph, node_id)
    if names or value_input is None or not kind.holds:
        return names
    value = graph.inputs(node_id)[value_input]
    return (value_input,) if isinstance(value, kind.holds) and not isinstance(value, bool) else ()


def slots_of(graph: Graph, kind: OverrideKind, node_id: str, is_named: bool = False) -> list[Slot]:
    """The inputs to write the value to: those of the node, or of a primitive node that holds the value for them alone.

    An input that another node computes is overwritten only in a node that the caller has named.
    """
    found = []
    for name in _inputs(graph, kind, node_id):
        slot = slots.value_slot(graph, node_id, name)
        if slot is not None:
            found.append(slot)
        elif is_named:
            found.append(Slot(node_id, name))
        else:
            link = graph.link(node_id, name)
            source = graph.describe(link.node_id) if link else "another node"
            raise _no_target(
                graph, kind, f"{kind.name}: {name} of node {graph.describe(node_id)} is computed by node {source}"
            )
    return found


def value_of(graph: Graph, kind: OverrideKind, node_id: str) -> str:
    """The current value of a node for this kind, for comparing it with that of other nodes."""
    found = [slots.value_slot(graph, node_id, name) or Slot(node_id, name) for name in kind.inputs(graph, node_id)]
    return repr([graph.inputs(slot.node_id)[slot.name] for slot in found])


# --- Candidates for the message --------------------------------------------------------------------------


def _no_target(graph: Graph, kind: OverrideKind, problem: str) -> NoOverrideTarget:
    candidates = [node_id for node_id in graph if _inputs(graph, kind, node_id)]
    if kind is NEGATIVE_PROMPT:
        positive = set(targets.find_prompt_nodes(graph))
        candidates = [node_id for node_id in candidates if node_id not in positive]
    name_one = f"name one with {kind.node_field}: {graph.describe_all(candidates)}"
    remedy = name_one if candidates else f"leave {kind.name} out, or name the node to change with {kind.node_field}"
    return NoOverrideTarget(f"{problem}; {remedy}", candidates=graph.candidates(candidates))
