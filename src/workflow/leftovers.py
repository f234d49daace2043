"""What other tools and old exports leave in a file of the API format, and ComfyUI's own API would not have there.

Nodes that only the editor knows: they have no class in ComfyUI, which refuses the whole prompt for one of them. And
what a former run wrote beside a node's inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InvalidWorkflow
from .graph import Graph, as_link

_NOTES = frozenset({"Note", "MarkdownNote"})
_REROUTE, _PRIMITIVE = "Reroute", "PrimitiveNode"
_EDITOR_CLASSES = frozenset({*_NOTES, _REROUTE, _PRIMITIVE})
_CONTROLS = frozenset({"control_after_generate", "control_filter_list"})  # what the editor does next
_NODE_KEYS = frozenset({"class_type", "inputs", "_meta"})
# ComfyUI writes this into a prompt that it runs, and so into its pictures. Where it is there, it does not look again
# whether a node's file has changed.
_OF_FORMER_RUN = "is_changed"
_NOTHING = object()
_MAX_TOLD = 20


def without_leftovers(workflow: object) -> tuple[object, list[str]]:
    """The workflow without them, and warnings; what is no workflow is left for `check_workflow` to refuse.

    What is no node is left out: `_metadata`, `version`, and the like. A note is left out. What is linked to a reroute
    is linked to what that leads to instead; what is linked to a primitive gets its value. An input that is linked to
    nothing in this way is lost. Raises InvalidWorkflow for a reroute or a primitive of which nobody can say what it
    gives.
    """
    if not isinstance(workflow, dict):
        return workflow, []
    nodes = {node_id: _as_exported(node) for node_id, node in workflow.items() if not _is_no_node(node)}
    if not nodes:
        return workflow, []
    others = [str(name)[:80] for name in workflow if name not in nodes]
    shown = ", ".join(map(repr, others[:_MAX_TOLD]))
    told = [f"left out of the workflow, as they are not nodes: {shown}"] if others else []
    editors = {node_id: node for node_id, node in nodes.items() if _class_of(node) in _EDITOR_CLASSES}
    if not editors:
        return nodes, told
    given = _ends({node_id: _given_by(node_id, node) for node_id, node in editors.items()})
    kept, lost = {}, list[str]()
    for node_id, node in nodes.items():
        if node_id not in editors:
            kept[node_id] = _relinked(node_id, node, given, lost)
    return kept, [*told, *_told(editors), *lost[:_MAX_TOLD]]


def _is_no_node(value: object) -> bool:
    """Whether a value beside nodes is something else: one that has neither a class nor inputs."""
    return not isinstance(value, dict) or not {"class_type", "inputs"} & value.keys()


def _class_of(node: object) -> str:
    class_type = node.get("class_type") if isinstance(node, dict) else None
    return class_type if isinstance(class_type, str) else ""


# --- What a former run wrote ---------------------------------------------------------------------------


def _as_exported(node: Any) -> Any:
    """A node without what ComfyUI's export has not: a former run's `is_changed`, and numbers that JSON has not."""
    if not isinstance(node, dict) or node.keys() <= _NODE_KEYS:
        return node
    return {
        key: value
        for key, value in node.items()
        if key in _NODE_KEYS or (key != _OF_FORMER_RUN and not _has_odd_number(value))
    }


def _has_odd_number(value: object) -> bool:
    """Whether NaN or an infinity is in it, however deep."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return True
        if isinstance(item, (dict, list)):
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return False


# --- What only the editor knows ------------------------------------------------------------------------


def _given_by(node_id: str, node: Mapping[str, Any]) -> object:
    """What is linked to this node gets: a value or a link."""
    inputs = node.get("inputs")
    if _class_of(node) in _NOTES or not isinstance(inputs, dict):
        return _NOTHING
    if _class_of(node) == _REROUTE:
        candidates = {name: value for name, value in inputs.items() if as_link(value)}
    elif "value" in inputs:
        return inputs["value"]
    else:
        candidates = {name: value for name, value in inputs.items() if name not in _CONTROLS}
    if len(candidates) > 1:
        named = ", ".join(repr(name[:80]) for name in list(candidates)[:_MAX_TOLD])
        raise InvalidWorkflow(
            f"node {_describe({node_id: node})} is editor-only and passes its one input on, but it has {named}: "
            "remove all but one, or the node"
        )
    return next(iter(candidates.values()), _NOTHING)


def _ends(given: Mapping[str, object]) -> dict[str, object]:
    """The same, with chains followed to their end; a circle has none."""
    ends: dict[str, object] = {}
    for start in given:
        chain, node_id, end = list[str](), start, given[start]
        while node_id in given and node_id not in ends:
            ends[node_id] = _NOTHING  # for one that comes back here
            chain.append(node_id)
            end = given[node_id]
            link = as_link(end)
            if link is None:
                break
            node_id = link.node_id
        else:
            end = ends.get(node_id, end)
        ends.update(dict.fromkeys(chain, end))
    return ends


def _relinked(node_id: str, node: Any, given: Mapping[str, object], lost: list[str]) -> Any:
    """The node with its links to the editor's own nodes replaced; `lost` is told of those that lead to nothing."""
    inputs = node.get("inputs") if isinstance(node, dict) else None
    if not isinstance(inputs, dict):
        return node
    relinked = {}
    for name, value in inputs.items():
        link = as_link(value)
        new = given.get(link.node_id, value) if link else value
        if new is not _NOTHING:
            relinked[name] = new
        elif len(lost) < _MAX_TOLD:
            where = f"node {_describe({node_id: node})}: its input {str(name)[:80]!r}"
            lost.append(f"{where} was left out: its link has no source")
    return {**node, "inputs": relinked}


def _told(editors: Mapping[str, Any]) -> list[str]:
    """A warning for each kind of the editor's own nodes."""
    kinds = {
        "notes, and were left out": _NOTES,
        "reroutes: what was linked to them was linked to what they lead to": {_REROUTE},
        "primitives: their values were put where they were linked to": {_PRIMITIVE},
    }
    found = {
        done: {node_id: node for node_id, node in editors.items() if _class_of(node) in classes}
        for done, classes in kinds.items()
    }
    return [f"{_describe(nodes)}: the editor's own {done}" for done, nodes in found.items() if nodes]


def _describe(nodes: Mapping[str, Any]) -> str:
    """Nodes that may not be checked yet, for a message."""
    shown: Iterable[tuple[str, Any]] = nodes.items()
    graph = Graph({i: {"class_type": _class_of(n), "inputs": {}, "_meta": n.get("_meta")} for i, n in shown})
    return graph.describe_all(list(graph))
