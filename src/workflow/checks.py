"""Can ComfyUI run this workflow without harm?

ComfyUI validates only what its output nodes depend on. Some errors elsewhere end its only worker thread while its
HTTP server keeps answering. All of those are refused here: a node without `inputs`, a link to a missing node in an
input that the class does not declare, a cycle, a chain of nodes deeper than its recursion limit.

Two of them may be none, which only the classes' schemas tell (see `pruning`): a link to a missing node, if no output
needs its node, and a list of two numbers that looks like a link. `needs_schemas` is true where there is such a one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NoReturn

from ..errors import GuiFormatWorkflow, InvalidWorkflow
from .graph import Graph, Workflow, as_link

MAX_CHARACTERS = 20_000_000  # RunPod takes no request over 20 MB
MAX_DEPTH = 100  # of lists and objects inside one another; json's own recursion ends near 1,000
MAX_CHAIN = 900  # nodes in a chain: on ComfyUI 0.3.64 900 were seen to run, and 985 to exceed its recursion limit

_CHARACTERS_PER_VALUE = 4  # roughly a small number and its comma in JSON
_INT_RANGE = range(-(2**63), 2**64)
_SURROGATE = re.compile("[\ud800-\udfff]")

_FILENAME_PREFIX = "filename_prefix"
# Names of inputs that may take a file name in node packs. Linked images and audio are not strings, so not checked.
_FILE_INPUT = re.compile(r"image|audio|video|file|path|dir|folder|mask|model|mesh|latent", re.IGNORECASE)
# Names of inputs that take text, by their last word: `image_prompt` does, `prompt_file` does not.
_TEXT_INPUT = re.compile(
    r"(^|_)(prompt|text|positive|negative|description|caption|regex|pattern|delimiter|separator|type|format|mode|method)$",
    re.IGNORECASE,
)
_EDITOR_ONLY_INPUTS = frozenset({"audioUI", "videopreview", "video-preview", "upload", "choose file to upload"})
_URL = re.compile(r"https?://|data:", re.IGNORECASE)
# FFmpeg protocols and Windows drives: with these a loader would open a file elsewhere.
_OUTSIDE_PATH = re.compile(
    r"(file|concatf?|subfile|pipe|crypto|cache|async|fd|unix|hls|tee|smb)[:,+]|[a-z]:[\\/]", re.IGNORECASE
)
_MAX_NAME_LENGTH = 1000  # of an input; names are kept in memory
_MAX_NAMES = 10_000  # of inputs, of which is kept what they take
_MAX_PATH_LENGTH = 4096  # characters; PATH_MAX of Linux
EXPORT_HINT = (
    "In ComfyUI choose Workflow > Export (API) and send that file "
    '(older versions: enable Dev mode in the settings, then "Save (API Format)")'
)


def check_workflow(value: object) -> Workflow:
    """Return `value` if it is a valid workflow. Raises InvalidWorkflow, naming the node and what would be valid."""
    nodes = check_nodes(value)
    check_graph(nodes)
    return nodes


def check_nodes(value: object) -> Workflow:
    """Return `value` if each of its nodes has the form of one. Raises InvalidWorkflow."""
    nodes = _as_nodes(value)
    characters = 0
    for node_id, node in nodes.items():
        if not isinstance(node_id, str):
            raise InvalidWorkflow(f"workflow: node ids must be strings, not {str(node_id)[:80]}")
        _check_scalar(node_id, "workflow: a node id")
        where = f"workflow node {node_id[:80]!r}"
        characters = _check_json(node, where, characters)
        _check_node(where, node)
    return nodes


def check_graph(workflow: Workflow) -> None:
    """Raise InvalidWorkflow for links and file names of checked nodes that are harmful."""
    graph = Graph(workflow)
    _check_links(graph)
    _check_order(graph)
    _check_inputs(graph)


def _as_nodes(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidWorkflow(
            f"workflow must be an object in ComfyUI's API format, {{node id: node}}, not {_json_type(value)}. "
            f"{EXPORT_HINT}"
        )
    if not value:
        raise InvalidWorkflow(f"workflow has no nodes. {EXPORT_HINT}")
    if isinstance(value.get("nodes"), list):
        raise GuiFormatWorkflow(
            f"workflow is in the editor's save format, which cannot be converted here. {EXPORT_HINT}"
        )
    if isinstance(value.get("prompt"), dict) and "class_type" not in value["prompt"]:
        raise InvalidWorkflow(
            "workflow is the body of a request to ComfyUI's /prompt; send what is inside its 'prompt'"
        )
    return value


def _check_node(where: str, node: object) -> None:
    if not isinstance(node, dict):
        raise InvalidWorkflow(
            f"{where} must be an object with class_type and inputs, not {_json_type(node)}. {EXPORT_HINT}"
        )
    if not isinstance(node.get("class_type"), str) or not node["class_type"]:
        raise InvalidWorkflow(f"{where} has no class_type (the name of its node class). {EXPORT_HINT}")
    if not isinstance(node.get("inputs"), dict):
        raise InvalidWorkflow(
            f"{where} ({node['class_type'][:80]}) has no inputs; a node without inputs needs an empty object"
        )


def _json_type(value: object) -> str:
    """The JSON type of a value, for an error message."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


