"""The node classes of the draft engine: inputs, types and limits, in the shape of ComfyUI's /object_info.

`schema.json` is an excerpt of what a real ComfyUI 0.33.0 answers (names, types, limits; no descriptions). A test
compares the two where a real ComfyUI is available. To regenerate it: `python -m maintenance.draft_schema URL`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("schema.json")
_KEPT_OPTIONS = (
    *("default", "min", "max", "step", "options", "multiline", "forceInput", "image_upload", "lazy"),
    *("control_after_generate", "dynamicPrompts"),
)

# Inputs whose values are names of model files. There are none here, so any name is valid.
MODEL_FILE_INPUTS = frozenset(
    {
        *("ckpt_name", "unet_name", "clip_name", "clip_name1", "clip_name2", "clip_name3", "vae_name", "lora_name"),
        *("control_net_name", "style_model_name", "model_name"),
    }
)


@cache
def object_info() -> dict[str, dict[str, Any]]:
    """Every node class, as /object_info returns it."""
    classes: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: {**_descriptions(name), **schema} for name, schema in classes.items()}


@cache
def served_object_info() -> dict[str, dict[str, Any]]:
    """What the server returns: inputs for model files are of type STRING there, because any name is valid."""
    return {name: {**schema, "input": _allow_any_model(schema["input"])} for name, schema in object_info().items()}


def _allow_any_model(sections: Mapping[str, Any]) -> dict[str, Any]:
    return {
        section: {name: ["STRING", {}] if name in MODEL_FILE_INPUTS else config for name, config in inputs.items()}
        for section, inputs in sections.items()
    }


def declared_inputs(class_type: str) -> dict[str, tuple[Any, dict[str, Any], bool]]:
    """(type or list of options, limits, whether it is required) of each input, by name."""
    sections = object_info()[class_type]["input"]
    return {
        name: (config[0], config[1] if len(config) > 1 else {}, section == "required")
        for section in ("required", "optional")
        for name, config in sections.get(section, {}).items()
    }


def excerpt(answer: Mapping[str, Any], class_types: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The given classes from the answer of a real /object_info, without its descriptions."""
    return {
        name: {
            "input": {
                section: {key: _strip_options(config) for key, config in inputs.items()}
                for section, inputs in answer[name]["input"].items()
                if section != "hidden"
            },
            "output": answer[name]["output"],
            "output_node": answer[name]["output_node"],
        }
        for name in class_types
    }


def _strip_options(config: list[Any]) -> list[Any]:
    options = {key: value for key, value in (config[1] if len(config) > 1 else {}).items() if key in _KEPT_OPTIONS}
    return [config[0], options] if options else [config[0]]


def _descriptions(name: str) -> dict[str, Any]:
    return {"name": name, "display_name": name, "description": "", "python_module": "nodes", "category": "draft"}
