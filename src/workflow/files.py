"""Replaces the names of a job's files in a workflow by the paths at which they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .graph import Graph, Workflow, editable_copy

_FROM_INPUT = " [input]"  # ComfyUI's own suffix for a file in its input folder
_PROMPT = re.compile("text|prompt|tags|lyrics|caption|^clip_[lgh]$|t5xxl|llama|bert|mt5xl")  # of a text encoder
_TAKES_ABSOLUTE_PATH = re.compile(r"^VHS_.*Path$")  # nodes of Video Helper Suite that open any path


@dataclass(frozen=True)
class PlacedFile:
    """The path of a job's file: `relative` to ComfyUI's input folder, and `absolute`."""

    relative: str
    absolute: str


def place_files(workflow: Workflow, files: Mapping[str, PlacedFile]) -> tuple[dict[str, Any], set[str]]:
    """A copy in which every input that is the name of a file is its path instead, and the names that were found.

    This looks at every text of every node, also inside objects, except prompts and `filename_prefix`.
    """
    graph, placed = Graph(workflow), editable_copy(workflow)
    used: set[str] = set()
    for node_id in graph:
        is_absolute = bool(_TAKES_ABSOLUTE_PATH.search(graph.class_of(node_id)))
        for name, value in graph.inputs(node_id).items():
            if may_name_file(graph.inputs(node_id), name):
                placed[node_id]["inputs"][name] = _replace_names(value, files, is_absolute, used)
    return placed, used


def may_name_file(inputs: Mapping[str, Any], name: str) -> bool:
    """Whether an input of a node with these inputs may be the name of a file: prompts and prefixes are not."""
    return name != "filename_prefix" and not ("clip" in inputs and _PROMPT.search(name))


def _replace_names(value: Any, files: Mapping[str, PlacedFile], is_absolute: bool, used: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _replace_names(part, files, is_absolute, used) for key, part in value.items()}
    name = value.removesuffix(_FROM_INPUT) if isinstance(value, str) else ""
    if name not in files:
        return value
    used.add(name)
    return files[name].absolute if is_absolute else files[name].relative
