"""Which inputs of a node take a prompt, a seed, a size: by their types, and of several of one type by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ..workflow.typed import ANY, TypedGraph, per_node

_MAX_NAMES = 10_000  # whose parts are kept
_WORD = re.compile(r"[a-z]+|\d+")
# Texts that are no prompt though an encoder takes them, by a word of their names.
_NO_PROMPT = frozenset(
    {"negative", "neg", "system", "lyrics", "template", "filename", "path", "delimiter", "name", "language", "key"}
    | {"embeds", "embedding", "conditioning"}
)
_NEGATIVE = frozenset({"negative", "neg"})
_NEGATIVE_TEXT = re.compile(r"^neg(ative)?(_(prompt|text))?$|^(prompt|text)_neg(ative)?$")
# Values of choices, where nobody knows whether an input takes a text or a choice.
_CHOICES = frozenset({"true", "false", "enable", "disable", "enabled", "disabled", "none", "auto", "default"})
# How the prompt is called, the most telling first: of these groups the first that a node has is its prompt. The second
# are the same text for several text encoders of one model; of the others a node has one.
_PROMPT_NAMES = (
    re.compile(r"^((positive|user|text)_)?prompt$|^prompt_text$|^positive$"),
    re.compile(r"^(text|text_[gl]|clip_[glh]|t5xxl|llama|bert|mt5xl)$"),
    re.compile(r"^(tags|caption|description)$"),
    re.compile(r"(^|_)prompt(_|$)|(^|_)text(_|$)"),
)
_SAME_TEXT, _NO_GROUP = 1, len(_PROMPT_NAMES)
_SEED = re.compile(r"^(?!last_)(.*_)?seed$")
_LENGTH = re.compile(r"^(length|(num|video)_frames|frames_number|video_length)$")
_FPS = re.compile(r"^(fps|frame_rate)$")
_NUMBER = re.compile(r"\d+")
_SIDES = (("width", "height"), ("empty_latent_width", "empty_latent_height"))
_WHOLE_NUMBERS = ("INT", "FLOAT,INT", "INT,FLOAT", ANY)
_WIDTH = re.compile(r"(^|_)width(_|$)")
_NO_PICTURE = re.compile(r"tile|crop|overlap|mask|font|stroke|border|padding$|bbox|scale|factor|ratio|stick|spacing")
"""Names of pairs that are the size of something else than a picture, or no size."""


@lru_cache(_MAX_NAMES)
def last_name(name: str) -> str:
    """The name of an input without those of the dynamic inputs that it belongs to: `seed` of `model.seed`."""
    return name.rpartition(".")[2].lower()


@lru_cache(_MAX_NAMES)
def words_of(name: str) -> frozenset[str]:
    """The words of an input's name."""
    return frozenset(_WORD.findall(name.lower()))


def is_negative(name: str) -> bool:
    """Whether an input is for what a picture should not be. `cond2` of ComfyUI's DualCFGGuider acts as such."""
    return bool(words_of(name) & _NEGATIVE) or name == "cond2"


# --- Texts ----------------------------------------------------------------------------------------------


@per_node
def prompt_inputs(graph: TypedGraph, node_id: str) -> tuple[str, ...]:
    """The inputs of a node that take a positive prompt's text, empty if it takes none or several with numbers."""
    texts = [name for name in _texts(graph, node_id) if not words_of(last_name(name)) & _NO_PROMPT]
    best = min(map(_prompt_group, texts), default=_NO_GROUP)
    if best == _NO_GROUP or _are_numbered([n for n in texts if words_of(last_name(n)) & {"prompt", "text"}]):
        return ()
    found = tuple(name for name in texts if _prompt_group(name) == best)
    return found if best == _SAME_TEXT else found[:1]


@lru_cache(_MAX_NAMES)
def _prompt_group(name: str) -> int:
    """The number of the first group of `_PROMPT_NAMES` that a name is of."""
    last = last_name(name)
    return next((number for number, pattern in enumerate(_PROMPT_NAMES) if pattern.search(last)), _NO_GROUP)


def _are_numbered(names: list[str]) -> bool:
    """Whether two of the names differ in a number only: the prompts of several shots, say."""
    numbered = [_NUMBER.sub("", last_name(name)) for name in names if _NUMBER.search(last_name(name))]
    return len(numbered) > len(set(numbered))


