"""The workflow with the files of a job where it names them."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .graph import Graph, Workflow
from .targets import text_inputs

_FROM_INPUT = " [input]"  # ComfyUI's own mark for "in the input folder"
_WANTS_WHOLE_PATH = re.compile(r"^VHS_.*Path$")  # Video Helper Suite's nodes that open a path as it stands


@dataclass(frozen=True)
class PlacedFile:
    """Where a job's file lies: `relative` to ComfyUI's input folder, and `whole`."""

    relative: str
    whole: str


def place_files(workflow: Workflow, files: Mapping[str, PlacedFile]) -> tuple[dict[str, Any], set[str]]:
    """A copy in which every input that is the name of a file has its place, and the names that some input has.

    Any text of any node counts, but for prompts.
    """
    graph, placed, used = Graph(workflow), copy.deepcopy(dict(workflow)), set()
    for node_id in graph:
        texts = text_inputs(graph, node_id) if "clip" in graph.inputs(node_id) else ()
        for name, value in graph.inputs(node_id).items():
            file = files.get(value.removesuffix(_FROM_INPUT)) if isinstance(value, str) and name not in texts else None
            if file is not None:
                used.add(value.removesuffix(_FROM_INPUT))
                is_whole = _WANTS_WHOLE_PATH.search(graph.class_of(node_id))
                placed[node_id]["inputs"][name] = file.whole if is_whole else file.relative
    return placed, used
