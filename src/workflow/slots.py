"""Which inputs of a node take a text, a seed, a size; and the slot that holds the value of an input."""

from __future__ import annotations

import re
from typing import NamedTuple

from .graph import Graph, Link

# The inputs that take the prompt's text, for encoders that have several or whose input is not named text or prompt.
# From the node schemas of ComfyUI 0.3.64.
TEXT_INPUTS: dict[str, tuple[str, ...]] = {
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl"),
    "CLIPTextEncodeSDXL": ("text_g", "text_l"),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl"),
    "CLIPTextEncodeHiDream": ("clip_l", "clip_g", "t5xxl", "llama"),
    "CLIPTextEncodeHunyuanDiT": ("bert", "mt5xl"),
    "CLIPTextEncodeLumina2": ("user_prompt",),
    "TextEncodeAceStepAudio": ("tags",),
}
_COMMON_TEXT_INPUTS = ("text", "prompt", "positive_prompt", "positive")
_NEGATIVE_TEXT_INPUTS = ("negative_prompt", "negative")

SEED_INPUTS = ("noise_seed", "seed")
SIZE_INPUTS = (("width", "height"), ("empty_latent_width", "empty_latent_height"))

# Names of the input that holds the value in primitive nodes (those of ComfyUI and of common node packs).
VALUE_INPUTS = ("value", "string", "text", "prompt", "seed", "number", "int")
PASS_THROUGH_CLASS = re.compile(r"^Reroute\b|switch", re.IGNORECASE)


class Slot(NamedTuple):
    """An input of a node that holds a value."""

    node_id: str
    name: str


# --- Reading a value through links ---------------------------------------------------------------------


def value_slot(graph: Graph, node_id: str, name: str) -> Slot | None:
    """Where to write the value of an input: the input itself, or that of the primitive node it is linked to.

    A primitive that also feeds inputs of another kind (seed and steps, width and height, a negative prompt) is left
    alone; then it is the input itself. None if the input is absent, or if a node computes its value.
    """
    own = Slot(node_id, name)
    link = graph.link(node_id, name)
    if link is None:
        return own if name in graph.inputs(node_id) else None
    word = next((word for word in _WORDS if word in name), "")
    slot, has_other_use = _held_value(graph, link, word)
    own_use = 1 if not word and not _passes_through(graph, node_id) else 0
    is_shared = has_other_use or _other_uses(graph, link.node_id, word) > own_use
    return None if slot is None else own if is_shared else slot


_WORDS = ("seed", "width", "height", "batch", "steps", "cfg", "guidance", "denoise", "sampler", "scheduler")


def _held_value(graph: Graph, start: Link, word: str) -> tuple[Slot | None, bool]:
    """Where the value of a link is held, and whether it has a use of another kind on the way from `start` up.

    Each node is looked at once, however many inputs are linked through it.
    """
    known = graph.once(_known_values)
    passed: list[str] = []
    link: Link | None = start
    found: tuple[Slot | None, bool] = (None, False)
    while link is not None:
        if (link.node_id, word) in known:
            slot, is_shared = known[link.node_id, word]
            is_own = link.node_id == start.node_id
            found = (slot, is_shared or (not is_own and _other_uses(graph, link.node_id, word) > 0))
            break
        passed.append(link.node_id)
        input_name = _source_input(graph, link)
        if input_name is None or len(passed) > len(graph.workflow):
            break
        holder = Slot(link.node_id, input_name)
        link = graph.link(*holder)
        if link is None and input_name in graph.inputs(holder.node_id):
            found = (holder, False)
    for node_id in reversed(passed):
        known[node_id, word] = found
        found = (found[0], found[1] or (node_id != start.node_id and _other_uses(graph, node_id, word) > 0))
    return found


def _known_values(_: Graph) -> dict[tuple[str, str], tuple[Slot | None, bool]]:
    return {}


