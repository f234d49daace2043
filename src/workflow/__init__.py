"""Workflows in ComfyUI's API format: checks, types, schemas, stored workflows.

Pure functions, except in `stored`: no disk, no network, no clock, and no function edits its argument.

    graph      nodes, links and chains of links
    leftovers  takes out what other tools and old exports leave in an API file
    checks     can ComfyUI run this workflow without harm?
    schemas    the inputs of node classes, and the errors of a workflow according to them
    core_classes  the schemas of ComfyUI's own classes, for where none can be asked
    typed      a workflow with the types of its inputs and outputs, and which nodes an output needs
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
from .outline import outline_of

__all__ = ["check_workflow", "isolate_outputs", "outline_of", "place_files", "rerun_nodes"]
