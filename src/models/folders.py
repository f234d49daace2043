"""ComfyUI's model folders, some of which have two names; `extra_model_paths.yaml` lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import PurePosixPath

import yaml

from .. import REPOSITORY

_MODEL_PATHS_FILE = REPOSITORY / "src" / "extra_model_paths.yaml"
ALSO_IN = {"diffusion_models": "checkpoints"}
"""Files of the folder on the left are also looked for in the one on the right: diffusion models among checkpoints."""

MODEL_FILE = re.compile(r"\.(safetensors|sft|ckpt|pt|pt2|pth|bin|pkl|gguf|onnx)$", re.IGNORECASE)
"""The endings of model files."""

# The kind of model by the input that names it; a few inputs mean another kind in one class.
_OF_INPUTS = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    **dict.fromkeys(("clip_name", "clip_name1", "clip_name2", "clip_name3", "clip_name4"), "text_encoders"),
    "vae_name": "vae",
    "lora_name": "loras",
    "control_net_name": "controlnet",
    "style_model_name": "style_models",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
    "photomaker_model_name": "photomaker",
    "audio_encoder_name": "audio_encoders",
}
_OF_INPUTS_OF_CLASSES = {
    ("CLIPVisionLoader", "clip_name"): "clip_vision",
    ("UpscaleModelLoader", "model_name"): "upscale_models",
    ("ModelPatchLoader", "name"): "model_patches",
}


def folder_of_input(class_type: str, name: str) -> str:
    """The kind of model that an input of a node class names, "" if that is not known."""
    return _OF_INPUTS_OF_CLASSES.get((class_type, name)) or _OF_INPUTS.get(name, "")


@cache
def folder_names() -> Mapping[str, tuple[str, ...]]:
    """ComfyUI's name of each kind of model to the folders below a root that hold such models."""
    first: dict[str, str] = next(iter(yaml.safe_load(_MODEL_PATHS_FILE.read_text(encoding="utf-8")).values()))
    return {kind: tuple(str(names).split()) for kind, names in first.items() if kind != "base_path"}


def is_below(*paths: str) -> bool:
    """Whether these texts, which callers name, are paths that stay below a folder of models."""
    parts = [PurePosixPath(path.replace("\\", "/")) for path in paths]
    return all(path.parts and not path.is_absolute() and ".." not in path.parts for path in parts) and not any(
        "\0" in path for path in paths
    )


def kind_of(folder: str) -> str:
    """ComfyUI's name for the kind of model that a folder holds: `diffusion_models` for `unet`."""
    top = next(iter(PurePosixPath(folder).parts), "")
    return next((kind for kind, names in folder_names().items() if top == kind or top in names), top)


def folders_for(folder: str) -> tuple[str, ...]:
    """The folders that a file for `folder` (`clip`, `text_encoders`, `clip_vision/name`) may be in, that one first."""
    top, *rest = PurePosixPath(folder).parts or ("",)
    same = folder_names().get(kind_of(folder), ())
    also = [ALSO_IN[name] for name in same if name in ALSO_IN]
    return tuple("/".join((name, *rest)) for name in dict.fromkeys((top, *same, *also)))
