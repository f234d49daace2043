"""The API-format graph: checks, finding nodes, overrides.

Pure: no disk, no network, no clock, and no function edits its argument.

    graph      what a node, a link and a chain of links are
    checks     is this a graph that ComfyUI can run without harm?
    targets    which node does an override mean?
    overrides  the workflow with prompt, seed and size put in
    isolation  the workflow with a folder of its own for its outputs
"""

from .checks import check_workflow
from .isolation import isolate_outputs, renew_nodes
from .overrides import Overrides, apply_overrides

__all__ = ["Overrides", "apply_overrides", "check_workflow", "isolate_outputs", "renew_nodes"]
