"""The editor's own save format -> ComfyUI's API format, as the editor itself would have queued it. Pure functions.

The rules are those of the frontend's `graphToPrompt`, verified by comparison with its own exports (`python -m
maintenance.editor_comparison`). What these rules do not determine is an error, never a guess.

    document   the content of a saved file: nodes, links, subgraphs
    widgets    the widgets of a node class, in the order in which their values are saved
    packs      what the scripts of node packs make of their nodes
    saved_values  the values of a node's widgets as they stand in the file
    placeholders  `%date:…%` and `%node.widget%` in names of files
    values     the value of each widget of each node, as it is sent
    stand_ins  the schema of a node whose class nobody knows, as far as the file shows it
    faces      the widgets that a subgraph node has for those inside
    placing    the nodes of a file at their places, those of each instance of a subgraph too
    links      where an input's value comes from, through reroutes, bypassed nodes and subgraphs
    dynamic_prompts  chooses one of the texts in `{a|b}`, as the editor does when it queues
    conversion the prompt in API format, built with all of these
    app_mode   the inputs and outputs that a file's author chose, as places in the prompt
    app_values  values for these inputs, put into the prompt
"""

from .app_mode import App, AppInput
from .app_values import set_app_inputs
from .conversion import Converted, class_types, convert
from .document import is_editor_workflow, read_document, with_editor_numbers

__all__ = [
    "App",
    "AppInput",
    "Converted",
    "class_types",
    "convert",
    "is_editor_workflow",
    "read_document",
    "set_app_inputs",
    "with_editor_numbers",
]
