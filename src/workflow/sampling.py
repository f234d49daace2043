"""Which node does an override of the sampling mean: steps, cfg, guidance, denoise, sampler_name, scheduler?

A sampler has such an input itself (KSampler), or is given it by a node behind one of its links (SamplerCustomAdvanced:
the scheduler behind `sigmas`, the guider behind `guider`). Where no sampler leads to one, every node that has the
input and matters to an output counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from .graph import Graph, Link, unique, walk
from .targets import used_nodes


@dataclass(frozen=True)
class Knob:
    """One setting of the sampling: the names of its input, and the links behind which it may be (empty: all)."""

    names: tuple[str, ...]
    behind: tuple[str, ...]

    def inputs(self, graph: Graph, node_id: str) -> tuple[str, ...]:
        """The input of a node that takes it, empty if it takes none."""
        return tuple(name for name in self.names if name in graph.inputs(node_id))[:1]

    def find(self, graph: Graph) -> list[str]:
        """The nodes that hold it for the samplers."""
        used = used_nodes(graph)
        samplers = [node_id for node_id in used if graph.link(node_id, "latent_image")]
        found = unique(holder for sampler in samplers for holder in self._holders(graph, sampler))
        return found or [node_id for node_id in used if self.inputs(graph, node_id)]

    def _holders(self, graph: Graph, sampler: str) -> list[str]:
        if self.inputs(graph, sampler):
            return [sampler]

        def follow(link: Link) -> list[Link]:
            return [] if self.inputs(graph, link.node_id) else self._links(graph, link.node_id)

        reached = (link for start in self._links(graph, sampler) for link in walk(start, follow))
        return unique(link.node_id for link in reached if self.inputs(graph, link.node_id))

    def _links(self, graph: Graph, node_id: str) -> list[Link]:
        """The links of a node behind which its setting may be; a node of another kind is passed through."""
        links = list(graph.links(node_id))
        on_the_way = [link for name, link in links if name.startswith(self.behind)]
        return on_the_way or [link for _, link in links if graph.class_of(node_id).startswith("Reroute")]


KNOBS = {
    "steps": Knob(("steps",), ("sigmas",)),
    "cfg": Knob(("cfg", "cfg_conds"), ("guider",)),
    "guidance": Knob(("guidance",), ("guider", "positive", "conditioning")),
    "denoise": Knob(("denoise",), ("sigmas",)),
    "sampler_name": Knob(("sampler_name",), ("sampler",)),
    "scheduler": Knob(("scheduler",), ("sigmas",)),
}
"""Name of an override to where it is."""
