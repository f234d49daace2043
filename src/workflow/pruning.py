"""Leaves out nodes that ComfyUI could not take and that no output needs.

ComfyUI refuses a prompt for a class that it does not have, wherever that stands, and some links to missing nodes end
its worker thread, though it would run none of these nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .graph import Graph, Workflow, with_dependencies, with_dependents
from .schemas import NodeSchema


def without_unneeded(
    workflow: Workflow, schemas: Mapping[str, NodeSchema | None], replaced: Collection[str] = ()
) -> tuple[Workflow, list[str]]:
    """The workflow without such nodes and those that depend on them, and warnings that name them.

    `schemas` has all of its classes, None for one that ComfyUI does not have; `replaced` are those for which ComfyUI
    itself takes another. What an unknown class does nobody can say: where it takes what others make and hands nothing
    on, it may be an output, and is left for ComfyUI to refuse. So is all if there is no output.
    """
    graph = Graph(workflow)
    unknown = {n for n in graph if schemas.get(graph.class_of(n)) is None and graph.class_of(n) not in replaced}
    dangling = {n for n in graph if any(link.node_id not in graph for _, link in graph.links(n))}
    if not unknown and not dangling:
        return workflow, []
    outputs = [n for n in graph if (schema := schemas.get(graph.class_of(n))) and schema.is_output]
    if not outputs:
        return workflow, []
    perhaps = [n for n in unknown if any(graph.links(n)) and not graph.feeds_others(n)]
    hidden = [n for n in graph if graph.class_of(n) in replaced]
    needed = set(with_dependencies(graph, [*outputs, *perhaps, *hidden]))
    unknown, dangling = unknown - needed, dangling - needed - unknown
    left_out = with_dependents(graph, unknown | dangling)
    reasons = {
        "this ComfyUI has no such node class": unknown,
        "they are linked to nodes that the workflow does not have": dangling,
        "they depend on nodes that were left out": left_out - unknown - dangling,
    }
    told = [
        f"left out, as no output needs them and {reason}: {graph.describe_all([n for n in graph if n in nodes])}"
        for reason, nodes in reasons.items()
        if nodes
    ]
    return {n: node for n, node in workflow.items() if n not in left_out}, told
