"""Which node does an override of steps, cfg, guidance, denoise, sampler_name or scheduler apply to?

A sampler has such an input itself (KSampler), or gets the value from a node upstream (SamplerCustomAdvanced: from the
scheduler linked to its `sigmas`, from the guider linked to its `guider`). If no sampler leads to such a node, every
used node that has the input counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from .graph import Graph, Link, unique, walk
from .targets import used_nodes


@dataclass(frozen=True)
class SamplingSetting:
    """One setting of sampling: the names of its input, and prefixes of the linked inputs to follow upstream to it."""

    names: tuple[str, ...]
    linked_inputs: tuple[str, ...]

    def inputs(self, graph: Graph, node_id: str) -> tuple[str, ...]:
        """The input of a node that takes this setting, empty if there is none."""
        return tuple(name for name in self.names if name in graph.inputs(node_id))[:1]

    def find(self, graph: Graph) -> list[str]:
        """The nodes that hold this setting for the samplers."""
        used = used_nodes(graph)
        samplers = [node_id for node_id in used if graph.link(node_id, "latent_image")]

        def follow(link: Link) -> list[Link]:
            return [] if self.inputs(graph, link.node_id) else self._links(graph, link.node_id)

        # A sampler is a place of its own; its slot does not matter here.
        reached = walk((Link(sampler, 0) for sampler in samplers), follow)
        found = unique(link.node_id for link in reached if self.inputs(graph, link.node_id))
        return found or [node_id for node_id in used if self.inputs(graph, node_id)]

    def _links(self, graph: Graph, node_id: str) -> list[Link]:
        """The links of a node to follow upstream: those of `linked_inputs`, and all links of a reroute."""
        links = list(graph.links(node_id))
        matching = [link for name, link in links if name.startswith(self.linked_inputs)]
        return matching or [link for _, link in links if graph.class_of(node_id).startswith("Reroute")]


SAMPLING_SETTINGS = {
    "steps": SamplingSetting(("steps",), ("sigmas",)),
    "cfg": SamplingSetting(("cfg", "cfg_conds"), ("guider",)),
    "guidance": SamplingSetting(("guidance",), ("guider", "positive", "conditioning")),
    "denoise": SamplingSetting(("denoise",), ("sigmas",)),
    "sampler_name": SamplingSetting(("sampler_name",), ("sampler",)),
    "scheduler": SamplingSetting(("scheduler",), ("sigmas",)),
}
"""By the name of the override."""
