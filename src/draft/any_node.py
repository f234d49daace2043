"""Stand-ins for every other node class of ComfyUI: each gives something of the types that the class declares.

Images and videos are drawn as VAEDecode draws them, with what reached the node; audio is a tone, a mesh an empty
glTF scene, a latent an empty safetensors file.
"""

from __future__ import annotations

import json
import math
import struct
import wave
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from . import diffusion, saving
from .values import Context, Images, Latent, Output, Placeholder

_SIDE, _MAX_SIDE, _FRAMES, _FPS = 512, 1536, 8, 8
_PLAIN = (str, int, float, bool)
_UI_KEYS = {"latent": "latents", "svg": "images", "glb": "3d"}  # where ComfyUI's own nodes report such a file
_SHOWN = {
    **dict.fromkeys(("prompt", "text", "positive_prompt", "caption", "tags", "lyrics"), "prompt"),
    **dict.fromkeys(("seed", "noise_seed"), "seed"),
    **{name: name for name in ("steps", "cfg", "guidance", "denoise")},
    **dict.fromkeys(("ckpt_name", "unet_name", "model_name", "model"), "model"),
}
"""Inputs whose values a drawn picture shows, by the name of the property."""


def run_node(
    context: Context, class_type: str, outputs: Sequence[str], inputs: Mapping[str, Any], saves: bool
) -> Output:
    """Run a node of a class that has no function of its own. `outputs` are the types that it declares."""
    values = tuple(_value(context, kind, inputs) for kind in outputs)
    return Output(values, _saved(context, class_type, inputs, values) if saves else None)


# --- Values --------------------------------------------------------------------------------------------


def _value(context: Context, kind: object, inputs: Mapping[str, Any]) -> Any:
    """Something of a type: what came of that kind, or else something made of what came."""
    if kind in ("IMAGE", "VIDEO", "MASK"):
        return _pictures(context, str(kind), inputs)
    if kind == "LATENT":
        return next((value for value in inputs.values() if isinstance(value, Latent)), None) or _latent(inputs)
    if kind in ("*", "COMFY_MATCHTYPE_V3", "COMBO") and inputs:
        given = list(inputs.values())
        return next((value for value in given if not isinstance(value, _PLAIN)), given[0])
    plain = _plain(kind, list(inputs.values()))
    return Placeholder(_properties(inputs)) if plain is None else plain


def _plain(kind: object, given: Sequence[Any]) -> str | float | bool | None:
    """A text, number or flag, the first that came; None for another type."""
    if kind == "STRING":
        return next((value for value in given if isinstance(value, str)), "draft")
    if kind == "BOOLEAN":
        return next((value for value in given if isinstance(value, bool)), True)
    if kind not in ("INT", "FLOAT"):
        return None
    number = next((value for value in given if isinstance(value, (int, float)) and not isinstance(value, bool)), 1)
    return int(number) if kind == "INT" else float(number)


def _is_pictures(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Image.Image)


def _pictures(context: Context, kind: str, inputs: Mapping[str, Any]) -> Images:
    given: list[Images] = [value for value in inputs.values() if _is_pictures(value)]
    if kind == "MASK":
        grey = next((value for value in given if value[0].mode == "L"), None)
        return grey or [Image.new("L", given[0][0].size if given else _size(inputs), 255)]
    coloured = next((value for value in given if value[0].mode != "L"), None)
    if coloured is not None and not _is_blank(coloured[0]):
        return _frames(kind, coloured)
    canvas = Latent(*coloured[0].size, len(coloured), _properties(inputs)) if coloured else _latent(inputs)
    latent = next((value for value in inputs.values() if isinstance(value, Latent)), canvas)
    drawn: Images = diffusion.NODES["VAEDecode"](context, samples=latent, vae=Placeholder()).values[0]
    return _frames(kind, drawn)


def _frames(kind: str, pictures: Images) -> Images:
    """The pictures, or for a video of a single one a few frames of it."""
    is_still = kind == "VIDEO" and len(pictures) == 1
    return [_moved(pictures[0], number) for number in range(_FRAMES)] if is_still else pictures


