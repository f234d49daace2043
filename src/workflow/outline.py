"""The workflow in roughly the form in which the editor would have saved it.

Some node packs look themselves up in `extra_pnginfo["workflow"]`, which the editor always sends, and fail without it.
"""

from __future__ import annotations

from typing import Any

from .graph import Graph, Workflow, as_link


def outline_of(workflow: Workflow) -> dict[str, Any]:
    """The nodes with id, class, title and values, without links and positions: for node packs, not for the editor."""
    graph = Graph(workflow)
    return {
        "version": 0.4,
        "nodes": [
            {
                "id": int(node_id) if node_id.isdecimal() and len(node_id) < 10 else node_id,
                "type": graph.class_of(node_id),
                "title": graph.title(node_id),
                "mode": 0,
                "inputs": [],
                "outputs": [],
                "properties": {"Node name for S&R": graph.class_of(node_id)},
                "widgets_values": [value for value in graph.inputs(node_id).values() if as_link(value) is None],
            }
            for node_id in graph
        ],
        "links": [],
        "groups": [],
        "extra": {},
    }
