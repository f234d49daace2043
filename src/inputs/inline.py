"""Files that stand in a workflow itself: where ComfyUI's loaders have a file's name, a URL, a data URI or base64."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from ..workflow.core_classes import core_schemas
from ..workflow.graph import Graph, Workflow, editable_copy
from ..workflow.schemas import InputSchema
from ..workflow.typed import TypedGraph
from .input_file import InputFile

_URL = re.compile(r"(https?|s3)://", re.IGNORECASE)
_DATA = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{40,}[=\s]*")
_LONGEST_NAME = 255  # of a file
# How base64 of a picture, a video or sound begins: PNG, JPEG, GIF, RIFF (WebP, WAV), Ogg, FLAC, Matroska, ID3, MP4.
_BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "T2dnUw", "ZkxhQw", "GkXfo", "SUQz", "AAAA")
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
        file = InputFile(_name(value), _plain(value), where, bool(expected.parameters.get("image_upload")))
        files.setdefault(file.name, file)
        changed[node_id]["inputs"][name] = file.name
    return changed, list(files.values())


def is_named(workflow: Workflow, name: str) -> bool:
    """Whether a node that may be needed has the file; nodes of classes that are not ComfyUI's own may be outputs."""
    graph = TypedGraph(workflow, core_schemas())
    return any(value == name for node_id in graph.live for value in graph.inputs(node_id).values())


def _is_content(value: str) -> bool:
    if _URL.match(value) or _DATA.match(value):
        return True
    is_told = len(value) > _LONGEST_NAME or value.lstrip().startswith(_BEGINNINGS)
    return is_told and _BASE64.fullmatch(value) is not None


def _file_input(class_type: str, name: str) -> InputSchema | None:
    """The schema of an input that names a file; None for any other."""
    schema = core_schemas().get(class_type)
    expected = schema.inputs.get(name) if schema is not None else None
    return expected if expected is not None and expected.is_file else None


def _plain(value: str) -> str:
    """A URL or a data URI as it is; base64 in its usual alphabet, without line breaks."""
    if _URL.match(value) or _DATA.match(value):
        return value
    return "".join(value.split()).replace("-", "+").replace("_", "/")


def _name(value: str) -> str:
    """A name by the content, with the ending of a URL's file, by which some loaders choose."""
    try:
        ending = PurePosixPath(unquote(urlsplit(value).path)).suffix if _URL.match(value) else ""
    except ValueError:  # no URL, which is told when it is fetched
        ending = ""
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"inline-{digest}{ending if _ENDING.fullmatch(ending) else ''}"
