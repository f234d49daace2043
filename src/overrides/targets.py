"""Which inputs does an override apply to? Found by following links upstream from the output, never by titles.

prompt           from a sampler's positive conditioning to the text encoders; a generator's own
negative_prompt  the same from the negative one, without encoders that are positive too
seed             every node that the output needs and that draws random numbers
size             from a sampler's latent to the node that sets width and height; a generator's own
batch_size       of those the nodes that have a batch size; else a node that repeats the latent
steps and such   a sampler's own, or those of the scheduler, the guider and the sampler object behind it
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ..workflow.graph import Link, unique
from ..workflow.typed import ANY, VALUE_TYPES, TypedGraph, per_node
from .origins import Slot, origin_of
from .roles import (
    handed_on,
    is_bundle,
    is_generator,
    is_sampler,
    links_of,
    makers,
    samplers,
    stages,
    upstream,
)
from .slots import (
    batch_inputs,
    is_conditioning,
    is_encoder,
    is_negative,
    last_name,
    negative_inputs,
    prompt_inputs,
    seed_inputs,
    size_inputs,
    words_of,
)

_MAX_MEASURED = 4  # sizes that are those of pictures whose size is that of pictures, …
_NUMBERS_AND_CHOICES = frozenset({"INT", "FLOAT", "FLOAT,INT", "INT,FLOAT", "COMBO", "STRING", ANY})
_NO_NOISE = (False, "disable")


class Place(NamedTuple):
    """Inputs of a node that together take an override: of a size the width and the height, of a prompt its texts."""

    node_id: str
    inputs: tuple[str, ...]


def places_of(
    graph: TypedGraph, node_ids: Iterable[str], inputs: Callable[[TypedGraph, str], tuple[str, ...]]
) -> list[Place]:
    """The places of those of the nodes that have one."""
    return [Place(node_id, names) for node_id in unique(node_ids) if (names := inputs(graph, node_id))]


# --- Texts ----------------------------------------------------------------------------------------------


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
        return _of_first_stage(
            graph, lambda stage: places_of(graph, _texts_of(graph, stage, "positive"), prompt_inputs)
        )
    negative = {place.node_id for place in graph.once(_negative_encoders)}
    taking = [n for n in graph.live if n not in negative and prompt_inputs(graph, n)]
    encoders = [n for n in taking if is_encoder(graph, n)]
    texts = [n for n in taking if "STRING" in graph.output_types(n) and _is_prompted(graph, n)]
    return places_of(graph, encoders or [n for n in taking if is_generator(graph, n)] or texts, prompt_inputs)


def _of_first_stage(graph: TypedGraph, find: Callable[[list[str]], list[Place]]) -> list[Place]:
    """What is found for the makers of the output; if that is nothing, for those behind them, and so on."""
    return next((found for stage in stages(graph) if (found := find(stage))), [])


def _is_prompted(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node's text is a prompt by its name."""
    return any("prompt" in words_of(last_name(name)) for name in prompt_inputs(graph, node_id))


def _find_negative_prompts(graph: TypedGraph) -> list[Place]:
    positive = set(find_prompts(graph))
    return [place for place in graph.once(_negative_encoders) if place not in positive]


def _negative_encoders(graph: TypedGraph) -> list[Place]:
    return _of_first_stage(graph, lambda stage: _negatives_of(graph, stage))


def _negatives_of(graph: TypedGraph, node_ids: list[str]) -> list[Place]:
    by_role = _texts_of(graph, node_ids, "negative")
    own = [n for n in _texts_of(graph, node_ids, "positive") if negative_inputs(graph, n)]
    return places_of(graph, [*by_role, *own], lambda g, n: negative_inputs(g, n) or prompt_inputs(g, n))