def _is_blank(picture: Image.Image) -> bool:
    """Whether it has one colour only: a canvas, on which a node of ComfyUI would draw."""
    return picture.getcolors(maxcolors=1) is not None


def _moved(picture: Image.Image, number: int) -> Image.Image:
    """A frame of a video that pans over a picture."""
    shift = number * picture.width // 64
    return picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, shift, 0, 1, 0))


def _latent(inputs: Mapping[str, Any]) -> Latent:
    width, height = _size(inputs)
    return Latent(width, height, 1, _properties(inputs))


def _size(inputs: Mapping[str, Any]) -> tuple[int, int]:
    width, height = (_side(inputs.get(name)) for name in ("width", "height"))
    return width, height


def _side(value: object) -> int:
    is_side = isinstance(value, int) and not isinstance(value, bool) and value >= 16
    return min(int(value), _MAX_SIDE) if is_side else _SIDE  # type: ignore[call-overload]


def _properties(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a drawn picture is to show: what placeholders bring, and the node's own prompt, seed and the like."""
    found: dict[str, Any] = {}
    for value in inputs.values():
        if isinstance(value, (Placeholder, Latent)):
            found = {**value.properties, **{name: part for name, part in found.items() if part}}
    for name, value in inputs.items():
        shown = _SHOWN.get(name.rpartition(".")[2])
        if shown and isinstance(value, (str, int, float)) and value != "":
            found[shown] = value
    return found


# --- Files ---------------------------------------------------------------------------------------------


def _saved(context: Context, class_type: str, inputs: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """Save what an output node got, and what it reports."""
    given = [*inputs.values(), *values]
    pictures = next((value for value in given if _is_pictures(value)), None)
    prefix = str(inputs.get("filename_prefix") or f"draft_{class_type}")
    is_preview = "Preview" in class_type or "Compare" in class_type
    if "Audio" in class_type:
        return {"audio": [_write_tone(context, prefix, is_preview)]}
    if pictures is not None and not class_type.startswith("Preview3D"):
        coloured = [picture.convert("RGB") for picture in pictures]
        if "Video" in class_type or "WEBM" in class_type.upper():
            return saving.save_animated_webp(context, coloured, prefix, _FPS, False, 80, "fastest").ui or {}
        saved = saving.preview_image(context, coloured) if is_preview else saving.save_image(context, coloured, prefix)
        return saved.ui or {}
    texts = [value for value in inputs.values() if isinstance(value, str)]
    if class_type == "SaveText" and texts:
        return {"text": texts[:1]}
    ending = "latent" if "Latent" in class_type else "svg" if "SVG" in class_type else "glb"
    return {_UI_KEYS[ending]: [_write_stand_in(context, prefix, ending)]}


def _write_tone(context: Context, prefix: str, is_preview: bool) -> dict[str, str]:
    """A second of 440 Hz, as WAV."""
    root, kind = (context.folders.temp, "temp") if is_preview else (context.folders.output, "output")
    folder, subfolder, name, counter = saving.save_path(root, prefix)
    filename = f"{name}_{counter:05}_.wav"
    samples = (int(8000 * math.sin(2 * math.pi * 440 * n / 16_000)) for n in range(16_000))
    with wave.open(str(folder / filename), "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(16_000)
        opened.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return {"filename": filename, "subfolder": subfolder, "type": kind}


def _write_stand_in(context: Context, prefix: str, ending: str) -> dict[str, str]:
    """A valid, empty file: a glTF scene without meshes, a drawing without shapes, safetensors without tensors."""
    folder, subfolder, name, counter = saving.save_path(context.folders.output, prefix)
    filename = f"{name}_{counter:05}_.{ending}"
    scene = json.dumps({"asset": {"version": "2.0", "generator": "draft"}, "scene": 0, "scenes": [{}]}).encode()
    scene += b" " * (-len(scene) % 4)
    head = b"glTF" + struct.pack("<II", 2, 20 + len(scene)) + struct.pack("<I", len(scene)) + b"JSON"
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>'
    contents = {"svg": drawing, "glb": head + scene, "latent": struct.pack("<Q", 2) + b"{}"}
    (folder / filename).write_bytes(contents[ending])
    return {"filename": filename, "subfolder": subfolder, "type": "output"}
