"""Which node does an override mean? Found by following links from the samplers, never by titles.

One search for each kind of override returns the nodes that hold the value (`sampling` has those for steps and the
like):

    prompt           from what a sampler calls positive, against the flow, to the text encoders
    negative_prompt  the same for negative, but for encoders that are positive too
    seed             the samplers and noise nodes that start from noise
    size             from a sampler's latent image, against the flow, to the node that sets width and height
    batch_size       of those the ones that set how many; else a node that repeats the latent
"""

from __future__ import annotations

from collections.abc import Iterable

from .graph import Graph, Link, nodes_behind, unique, walk
from .slots import (
    PASSES_ON,
    batch_inputs,
    holds_text,
    negative_text_inputs,
    seed_inputs,
    size_inputs,
)

# They have a width and a height, yet a person who says "width" does not mean them (counted on the stock templates).
_NOT_A_PICTURE_SIZE = frozenset(
    {
        "LatentUpscale",
        "LatentCrop",
        "ConditioningSetArea",
        "GLIGENTextBoxApply",
        "StableZero123_Conditioning",
        "StableZero123_Conditioning_Batched",
    }
)

# Inputs that carry something else than conditioning, so a prompt is not found behind them.
_NOT_CONDITIONING = frozenset(
    {
        *("model", "clip", "vae", "image", "images", "pixels", "mask", "latent", "latent_image", "samples"),
        *("noise", "sampler", "sigmas", "control_net", "clip_vision", "clip_vision_output", "style_model"),
        *("negative", "width", "height", "start_image", "end_image", "reference_image", "control_video"),
    }
)
_LATENT_INPUTS = ("latent_image", "latent", "samples", "samples1", "samples2", "latents", "samples_to", "samples_from")


def find_prompt_nodes(graph: Graph) -> list[str]:
    """Text encoders that reach a positive input; if nothing has one, every node with a prompt of its own."""
    starts = [link for node_id in used_nodes(graph) for link in _positive_links(graph, node_id)]
    if starts:
        return unique(encoder for link in starts for encoder in _encoders(graph, link, "positive"))
    return [node_id for node_id in used_nodes(graph) if holds_text(graph, node_id) and may_be_prompt(graph, node_id)]


def find_negative_prompt_nodes(graph: Graph) -> list[str]:
    """Text encoders that reach a negative input and no positive one; else nodes with an input of that name."""
    links = [link for node_id in used_nodes(graph) for link in _negative_links(graph, node_id)]
    positive = find_prompt_nodes(graph)
    found = unique(encoder for link in links for encoder in _encoders(graph, link, "negative"))
    if links:
        return [node_id for node_id in found if node_id not in positive]
    return [n for n in used_nodes(graph) if set(negative_text_inputs(graph, n)) & {"negative_prompt", "negative"}]


def may_be_prompt(graph: Graph, node_id: str) -> bool:
    """Whether a node is not the source of something negative."""
    links = (graph.link(user, "negative") for user in graph)
    return not any(node_id in _encoders(graph, link, "negative") for link in links if link)


def makes_empty(graph: Graph, node_id: str) -> bool:
    """Whether a node makes an empty latent or image of a size."""
    return graph.class_of(node_id).startswith("Empty") and bool(size_inputs(graph, node_id))


def find_seed_nodes(graph: Graph) -> list[str]:
    """Samplers and noise nodes that start from noise; if there are none, every node with a seed."""
    seeded = [node_id for node_id in used_nodes(graph) if seed_inputs(graph, node_id)]
    samplers = [node_id for node_id in seeded if {"latent_image", "noise_seed"} & graph.inputs(node_id).keys()]
    return [node_id for node_id in samplers or seeded if _adds_noise(graph, node_id)]


def find_size_nodes(graph: Graph) -> list[str]:
    """Nodes that set the size of what is sampled; if nothing samples, those that make an empty image."""
    starts = (graph.link(node_id, "latent_image") for node_id in used_nodes(graph))
    found = unique(node_id for link in starts if link for node_id in _latent_sources(graph, link))
    if found or any(graph.link(node_id, "latent_image") for node_id in graph):
        return found
    return [node_id for node_id in used_nodes(graph) if makes_empty(graph, node_id)]


def find_batch_nodes(graph: Graph) -> list[str]:
    """Of the nodes that set the size, those that set how many; else those that repeat a latent."""
    sized = [node_id for node_id in find_size_nodes(graph) if batch_inputs(graph, node_id)]
    return sized or [node_id for node_id in used_nodes(graph) if graph.class_of(node_id) == "RepeatLatentBatch"]


