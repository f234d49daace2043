"""What is wrong with a prompt for sure, in ComfyUI's words, before it costs a worker: the body of a 400 to /prompt.

Only what ComfyUI refuses whatever the node packs say: a pack may allow values that its schema does not list, and there
may be models that are newer than the schemas. All else the worker finds.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from typing import Any

from ..errors import InvalidInput
from ..protocol.executor import ValidationResult
from ..workflow.checks import check_nodes as check_shape
from ..workflow.graph import Graph, with_dependencies
from ..workflow.schemas import NodeErrors, NodeSchema, check_nodes

_CERTAIN = ("required_input_missing", "bad_linked_input", "bad_link", "missing_input_file")


def validate(
    prompt: object,
    targets: Collection[str] | None,
    schemas: Mapping[str, NodeSchema],
    replaced: Collection[str] = (),
    files: Container[str] = (),
) -> ValidationResult:
    """As ComfyUI validates a prompt. Of its output nodes only `targets` will run; None for all of them.

    Without `schemas` (they are not known yet) only the shape of the prompt is checked. `replaced` are classes that are
    gone, for which ComfyUI takes another; `files` the names of input files that there are besides those of the worker.
    """
    try:
        prompt = check_shape(prompt)
    except InvalidInput as error:
        return _refused("invalid_prompt", error.message)
    if not schemas:
        return ValidationResult(sorted(targets or ()))
    graph = Graph(prompt)
    for node_id in graph:
        if graph.class_of(node_id) not in schemas and graph.class_of(node_id) not in replaced:
            return _missing_class(graph, node_id)
    outputs = [n for n in graph if (schema := schemas.get(graph.class_of(n))) is None or schema.is_output]
    outputs = [node_id for node_id in outputs if targets is None or node_id in targets]
    if not outputs:
        return _refused("prompt_no_outputs", "Prompt has no outputs")
    return _with_outputs(graph, outputs, check_nodes(graph, schemas, files))


def _with_outputs(graph: Graph, outputs: list[str], errors: NodeErrors) -> ValidationResult:
    """The outputs without errors, and the errors of the others."""
    found = {
        node_id: {**entry, "errors": certain, "dependent_outputs": []}
        for node_id, entry in errors.items()
        if (certain := [_told(error) for error in entry["errors"] if error["type"] in _CERTAIN])
    }
    result = ValidationResult()
    for output in outputs:
        failed = [node_id for node_id in with_dependencies(graph, [output]) if node_id in found]
        if not failed:
            result.outputs.append(output)
        for node_id in failed:
            result.node_errors.setdefault(node_id, found[node_id])["dependent_outputs"].append(output)
    if not result.outputs:
        problems = [error for entry in result.node_errors.values() for error in entry["errors"]]
        details = "\n".join(f"{problem['message']}: {problem['details']}" for problem in problems)
        refused = _refused("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
        result.error = refused.error
    return result


def _told(error: Mapping[str, Any]) -> dict[str, Any]:
    """An error as ComfyUI tells it: with the name of the input as details; of a missing file in other words."""
    name = error["extra_info"].get("input_name", "")
    if error["type"] == "missing_input_file":
        message = "Custom validation failed for node"
        return {**error, "type": "custom_validation_failed", "message": message, "details": error["message"]}
    return {**error, "details": error["details"] or name.rpartition(".")[2]}


def _missing_class(graph: Graph, node_id: str) -> ValidationResult:
    class_type, title = graph.class_of(node_id), graph.title(node_id)
    message = f"Node '{title}' not found. The custom node may not be installed."
    extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return _refused("missing_node_type", message, f"Node ID '#{node_id}'", extra)


def _refused(kind: str, message: str, details: str = "", extra: Mapping[str, Any] | None = None) -> ValidationResult:
    return ValidationResult(error={"type": kind, "message": message, "details": details, "extra_info": extra or {}})
