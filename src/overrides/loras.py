"""Inserts LoRAs into a workflow: a chain of loader nodes directly after the node that loads the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import AmbiguousOverrideTarget, NoOverrideTarget
from ..workflow.graph import Graph, Link, Workflow, editable_copy, unique
from ..workflow.typed import TypedGraph
from .roles import links_of, model_of, model_source, samplers

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


def insert_loras(graph: TypedGraph, workflow: Workflow, loras: Sequence[Lora], named: str | None) -> dict[str, Any]:
    """A copy of `workflow` with the LoRAs after the node that loads the model, in order.

    `graph` is the workflow before other overrides, which leave the links of models as they are; `named` is the node,
    if it was named.

    Raises NoOverrideTarget if there is no model that such LoRAs fit, AmbiguousOverrideTarget if there are several.
    """
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


def _model_source(graph: TypedGraph, named: str | None) -> Link:
    """The output that the samplers' model comes from, before any node changes the model."""
    sources = _model_sources(graph)
    nodes = unique(link.node_id for link in sources)
    if named is not None:
        of_named = [link for node_id in graph for link in links_of(graph, node_id, "MODEL") if link.node_id == named]
        if not of_named:
            raise NoOverrideTarget(
                f"{_FIELD}: no node uses a model of node {named[:80]!r}; name one of {graph.describe_all(nodes)}",
                candidates=graph.candidates(nodes),
            )
        sources = of_named[:1]
    if not sources:
        raise NoOverrideTarget("loras: no sampler of the workflow uses a model, so there is no place for them")
    if len(sources) > 1:
        raise AmbiguousOverrideTarget(
            f"loras: there are several models; name the node to insert them after with {_FIELD}: "
            f"{graph.describe_all(nodes)}",
            candidates=graph.candidates(nodes),
        )
    kind = graph.declared_type(sources[0])
    if kind != "MODEL":
        what = f"a {kind}" if kind else "a model of an unknown type"
        raise NoOverrideTarget(
            f"loras: node {graph.describe(sources[0].node_id)} outputs {what}; LoraLoader only accepts a MODEL. Use "
            "the "
            "LoRA nodes of its pack in the workflow, and set their inputs with overrides"
        )
    return sources[0]


def _model_sources(graph: TypedGraph) -> list[Link]:
    """Where the models of the samplers come from."""
    return list(dict.fromkeys(source for node_id in samplers(graph) if (source := model_of(graph, node_id))))


def _clip_source(graph: TypedGraph, model: Link) -> Link | None:
    """The output that the text encoder comes from: that of the model's own node if it has one, else the only one."""
    links = [link for node_id in graph.live for link in links_of(graph, node_id, "CLIP")]
    own = [link for link in links if link.node_id == model.node_id]
    first = {model_source(graph, link) for link in links}
    return own[0] if own else first.pop() if len(first) == 1 else None
