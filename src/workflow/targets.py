"""Which node does an override apply to? Found by following links from the samplers, never by titles.

For each kind of override a function returns the nodes that hold the value (those for steps and the like are in
`sampling`):

    prompt           upstream from a sampler's `positive` to the text encoders
    negative_prompt  the same from `negative`, without encoders that also reach a `positive`
    seed             the samplers and noise nodes that add noise
    size             upstream from a sampler's `latent_image` to the node that sets width and height
    batch_size       of those the nodes that have a batch size; else a node that repeats the latent
"""

from __future__ import annotations

from collections.abc import Iterable

from .graph import Graph, Link, unique, walk, with_dependents
from .slots import (
    PASS_THROUGH_CLASS,
    batch_inputs,
    negative_text_inputs,
    seed_inputs,
    size_inputs,
    takes_prompt,
)

# They have a width and a height, but not of the image that the user means (counted on ComfyUI's stock templates).
_NOT_IMAGE_SIZE = frozenset(
    {
        "LatentUpscale",
        "LatentCrop",
        "ConditioningSetArea",
        "GLIGENTextBoxApply",
        "StableZero123_Conditioning",
        "StableZero123_Conditioning_Batched",
    }
)

# Inputs that are no conditioning, so there is no prompt upstream of them.
_NOT_CONDITIONING = frozenset(
    {
        *("model", "clip", "vae", "image", "images", "pixels", "mask", "latent", "latent_image", "samples"),
        *("noise", "sampler", "sigmas", "control_net", "clip_vision", "clip_vision_output", "style_model"),
        *("negative", "width", "height", "start_image", "end_image", "reference_image", "control_video"),
    }
)
_LATENT_INPUTS = ("latent_image", "latent", "samples", "samples1", "samples2", "latents", "samples_to", "samples_from")


def find_prompt_nodes(graph: Graph) -> list[str]:
    """Text encoders upstream of a positive input; if there is no such input, every node that takes a prompt."""
    starts = [link for node_id in used_nodes(graph) for link in _positive_links(graph, node_id)]
    if starts:
        return _encoders(graph, starts, "positive")
    return [node_id for node_id in used_nodes(graph) if takes_prompt(graph, node_id) and may_be_prompt(graph, node_id)]


def find_negative_prompt_nodes(graph: Graph) -> list[str]:
    """Text encoders upstream of a negative input and of no positive one; else nodes with a negative prompt input."""
    links = [link for node_id in used_nodes(graph) for link in _negative_links(graph, node_id)]
    if links:
        positive = set(find_prompt_nodes(graph))
        return [node_id for node_id in _encoders(graph, links, "negative") if node_id not in positive]
    return [n for n in used_nodes(graph) if set(negative_text_inputs(graph, n)) & {"negative_prompt", "negative"}]


def may_be_prompt(graph: Graph, node_id: str) -> bool:
    """Whether a node is not upstream of a negative input."""
    return node_id not in graph.once(_negative_encoders)


def _negative_encoders(graph: Graph) -> frozenset[str]:
    links = (graph.link(node_id, "negative") for node_id in graph)
    return frozenset(_encoders(graph, [link for link in links if link], "negative"))


def makes_empty_latent(graph: Graph, node_id: str) -> bool:
    """Whether a node makes an empty latent or image of a size."""
    return graph.class_of(node_id).startswith("Empty") and bool(size_inputs(graph, node_id))


def find_seed_nodes(graph: Graph) -> list[str]:
    """Samplers and noise nodes that add noise; if there are none, every node with a seed."""
    seeded = [node_id for node_id in used_nodes(graph) if seed_inputs(graph, node_id)]
    samplers = [node_id for node_id in seeded if {"latent_image", "noise_seed"} & graph.inputs(node_id).keys()]
    return [node_id for node_id in samplers or seeded if _adds_noise(graph, node_id)]


def find_size_nodes(graph: Graph) -> list[str]:
    """Nodes that set the size of the sampled latent; without a sampler, those that make an empty latent or image."""
    starts = (graph.link(node_id, "latent_image") for node_id in used_nodes(graph))
    found = _latent_sources(graph, [link for link in starts if link])
    if found or any(graph.link(node_id, "latent_image") for node_id in graph):
        return found
    return [node_id for node_id in used_nodes(graph) if makes_empty_latent(graph, node_id)]


