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

from ..workflow.core_classes import core_object_info

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
def all_classes() -> dict[str, dict[str, Any]]:
    """Those classes, and all others of ComfyUI, for which stand-ins are drawn."""
    others = {name: {**_descriptions(name), **entry} for name, entry in core_object_info().items()}
    return {**others, **object_info()}


@cache
def served_object_info() -> dict[str, dict[str, Any]]:
    """What the server returns: inputs for model files are of type STRING there, because any name is valid."""
    return {name: {**schema, "input": _allow_any_model(schema["input"])} for name, schema in all_classes().items()}


def _allow_any_model(sections: Mapping[str, Any]) -> dict[str, Any]:
    return {
        section: {name: ["STRING", {}] if _names_model(name, config) else config for name, config in inputs.items()}
        for section, inputs in sections.items()
    }


def _names_model(name: str, config: list[Any]) -> bool:
    """Whether an input takes the name of a model file: its list is empty here, and it is none of input files."""
    options = config[1] if len(config) > 1 and isinstance(config[1], dict) else {}
    listed = config[0] if isinstance(config[0], list) else options.get("options") if config[0] == "COMBO" else None
    return name in MODEL_FILE_INPUTS or (listed == [] and not any("upload" in option for option in options))


def declared_inputs(node: Mapping[str, Any]) -> dict[str, tuple[Any, dict[str, Any], bool]]:
    """(type or list of options, limits, whether it is required) of each input of a node, by name.

    Of classes that have only a stand-in, all inputs that the node has: those inside of dynamic ones, too.
    """
    class_type = node["class_type"]
    sections = all_classes()[class_type]["input"]
    declared = {
        name: (config[0], config[1] if len(config) > 1 else {}, section == "required")
        for section in ("required", "optional")
        for name, config in sections.get(section, {}).items()
    }
    if class_type in object_info():
        return declared
    inner: dict[str, tuple[Any, dict[str, Any], bool]] = {
        name: ("*", {}, False) for name in node.get("inputs", {}) if name not in declared
    }
    is_dynamic = {name for name, (kind, _, _) in declared.items() if str(kind).startswith("COMFY_")}
    kept = {
        name: (kind, limits, is_required and name not in is_dynamic and "default" not in limits)
        for name, (kind, limits, is_required) in declared.items()
    }
    return {**kept, **inner}


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
