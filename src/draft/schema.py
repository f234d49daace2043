"""The node classes of the draft engine: inputs, types and limits, in the shape of ComfyUI's /object_info.

`schema.json` is an excerpt of what a real ComfyUI 0.33.0 answers (names, types, limits; no descriptions). A test
compares the two where a real ComfyUI is available. To regenerate it: `python -m maintenance.draft_schema URL`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..workflow.core_classes import core_object_info
from ..workflow.schemas import STAND_IN

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


_MAX_OUTPUTS = 64  # of a class that nobody knows
_SHOWS = re.compile(r"save|preview|show|display|combine|compare|viewer|output", re.IGNORECASE)


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


def stand_in(class_type: str) -> dict[str, Any]:
    """The entry of an unknown class: any inputs and outputs; its name says whether it is an output node."""
    return {
        **_descriptions(class_type),
        "python_module": STAND_IN,
        "input": {},
        "output": ["*"] * _MAX_OUTPUTS,
        "output_node": bool(_SHOWS.search(class_type)),
    }


def classes_of(prompt: Mapping[str, Any], any_class: bool) -> Mapping[str, dict[str, Any]]:
    """The classes for a prompt by name: all that are known and, with `any_class`, a stand-in for each other one."""
    names = (node.get("class_type") for node in prompt.values())
    unknown = {name for name in names if isinstance(name, str) and name not in all_classes()} if any_class else ()
    return {**all_classes(), **{name: stand_in(name) for name in unknown}} if unknown else all_classes()


@cache
def served_object_info() -> dict[str, dict[str, Any]]:
    """What the server returns: inputs for model files are of type STRING there, because any name is valid."""
    return {
        name: {**schema, "input": _allow_any_model(schema["input"]), "output_name": schema["output"]}
        for name, schema in all_classes().items()
    }


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


def declared_inputs(
    node: Mapping[str, Any], classes: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Any, dict[str, Any], bool]]:
    """(type or list of options, limits, whether it is required) of each input of a node, by name.

    Of classes that have only a stand-in, all inputs that the node has: those inside of dynamic ones, too.
    """
    class_type = node["class_type"]
    sections = classes[class_type]["input"]
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
