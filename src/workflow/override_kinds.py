"""The kinds of overrides, a row of a table each, and the place in a workflow that a value of each kind goes into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import NoOverrideTarget
from . import sampling, slots, targets
from .graph import Graph
from .slots import Slot


@dataclass(frozen=True)
class Kind:
    """One kind of override: its fields, how people call what it takes, where it usually is and how it is found.

    `is_usual` says whether the node with the usual id may be taken where nothing was found, `holds` what a primitive
    node must hold to be named for it.
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
        """How people call it."""
        return " and ".join(self.fields)


PROMPT = Kind(
    ("prompt",), "prompt_node_id", "a prompt text", slots.text_inputs, targets.find_prompt_nodes, str,
    usual_id="6", is_usual=targets.may_be_prompt,
)  # fmt: skip
NEGATIVE_PROMPT = Kind(
    ("negative_prompt",), "negative_prompt_node_id", "a negative prompt text", slots.negative_text_inputs,
    targets.find_negative_prompt_nodes, str,
)  # fmt: skip
SEED = Kind(
    ("seed",), "seed_node_id", "a seed", slots.seed_inputs, targets.find_seed_nodes, int,
    usual_id="25", must_agree=False,
)  # fmt: skip
SIZE = Kind(
    ("width", "height"), "size_node_id", "a width and a height", slots.size_inputs, targets.find_size_nodes, (),
    usual_id="27", is_usual=targets.makes_empty,
)  # fmt: skip
BATCH_SIZE = Kind(
    ("batch_size",), "batch_size_node_id", "a batch size", slots.batch_inputs, targets.find_batch_nodes, int,
)  # fmt: skip


def _of_sampling(name: str, takes: str, holds: type | tuple[type, ...]) -> Kind:
    knob = sampling.KNOBS[name]
    return Kind((name,), f"{name}_node_id", takes, knob.inputs, knob.find, holds)


KINDS = (
    PROMPT,
    NEGATIVE_PROMPT,
    SEED,
    SIZE,
    BATCH_SIZE,
    _of_sampling("steps", "a number of steps", int),
    _of_sampling("cfg", "a cfg", (int, float)),
    _of_sampling("guidance", "a guidance", (int, float)),
    _of_sampling("denoise", "a denoise", (int, float)),
    _of_sampling("sampler_name", "a sampler's name", str),
    _of_sampling("scheduler", "a scheduler's name", str),
)
NODE_FIELDS = (*(kind.node_field for kind in KINDS), "loras_node_id")
"""The names of the input fields that name a node."""


# --- Which nodes ---------------------------------------------------------------------------------------


def usual_node(graph: Graph, kind: Kind) -> str:
    """Where nothing was found: the node with the usual id, if it takes such a value."""
    usual = kind.usual_id
    if usual in graph and _inputs(graph, kind, usual) and kind.is_usual(graph, usual):
        return usual
    raise _no_target(graph, kind, f"{kind.name}: found no node in the workflow that takes {kind.takes}")


def named_node(graph: Graph, kind: Kind, node_id: str) -> str:
    """The node that the caller named. Raises NoOverrideTarget unless it is there and takes such a value."""
    if node_id not in graph:
        raise _no_target(graph, kind, f"{kind.node_field}: the workflow has no node {node_id[:80]!r}")
    if not _inputs(graph, kind, node_id):
        raise _no_target(graph, kind, f"{kind.node_field}: node {graph.describe(node_id)} does not take {kind.takes}")
    return node_id


def _inputs(graph: Graph, kind: Kind, node_id: str) -> tuple[str, ...]:
    """The inputs of a node that a value of this kind goes into; of a primitive node, its value if the type fits."""
    names = kind.inputs(graph, node_id)
    held = slots.primitive_input(graph, node_id)
    if names or held is None or not kind.holds:
        return names
    value = graph.inputs(node_id)[held]
    return (held,) if isinstance(value, kind.holds) and not isinstance(value, bool) else ()


def slots_of(graph: Graph, kind: Kind, node_id: str, is_named: bool = False) -> list[Slot]:
    """Where the value is to be written: in the node, or in a primitive node that holds it for no other purpose.

    An input that another node computes can be overwritten only in a node that the caller has named.
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


def value_of(graph: Graph, kind: Kind, node_id: str) -> str:
    """What a node now holds for this kind, to tell whether several nodes agree."""
    found = [slots.value_slot(graph, node_id, name) or Slot(node_id, name) for name in kind.inputs(graph, node_id)]
    return repr([graph.inputs(slot.node_id)[slot.name] for slot in found])


# --- Candidates for the message --------------------------------------------------------------------------


def _no_target(graph: Graph, kind: Kind, problem: str) -> NoOverrideTarget:
    fitting = [node_id for node_id in graph if _inputs(graph, kind, node_id)]
    if kind is NEGATIVE_PROMPT:
        fitting = [node_id for node_id in fitting if node_id not in targets.find_prompt_nodes(graph)]
    one = f"name one with {kind.node_field}: {graph.listed(fitting)}"
    remedy = one if fitting else f"leave {kind.name} out, or name the node to change with {kind.node_field}"
    return NoOverrideTarget(f"{problem}; {remedy}", candidates=graph.candidates(fitting))