def find_batch_nodes(graph: Graph) -> list[str]:
    """Of the nodes that set the size, those with a batch size; else those that repeat a latent."""
    sized = [node_id for node_id in find_size_nodes(graph) if batch_inputs(graph, node_id)]
    return sized or [node_id for node_id in used_nodes(graph) if graph.class_of(node_id) == "RepeatLatentBatch"]


def find_latent_upscales(graph: Graph, samplers: Iterable[str]) -> list[str]:
    """`LatentUpscale` nodes (to a width and height) that are linked directly to one of the given samplers."""
    sampler_ids = set(samplers)
    return [
        node_id
        for node_id in graph
        if graph.class_of(node_id) == "LatentUpscale"
        and (link := graph.link(node_id, "samples"))
        and link.node_id in sampler_ids
    ]


def find_image_scales(graph: Graph, samplers: Iterable[str]) -> list[str]:
    """`ImageScale` nodes downstream of the given samplers that have a width and height of their own."""
    downstream = with_dependents(graph, samplers)
    return [
        node_id
        for node_id in graph
        if graph.class_of(node_id) == "ImageScale"
        and node_id in downstream
        and not any(name in ("width", "height") for name, _ in graph.links(node_id))
    ]


def samplers_of(graph: Graph, size_nodes: Iterable[str]) -> list[str]:
    """The samplers whose latent image comes from one of these nodes, which set the size."""
    queue = list(size_nodes)
    reached = set(queue)
    while queue:
        for consumer, name in graph.consumers(queue.pop()):
            if consumer not in reached and not _sets_size(graph, consumer) and _carries_latent(graph, consumer, name):
                reached.add(consumer)
                queue.append(consumer)
    return [node_id for node_id in graph if (link := graph.link(node_id, "latent_image")) and link.node_id in reached]


def used_nodes(graph: Graph) -> list[str]:
    """Nodes that are in use: a sampler or encoder that feeds no other node is a remnant of editing and is left out."""
    return [
        node_id
        for node_id in graph
        if graph.feeds_others(node_id) or not (graph.link(node_id, "latent_image") or graph.link(node_id, "clip"))
    ]


# --- Prompt -------------------------------------------------------------------------------------------


def _positive_links(graph: Graph, node_id: str) -> list[Link]:
    """The positive links of a sampler or guider. Of a node that only passes conditioning on there are none."""
    positive = graph.link(node_id, "positive")
    if positive:
        return [positive] if graph.link(node_id, "model") else []
    if "guider" in graph.class_of(node_id).lower():
        names = ("conditioning", "cond1")  # cond2 acts as a negative: the result of the reference alone
        return [link for name in names if (link := graph.link(node_id, name))]
    return []


def _negative_links(graph: Graph, node_id: str) -> list[Link]:
    """The negative links of a sampler or guider."""
    is_guider = "guider" in graph.class_of(node_id).lower()
    names = ("negative", "cond2") if is_guider else ("negative",) if graph.link(node_id, "model") else ()
    return [link for name in names if (link := graph.link(node_id, name))]


def _encoders(graph: Graph, starts: Iterable[Link], role: str) -> list[str]:
    """The text encoders upstream of links with that role: positive or negative."""

    def follow(link: Link) -> list[Link]:
        if takes_prompt(graph, link.node_id) or graph.class_of(link.node_id) == "ConditioningZeroOut":
            return []
        return _conditioning_links(graph, link.node_id, role)

    return unique(link.node_id for link in walk(starts, follow) if takes_prompt(graph, link.node_id))


def _conditioning_links(graph: Graph, node_id: str, role: str) -> list[Link]:
    """The links that feed conditioning to a node that passes it on. A node that takes both roles keeps them apart."""
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


def _latent_sources(graph: Graph, starts: Iterable[Link]) -> list[str]:
    def follow(link: Link) -> list[Link]:
        if _sets_size(graph, link.node_id):
            return []
        return [source for name, source in graph.links(link.node_id) if _carries_latent(graph, link.node_id, name)]

    return unique(link.node_id for link in walk(starts, follow) if _sets_size(graph, link.node_id))


def _carries_latent(graph: Graph, node_id: str, name: str) -> bool:
    """Whether what a node gives may be the latent of this input."""
    return name in _LATENT_INPUTS or bool(PASS_THROUGH_CLASS.search(graph.class_of(node_id)))


def _sets_size(graph: Graph, node_id: str) -> bool:
    return bool(size_inputs(graph, node_id)) and graph.class_of(node_id) not in _NOT_IMAGE_SIZE
