"""The workflow with a folder of its own for its outputs.

ComfyUI caches its nodes: an identical prompt names the files of the run before, which are gone by then. A prefix
that differs for each job runs the saving nodes again (and nothing else), and keeps jobs apart.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from .graph import Workflow, editable

_PREFIX = "filename_prefix"
_MARK = "serverless_worker_mark"  # a name that no class declares
_JOIN_NODE = "StringConcatenate"  # in ComfyUI since 0.3.30


def isolate_outputs(workflow: Workflow, folder: str) -> dict[str, Any]:
    """A copy in which every `filename_prefix` lies in `folder` (a relative name) below the output folder."""
    isolated = editable(workflow)
    for node_id, node in workflow.items():
        prefix = node["inputs"].get(_PREFIX)
        if isinstance(prefix, str):
            isolated[node_id]["inputs"][_PREFIX] = f"{folder}/{prefix}"
        elif isinstance(prefix, list):  # computed by another node: join the folder to what that gives
            join = f"{node_id}.{folder}"
            isolated[join] = _join(folder, prefix)
            isolated[node_id]["inputs"][_PREFIX] = [join, 0]
    return isolated


def _join(folder: str, link: list[Any]) -> dict[str, Any]:
    return {"class_type": _JOIN_NODE, "inputs": {"string_a": folder, "string_b": link, "delimiter": "/"}}


def renew_nodes(workflow: Workflow, node_ids: Iterable[str]) -> dict[str, Any]:
    """A copy in which the given nodes run again although nothing that they use has changed.

    ComfyUI's cache key counts every input that a node carries, also those its class does not declare, which are
    not handed to it.
    """
    renewed = editable(workflow)
    for node_id in node_ids:
        if node_id in renewed:
            renewed[node_id]["inputs"][_MARK] = uuid.uuid4().hex
    return renewed
