"""Where seeds go, and where steps, cfg and such: a sampler's own, or those of what is behind it.

A sampler gets its steps from a scheduler (`SIGMAS`), its cfg from a guider, its name from a sampler object.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..workflow.typed import ANY, TypedGraph, per_node
from .conditioning import conditioning_ends
from .places import Place, places_of, value_at
from .roles import links_of, makers, samplers, upstream
from .slots import last_name, seed_inputs, words_of

_NUMBERS_AND_CHOICES = frozenset({"INT", "FLOAT", "FLOAT,INT", "INT,FLOAT", "COMBO", "STRING", ANY})
_NO_NOISE = (False, "disable")


def find_seeds(graph: TypedGraph) -> list[Place]:
    """The seeds of all nodes that the output needs, but of samplers that add no noise."""
    return places_of(graph, (n for n in graph.live if _adds_noise(graph, n)), seed_inputs)


def _adds_noise(graph: TypedGraph, node_id: str) -> bool:
    return graph.constant(node_id, "add_noise") not in _NO_NOISE if "add_noise" in graph.inputs(node_id) else True


@dataclass(frozen=True)
class SamplingSetting:
    """One setting of sampling: its input's names, and the type of the object that may bring it to a sampler."""

    name: str
    brought_by: str
    other_names: tuple[str, ...] = ()

    def inputs(self, graph: TypedGraph, node_id: str) -> tuple[str, ...]:
        """The inputs of a node that take this setting: the one of its name, else those whose names have its word."""
        named = numbers_of(graph, node_id)
        for name in (self.name, *self.other_names):
            if name in named:
                return (named[name],)
        return tuple(name for last, name in named.items() if _is_cfg(last)) if self.name == "cfg" else ()

    def find(self, graph: TypedGraph) -> list[Place]:
        """Where the samplers among the makers have this setting; if nothing denoises, every node that is needed."""
        own = [maker for maker in makers(graph) if self.inputs(graph, maker)]
        others = [maker for maker in makers(graph) if not self.inputs(graph, maker)]
        found = [*own, *self._brought_to(graph, others)]
        found_places = places_of(graph, found if samplers(graph) else found or graph.live, self.inputs)
        return [place for place in found_places if not self._is_off(graph, place)] or found_places

    def _is_off(self, graph: TypedGraph, place: Place) -> bool:
        """Whether a sampler does without it: a cfg of 1 is no guidance, a denoise of 1 begins with nothing."""
        has_off = self.name in ("cfg", "denoise")
        return has_off and all(value_at(graph, place.node_id, name) == 1 for name in place.inputs)

    def _brought_to(self, graph: TypedGraph, takers: list[str]) -> list[str]:
        """The nodes that bring this setting to samplers without one of their own."""
        if self.brought_by == "CONDITIONING":
            return conditioning_ends(graph, takers, "positive", lambda n: bool(self.inputs(graph, n)))
        starts = [link for taker in takers for link in links_of(graph, taker, self.brought_by)]
        return upstream(graph, starts, self.brought_by, lambda n: bool(self.inputs(graph, n)))


@per_node
def numbers_of(graph: TypedGraph, node_id: str) -> dict[str, str]:
    """The inputs of a node that take a number or a choice, by the last part of their names."""
    found: dict[str, str] = {}
    for name, kind in graph.input_types(node_id).items():
        if kind in _NUMBERS_AND_CHOICES:
            found.setdefault(last_name(name), name)
    return found


def _is_cfg(name: str) -> bool:
    words = words_of(name)
    return "cfg" in words and not words & {"cond2", "scale", "rescale", "restore", "negative", "start", "end"}


SAMPLING_SETTINGS = {
    setting.name: setting
    for setting in (
        SamplingSetting("steps", "SIGMAS"),
        SamplingSetting("cfg", "GUIDER"),
        SamplingSetting("guidance", "CONDITIONING", ("guidance_scale", "embedded_guidance_scale")),
        SamplingSetting("denoise", "SIGMAS", ("denoise_strength",)),
        SamplingSetting("sampler_name", "SAMPLER"),
        SamplingSetting("scheduler", "SIGMAS"),
    )
}
"""By the name of the override."""
