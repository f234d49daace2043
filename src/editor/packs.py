"""What the scripts of node packs make of their nodes in the editor, where neither the file nor the classes tell it.

One entry for each thing that a script does, with where it is written. Read from the packs' public sources:
rgthree-comfy (`src_web/comfyui/`), efficiency-nodes-comfyui (`js/seedcontrol.js`), ComfyUI-VideoHelperSuite
(`web/js/VHS.core.js`), cg-use-everywhere (`js/`), ComfyUI-KJNodes (`web/js/setgetnodes.js`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..workflow.schemas import NodeSchema
from .document import EditorNode
from .widgets import Widget

# --- Nodes that only the editor knows ---------------------------------------------------------------------

SETTER_OF = {"GetNode": "SetNode", "easy getNode": "easy setNode"}
"""Nodes that get by name what another sets (KJNodes; easy-use)."""

EDITOR_CLASSES = frozenset(
    {
        "Label (rgthree)",
        "Bookmark (rgthree)",
        "Fast Muter (rgthree)",
        "Fast Bypasser (rgthree)",
        "Fast Groups Muter (rgthree)",
        "Fast Groups Bypasser (rgthree)",
        "Fast Actions Button (rgthree)",
        "Mute / Bypass Repeater (rgthree)",
        "Mute / Bypass Relay (rgthree)",
        "Node Collector (rgthree)",
        "Node Combiner (rgthree)",
        "Reroute (rgthree)",
        *SETTER_OF,
        *SETTER_OF.values(),
    }
)
"""Nodes that ComfyUI never gets: buttons, labels, collectors. What they do to others is in the file already."""

WHILE_QUEUEING = {
    "Random Unmuter (rgthree)": "its script unmutes nodes at random when the editor queues",
    "Power Conductor (rgthree)": "its script acts on other nodes in the browser",
}
"""Nodes that only the editor knows, and that change others when it queues: why a file with them is refused."""

BROADCASTERS = frozenset(
    {
        "Anything Everywhere",
        "Anything Everywhere?",
        "Anything Everywhere3",
        "Prompts Everywhere",
        "Seed Everywhere",
    }
)
"""Use Everywhere: while the editor queues, its script connects what these nodes get to inputs that have no link."""


def is_broadcaster(node: EditorNode) -> bool:
    """Whether Use Everywhere connects others to what this node gets or gives."""
    properties = node.properties.get("ue_properties")
    return node.class_type in BROADCASTERS or (isinstance(properties, Mapping) and bool(properties.get("ue_convert")))


# --- Widgets that a script changes ------------------------------------------------------------------------

_EFFICIENT_SEEDS = {
    "KSampler (Efficient)": "seed",
    "KSampler Adv. (Efficient)": "noise_seed",
    "KSampler SDXL (Eff.)": "noise_seed",
    "Noise Control Script": "seed",
    "HighRes-Fix Script": "seed",
    "Tiled Upscaler Script": "seed",
}
_RGTHREE_SEED, _RGTHREE_LORAS, _RGTHREE_COMPARER = (
    "Seed (rgthree)",
    "Power Lora Loader (rgthree)",
    "Image Comparer (rgthree)",
)
_ADD_LORA = "\N{HEAVY PLUS SIGN} Add Lora"
_MAX_SEED = 1125899906842624  # 2^50, in both packs


def with_script_widgets(node: EditorNode, widgets: list[Widget]) -> list[Widget]:
    """The widgets of a node after the pack's script has added buttons to them, or put one in place of another.

    Efficiency puts a button in the place of `control_after_generate`; rgthree's Seed takes that away and adds three.
    """
    if node.class_type in _EFFICIENT_SEEDS:
        return [Widget("last seed", is_sent=False) if widget.is_control else widget for widget in widgets]
    if node.class_type == _RGTHREE_SEED:
        buttons = [Widget(f"button {number}", is_sent=False) for number in range(3)]
        last = [Widget("last_seed")] if node.properties.get("showLastSeed") else []
        return [*(widget for widget in widgets if not widget.is_control), *buttons, *last]
    return widgets


def script_values(node: EditorNode) -> dict[str, Any] | None:
    """The values by name of a node whose widgets are all made by a script; None for any other node.

    rgthree: the Power Lora Loader has one widget for each LoRA, saved among a header, a button and spacers; the Image
    Comparer has one with the pictures of the last run.
    """
    saved = node.values if isinstance(node.values, list) else []
    if node.class_type == _RGTHREE_LORAS:
        loras = [value for value in saved if isinstance(value, dict) and "lora" in value]
        header = {"PowerLoraLoaderHeaderWidget": {"type": "PowerLoraLoaderHeaderWidget"}}
        rows = {f"lora_{number}": _lora_row(node, value) for number, value in enumerate(loras, 1)}
        return {**header, **rows, _ADD_LORA: ""}
    if node.class_type == _RGTHREE_COMPARER:
        shown = saved[0] if saved else []
        return {"rgthree_comparer": shown if isinstance(shown, dict) else {"images": shown or []}}
    return None


def _lora_row(node: EditorNode, value: dict[str, Any]) -> dict[str, Any]:
    """A row of the Power Lora Loader: the second strength is sent only where the node shows both."""
    row = {name: part for name, part in value.items() if name != "strengthTwo"}
    if node.properties.get("Show Strengths") == "Separate Model & Clip":
        second = value.get("strengthTwo")
        row["strengthTwo"] = 1 if second is None else second
    return row


def values_by_name(node: EditorNode) -> dict[str, Any] | None:
    """The values that a node's script keeps by name; None if it keeps none so.

    Video Helper Suite saves them so, formerly as a list. `force_size` has become two numbers, `save_image` another
    name; buttons and previews are saved, but not sent.
    """
    saved = node.values
    if isinstance(saved, list):
        names = _VIDEO_LISTS.get(node.class_type)
        if names is None or len(saved) < len(names):
            return None
        saved = {name: value for name, value in zip(names, saved, strict=False) if name}
    values = {name: value for name, value in saved.items() if not _is_button(name)}
    if node.class_type.startswith("VHS_"):
        size = values.pop("force_size", None)
        if isinstance(size, str):
            values.update(_video_size(size))
        if node.class_type == "VHS_VideoCombine" and "save_image" in values:
            values.setdefault("save_output", values.pop("save_image"))
    return values


_VIDEO_LISTS: dict[str, tuple[str, ...]] = {
    "VHS_LoadImages": ("directory", "", "image_load_cap", "skip_first_images", "select_every_nth"),
    "VHS_LoadImagesPath": ("directory", "image_load_cap", "skip_first_images", "select_every_nth"),
    "VHS_VideoCombine": ("frame_rate", "loop_count", "filename_prefix", "format", "pingpong", "save_image"),
    **dict.fromkeys(
        ("VHS_LoadVideo", "VHS_LoadVideoPath"),
        ("video", "force_rate", "force_size", "frame_load_cap", "skip_first_frames", "select_every_nth"),
    ),
}


def _is_button(name: str) -> bool:
    return name == "videopreview" or (name.startswith("choose ") and name.endswith(" to upload"))


def _video_size(size: str) -> dict[str, int]:
    """The two numbers of a former `force_size`, such as `512x?`; 0 leaves a side as it is."""
    width, times, height = size.partition("x")
    if times:
        return {"custom_width": _digits(width), "custom_height": _digits(height)}
    found = {}
    if size in ("Disabled", "Custom Height"):
        found["custom_width"] = 0
    if size in ("Disabled", "Custom Width"):
        found["custom_height"] = 0
    return found


def _digits(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


# --- Seeds that a script draws ----------------------------------------------------------------------------


def drawn_seed(
    node: EditorNode, schema: NodeSchema, name: str, values: Mapping[str, Any], draw: Callable[[int, int], int]
) -> int | None:
    """The seed that a script draws while the editor queues; None if it draws none. `draw` takes the two limits.

    rgthree's Seed draws for -1, and for -2 and -3 (one up, one down) as long as nothing was queued before; Efficiency
    for -1, but where its button is off.
    """
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if node.class_type == _RGTHREE_SEED and name == "seed" and value in (-1, -2, -3):
        lowest, highest = (_number(node.properties.get(key)) for key in ("randomMin", "randomMax"))
        seed = _drawn(draw, max(lowest or 0, -_MAX_SEED), min(highest or _MAX_SEED, _MAX_SEED))
        return 0 if seed in (-1, -2, -3) else seed
    if _EFFICIENT_SEEDS.get(node.class_type) == name and value == -1:
        is_off = values.get("use_same_seed") is True or values.get("add_seed_noise") is False
        limits = schema.inputs[name].parameters if name in schema.inputs else {}
        lowest, highest = (_number(limits.get(key)) for key in ("min", "max"))
        limit = _MAX_SEED if highest is None else min(highest, _MAX_SEED)
        return None if is_off else _drawn(draw, max(lowest or 0, -_MAX_SEED), limit)
    return None


def _drawn(draw: Callable[[int, int], int], lowest: int, limit: int) -> int:
    return draw(lowest, limit) if limit > lowest else lowest


def _number(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**64:
        return None
    return int(value)
