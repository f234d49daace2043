"""Files that stand in a workflow itself: where ComfyUI's loaders have a file's name, a URL, a data URI or base64."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from ..inputs.input_file import InputFile
from ..workflow.core_classes import core_schemas
from ..workflow.graph import Graph, Workflow, editable_copy
from ..workflow.schemas import InputSchema

_URL = re.compile(r"(https?|s3)://", re.IGNORECASE)
_DATA = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]{260,}={0,2}")  # longer than a file's name may be
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,8}")


def with_files_apart(workflow: Workflow) -> tuple[Workflow, list[InputFile]]:
    """The workflow with names of files in their place, and these files.

    Only inputs of ComfyUI's own classes that name a file in its input folder are looked at: loaders of node packs
    fetch URLs themselves.
    """
    found = {
        (node_id, name): (value, expected)
        for node_id, node in workflow.items()
        for name, value in node["inputs"].items()
        if isinstance(value, str) and _is_content(value) and (expected := _file_input(node["class_type"], name))
    }
    if not found:
        return workflow, []
    graph, changed, files = Graph(workflow), editable_copy(workflow), dict[str, InputFile]()
    for (node_id, name), (value, expected) in found.items():
        where = f"node {graph.describe(node_id)}: {name[:80]}"
        file = InputFile(_name(value), value, where, bool(expected.parameters.get("image_upload")))
        files.setdefault(file.name, file)
        changed[node_id]["inputs"][name] = file.name
    return changed, list(files.values())


def _is_content(value: str) -> bool:
    return bool(_URL.match(value) or _DATA.match(value) or _BASE64.fullmatch(value))


def _file_input(class_type: str, name: str) -> InputSchema | None:
    """The schema of an input that names a file; None for any other."""
    schema = core_schemas().get(class_type)
    expected = schema.inputs.get(name) if schema is not None else None
    return expected if expected is not None and expected.is_file else None


def _name(value: str) -> str:
    """A name by the content, with the ending of a URL's file, by which some loaders choose."""
    ending = PurePosixPath(unquote(urlsplit(value).path)).suffix if _URL.match(value) else ""
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"inline-{digest}{ending if _ENDING.fullmatch(ending) else ''}"
