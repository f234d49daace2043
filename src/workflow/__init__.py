"""The API-format graph: checks, finding nodes, overrides.

Pure, but for `stored`: no disk, no network, no clock, and no function edits its argument.

    graph      what a node, a link and a chain of links are
    checks     is this a graph that ComfyUI can run without harm?
    slots      which inputs of a node take a text, a seed, a size?
    targets    which node does an override of prompt, seed or size mean?
    sampling   and one of steps, cfg and the like?
    loras      LoRA loaders put behind the model
    override_kinds  the kinds of overrides, and where a value of each goes
    overrides  the workflow with a job's overrides put in
    schemas    what a node class takes, and what is wrong with a workflow by that
    files      the workflow with the files of a job where it names them
    isolation  the workflow with a folder of its own for its outputs
    outline    the workflow as the editor would roughly have saved it
    stored     workflows that lie beside the worker, called by name
"""

from .checks import check_workflow
from .files import place_files
from .isolation import isolate_outputs, renew_nodes
from .loras import Lora
from .outline import outline_of
from .override_kinds import NODE_FIELDS
from .overrides import Applied, Field, Overrides, apply_overrides, fields_of, seeds_of, set_inputs
from .slots import Slot

__all__ = [
    "NODE_FIELDS",
    "Applied",
    "Field",
    "Lora",
    "Overrides",
    "Slot",
    "apply_overrides",
    "check_workflow",
    "fields_of",
    "isolate_outputs",
    "outline_of",
    "place_files",
    "renew_nodes",
    "seeds_of",
    "set_inputs",
]
