"""The node classes of ComfyUI itself, for where no ComfyUI is there to ask.

`core_classes.json` is an excerpt of what a real ComfyUI answers to /object_info: names, types, limits and options,
without descriptions and without the classes of node packs. To renew it: `python -m maintenance.core_classes URL`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .schemas import DYNAMIC_COMBO, NodeSchema, read_schema

FILE = Path(__file__).with_name("core_classes.json")
_KEPT_PARAMETERS = (
    *("default", "min", "max", "step", "options", "multiline", "forceInput", "socketless", "widgetType", "lazy"),
    *(
        "image_upload",
        "video_upload",
        "audio_upload",
        "animated_image_upload",
        "file_upload",
        "upload",
        "image_folder",
    ),
    *("remote", "control_after_generate", "dynamicPrompts", "multi_select", "template"),
)


@cache
def core_object_info() -> dict[str, dict[str, Any]]:
    """The stored entry of each class, in the shape of /object_info."""
    classes: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return classes


@cache
def core_schemas() -> Mapping[str, NodeSchema]:
    """The schema of each class, by its name."""
    return {name: read_schema(entry) for name, entry in core_object_info().items()}


def excerpt(object_info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is stored of the answer of a real /object_info."""
    return {
        name: {
            "input": _sections(entry["input"]),
            **{
                part: entry[part] for part in ("output", "output_name", "output_node", "display_name", "python_module")
            },
            **({"api_node": True} if entry.get("api_node") else {}),
        }
        for name, entry in sorted(object_info.items())
        if not entry["python_module"].startswith("custom_nodes")
    }


def _sections(sections: Mapping[str, Any]) -> dict[str, Any]:
    return {
        section: {name: _config(config) for name, config in inputs.items()}
        for section, inputs in sections.items()
        if section in ("required", "optional")
    }


def _config(config: list[Any]) -> list[Any]:
    given = config[1] if len(config) > 1 else {}
    kept = {name: given[name] for name in _KEPT_PARAMETERS if name in given}
    if config[0] == DYNAMIC_COMBO:
        kept["options"] = [
            {"key": option["key"], "inputs": _sections(option["inputs"])} for option in kept.get("options", ())
        ]
    if "input" in kept.get("template", ()):
        kept["template"] = {**kept["template"], "input": _sections(kept["template"]["input"])}
    return [config[0], kept] if kept else [config[0]]
