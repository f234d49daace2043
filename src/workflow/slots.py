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
    slot = own = Slot(node_id, name)
    is_shared = False
    for _ in range(len(graph.workflow)):
        link = graph.link(*slot)
        if link is None:
            return None if slot.name not in graph.inputs(slot.node_id) else own if is_shared else slot
        next_input = _source_input(graph, link)
        if next_input is None:
            return None
        is_shared = is_shared or any(
            not _same_kind(graph, own, consumer) for consumer in graph.consumers(link.node_id)
        )
        slot = Slot(link.node_id, next_input)
    return None


def _same_kind(graph: Graph, slot: Slot, consumer: tuple[str, str]) -> bool:
    """Whether another input with the same source should change together with this one."""
    for word in ("seed", "width", "height", "batch", "steps", "cfg", "guidance", "denoise", "sampler", "scheduler"):
        if word in slot.name:
            return word in consumer[1]
    return consumer == slot or bool(PASS_THROUGH_CLASS.search(graph.class_of(consumer[0])))


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