# --- Values -------------------------------------------------------------------------------------------


def check_json(value: object, where: str) -> None:
    """Raise InvalidWorkflow for a value that JSON cannot represent, that is nested too deeply or that is too large."""
    _check_json(value, where, 0)


def _check_json(value: object, where: str, characters: int) -> int:
    """Refuse what JSON cannot represent, without recursion because the value may be nested 10,000 levels deep.

    `characters` is the size of the values checked before this one; the return value includes this one.
    """
    waiting: list[tuple[Iterable[object], int]] = [((value,), 0)]
    while waiting:
        items, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise InvalidWorkflow(f"{where} is nested deeper than {MAX_DEPTH} levels")
        for item in items:
            if isinstance(item, str):
                characters += len(item)
                if not item.isascii():
                    _check_text(item, where)
                continue
            characters += _CHARACTERS_PER_VALUE
            if isinstance(item, dict):
                for key in item:
                    if not isinstance(key, str):
                        raise InvalidWorkflow(f"{where} contains the key {str(key)[:80]}, which is not a string")
                    characters += len(key)
                    if not key.isascii():
                        _check_text(key, where)
                waiting.append((item.values(), depth + 1))
            elif isinstance(item, list):
                waiting.append((item, depth + 1))
            else:
                _check_scalar(item, where)
        if characters > MAX_CHARACTERS:
            _too_large()
    return characters


def _check_text(text: str, where: str) -> None:
    if _SURROGATE.search(text):
        raise InvalidWorkflow(f"{where} contains a lone surrogate, which UTF-8 cannot encode")


def _check_scalar(value: object, where: str) -> None:
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidWorkflow(f"{where} contains {value}, which is not a JSON number")
    elif isinstance(value, int):
        if value not in _INT_RANGE:
            raise InvalidWorkflow(f"{where} contains an integer of more than 64 bits")
    elif value is not None:
        raise InvalidWorkflow(f"{where} contains a {type(value).__name__}, which is not a JSON value")


def _too_large() -> NoReturn:
    raise InvalidWorkflow(
        f"workflow is larger than {MAX_CHARACTERS // 10**6} MB, the most that RunPod takes in a request"
    )


# --- Links --------------------------------------------------------------------------------------------


def needs_schemas(workflow: Workflow) -> bool:
    """Whether checked nodes have a link to a missing node, or a list that looks like a link and is none."""
    return any(
        isinstance(value, list) and len(value) == 2 and _is_odd_link(value, workflow)
        for node in workflow.values()
        for value in node["inputs"].values()
    )


def _is_odd_link(value: list[Any], workflow: Workflow) -> bool:
    link = as_link(value)
    return str(value[0]) in workflow if link is None else link.node_id not in workflow