@per_node
def negative_inputs(graph: TypedGraph, node_id: str) -> tuple[str, ...]:
    """The input of a node that takes a negative prompt by its name, empty if it has none."""
    return tuple(name for name in _texts(graph, node_id) if _NEGATIVE_TEXT.search(last_name(name)))[:1]


def _texts(graph: TypedGraph, node_id: str) -> Iterable[str]:
    """The inputs of a node that take a text."""
    is_known, inputs = graph.schema(node_id) is not None, graph.inputs(node_id)
    for name, kind in graph.input_types(node_id).items():
        if kind not in ("STRING", ANY):
            continue
        value = inputs[name]
        is_choice = not is_known and isinstance(value, str) and value.lower() in _CHOICES
        if (kind == "STRING" and not is_choice) or (kind == ANY and isinstance(value, list)):
            yield name


@per_node
def is_encoder(graph: TypedGraph, node_id: str) -> bool:
    """Whether a node makes conditioning from a text. One that adds a text to conditioning from elsewhere is none."""
    if not any(is_conditioning(kind) for kind in graph.output_types(node_id)):
        return False
    takes = any(is_conditioning(kind) for _, kind, _ in graph.typed_links(node_id))
    return not takes and bool(prompt_inputs(graph, node_id) or negative_inputs(graph, node_id))


def is_conditioning(kind: str) -> bool:
    """Whether a type is that of what text encoders make: `CONDITIONING`, or that of a pack with models of its own."""
    return kind == "CONDITIONING" or ("EMBED" in kind and "WAV" not in kind)


# --- Numbers ------------------------------------------------------------------------------------------


@per_node
def seed_inputs(graph: TypedGraph, node_id: str) -> tuple[str, ...]:
    """The inputs of a node that take a seed, empty if it takes none; some nodes draw several things."""
    return tuple(
        name
        for name, kind in graph.input_types(node_id).items()
        if kind in ("INT", ANY) and _SEED.search(last_name(name))
    )


def size_inputs(graph: TypedGraph, node_id: str) -> tuple[str, ...]:
    """The inputs for the width and the height of a picture if the node has both, else empty."""
    pairs = size_pairs(graph, node_id)
    usual = (pair for sides in _SIDES for pair in pairs if (last_name(pair[0]), last_name(pair[1])) == sides)
    return next(usual, pairs[0] if pairs else ())


@per_node
def size_pairs(graph: TypedGraph, node_id: str) -> list[tuple[str, str]]:
    """Every two inputs of a node that are the width and the height of a picture, whatever else is in their names."""
    inputs = graph.inputs(node_id)
    if {"x", "y"} <= inputs.keys():  # a part of a picture
        return []
    found = []
    for name in inputs:
        if "width" not in name.lower():
            continue
        last = last_name(name)
        height = name[: len(name) - len(last)] + _WIDTH.sub(r"\1height\2", last)
        is_side = bool(_WIDTH.search(last)) and not _NO_PICTURE.search(last)
        if is_side and height in inputs and graph.input_type(node_id, name) in _WHOLE_NUMBERS:
            found.append((name, height))
    return found


def batch_inputs(graph: TypedGraph, node_id: str) -> tuple[str, ...]:
    """The input of a node that sets the batch size, empty if it has none."""
    if graph.class_of(node_id) == "RepeatLatentBatch":
        return ("amount",) if "amount" in graph.inputs(node_id) else ()
    return tuple(name for name in graph.inputs(node_id) if last_name(name) == "batch_size")[:1]


@per_node
def length_inputs(graph: TypedGraph, node_id: str) -> tuple[str, ...]:
    """The input of a node that sets the number of frames, of a video or of its audio; empty if it has none."""
    return _numbers_called(graph, node_id, _LENGTH, _WHOLE_NUMBERS)


@per_node
def fps_inputs(graph: TypedGraph, node_id: str) -> tuple[str, ...]:
    """The input of a node that sets the frames per second of a video, empty if it has none."""
    return _numbers_called(graph, node_id, _FPS, (*_WHOLE_NUMBERS, "FLOAT"))


def _numbers_called(
    graph: TypedGraph, node_id: str, pattern: re.Pattern[str], kinds: tuple[str, ...]
) -> tuple[str, ...]:
    types = graph.input_types(node_id)
    return tuple(name for name, kind in types.items() if kind in kinds and pattern.match(last_name(name)))[:1]