def _other_uses(graph: Graph, node_id: str, word: str) -> int:
    """How many inputs are linked to a node that should not change together with one whose name has that word."""
    known = graph.once(_known_uses)
    if (node_id, word) not in known:
        consumers = graph.consumers(node_id)
        known[node_id, word] = sum(
            word not in name if word else not _passes_through(graph, consumer) for consumer, name in consumers
        )
    return known[node_id, word]


def _known_uses(_: Graph) -> dict[tuple[str, str], int]:
    return {}


def _passes_through(graph: Graph, node_id: str) -> bool:
    return bool(PASS_THROUGH_CLASS.search(graph.class_of(node_id)))


def _source_input(graph: Graph, link: Link) -> str | None:
    """The one input that a primitive or reroute node passes on."""
    if graph.class_of(link.node_id).startswith("Reroute"):
        return next(iter(graph.inputs(link.node_id)), None)
    return primitive_input(graph, link.node_id)


def primitive_input(graph: Graph, node_id: str) -> str | None:
    """The value input of a primitive node, which only holds a value for other nodes; None for every other node."""
    inputs = graph.inputs(node_id)
    is_primitive = "primitive" in graph.class_of(node_id).lower() or len(inputs) == 1 or "seed" in inputs
    is_primitive = is_primitive and not any(graph.links(node_id))
    return next((name for name in VALUE_INPUTS if is_primitive and name in inputs), None)


def text_inputs(graph: Graph, node_id: str) -> tuple[str, ...]:
    """The inputs of a node that take a prompt's text, empty if it takes none."""
    inputs = graph.inputs(node_id)
    known = TEXT_INPUTS.get(graph.class_of(node_id))
    if known is not None:
        return tuple(name for name in known if name in inputs)
    # A linked `positive` is conditioning, not text.
    return tuple(n for n in _COMMON_TEXT_INPUTS if n in inputs and (n != "positive" or isinstance(inputs[n], str)))[:1]


def negative_text_inputs(graph: Graph, node_id: str) -> tuple[str, ...]:
    """The inputs of a node that take a negative prompt: one with such a name, else the text inputs of an encoder."""
    inputs = graph.inputs(node_id)
    own = tuple(n for n in _NEGATIVE_TEXT_INPUTS if n in inputs and (n != "negative" or isinstance(inputs[n], str)))
    return own[:1] or (text_inputs(graph, node_id) if takes_prompt(graph, node_id) else ())


def seed_inputs(graph: Graph, node_id: str) -> tuple[str, ...]:
    """The input of a node that takes a seed, empty if it takes none."""
    return tuple(name for name in SEED_INPUTS if name in graph.inputs(node_id))[:1]


def size_inputs(graph: Graph, node_id: str) -> tuple[str, ...]:
    """The inputs for width and height if the node has both, else empty."""
    return next((pair for pair in SIZE_INPUTS if all(name in graph.inputs(node_id) for name in pair)), ())


def batch_inputs(graph: Graph, node_id: str) -> tuple[str, ...]:
    """The input of a node that sets the batch size, empty if it has none."""
    if graph.class_of(node_id) == "RepeatLatentBatch":
        return ("amount",) if "amount" in graph.inputs(node_id) else ()
    return ("batch_size",) if "batch_size" in graph.inputs(node_id) else ()


def takes_prompt(graph: Graph, node_id: str) -> bool:
    """Whether a node takes a prompt: a text encoder (it has a `clip` input) or a node with its own prompt input."""
    if graph.class_of(node_id) == "GLIGENTextBoxApply":  # it adds a box to a prompt from upstream
        return False
    names = text_inputs(graph, node_id)
    values = [graph.inputs(node_id)[name] for name in names]
    has_own_name = bool(names) and names[0] != "text"
    is_encoder = "clip" in graph.inputs(node_id) or has_own_name or graph.class_of(node_id) in TEXT_INPUTS
    return is_encoder and any(isinstance(value, (str, list)) for value in values)
