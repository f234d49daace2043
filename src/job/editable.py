"""What a person may want to change in a job's workflow: its fields, and the files that it names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..comfy.client import ComfyClient
from ..comfy.preflight import input_files_of, schemas_of
from ..overrides import overridable_fields
from ..workflow.graph import Graph
from ..workflow.schemas import InputSchema, NodeSchema, input_schema
from .request import Request

_LIMITS = ("min", "max", "step")
_MAX_OPTIONS = 300  # of one field
_MAX_ALL_OPTIONS = 3_000  # of all fields together: the response has a size limit


def editable(client: ComfyClient, request: Request, check: Callable[[], None]) -> dict[str, Any]:
    """`fields` and `inputs` of the response to `action: validate`. `check` raises if the job has to end."""
    workflow = request.workflow
    graph, schemas = Graph(workflow), schemas_of(client, workflow, check)
    room = _MAX_ALL_OPTIONS
    fields = []
    for field, schema in (*_chosen_by_author(request, graph, schemas), *_traced(request, schemas)):
        widget = widget_of(schema) if schema else {}
        room -= len(widget.get("options", ()))
        if room < 0:
            widget.pop("options", None)
        fields.append({**field, **widget})
    inputs = [
        {"node_id": node_id, "title": graph.title(node_id), "input": name, "name": graph.inputs(node_id)[name]}
        for node_id, name in input_files_of(client, workflow)
    ]
    return {"fields": fields, "inputs": inputs}


def widget_of(schema: InputSchema) -> dict[str, Any]:
    """What ComfyUI says of the values of an input: `type`, and `min`, `max`, `step` or `options` where it has them.

    A long list of options is left out, and so are the files of ComfyUI's input folder.
    """
    widget: dict[str, Any] = {"type": schema.kind}
    widget |= {name: schema.parameters[name] for name in _LIMITS if _is_number(schema.parameters.get(name))}
    options = () if schema.is_file else schema.options or ()
    if 0 < len(options) <= _MAX_OPTIONS and all(isinstance(option, str) or _is_number(option) for option in options):
        widget["options"] = list(options)
    return widget


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_Field = tuple[dict[str, Any], InputSchema | None]


def _traced(request: Request, schemas: Mapping[str, NodeSchema | None]) -> Iterator[_Field]:
    """The fields of a job that have a place in its workflow."""
    for field in overridable_fields(request.workflow, schemas):
        if field.candidates:
            yield {"name": field.name, "candidates": list(field.candidates)}, None
        else:
            found = {"name": field.name, "value": field.value, "node_id": field.node_id, "title": field.title}
            yield found, field.schema


def _chosen_by_author(request: Request, graph: Graph, schemas: Mapping[str, NodeSchema | None]) -> Iterator[_Field]:
    """The inputs that the workflow's author chose in the editor's App Mode."""
    for entry in request.app.inputs if request.app else ():
        node_id, name = entry.targets[0]
        if node_id in graph:
            inputs, schema = graph.inputs(node_id), schemas[graph.class_of(node_id)]
            found = {"name": entry.name, "value": inputs.get(name), "node_id": node_id, "title": graph.title(node_id)}
            yield {**found, "given_in": "inputs"}, input_schema(schema, inputs, name) if schema else None
