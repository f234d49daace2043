"""Workflows in ComfyUI's API format: checks, finding nodes, overrides.

Pure functions, except in `stored`: no disk, no network, no clock, and no function edits its argument.

    graph      nodes, links and chains of links
    leftovers  takes out what other tools and old exports leave in an API file
    checks     can ComfyUI run this workflow without harm?
    slots      which inputs of a node take a text, a seed, a size?
    targets    which node does an override of prompt, seed or size apply to?
    sampling   which node does an override of steps, cfg and the like apply to?
    loras      inserts LoRA loaders after the model loader
    override_kinds  the kinds of overrides, and which inputs each of them sets
    overrides  applies a job's overrides to a workflow
    schemas    the inputs of node classes, and the errors of a workflow according to them
    pruning    leaves out nodes that ComfyUI could not take and no output needs
    spelling   names of models as another system writes them
    files      replaces the names of a job's files by their paths
    isolation  gives the outputs of a workflow a folder of their own
    outline    the workflow in roughly the form in which the editor would have saved it
    stored     stored workflows, found by name in the operator's folder, on a volume or in the image
"""

from .checks import check_workflow
from .files import place_files
from .isolation import isolate_outputs, rerun_nodes
from .loras import Lora
from .origins import Slot
from .outline import outline_of
from .override_kinds import NODE_FIELDS
from .overrides import (
    AppliedOverrides,
    OverridableField,
    Overrides,
    apply_overrides,
    overridable_fields,
    set_inputs,
)

__all__ = [
    "NODE_FIELDS",
    "AppliedOverrides",
    "Lora",
    "OverridableField",
    "Overrides",
    "Slot",
    "apply_overrides",
    "check_workflow",
    "isolate_outputs",
    "outline_of",
    "overridable_fields",
    "place_files",
    "rerun_nodes",
    "set_inputs",
]
