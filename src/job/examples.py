"""Example inputs: a stored workflow with the fields that have a place in it, each with the value that it has there."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ..editor import Converted, convert, read_document
from ..errors import WorkerError
from ..overrides import overridable_fields
from ..settings import Settings
from ..workflow.core_classes import core_schemas
from ..workflow.stored import list_stored_workflows, stored_workflow
from .request import read_job

_MAX_EXAMPLES = 100


def example_inputs(settings: Settings) -> dict[str, dict[str, Any]]:
    """An example for each stored workflow, at most 100, by their names."""
    return {name: example_input(name, settings) for name in list_stored_workflows(settings)[:_MAX_EXAMPLES]}


def example_input(name: str, settings: Settings) -> dict[str, Any]:
    """An input that runs the stored workflow of that name, spelt out: its values are those of the workflow.

    Without ComfyUI, so by the node classes of ComfyUI itself: a workflow that has others in the editor's format, or
    that cannot be read, is only named.
    """
    example: dict[str, Any] = {"workflow": name}
    try:
        request = read_job({"input": example}, lambda name: stored_workflow(name, settings), _converted)
        fields = overridable_fields(request.workflow)
    except WorkerError:
        return example
    return {**example, **{field.name: field.value for field in fields if field.value is not None}}


def _converted(saved: dict[str, Any]) -> Converted:
    return convert(read_document(saved), defaultdict(lambda: None, core_schemas()))