def find_latent_upscales(graph: Graph, samplers: Iterable[str]) -> list[str]:
    """`LatentUpscale` nodes (to a width and height) that enlarge what the given samplers made, at first hand."""
    made_by = set(samplers)
    return [
        node_id
        for node_id in graph
        if graph.class_of(node_id) == "LatentUpscale"
        and (link := graph.link(node_id, "samples"))
        and link.node_id in made_by
    ]


def find_image_scales(graph: Graph, samplers: Iterable[str]) -> list[str]:
    """`ImageScale` nodes that bring what the given samplers made to a width and height of their own."""
    made_by = set(samplers)
    return [
        node_id
        for node_id in graph
        if graph.class_of(node_id) == "ImageScale"
        and made_by & set(nodes_behind(graph, [node_id]))
        and not any(name in ("width", "height") for name, _ in graph.links(node_id))
    ]


def samplers_of(graph: Graph, size_node: str) -> list[str]:
    """The nodes whose latent image comes from a size node."""
    return [
        node_id
        for node_id in graph
        if (link := graph.link(node_id, "latent_image")) and size_node in _latent_sources(graph, link)
    ]


def used_nodes(graph: Graph) -> list[str]:
    """Nodes that matter to an output: a sampler or encoder that feeds nobody is left over from editing."""
    return [
        node_id
        for node_id in graph
        if graph.feeds_others(node_id) or not (graph.link(node_id, "latent_image") or graph.link(node_id, "clip"))
    ]


# --- Prompt -------------------------------------------------------------------------------------------


def _positive_links(graph: Graph, node_id: str) -> list[Link]:
    """What a sampler or guider takes as positive. A node that hands conditioning on is no start of its own."""
    positive = graph.link(node_id, "positive")
    if positive:
        return [positive] if graph.link(node_id, "model") else []
    if "guider" in graph.class_of(node_id).lower():
        names = ("conditioning", "cond1")  # cond2 has the role of a negative: what the reference alone gives
        return [link for name in names if (link := graph.link(node_id, name))]
    return []


def _negative_links(graph: Graph, node_id: str) -> list[Link]:
    """What a sampler or guider takes as negative."""
    is_guider = "guider" in graph.class_of(node_id).lower()
    names = ("negative", "cond2") if is_guider else ("negative",) if graph.link(node_id, "model") else ()
    return [link for name in names if (link := graph.link(node_id, name))]


def _encoders(graph: Graph, start: Link, role: str) -> list[str]:
    """The text encoders behind what a node takes as `role`: positive or negative."""

    def follow(link: Link) -> list[Link]:
        if holds_text(graph, link.node_id) or graph.class_of(link.node_id) == "ConditioningZeroOut":
            return []
        return _conditioning_links(graph, link.node_id, role)

    return [link.node_id for link in walk(start, follow) if holds_text(graph, link.node_id)]


def _conditioning_links(graph: Graph, node_id: str, role: str) -> list[Link]:
    """What feeds a node that hands conditioning on. One that takes both roles keeps them apart."""
    links = list(graph.links(node_id))
    of_role = [link for name, link in links if name.startswith(role)]
    if of_role or any(name.startswith(("positive", "negative")) for name, _ in links):
        return of_role
    return [link for name, link in links if name not in _NOT_CONDITIONING]


# --- Seed ---------------------------------------------------------------------------------------------


def _adds_noise(graph: Graph, node_id: str) -> bool:
    add_noise = graph.inputs(node_id).get("add_noise", True)
    return add_noise not in (False, "disable")


# --- Size ---------------------------------------------------------------------------------------------


def _latent_sources(graph: Graph, start: Link) -> list[str]:
    def follow(link: Link) -> list[Link]:
        if _sets_size(graph, link.node_id):
            return []
        passes_on = PASSES_ON.search(graph.class_of(link.node_id))
        return [source for name, source in graph.links(link.node_id) if passes_on or name in _LATENT_INPUTS]

    return [link.node_id for link in walk(start, follow) if _sets_size(graph, link.node_id)]


def _sets_size(graph: Graph, node_id: str) -> bool:
    return bool(size_inputs(graph, node_id)) and graph.class_of(node_id) not in _NOT_A_PICTURE_SIZE
