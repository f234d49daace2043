"""Inserts LoRAs into a workflow: a chain of loader nodes directly after the node that loads the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import AmbiguousOverrideTarget, NoOverrideTarget
from .graph import Graph, Link, Workflow, editable_copy

_FIELD = "loras_node_id"


@dataclass(frozen=True)
class Lora:
    """A file in the folder `loras`, and its strength on the model.

    `strength_clip` is that on the text encoder. None: the same strength if the text encoder comes from the same node
    as the model (a checkpoint loader), otherwise the text encoder is left alone.
    """

    name: str
    strength: float = 1.0
    strength_clip: float | None = None


def insert_loras(workflow: Workflow, loras: Sequence[Lora], named: str | None) -> dict[str, Any]:
    """A copy with the LoRAs after the node that loads the model, in order. `named` is that node, if it was named.

    Raises NoOverrideTarget if there is no model, AmbiguousOverrideTarget if there are several.
    """
    graph = Graph(workflow)
    model = _model_source(graph, named)
    clip = _clip_source(graph, model)
    if clip is None and any(lora.strength_clip is not None for lora in loras):
        raise NoOverrideTarget("loras: strength_clip needs exactly one text encoder in the workflow; leave it out")
    changed = editable_copy(workflow)
    model_now, clip_now = model, clip
    for number, lora in enumerate(loras, 1):
        node_id = _free_id(changed, f"{model.node_id}.lora{number}")
        with_clip = clip_now is not None and _acts_on_clip(lora, model, clip)
        changed[node_id] = _loader(lora, model_now, clip_now if with_clip else None)
        model_now = Link(node_id, 0)
        clip_now = Link(node_id, 1) if with_clip else clip_now
    _relink(graph, changed, model, model_now)
    if clip and clip_now:
        _relink(graph, changed, clip, clip_now)
    return changed


def _acts_on_clip(lora: Lora, model: Link, clip: Link | None) -> bool:
    return lora.strength_clip is not None or (clip is not None and clip.node_id == model.node_id)


def _loader(lora: Lora, model: Link, clip: Link | None) -> dict[str, Any]:
    inputs: dict[str, Any] = {"model": list(model), "lora_name": lora.name, "strength_model": lora.strength}
    if clip is None:
        return {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    strength = lora.strength if lora.strength_clip is None else lora.strength_clip
    return {"class_type": "LoraLoader", "inputs": {**inputs, "clip": list(clip), "strength_clip": strength}}


def _relink(graph: Graph, changed: dict[str, Any], old: Link, new: Link) -> None:
    """Link every input that was linked to `old` to `new`; except the inserted loaders, which are not in `graph`."""
    for node_id, name in graph.consumers(old.node_id):
        if graph.link(node_id, name) == old:
            changed[node_id]["inputs"][name] = list(new)


def _free_id(workflow: Workflow, node_id: str) -> str:
    while node_id in workflow:
        node_id += "_"
    return node_id


# --- Where they go ------------------------------------------------------------------------------------


def _model_source(graph: Graph, named: str | None) -> Link:
    """The output that the samplers' model comes from, before any node changes the model."""
    sources = list(dict.fromkeys(_first_model_link(graph, link) for _, link in _model_links(graph)))
    nodes = [link.node_id for link in sources]
    if named is not None:
        of_named = list(dict.fromkeys(link for _, link in _model_links(graph) if link.node_id == named))
        if not of_named:
            raise NoOverrideTarget(
                f"{_FIELD}: no node takes a model from node {named[:80]!r}; name one of {graph.describe_all(nodes)}",
                candidates=graph.candidates(nodes),
            )
        return of_named[0]
    if not sources:
        raise NoOverrideTarget(
            "loras: found no node in the workflow that takes a model, so there is no place for them"
        )
    if len(sources) > 1:
        raise AmbiguousOverrideTarget(
            f"loras: there are several models; name the node behind which they are meant to be with {_FIELD}: "
            f"{graph.describe_all(nodes)}",
            candidates=graph.candidates(nodes),
        )
    return sources[0]


def _model_links(graph: Graph) -> list[tuple[str, Link]]:
    return [(node_id, link) for node_id in graph if (link := graph.link(node_id, "model"))]


def _first_model_link(graph: Graph, link: Link) -> Link:
    """The link at the start of a chain of nodes that take a model and pass it on."""
    for _ in range(len(graph.workflow)):
        previous = graph.link(link.node_id, "model")
        if previous is None and graph.class_of(link.node_id).startswith("Reroute"):
            previous = next((source for _, source in graph.links(link.node_id)), None)
        if previous is None:
            break
        link = previous
    return link


def _clip_source(graph: Graph, model: Link) -> Link | None:
    """The output that the text encoder comes from: that of the model's own node if it has one, else the only one."""
    links = [link for node_id in graph for name, link in graph.links(node_id) if name == "clip"]
    own = [link for link in links if link.node_id == model.node_id]
    first = {_first_clip_link(graph, link) for link in links}
    return own[0] if own else first.pop() if len(first) == 1 else None


def _first_clip_link(graph: Graph, link: Link) -> Link:
    for _ in range(len(graph.workflow)):
        previous = graph.link(link.node_id, "clip")
        if previous is None:
            break
        link = previous
    return link
