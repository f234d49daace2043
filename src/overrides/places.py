"""Places: inputs of a node that together take the value of an override."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..workflow.graph import unique
from ..workflow.typed import TypedGraph
from .origins import origin_of
from .roles import stages


class Place(NamedTuple):
    """Inputs of a node that together take an override: of a size the width and the height, of a prompt its texts."""

    node_id: str
    inputs: tuple[str, ...]


def places_of(
    graph: TypedGraph, node_ids: Iterable[str], inputs: Callable[[TypedGraph, str], tuple[str, ...]]
) -> list[Place]:
    """The places of those of the nodes that have one."""
    return [Place(node_id, names) for node_id in unique(node_ids) if (names := inputs(graph, node_id))]


def of_first_stage(graph: TypedGraph, find: Callable[[list[str]], list[Place]]) -> list[Place]:
    """What is found for the makers of the output; if that is nothing, for those behind them, and so on."""
    return next((found for stage in stages(graph) if (found := find(stage))), [])


def value_at(graph: TypedGraph, node_id: str, name: str) -> object:
    """The value of an input; if another node computes it, what it is computed from, for comparing it with others."""
    origin = origin_of(graph, node_id, name)
    if origin.slot is None:
        return origin
    value = graph.inputs(origin.slot.node_id)[origin.slot.name]
    return value if origin.is_plain else ("computed", value)


def values_of(graph: TypedGraph, place: Place) -> list[object]:
    """The current values of a place, for comparing them with those of others."""
    return [value_at(graph, place.node_id, name) for name in place.inputs]
