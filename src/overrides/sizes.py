"""Where sizes, lengths and batch sizes go: from a sampler's latent upstream to what sets them; a generator's own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from ..workflow.graph import Link, dependencies_first
from ..workflow.typed import ANY, VALUE_TYPES, TypedGraph
from .origins import origin_of
from .places import Place, of_first_stage, places_of
from .roles import is_generator, is_sampler, makers
from .slots import batch_inputs, fps_inputs, is_conditioning, length_inputs, size_inputs

Inputs = Callable[[TypedGraph, str], tuple[str, ...]]
_MAX_MEASURED = 4  # sizes that are those of pictures whose size is that of pictures, …
_SIZED = frozenset({"LATENT", "IMAGE"})


def find_sizes(graph: TypedGraph) -> list[Place]:
    """Where the size of the result is set: for the makers, or if there are none for what is drawn."""
    return graph.once(_find_sizes)


def _find_sizes(graph: TypedGraph) -> list[Place]:
    return _as_measured(graph, _drawn_sizes(graph))


def _drawn_sizes(graph: TypedGraph) -> list[Place]:
    """The sizes of what the makers begin with, wherever they have them from."""
    return of_first_stage(graph, lambda stage: _sizes_of(graph, stage)) or _sizes_of(graph, [])


def _sizes_of(graph: TypedGraph, found: list[str]) -> list[Place]:
    own = [node_id for node_id in found if has_size(graph, node_id) and not is_sampler(graph, node_id)]
    starts = [link for node_id in found if is_sampler(graph, node_id) for link in _size_links(graph, node_id)]
    ends = [link for node_id in graph.main_outputs for link in _size_links(graph, node_id)] if not found else []
    return list(dict.fromkeys([*places_of(graph, own, size_inputs), *_size_sources(graph, [*starts, *ends])]))


def _as_measured(graph: TypedGraph, found: list[Place]) -> list[Place]:
    """The places with those in place of others from whose pictures these take their size."""
    for _ in range(_MAX_MEASURED):
        measured = {place: nodes for place in found if (nodes := _measured_by(graph, place))}
        behind = _size_sources(graph, _pictures(graph, (n for nodes in measured.values() for n in nodes)))
        if not behind:
            break
        found = list(dict.fromkeys([*(place for place in found if place not in measured), *behind]))
    return found


def _measured_by(graph: TypedGraph, place: Place) -> list[str]:
    """The nodes that take a place's size from pictures, if nothing else is in it."""
    origins = [origin_of(graph, place.node_id, name) for name in place.inputs]
    if any(origin.slots for origin in origins):
        return []
    return [origin.computed_by for origin in origins if origin.computed_by in graph.once(_measuring)]


def _measuring(graph: TypedGraph) -> set[str]:
    """The nodes that have a picture among what they compute their values from."""
    found = set[str]()
    for node_id in graph.once(dependencies_first):
        links = graph.typed_links(node_id)
        if any(kind == "IMAGE" or (kind in VALUE_TYPES and link.node_id in found) for _, kind, link in links):
            found.add(node_id)
    return found


def _pictures(graph: TypedGraph, node_ids: Iterable[str]) -> list[Link]:
    """The pictures from which these nodes compute their values."""
    seen, queue, found = set[str](), deque(node_ids), list[Link]()
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
            if not _changes(graph, node_id):
                sources.append(node_id)
                continue
            resizing.append(node_id)
        queue.extend(link.node_id for link in links)
    return places_of(graph, sources or resizing[:1], size_inputs)


def _changes(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node changes a latent or a picture that it takes."""
    takes = {kind for _, kind, _ in graph.typed_links(node_id)}
    return bool(takes & _SIZED & graph.output_types(node_id))


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
    own = [link for _, kind, link in links if _is_embeddings(kind)]
    return latents or pictures or own


def find_batches(graph: TypedGraph) -> list[Place]:
    """The batch sizes of what the makers begin with, of the sound beside a video too; else where it is repeated."""
    found = _of_beginnings(graph, batch_inputs)
    return found or places_of(graph, (n for n in graph.live if graph.class_of(n) == "RepeatLatentBatch"), batch_inputs)


def find_lengths(graph: TypedGraph) -> list[Place]:
    """The numbers of frames of what the makers begin with, of the sound beside a video too."""
    return _of_beginnings(graph, length_inputs)


def find_fps(graph: TypedGraph) -> list[Place]:
    """The frames per second of all nodes that the output needs: of conditionings, of videos, of savers."""
    return places_of(graph, graph.live, fps_inputs)


def _of_beginnings(graph: TypedGraph, inputs: Inputs) -> list[Place]:
    """The places with such inputs where the makers begin, or if there are none where the outputs do."""
    found = of_first_stage(graph, lambda stage: _begun_with(graph, stage, inputs))
    return found or _begun_with(graph, graph.main_outputs, inputs)


def _begun_with(graph: TypedGraph, node_ids: Iterable[str], inputs: Inputs) -> list[Place]:
    """The places of these nodes themselves, and of the latents and pictures from which they go on."""
    seen, queue = dict[str, None](), deque(node_ids)
    while queue:
        node_id = queue.popleft()
        if node_id not in seen:
            seen[node_id] = None
            queue.extend(link.node_id for link in _size_links(graph, node_id))
    return places_of(graph, (n for n in seen if _begins(graph, n)), inputs)


def _begins(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node makes a latent, a picture or a pack's embeddings, and does not only change one."""
    kinds = graph.output_types(node_id)
    return bool(kinds & _SIZED or any(map(_is_embeddings, kinds))) and not _changes(graph, node_id)


def _is_embeddings(kind: str) -> bool:
    return is_conditioning(kind) and kind != "CONDITIONING"


def draws_of_a_size(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node is needed and makes a latent or a picture of a size from nothing."""
    return graph.is_live(node_id) and not any(graph.links(node_id)) and has_size(graph, node_id)
