"""Where prompts go: from a sampler's conditioning upstream to the text encoders; a generator's own."""

from __future__ import annotations

from collections.abc import Sequence

from ..workflow.graph import Slot, unique
from ..workflow.typed import TypedGraph
from .conditioning import conditioning_ends
from .places import Place, of_first_stage, places_of
from .roles import is_generator, is_sampler, makers, stages
from .slots import is_encoder, last_name, negative_inputs, prompt_inputs, words_of


def find_prompts(graph: TypedGraph) -> list[Place]:
    """The positive prompts of the makers; if nothing makes anything, every prompt that is not negative."""
    return graph.once(_find_prompts)


def find_negative_prompts(graph: TypedGraph) -> list[Place]:
    """The negative prompts of the makers, without those that are positive too."""
    return graph.once(_find_negative_prompts)


def negative_texts(graph: TypedGraph) -> frozenset[Slot]:
    """The inputs that take a negative prompt, of makers on the way to the output too."""
    return graph.once(_find_negative_texts)


def _find_negative_texts(graph: TypedGraph) -> frozenset[Slot]:
    texts = set[Slot]()
    for stage in stages(graph):
        positive = set(places_of(graph, _texts_of(graph, stage, "positive"), prompt_inputs))
        negative = [place for place in _negatives_of(graph, stage) if place not in positive]
        texts.update(Slot(node_id, name) for node_id, names in negative for name in names)
    return frozenset(texts)


def _find_prompts(graph: TypedGraph) -> list[Place]:
    found = makers(graph)
    if found:
        return of_first_stage(
            graph, lambda stage: places_of(graph, _texts_of(graph, stage, "positive"), prompt_inputs)
        )
    negative = {place.node_id for place in graph.once(_negative_encoders)}
    taking = [n for n in graph.live if n not in negative and prompt_inputs(graph, n)]
    encoders = [n for n in taking if is_encoder(graph, n)]
    texts = [n for n in taking if "STRING" in graph.output_types(n) and _is_prompted(graph, n)]
    return places_of(graph, encoders or [n for n in taking if is_generator(graph, n)] or texts, prompt_inputs)


def _is_prompted(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node's text is a prompt by its name."""
    return any("prompt" in words_of(last_name(name)) for name in prompt_inputs(graph, node_id))


def _find_negative_prompts(graph: TypedGraph) -> list[Place]:
    positive = set(find_prompts(graph))
    return [place for place in graph.once(_negative_encoders) if place not in positive]


def _negative_encoders(graph: TypedGraph) -> list[Place]:
    return of_first_stage(graph, lambda stage: _negatives_of(graph, stage))


def _negatives_of(graph: TypedGraph, node_ids: list[str]) -> list[Place]:
    by_role = _texts_of(graph, node_ids, "negative")
    own = [n for n in _texts_of(graph, node_ids, "positive") if negative_inputs(graph, n)]
    return places_of(graph, [*by_role, *own], lambda g, n: negative_inputs(g, n) or prompt_inputs(g, n))


def may_be_prompt(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node is a text encoder that is needed and not upstream of a negative input."""
    is_negative_one = any(place.node_id == node_id for place in graph.once(_negative_encoders))
    return graph.is_live(node_id) and is_encoder(graph, node_id) and not is_negative_one


def _texts_of(graph: TypedGraph, node_ids: Sequence[str], role: str) -> list[str]:
    """The text encoders that makers get conditioning of a role from, and the generators themselves."""
    denoising = [node_id for node_id in node_ids if is_sampler(graph, node_id)]
    generators = [node_id for node_id in node_ids if not is_sampler(graph, node_id)]
    encoders = conditioning_ends(graph, denoising, role, lambda n: is_encoder(graph, n))
    own = [n for n in denoising if prompt_inputs(graph, n) or negative_inputs(graph, n)] if not encoders else []
    return unique([*generators, *encoders, *own])