def _check_links(graph: Graph) -> None:
    for node_id in graph:
        for name, link in graph.links(node_id):
            if link.node_id not in graph:
                raise InvalidWorkflow(
                    f"node {graph.describe(node_id)}: its input {name!r} is linked to node {link.node_id[:80]!r}, "
                    "which the workflow does not have"
                )


def _check_order(graph: Graph) -> None:
    """Refuse cycles and chains that are too long: remove the nodes that depend on no other, level by level."""
    waiting = {node_id: len(graph.links(node_id)) for node_id in graph}
    level = [node_id for node_id, links in waiting.items() if not links]
    levels = removed = 0
    while level:
        levels, removed = levels + 1, removed + len(level)
        next_level = []
        for node_id in level:
            for consumer, _ in graph.consumers(node_id):
                waiting[consumer] -= 1
                if not waiting[consumer]:
                    next_level.append(consumer)
        level = next_level
    if removed < len(waiting):
        stuck = [graph.describe(node_id) for node_id, links in waiting.items() if links]
        raise InvalidWorkflow(f"workflow has a cycle, so these nodes cannot be ordered: {', '.join(stuck[:10])}")
    if levels > MAX_CHAIN:
        raise InvalidWorkflow(f"workflow has {levels} nodes in one chain; ComfyUI can follow at most {MAX_CHAIN}")


# --- Names and files ---------------------------------------------------------------------------------------


def _check_inputs(graph: Graph) -> None:
    """Refuse names that no input has, and file names that lead out of ComfyUI's input or output folder.

    ComfyUI 0.3.64 itself reads any path. This checks every text of a node whose class name contains "load", and of
    other nodes every text in an input that is named like a file, also inside lists and objects, which some nodes take.
    It skips inputs that are named like a text, and those that only the editor reads.
    """
    for node_id in graph:
        is_loader = "load" in graph.class_of(node_id).lower()
        for name, value in graph.inputs(node_id).items():
            problem = ""
            if len(name) > _MAX_NAME_LENGTH:
                problem = f"… is longer than {_MAX_NAME_LENGTH} characters, too long for the name of an input"
            elif isinstance(value, (str, dict, list)):
                problem = _problem_of_file_name(name, value, is_loader)
            if problem:
                raise InvalidWorkflow(f"node {graph.describe(node_id)}: {name[:80]}{problem}")


def _problem_of_file_name(name: str, value: object, is_loader: bool) -> str:
    """What is wrong with the value of an input, as the end of a sentence; "" if nothing is."""
    if isinstance(value, dict) and "__value__" in value and not isinstance(value["__value__"], list):
        # ComfyUI unwraps it, which would hide other values.
        return ': {"__value__": …} must contain a list; write other values directly'
    if as_link(value) is not None or name in _EDITOR_ONLY_INPUTS:
        return ""
    if name == _FILENAME_PREFIX and not isinstance(value, str):
        return " must be a string or a link"
    if name != _FILENAME_PREFIX and not _may_be_file(name, is_loader):
        return ""
    outside = next((text for text in _strings(value) if _leaves_folder(name, text)), None)
    return "" if outside is None else f" must be a name inside ComfyUI's own folder, not {outside[:80]!a}"


@lru_cache(_MAX_NAMES)
def _may_be_file(name: str, is_loader: bool) -> bool:
    """Whether an input of that name may take a file's name."""
    return not _TEXT_INPUT.search(name) and (is_loader or bool(_FILE_INPUT.search(name)))


def _strings(value: object) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _leaves_folder(name: str, value: str) -> bool:
    if len(value) > _MAX_PATH_LENGTH or _URL.match(value):  # base64, or a URL that a node pack downloads
        return False
    parts = value.replace("\\", "/").split("/")
    is_absolute = value.startswith("/") and name != _FILENAME_PREFIX  # a prefix is put below the job's folder
    return ".." in parts or "\0" in value or is_absolute or bool(_OUTSIDE_PATH.match(value))
