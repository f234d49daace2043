"""The editor's own save format -> ComfyUI's API format, as the editor itself would have queued it. Pure.

The rules are those of the frontend's `graphToPrompt`, seen by comparison with its own exports (`python -m
maintenance.editor_comparison`).
What they do not tell for sure is an error, never a guess.

    document   what a saved file holds: nodes, links, subgraphs
    widgets    the widgets of a node class, in the order in which their values are saved
    values     the value of each widget of each node
    links      where an input's value comes from, through reroutes, bypassed nodes and subgraphs
    dynamic_prompts  one of several texts, as the editor chooses when it queues
    conversion the prompt of it all
"""

from .conversion import class_types, convert
from .document import is_editor_workflow, read_document

__all__ = ["class_types", "convert", "is_editor_workflow", "read_document"]
