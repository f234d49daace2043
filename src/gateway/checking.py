"""What is wrong with a prompt for sure, in ComfyUI's words, before it costs a worker: the body of a 400 to /prompt.

Only what ComfyUI refuses whatever the node packs say: a pack may allow values that its schema does not list, and there
may be models that are newer than the schemas. All else the worker finds.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import Any

from ..errors import GuiFormatWorkflow, InvalidInput
from ..protocol.executor import ValidationResult
from ..workflow.checks import check_nodes as check_shape
from ..workflow.graph import Graph, with_dependencies
from ..workflow.schemas import NodeErrors, NodeSchema, check_nodes, input_schema

Problem = dict[str, Any]

_CERTAIN = ("required_input_missing", "bad_linked_input", "bad_link", "missing_input_file", "invalid_input_type")
_UPLOADS = {"image_upload": "image ", "video_upload": "video ", "audio_upload": "audio "}


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
        graph = Graph(check_shape(prompt))
    except InvalidInput as error:
        return _of_another_shape(prompt, error)
    if targets is not None:
        targets = [node_id for node_id in graph if node_id in targets]
    if not schemas:
        return _no_outputs() if targets == [] else ValidationResult(sorted(targets or ()))
    for node_id in graph:
        if graph.class_of(node_id) not in schemas and graph.class_of(node_id) not in replaced:
            return _missing_class(graph, node_id)
    outputs = [n for n in graph if (schema := schemas.get(graph.class_of(n))) is None or schema.is_output]
    outputs = [node_id for node_id in outputs if targets is None or node_id in targets]
    if not outputs:
        return _no_outputs()
    found = _told(graph, schemas, check_nodes(graph, schemas, files))
    for node_id, problem in (*_missing_links(graph, schemas), *_cycle(graph, outputs)):
        found.setdefault(node_id, []).append(problem)
    return _with_outputs(graph, outputs, found)


def _with_outputs(graph: Graph, outputs: list[str], found: Mapping[str, list[Problem]]) -> ValidationResult:
    """The outputs without problems, and the problems of the others."""
    result = ValidationResult()
    for output in outputs:
        failed = [node_id for node_id in with_dependencies(graph, [output]) if node_id in found]
        if not failed:
            result.outputs.append(output)
        for node_id in failed:
            entry = {"errors": found[node_id], "dependent_outputs": [], "class_type": graph.class_of(node_id)}
            result.node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
    if not result.outputs:
        own = [problem for output in outputs for problem in found.get(output, ())]
        details = "\n".join(f"{problem['message']}: {problem['details']}" for problem in own)
        message = "Prompt outputs failed validation"
        result.error = _refused("prompt_outputs_failed_validation", message, details).error
    return result


# --- Problems of nodes, in ComfyUI's words -------------------------------------------------------------


def _told(graph: Graph, schemas: Mapping[str, NodeSchema], errors: NodeErrors) -> dict[str, list[Problem]]:
    """Those of the errors that are certain."""
    return {
        node_id: certain
        for node_id, entry in errors.items()
        if (certain := [_in_its_words(graph, schemas, node_id, e) for e in entry["errors"] if e["type"] in _CERTAIN])
    }


def _in_its_words(graph: Graph, schemas: Mapping[str, NodeSchema], node_id: str, error: Mapping[str, Any]) -> Problem:
    name = error["extra_info"]["input_name"]
    inputs, kind, schema = graph.inputs(node_id), error["type"], schemas[graph.class_of(node_id)]
    expected, value = input_schema(schema, inputs, name), inputs.get(name)
    if expected is None or kind == "required_input_missing":
        return {**error, "details": error["details"] or name.rpartition(".")[2]}
    config = {"input_config": [expected.kind, dict(expected.parameters)], "received_value": value}
    if kind == "missing_input_file":
        media = next((media for flag, media in _UPLOADS.items() if expected.parameters.get(flag)), "")
        details = f"{name} - Invalid {media}file: {value}"
        return _problem("custom_validation_failed", "Custom validation failed for node", details, input_name=name)
    if kind == "invalid_input_type":
        reason = _reason(expected.kind, value)
        message = f"Failed to convert an input value to a {expected.kind} value"
        details = f"{name}, {value}, {reason}"
        return _problem(kind, message, details, input_name=name, **config, exception_message=reason)
    if kind == "bad_linked_input":
        message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        return _problem(kind, message, name, input_name=name, **config)
    return {**error, "details": name}


def _reason(kind: str, value: Any) -> str:
    """Why a value is no number."""
    try:
        int(value) if kind == "INT" else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        return str(error)
    return "it is not finite"


def _missing_links(graph: Graph, schemas: Mapping[str, NodeSchema]) -> Iterator[tuple[str, Problem]]:
    """Inputs that are linked to nodes which the prompt does not have."""
    for node_id in graph:
        schema = schemas.get(graph.class_of(node_id))
        for name, link in graph.links(node_id):
            if schema and link.node_id not in graph and input_schema(schema, graph.inputs(node_id), name):
                message = f"Linked to node {link.node_id[:80]}, which the prompt does not have"
                yield node_id, _problem("bad_linked_input", message, name, input_name=name)


def _cycle(graph: Graph, outputs: Iterable[str]) -> list[tuple[str, Problem]]:
    """The nodes of a cycle on which an output depends."""
    stuck = _endless(graph, with_dependencies(graph, outputs))
    path = [output for output in outputs if output in stuck][:1]
    while path:
        link = next(link for _, link in graph.links(path[-1]) if link.node_id in stuck)
        if link.node_id in path:
            path = path[path.index(link.node_id) :]
            break
        path.append(link.node_id)
    shown = " -> ".join(f"{node_id} ({graph.class_of(node_id)})" for node_id in (*path, *path[:1]))
    kind, message = "dependency_cycle", "Dependency cycle detected"
    return [(node_id, _problem(kind, message, shown, node_id=node_id, cycle_nodes=path)) for node_id in path]


def _endless(graph: Graph, needed: Iterable[str]) -> set[str]:
    """The nodes that are in a cycle or depend on one: those that are left when all others are removed."""
    waits_for = {
        node_id: {link.node_id for _, link in graph.links(node_id) if link.node_id in graph} for node_id in needed
    }
    ready = [node_id for node_id, others in waits_for.items() if not others]
    while ready:
        done = ready.pop()
        del waits_for[done]
        for consumer, _ in graph.consumers(done):
            if consumer in waits_for and done in waits_for[consumer]:
                waits_for[consumer].discard(done)
                if not waits_for[consumer]:
                    ready.append(consumer)
    return set(waits_for)


def _problem(kind: str, message: str, details: str, **extra: Any) -> Problem:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


# --- Prompts that are refused as a whole ---------------------------------------------------------------


def _of_another_shape(prompt: object, error: InvalidInput) -> ValidationResult:
    """The answer to what is no prompt."""
    if prompt == {}:
        return _no_outputs()
    if isinstance(prompt, dict) and not isinstance(error, GuiFormatWorkflow):
        for node_id, node in prompt.items():
            if isinstance(node, dict) and "inputs" in node and node.get("class_type") is None:
                return _without_class(node_id, node)
    return _refused("invalid_prompt", error.message)


def _no_outputs() -> ValidationResult:
    return _refused("prompt_no_outputs", "Prompt has no outputs")


def _without_class(node_id: str, node: Mapping[str, Any]) -> ValidationResult:
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    message = (
        f"Node '{title or f'ID #{node_id}'}' has no class_type. The workflow may be corrupted or a custom node is "
        "missing."
    )
    extra = {"node_id": node_id, "class_type": None, "node_title": title}
    return _refused("missing_node_type", message, f"Node ID '#{node_id}'", extra)


def _missing_class(graph: Graph, node_id: str) -> ValidationResult:
    class_type, title = graph.class_of(node_id), graph.title(node_id)
    message = f"Node '{title}' not found. The custom node may not be installed."
    extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return _refused("missing_node_type", message, f"Node ID '#{node_id}'", extra)


def _refused(kind: str, message: str, details: str = "", extra: Mapping[str, Any] | None = None) -> ValidationResult:
    return ValidationResult(error={"type": kind, "message": message, "details": details, "extra_info": extra or {}})