def may_be_prompt(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node is a text encoder that is needed and not upstream of a negative input."""
    is_negative_one = any(place.node_id == node_id for place in graph.once(_negative_encoders))
    return graph.is_live(node_id) and is_encoder(graph, node_id) and not is_negative_one


def _texts_of(graph: TypedGraph, node_ids: Iterable[str], role: str) -> list[str]:
    """The text encoders that makers get conditioning of a role from, and the generators themselves."""
    found = list[str]()
    for node_id in node_ids:
        if is_generator(graph, node_id) and not is_sampler(graph, node_id):
            found.append(node_id)
        else:
            encoders = conditioning_ends(graph, node_id, role, lambda n: is_encoder(graph, n))
            has_own = not encoders and (prompt_inputs(graph, node_id) or negative_inputs(graph, node_id))
            found.extend([node_id] if has_own else encoders)
    return unique(found)


def conditioning_ends(graph: TypedGraph, maker: str, role: str, is_end: Callable[[str], bool]) -> list[str]:
    """Where the walk from a sampler upstream along conditioning of a role, `positive` or `negative`, ends."""
    guiders = upstream(graph, links_of(graph, maker, "GUIDER"), "GUIDER", lambda n: not links_of(graph, n, "GUIDER"))
    takers = (maker, *guiders)
    given = [pair for node_id in takers for pair in _conditioning(graph, node_id)]
    bundles = [link for _, kind, link in graph.typed_links(maker) if is_bundle(kind)] if not given else []
    starts = [*_of_role(given, role, is_start=True), *bundles]
    found, seen, queue = list[str](), set[Link](), deque(starts)
    while queue:
        link = queue.popleft()
        if link in seen:
            continue
        seen.add(link)
        if is_end(link.node_id):
            found.append(link.node_id)
        elif "ZeroOut" not in graph.class_of(link.node_id):
            queue.extend(_of_role(handed_on(graph, link, _kind(graph, link)), role))
    return unique(found)


def _kind(graph: TypedGraph, link: Link) -> str:
    kind = graph.output_type(link)
    return kind if is_conditioning(kind) else "CONDITIONING"


def _conditioning(graph: TypedGraph, node_id: str) -> list[tuple[str, Link]]:
    return [(name, link) for name, kind, link in graph.typed_links(node_id) if is_conditioning(kind)]


def _of_role(links: list[tuple[str, Link]], role: str, is_start: bool = False) -> list[Link]:
    """Of links of conditioning those of the role. A node that takes both keeps them apart by its inputs' names."""
    negative = [link for name, link in links if is_negative(name)]
    positive = [link for name, link in links if name.startswith("positive")]
    if role == "negative":
        return negative if negative or positive or is_start else [link for _, link in links]
    return positive or [link for name, link in links if not is_negative(name)]


# --- Seeds ----------------------------------------------------------------------------------------------


def find_seeds(graph: TypedGraph) -> list[Place]:
    """The seeds of all nodes that the output needs, but of samplers that add no noise."""
    return places_of(graph, (n for n in graph.live if _adds_noise(graph, n)), seed_inputs)


def _adds_noise(graph: TypedGraph, node_id: str) -> bool:
    return graph.constant(node_id, "add_noise") not in _NO_NOISE if "add_noise" in graph.inputs(node_id) else True


# --- Size -----------------------------------------------------------------------------------------------


def find_sizes(graph: TypedGraph) -> list[Place]:
    """Where the size of the result is set: for the makers, or if there are none for what is drawn."""
    return graph.once(_find_sizes)


def _find_sizes(graph: TypedGraph) -> list[Place]:
    return _as_measured(graph, _drawn_sizes(graph))


def _drawn_sizes(graph: TypedGraph) -> list[Place]:
    """The sizes of what the makers begin with, wherever they have them from."""
    return _of_first_stage(graph, lambda stage: _sizes_of(graph, stage)) or _sizes_of(graph, [])


def _sizes_of(graph: TypedGraph, found: list[str]) -> list[Place]:
    own = [node_id for node_id in found if has_size(graph, node_id) and not is_sampler(graph, node_id)]
    starts = [link for node_id in found if is_sampler(graph, node_id) for link in _size_links(graph, node_id)]
    ends = [link for node_id in graph.main_outputs for link in _size_links(graph, node_id)] if not found else []
    return list(dict.fromkeys([*places_of(graph, own, size_inputs), *_size_sources(graph, [*starts, *ends])]))


def _as_measured(graph: TypedGraph, found: list[Place]) -> list[Place]:
    """The places with those in place of others from whose pictures these take their size."""
    for _ in range(_MAX_MEASURED):
        pictures = {place: _measured(graph, place) for place in found}
        behind = _size_sources(graph, (link for links in pictures.values() for link in links))
        if not behind:
            break
        found = list(dict.fromkeys([*(place for place in found if not pictures[place]), *behind]))
    return found


def _measured(graph: TypedGraph, place: Place) -> list[Link]:
    """The pictures whose size a place takes, if nothing but their size is in it."""
    origins = [origin_of(graph, place.node_id, name) for name in place.inputs]
    if any(origin.slots for origin in origins):
        return []
    seen, queue, found = set[str](), deque(origin.computed_by for origin in origins), list[Link]()
    while queue:
        node_id = queue.popleft()
        if node_id not in seen:
            seen.add(node_id)
            for _, kind, link in graph.typed_links(node_id):
                found.extend([link] if kind == "IMAGE" else [])
                queue.extend([link.node_id] if kind in VALUE_TYPES else [])
    return found


def _size_sources(graph: TypedGraph, starts: Iterable[Link]) -> list[Place]:
    """The nodes from which latents or pictures have their size; if that is from files, the last that resizes them."""
    sources, resizing = list[str](), list[str]()
    seen, queue = set[str](), deque(link.node_id for link in starts)
    while queue:
        node_id = queue.popleft()
        if node_id in seen:
            continue
        seen.add(node_id)
        links = _size_links(graph, node_id)
        if is_generator(graph, node_id) and not is_sampler(graph, node_id):
            continue  # what it is given has another size
        if has_size(graph, node_id):
            takes = {kind for _, kind, _ in graph.typed_links(node_id)} & {"LATENT", "IMAGE"}
            if not takes & graph.output_types(node_id):
                sources.append(node_id)
                continue
            resizing.append(node_id)
        queue.extend(link.node_id for link in links)
    return places_of(graph, sources or resizing[:1], size_inputs)


def pictures_of_a_size(graph: TypedGraph) -> list[str]:
    """The nodes that bring the pictures, and with them the size, of a workflow in which none is set."""
    starts = [link for node_id in makers(graph) or graph.main_outputs for link in _size_links(graph, node_id)]
    seen, queue = dict[str, None](), deque(link.node_id for link in starts)
    while queue:
        node_id = queue.popleft()
        if node_id not in seen:
            seen[node_id] = None
            queue.extend(link.node_id for link in _size_links(graph, node_id))
    return [node_id for node_id in seen if not _size_links(graph, node_id) and "IMAGE" in graph.output_types(node_id)]


def has_size(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node sets a size: 0 x 0 leaves it to a file."""
    sides = [graph.constant(node_id, name) for name in size_inputs(graph, node_id)]
    return bool(sides) and any(side != 0 for side in sides)


def _size_links(graph: TypedGraph, node_id: str) -> list[Link]:
    """The links of a node through which what it gives has its size."""
    links = list(graph.typed_links(node_id))
    latents = [link for _, kind, link in links if kind == "LATENT"]
    pictures = [link for _, kind, link in links if kind in ("IMAGE", "VIDEO", ANY)]
    own = [link for _, kind, link in links if is_conditioning(kind) and kind != "CONDITIONING"]  # a pack's embeddings
    return latents or pictures or own


def find_batches(graph: TypedGraph) -> list[Place]:
    """The batch sizes of what the makers begin with, of the sound beside a video too; else where it is repeated."""
    found = _of_first_stage(graph, lambda stage: _begun_with(graph, stage)) or _begun_with(graph, graph.main_outputs)
    return found or places_of(graph, (n for n in graph.live if graph.class_of(n) == "RepeatLatentBatch"), batch_inputs)


def _begun_with(graph: TypedGraph, node_ids: Iterable[str]) -> list[Place]:
    """The batch sizes of these nodes themselves, and of the latents and pictures from which they go on."""
    seen, queue = dict[str, None](), deque(node_ids)
    while queue:
        node_id = queue.popleft()
        if node_id not in seen:
            seen[node_id] = None
            queue.extend(link.node_id for link in _size_links(graph, node_id))
    gives = (n for n in seen if {"LATENT", "IMAGE"} & graph.output_types(n))
    return places_of(graph, gives, batch_inputs)


# --- Sampling -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SamplingSetting:
    """One setting of sampling: its input's names, and the type of the object that may bring it to a sampler."""

    name: str
    brought_by: str
    other_names: tuple[str, ...] = ()

    def inputs(self, graph: TypedGraph, node_id: str) -> tuple[str, ...]:
        """The inputs of a node that take this setting: the one of its name, else those whose names have its word."""
        named = numbers_of(graph, node_id)
        exact = next((named[name] for name in (self.name, *self.other_names) if name in named), None)
        if exact is not None:
            return (exact,)
        return tuple(name for last, name in named.items() if _is_cfg(last)) if self.name == "cfg" else ()

    def find(self, graph: TypedGraph) -> list[Place]:
        """Where the samplers among the makers have this setting; if nothing denoises, every node that is needed."""
        found = [n for maker in makers(graph) for n in self._of_maker(graph, maker)]
        found_places = places_of(graph, found if samplers(graph) else found or graph.live, self.inputs)
        return [place for place in found_places if not self._is_off(graph, place)] or found_places

    def _is_off(self, graph: TypedGraph, place: Place) -> bool:
        """Whether a sampler does without it: a cfg of 1 is no guidance, a denoise of 1 begins with nothing."""
        has_off = self.name in ("cfg", "denoise")
        return has_off and all(value_at(graph, place.node_id, name) == 1 for name in place.inputs)

    def _of_maker(self, graph: TypedGraph, maker: str) -> list[str]:
        if self.inputs(graph, maker):
            return [maker]
        if self.brought_by == "CONDITIONING":
            return conditioning_ends(graph, maker, "positive", lambda n: bool(self.inputs(graph, n)))
        starts = links_of(graph, maker, self.brought_by)
        return upstream(graph, starts, self.brought_by, lambda n: bool(self.inputs(graph, n)))


@per_node
def numbers_of(graph: TypedGraph, node_id: str) -> dict[str, str]:
    """The inputs of a node that take a number or a choice, by the last part of their names."""
    found: dict[str, str] = {}
    for name in graph.inputs(node_id):
        if graph.input_type(node_id, name) in _NUMBERS_AND_CHOICES:
            found.setdefault(last_name(name), name)
    return found


def _is_cfg(name: str) -> bool:
    words = words_of(name)
    return "cfg" in words and not words & {"cond2", "scale", "rescale", "restore", "negative", "start", "end"}


SAMPLING_SETTINGS = {
    setting.name: setting
    for setting in (
        SamplingSetting("steps", "SIGMAS"),
        SamplingSetting("cfg", "GUIDER"),
        SamplingSetting("guidance", "CONDITIONING", ("guidance_scale", "embedded_guidance_scale")),
        SamplingSetting("denoise", "SIGMAS", ("denoise_strength",)),
        SamplingSetting("sampler_name", "SAMPLER"),
        SamplingSetting("scheduler", "SIGMAS"),
    )
}
"""By the name of the override."""


def value_at(graph: TypedGraph, node_id: str, name: str) -> object:
    """The value of an input; if another node computes it, what it is computed from, for comparing it with others."""
    origin = origin_of(graph, node_id, name)
    if origin.slot is None:
        return origin
    value = graph.inputs(origin.slot.node_id)[origin.slot.name]
    return value if origin.is_plain else ("computed", value)


def draws_of_a_size(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node is needed and makes a latent or a picture of a size from nothing."""
    return graph.is_live(node_id) and not any(graph.links(node_id)) and has_size(graph, node_id)
