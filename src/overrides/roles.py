"""What the nodes of a workflow do: which of them make the result, and what reaches them.

A *sampler* denoises: it takes noise or a seed, and a schedule or conditioning. A *generator* makes a result of a
prompt by itself, as paid partner nodes do. The *makers* of a workflow are those whose result becomes its output.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from ..workflow.graph import Link, as_link, unique
from ..workflow.typed import ANY, VALUE_TYPES, TypedGraph, per_node
from .slots import is_conditioning, last_name, prompt_inputs, seed_inputs, words_of

# Types that are not on the way of a result: models, what steers sampling, and settings.
_NO_RESULT = frozenset(
    {"MODEL", "CLIP", "VAE", "GUIDER", "SIGMAS", "SAMPLER", "NOISE", "CONTROL_NET", "STYLE_MODEL", "CLIP_VISION"}
    | {"CLIP_VISION_OUTPUT", "UPSCALE_MODEL", "MODEL_PATCH", "AUDIO_ENCODER", "LATENT_UPSCALE_MODEL"}
)
_MEDIA = frozenset({"LATENT", "IMAGE", "MASK", "VIDEO", "AUDIO"})


def is_result(kind: str) -> bool:
    """Whether a type is a result or a state of it: a latent, a picture, a video, audio, a mesh, …"""
    return kind not in _NO_RESULT and kind not in VALUE_TYPES and not is_conditioning(kind)


@per_node
def is_sampler(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node denoises."""
    types = graph.input_types(node_id)
    kinds = set(types.values())
    if "NOISE" not in kinds and not seed_inputs(graph, node_id):
        return False
    has_schedule = "SIGMAS" in kinds or any(last_name(name) == "steps" for name in types)
    is_steered = any(is_conditioning(kind) for kind in kinds)
    return (has_schedule or is_steered) and _gives_result(graph, node_id)


