"""Gives the outputs of a workflow a folder of their own.

ComfyUI caches the results of nodes: for an identical prompt its history names the files of the previous run, which
are deleted by then. A `filename_prefix` that differs for each job makes the saving nodes run again (and no others),
and keeps the files of different jobs apart. Nodes that have a folder of their own, to which the prefix is a bare name,
keep it and are made to run again by another way.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .graph import Workflow, editable_copy

_FILENAME_PREFIX = "filename_prefix"
_MARKER_INPUT = "serverless_worker_mark"  # an input that no class declares
_FOLDER_INPUT = re.compile(r"folder|path|(^|_)dir(ectory)?($|_)", re.IGNORECASE)
_JOIN_NODE = "StringConcatenate"  # in ComfyUI since 0.3.30


def isolate_outputs(workflow: Workflow, folder: str, bare: Collection[str] = ()) -> dict[str, Any]:
    """A copy in which every `filename_prefix` lies in `folder` (a relative name) below the output folder.

    Nodes with an input for a folder, and the nodes `bare`, keep theirs and run again all the same.
    """
    keep = {node_id for node_id, node in workflow.items() if node_id in bare or _has_folder(node["inputs"])}
    isolated = rerun_nodes(workflow, keep)
    for node_id, node in workflow.items():
        prefix = None if node_id in keep else node["inputs"].get(_FILENAME_PREFIX)
        if isinstance(prefix, str):
            isolated[node_id]["inputs"][_FILENAME_PREFIX] = f"{folder}/{prefix}"
        elif isinstance(prefix, list):  # computed by another node: put the folder in front of its result
            join = f"{node_id}.{folder}"
            isolated[join] = _join(folder, prefix)
            isolated[node_id]["inputs"][_FILENAME_PREFIX] = [join, 0]
    return isolated


def _has_folder(inputs: Mapping[str, Any]) -> bool:
    names = [name for name, value in inputs.items() if isinstance(value, (str, list)) and name != _FILENAME_PREFIX]
    return _FILENAME_PREFIX in inputs and any(map(_FOLDER_INPUT.search, names))


def _join(folder: str, link: list[Any]) -> dict[str, Any]:
    return {"class_type": _JOIN_NODE, "inputs": {"string_a": folder, "string_b": link, "delimiter": "/"}}


def rerun_nodes(workflow: Workflow, node_ids: Iterable[str]) -> dict[str, Any]:
    """A copy in which the given nodes run again although their inputs have not changed.

    ComfyUI's cache key includes every input of a node, also those that its class does not declare and that are not
    passed to it.
    """
    changed = editable_copy(workflow)
    for node_id in node_ids:
        if node_id in changed:
            changed[node_id]["inputs"][_MARKER_INPUT] = uuid.uuid4().hex
    return changed
