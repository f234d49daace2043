"""Nodes, links and chains of links in ComfyUI's API format.

A workflow is `{node id: {"class_type": str, "inputs": {name: value}, "_meta": {"title": str}}}`. A value that
is a list of two, `[node id, output slot]`, is a link; every other value is the value of the input itself.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

Found = TypeVar("Found")
AnyGraph = TypeVar("AnyGraph", bound="Graph")

_MAX_LISTED_NODES = 20

Workflow = Mapping[str, Any]
"""A workflow in API format. The functions of this package never edit one."""


def editable_copy(workflow: Workflow) -> dict[str, Any]:
    """A copy whose inputs can be set. The values are shared with the original: replace them, never edit them."""
    return {node_id: {**node, "inputs": {**node["inputs"]}} for node_id, node in workflow.items()}


class Link(NamedTuple):
    """The output of a node from which an input gets its value."""

    node_id: str
    slot: int


class Slot(NamedTuple):
    """An input of a node."""

    node_id: str
    name: str


def as_link(value: object) -> Link | None:
    """`value` as a link, or None if ComfyUI would not treat it as one."""
    if isinstance(value, list) and len(value) == 2:
        node_id, slot = value
        if isinstance(node_id, str) and type(slot) in (int, float):
            return Link(node_id, int(slot))
    return None


class Graph:
    """A checked workflow, with look-ups of nodes, inputs and links in both directions."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self._consumers: dict[str, list[tuple[str, str]]] = {}
        self._links: dict[str, dict[str, Link]] = {}
        self._memo: dict[Callable[..., Any], Any] = {}
        self.answers: defaultdict[Callable[..., Any], dict[Any, Any]] = defaultdict(dict)
        """The answers to questions that are asked again and again, by the function that finds them."""
        for node_id, node in workflow.items():
            links = self._links[node_id] = {}
            for name, value in node["inputs"].items():
                if isinstance(value, list) and (link := as_link(value)) is not None:
                    links[name] = link
                    self._consumers.setdefault(link.node_id, []).append((node_id, name))

    def __contains__(self, node_id: str) -> bool:
        return node_id in self.workflow

    def __iter__(self) -> Iterator[str]:
        return iter(self.workflow)

    def once(self: AnyGraph, search: Callable[[AnyGraph], Found]) -> Found:
        """What a search of the whole graph finds, which is made once."""
        if search not in self._memo:
            self._memo[search] = search(self)
        found: Found = self._memo[search]
        return found

    def class_of(self, node_id: str) -> str:
        """The node's `class_type`."""
        return str(self.workflow[node_id]["class_type"])

    def inputs(self, node_id: str) -> Mapping[str, Any]:
        """The node's inputs: name to value or link."""
        inputs: Mapping[str, Any] = self.workflow[node_id]["inputs"]
        return inputs

    def links(self, node_id: str) -> Collection[tuple[str, Link]]:
        """The node's linked inputs: (input name, link)."""
        return self._links[node_id].items()

    def link(self, node_id: str, name: str) -> Link | None:
        """The link of one input, or None if it holds a value or is absent."""
        return self._links[node_id].get(name)

    def feeds_others(self, node_id: str) -> bool:
        """Whether an input of any node is linked to this node."""
        return node_id in self._consumers

    def consumers(self, node_id: str) -> list[tuple[str, str]]:
        """The inputs that are linked to a node: (node id, input name)."""
        return self._consumers.get(node_id, [])

    def title(self, node_id: str) -> str:
        """The title that the user gave the node, or its class."""
        meta = self.workflow[node_id].get("_meta")
        title = meta.get("title") if isinstance(meta, Mapping) else None
        return title if isinstance(title, str) and title else self.class_of(node_id)

    def describe(self, node_id: str) -> str:
        """The node for a message: `6 (CLIPTextEncode "Positive prompt")`."""
        title, class_type = self.title(node_id), self.class_of(node_id)
        name = class_type if title == class_type else f'{class_type} "{title}"'
        shown = f"{node_id} ({name})"[:200]
        return shown if shown.isprintable() else "".join(c if c.isprintable() else "?" for c in shown)

    def describe_all(self, node_ids: Sequence[str]) -> str:
        """Nodes for a message, comma-separated."""
        shown = ", ".join(self.describe(node_id) for node_id in node_ids[:_MAX_LISTED_NODES])
        more = len(node_ids) - _MAX_LISTED_NODES
        return shown if more <= 0 else f"{shown} and {more} more"

    def candidates(self, node_ids: Sequence[str]) -> list[dict[str, str]]:
        """Nodes for a program to choose from, as they are listed in an error's details."""
        return [
            {"node_id": node_id[:200], "class_type": self.class_of(node_id)[:200], "title": self.title(node_id)[:200]}
            for node_id in node_ids[:_MAX_LISTED_NODES]
        ]


def dependencies_first(graph: Graph) -> list[str]:
    """The nodes, each after those that it depends on. Those of a circle are left out."""
    waiting = {node_id: len(graph.links(node_id)) for node_id in graph}
    ready = deque(node_id for node_id, count in waiting.items() if not count)
    order = []
    while ready:
        order.append(ready.popleft())
        for consumer, _ in graph.consumers(order[-1]):
            waiting[consumer] -= 1
            if not waiting[consumer]:
                ready.append(consumer)
    return order


def with_dependencies(graph: Graph, node_ids: Iterable[str]) -> list[str]:
    """The given nodes and all nodes that they depend on, in the order of the workflow; missing ones are not."""
    seen, queue = set(), list(node_ids)
    while queue:
        node_id = queue.pop()
        if node_id not in seen and node_id in graph:
            seen.add(node_id)
            queue.extend(link.node_id for _, link in graph.links(node_id))
    return [node_id for node_id in graph if node_id in seen]


def with_dependents(graph: Graph, node_ids: Iterable[str]) -> set[str]:
    """The given nodes and all nodes that depend on them."""
    seen, queue = set(), list(node_ids)
    while queue:
        node_id = queue.pop()
        if node_id not in seen:
            seen.add(node_id)
            queue.extend(consumer for consumer, _ in graph.consumers(node_id))
    return seen


def unique(node_ids: Iterable[str]) -> list[str]:
    """The node ids without duplicates, in their order."""
    return list(dict.fromkeys(node_ids))