@per_node
def is_generator(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node makes a result of a prompt of its own."""
    texts = prompt_inputs(graph, node_id)
    if not texts or not _gives_result(graph, node_id):
        return False
    schema = graph.schema(node_id)
    if (schema is not None and schema.is_partner) or any("prompt" in words_of(name) for name in texts):
        return True
    return not any(kind in _MEDIA for _, kind, _ in graph.typed_links(node_id))  # else it writes a text on a picture


def is_bundle(kind: str) -> bool:
    """Whether a type is not known, or one of a pack's own in which others may come, as in the pipes of some packs."""
    is_usual = kind in _NO_RESULT or kind in VALUE_TYPES or kind in _MEDIA or is_conditioning(kind)
    return kind == ANY or not is_usual


def _gives_result(graph: TypedGraph, node_id: str) -> bool:
    return any(is_result(kind) and kind != ANY for kind in graph.output_types(node_id))


# --- Which of them are meant ------------------------------------------------------------------------------


def makers(graph: TypedGraph) -> list[str]:
    """The samplers and generators whose result becomes the output.

    Those that a result comes from directly; behind them those whose latent they go on with; and those of the same
    model. Others on the way (that make a depth map, a first picture by another model) are not among them.
    """
    return graph.once(_find_makers)


def stages(graph: TypedGraph) -> list[list[str]]:
    """The makers whose result becomes the output, then those behind them, and so on."""
    return graph.once(_find_stages)


def _find_stages(graph: TypedGraph) -> list[list[str]]:
    found, seen = list[list[str]](), set[str]()
    stage = makers(graph)
    while stage:
        found.append(stage)
        seen.update(stage)
        stage = unique(other for node_id in stage for other in _behind(graph, node_id) if other not in seen)
    return found


def samplers(graph: TypedGraph) -> list[str]:
    """The samplers among the makers."""
    return [node_id for node_id in makers(graph) if is_sampler(graph, node_id)]


def _find_makers(graph: TypedGraph) -> list[str]:
    ends = [Link(node_id, 0) for node_id in graph.main_outputs]
    found = _nearest(graph, ends, is_result)
    found = [n for n in found if _MEDIA & graph.output_types(n) != {"AUDIO"}] or found  # the sound of a video
    auxiliary = {n for node_id in found for n in _behind(graph, node_id) if not _is_same_role(graph, node_id, n)}
    queue = deque([n for n in found if n not in auxiliary] or found)
    meant = set(queue)
    while queue:
        node_id = queue.popleft()
        more = [n for n in _behind(graph, node_id) if n not in meant and _is_same_role(graph, node_id, n)]
        meant.update(more)
        queue.extend(more)
    return [node_id for node_id in graph if node_id in meant]


@per_node
def _behind(graph: TypedGraph, node_id: str) -> list[str]:
    """The makers from which a maker's results come, and those behind what steers it."""
    starts = [link for _, kind, link in graph.typed_links(node_id) if is_result(kind) or is_conditioning(kind)]
    return [n for n in _nearest(graph, starts, lambda kind: is_result(kind) or is_conditioning(kind)) if n != node_id]


def _is_same_role(graph: TypedGraph, node_id: str, other: str) -> bool:
    """Whether a maker behind another makes the same picture: by the same model, or by latents alone."""
    if not is_sampler(graph, node_id) or not is_sampler(graph, other):
        return False
    model = _model_key(graph, node_id)
    return (model is not None and model == _model_key(graph, other)) or other in _before(graph, node_id)


@per_node
def _before(graph: TypedGraph, node_id: str) -> frozenset[str]:
    """The makers whose latent a sampler goes on with, also where that comes with the conditioning."""
    steering = [link for _, kind, link in graph.typed_links(node_id) if is_conditioning(kind)]
    seen, queue = set[str](), deque(link.node_id for link in steering)
    latents = links_of(graph, node_id, "LATENT")
    while queue:
        steered_by = queue.popleft()
        if steered_by not in seen:
            seen.add(steered_by)
            latents.extend(links_of(graph, steered_by, "LATENT"))
            queue.extend(link.node_id for _, kind, link in graph.typed_links(steered_by) if is_conditioning(kind))
    return frozenset(_nearest(graph, latents, lambda kind: kind == "LATENT")) - {node_id}


@per_node
def _model_key(graph: TypedGraph, node_id: str) -> str | None:
    """What a sampler's model is: two nodes that load the same file give the same model."""
    link = model_of(graph, node_id)
    if link is None:
        return None
    values = {name: value for name, value in graph.inputs(link.node_id).items() if as_link(value) is None}
    is_loader = values and not any(graph.links(link.node_id))
    return repr([graph.class_of(link.node_id), link.slot, sorted(values.items())] if is_loader else link)


def _nearest(graph: TypedGraph, starts: Iterable[Link], follows: Callable[[str], bool]) -> list[str]:
    """The makers nearest upstream of links, by inputs of the types that are followed."""
    found, seen, queue = list[str](), set[str](), deque(link.node_id for link in starts)
    while queue:
        node_id = queue.popleft()
        if node_id in seen:
            continue
        seen.add(node_id)
        if is_maker(graph, node_id):
            found.append(node_id)
            continue
        queue.extend(link.node_id for _, kind, link in graph.typed_links(node_id) if follows(kind) or kind == ANY)
    return found


def is_maker(graph: TypedGraph, node_id: str) -> bool:
    """Whether it is a sampler or a generator."""
    return is_sampler(graph, node_id) or is_generator(graph, node_id)


# --- What reaches them ------------------------------------------------------------------------------------


def handed_on(graph: TypedGraph, link: Link, kind: str) -> list[tuple[str, Link]]:
    """The inputs through which a node may have got what it gives as that type: (input name, link).

    Those of the type, of several the one of the output's name; else what is not known or comes in a bundle, as in the
    context of a pack.
    """
    links = list(graph.typed_links(link.node_id))
    same = [(name, source) for name, given, source in links if given == kind]
    if same:
        name = graph.output_name(link).lower()
        return [found for found in same if found[0].lower() == name] or same
    return [(name, source) for name, given, source in links if is_bundle(given) and not name.startswith("lora")]


def upstream(graph: TypedGraph, starts: Iterable[Link], kind: str, is_end: Callable[[str], bool]) -> list[str]:
    """The nodes at which a walk upstream along one type ends, nearest first."""
    found, seen = list[str](), set[Link]()
    queue = deque(starts)
    while queue:
        link = queue.popleft()
        if link in seen:
            continue
        seen.add(link)
        if is_end(link.node_id):
            found.append(link.node_id)
        else:
            queue.extend(source for _, source in handed_on(graph, link, kind))
    return unique(found)


def links_of(graph: TypedGraph, node_id: str, kind: str) -> list[Link]:
    """The links of a node that bring a type."""
    return [link for _, given, link in graph.typed_links(node_id) if given == kind]


@per_node
def model_of(graph: TypedGraph, node_id: str) -> Link | None:
    """The output from which a sampler's or guider's model comes, before anything changes it; None if it has none."""
    links = links_of(graph, node_id, "MODEL")
    if not links:
        guiders = links_of(graph, node_id, "GUIDER")
        ends = upstream(graph, guiders, "GUIDER", lambda n: bool(links_of(graph, n, "MODEL")))
        links = [link for guider in ends for link in links_of(graph, guider, "MODEL")]
    if links:
        return model_source(graph, links[0])
    others = [(name, link) for name, kind, link in graph.typed_links(node_id) if is_bundle(kind)]
    bundled = [source for _, link in others if graph.output_type(source := model_source(graph, link)) == "MODEL"]
    named = [model_source(graph, link) for name, link in others if last_name(name) == "model"]
    return next(iter([*bundled, *named]), None)


def model_source(graph: TypedGraph, link: Link) -> Link:
    """The output at the start of a chain of nodes that take a model and give it, changed or not."""
    known: dict[Link, Link] = graph.answers[model_source]
    kind = graph.output_type(link) if not is_bundle(graph.output_type(link)) else "MODEL"
    passed = list[Link]()
    while link not in known and link not in passed:
        passed.append(link)
        sources = handed_on(graph, link, kind)
        named = [source for name, source in sources if last_name(name) == kind.lower()]
        if not sources:
            break
        link = (named or [source for _, source in sources])[0]
    end = known.get(link, link)
    known.update(dict.fromkeys(passed, end))
    return end
