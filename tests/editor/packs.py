"""Classes of node packs, as little of /object_info as a file needs, and the files that the tests convert with them."""

from __future__ import annotations

from typing import Any

from ..editor_files import Json, empty, save, saved, saved_node

_SEED = ["INT", {"default": 0, "min": 0, "max": 2**64 - 1}]
_NUMBER = ["INT", {"default": 0, "min": 0, "max": 1000}]


def _class(
    required: dict[str, Any], optional: dict[str, Any] | None = None, outputs: tuple[str, ...] = ("IMAGE",)
) -> Json:
    return {"input": {"required": required, "optional": optional or {}}, "output": list(outputs), "output_node": False}


CLASSES: Json = {
    "EmptyImage": _class({name: ["INT", {"default": 1}] for name in ("width", "height", "batch_size", "color")}),
    "SaveImage": _class({"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "x"}]}, outputs=()),
    "Loader": _class({}, outputs=("MODEL", "CLIP")),
    "Sampler": _class({"model": ["MODEL"], "seed": _SEED, "steps": ["INT", {"default": 20}]}),
    "Text": _class({"clip": ["CLIP"], "text": ["STRING", {"default": ""}]}, outputs=("CONDITIONING",)),
    "Power Lora Loader (rgthree)": _class({}, {"model": ["MODEL"], "clip": ["CLIP"]}, ("MODEL", "CLIP")),
    "Seed (rgthree)": _class({"seed": ["INT", {"default": 0, "min": -(2**50), "max": 2**50}]}, outputs=("INT",)),
    "Image Comparer (rgthree)": _class({}, {"image_a": ["IMAGE"], "image_b": ["IMAGE"]}, ()),
    "KSampler (Efficient)": _class(
        {"model": ["MODEL"], "seed": _SEED, "steps": _NUMBER, "preview_method": [["auto", "none"]]}
    ),
    "HighRes-Fix Script": _class({"seed": _SEED, "use_same_seed": ["BOOLEAN", {"default": True}]}),
    "VHS_LoadVideo": _class(
        {
            "video": [["v.mp4"]],
            **dict.fromkeys(("force_rate", "custom_width", "custom_height", "frame_load_cap"), _NUMBER),
            "skip_first_frames": _NUMBER,
            "select_every_nth": ["INT", {"default": 1}],
        },
        {"format": [["None", "AnimateDiff"], {"default": "AnimateDiff"}]},
    ),
    "VHS_VideoCombine": _class(
        {"images": ["IMAGE"], "format": [["gif"], {}], "save_output": ["BOOLEAN", {"default": True}]}, outputs=()
    ),
    "Anything Everywhere": _class({}, {"anything": ["*"]}, ()),
    "Seed Everywhere": _class({"seed": _SEED}, outputs=("INT",)),
}


def loras(rows: list[Any], **more: Any) -> Json:
    """rgthree's Power Lora Loader, whose script makes all of its widgets."""
    values = [{}, {"type": "PowerLoraLoaderHeaderWidget"}, *rows, {}, ""]
    node = saved_node(1, "Power Lora Loader (rgthree)", values, {"model": ("MODEL", 1)}, {"MODEL": "MODEL"}, **more)
    loader = saved_node(2, "Loader", [], outputs={"MODEL": "MODEL", "CLIP": "CLIP"})
    return saved([loader, node, saved_node(3, "Sampler", [1, "fixed", 4], {"model": ("MODEL", 2)})], [[1, 2, 0, 1, 0, "MODEL"], [2, 1, 0, 3, 0, "MODEL"]])  # fmt: skip


def seed(value: int, **more: Any) -> Json:
    """rgthree's Seed, with its three buttons, linked to a sampler."""
    nodes = [
        saved_node(1, "Seed (rgthree)", [value, "", "", ""], outputs={"SEED": "INT"}, **more),
        saved_node(2, "Sampler", [5, "fixed", 4], {"=seed": ("INT", 1)}),
    ]
    return saved(nodes, [[1, 1, 0, 2, 0, "INT"]])


def efficient(value: int) -> Json:
    """Efficiency's sampler: a button in the place of what becomes of the seed."""
    return saved([saved_node(1, "KSampler (Efficient)", [value, None, 20, "auto"])], [])


def with_editor_nodes() -> Json:
    """A picture saved, beside a button and a collector that only the editor knows; one passes a link on."""
    return saved(
        [
            empty(1),
            saved_node(2, "Node Collector (rgthree)", None, {"": ("*", 1)}, {"Output": "*"}),
            saved_node(3, "Fast Actions Button (rgthree)", ["", "Mute"], {"EmptyImage": ("*", 2)}, {"": "*"}),
            save(4, 3),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "*"], [3, 2, 0, 4, 0, "IMAGE"]],
    )


def comparer() -> Json:
    """rgthree's Image Comparer, with what it showed of the last run."""
    shown = [{"name": name, "selected": True, "url": f"/view?filename={name}.png"} for name in "AB"]
    nodes = [empty(1), saved_node(2, "Image Comparer (rgthree)", [shown], {"image_a": ("IMAGE", 1)})]
    return saved(nodes, [[1, 1, 0, 2, 0, "IMAGE"]])


def video(values: Any) -> Json:
    """Video Helper Suite's loader with such values."""
    return saved([saved_node(1, "VHS_LoadVideo", values, outputs={"IMAGE": "IMAGE"})], [])


def everywhere(links: list[Json] | None, clip: int | None = None) -> Json:
    """Use Everywhere: a loader's CLIP goes to a text that has no link, as `extra.ue_links` tells."""
    nodes = [
        saved_node(1, "Loader", [], outputs={"MODEL": "MODEL", "CLIP": "CLIP"}),
        saved_node(2, "Anything Everywhere", [], {"anything": ("*", 1)}),
        saved_node(3, "Text", ["a cat"], {"clip": ("CLIP", clip)}, {"CONDITIONING": "CONDITIONING"}),
    ]
    extra = {} if links is None else {"extra": {"ue_links": links}}
    return saved(nodes, [[1, 1, 1, 2, 0, "CLIP"], *([[clip, 1, 1, 3, 0, "CLIP"]] if clip else [])], **extra)


UE_LINK = {"downstream": 3, "downstream_slot": 0, "upstream": "1", "upstream_slot": 1, "controller": 2, "type": "CLIP"}
