"""From a sampler upstream along its conditioning, the positive or the negative one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ..workflow.graph import Link, unique
from ..workflow.typed import TypedGraph
from .roles import handed_on, is_bundle, links_of, upstream
from .slots import is_conditioning, is_negative


def conditioning_ends(graph: TypedGraph, makers: Sequence[str], role: str, is_end: Callable[[str], bool]) -> list[str]:
    """Where the walk from samplers upstream along conditioning of a role, `positive` or `negative`, ends."""
    guided = [link for maker in makers for link in links_of(graph, maker, "GUIDER")]
    guiders = upstream(graph, guided, "GUIDER", lambda n: not links_of(graph, n, "GUIDER"))
    starts = list[Link]()
    for node_id in (*makers, *guiders):
        links = list(graph.typed_links(node_id))
        given = [(name, link) for name, kind, link in links if is_conditioning(kind)]
        is_guided = any(kind == "GUIDER" for _, kind, _ in links)
        bundles = [link for _, kind, link in links if is_bundle(kind)] if not given and not is_guided else []
        starts.extend([*_of_role(given, role, is_start=True), *bundles])
    found, seen, queue = list[str](), set[Link](), deque(starts)
    while queue:
        link = queue.popleft()
        if link in seen:
            continue
        seen.add(link)
        if is_end(link.node_id):
            found.append(link.node_id)
        elif "ZeroOut" not in graph.class_of(link.node_id):
            queue.extend(_of_role(handed_on(graph, link, _kind(graph, link)), role))
    return unique(found)


def _kind(graph: TypedGraph, link: Link) -> str:
    kind = graph.output_type(link)
    return kind if is_conditioning(kind) else "CONDITIONING"


def _of_role(links: list[tuple[str, Link]], role: str, is_start: bool = False) -> list[Link]:
    """Of links of conditioning those of the role. A node that takes both keeps them apart by its inputs' names."""
    negative = [link for name, link in links if is_negative(name)]
    positive = [link for name, link in links if name.startswith("positive")]
    if role == "negative":
        return negative if negative or positive or is_start else [link for _, link in links]
    return positive or [link for name, link in links if not is_negative(name)]
