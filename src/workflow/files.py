"""The workflow with the files of a job where it names them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .graph import Graph, Workflow, editable
from .slots import text_inputs

_FROM_INPUT = " [input]"  # ComfyUI's own mark for "in the input folder"
_WANTS_WHOLE_PATH = re.compile(r"^VHS_.*Path$")  # Video Helper Suite's nodes that open a path as it stands


@dataclass(frozen=True)
class PlacedFile:
    """Where a job's file lies: `relative` to ComfyUI's input folder, and `whole`."""

    relative: str
    whole: str


def place_files(workflow: Workflow, files: Mapping[str, PlacedFile]) -> tuple[dict[str, Any], set[str]]:
    """A copy in which every input that is the name of a file has its place, and the names that some input has.

    Any text of any node counts, also one inside an object, but for prompts and `filename_prefix`.
    """
    graph, placed = Graph(workflow), editable(workflow)
    used: set[str] = set()
    for node_id in graph:
        others = text_inputs(graph, node_id) if "clip" in graph.inputs(node_id) else ()
        is_whole = bool(_WANTS_WHOLE_PATH.search(graph.class_of(node_id)))
        for name, value in graph.inputs(node_id).items():
            if name != "filename_prefix" and name not in others:
                placed[node_id]["inputs"][name] = _placed(value, files, is_whole, used)
    return placed, used


def _placed(value: Any, files: Mapping[str, PlacedFile], is_whole: bool, used: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _placed(part, files, is_whole, used) for key, part in value.items()}
    name = value.removesuffix(_FROM_INPUT) if isinstance(value, str) else ""
    if name not in files:
        return value
    used.add(name)
    return files[name].whole if is_whole else files[name].relative
