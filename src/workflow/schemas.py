"""What a node class takes, as ComfyUI's /object_info tells it, and what is wrong with a workflow by that.

The errors have the shape of the `node_errors` that ComfyUI itself answers, so that one room puts both in words.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .graph import Graph, Link, as_link, nodes_behind

NodeErrors = dict[str, dict[str, Any]]
"""Node id to `{"class_type": str, "errors": [{"type", "message", "details", "extra_info"}]}`."""

# Flags of an input whose list of values is what lies in the input folder; any file that is there will do.
_UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload", "upload", "image_folder", "remote")
_CONVERTERS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True)
class InputSchema:
    """One input: its type (`INT`, `MODEL`, …, `COMBO` for a list), its limits, and the values that a list allows."""

    kind: str
    limits: Mapping[str, Any]
    is_required: bool
    options: tuple[Any, ...] | None = None

    @property
    def is_file(self) -> bool:
        """Whether it names a file in the input folder."""
        return any(self.limits.get(flag) for flag in _UPLOADS)


@dataclass(frozen=True)
class NodeSchema:
    """One node class: `outputs` are the types of its outputs, `pack` the Python module that brought it.

    `title` is what the editor calls a node of it.
    """

    inputs: Mapping[str, InputSchema]
    outputs: tuple[str, ...]
    is_output: bool
    is_partner: bool
    pack: str
    title: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it takes inputs that it does not declare one by one (V3's growing and dynamic inputs)."""
        return any(schema.kind.startswith("COMFY_") for schema in self.inputs.values())


def read_schema(told: Mapping[str, Any]) -> NodeSchema:
    """The schema in what /object_info says of a class, in V1 or V3 form."""
    inputs = read_inputs(told.get("input") or {})
    pack = str(told.get("python_module") or "")
    outputs = tuple(output if isinstance(output, str) else "COMBO" for output in told.get("output") or ())
    is_partner = bool(told.get("api_node")) or pack.startswith("comfy_api_nodes")
    title = str(told.get("display_name") or told.get("name") or "")
    return NodeSchema(inputs, outputs, bool(told.get("output_node")), is_partner, pack, title)


def read_inputs(sections: Mapping[str, Any]) -> dict[str, InputSchema]:
    """The inputs in `{"required": {name: [type, limits]}, "optional": …}`, in the order in which they are declared."""
    return {
        name: _read_input(config, section == "required")
        for section in ("required", "optional")
        for name, config in (sections.get(section) or {}).items()
    }


def _read_input(config: Any, is_required: bool) -> InputSchema:
    kind, limits = config[0], config[1] if len(config) > 1 and isinstance(config[1], Mapping) else {}
    options = kind if isinstance(kind, list) else limits.get("options") if kind == "COMBO" else None
    name = "COMBO" if isinstance(kind, list) else str(kind)
    return InputSchema(name, limits, is_required, tuple(options) if isinstance(options, list) else None)


# --- What is wrong -------------------------------------------------------------------------------------


def check_nodes(
    graph: Graph,
    schemas: Mapping[str, NodeSchema | None],
    files: Container[str] = (),
    known_classes: Sequence[str] = (),
) -> NodeErrors:
    """What is wrong with each node: unknown class, missing input, bad value, link of another type.

    Of nodes that no output needs only the class is looked at, as ComfyUI does.
    `files` are the names that the job brings for the input folder, `known_classes` those to guess a class from.
    """
    checks = _Checks(graph, schemas, files, known_classes)
    outputs = [node_id for node_id in graph if (schema := checks.schema(node_id)) and schema.is_output]
    needed = set(nodes_behind(graph, outputs))
    found = {node_id: checks.of_node(node_id, node_id in needed) for node_id in graph}
    if not outputs and all(schemas.values()):
        message = "the workflow has no output node; add one that saves something, such as SaveImage"
        found[next(iter(graph))].append(_error("prompt_no_outputs", message))
    return {node_id: checks.entry(node_id, errors) for node_id, errors in found.items() if errors}


def check_inputs(
    graph: Graph,
    schemas: Mapping[str, NodeSchema | None],
    slots: Container[tuple[str, str]],
    files: Container[str] = (),
) -> NodeErrors:
    """What is wrong with some inputs only, (node id, input name) each: those that a job has changed."""
    checks = _Checks(graph, schemas, files)
    found = {
        node_id: [
            error
            for name in graph.inputs(node_id)
            if (node_id, name) in slots and (error := checks.of_input(node_id, name))
        ]
        for node_id in graph
    }
    return {node_id: checks.entry(node_id, errors) for node_id, errors in found.items() if errors}


@dataclass(frozen=True)
class _Checks:
    graph: Graph
    schemas: Mapping[str, NodeSchema | None]
    files: Container[str]
    known_classes: Sequence[str] = ()

    def entry(self, node_id: str, errors: list[dict[str, Any]]) -> dict[str, Any]:
        return {"class_type": self.graph.class_of(node_id), "errors": errors}

    def schema(self, node_id: str) -> NodeSchema | None:
        return self.schemas.get(self.graph.class_of(node_id))

    def of_node(self, node_id: str, is_needed: bool) -> list[dict[str, Any]]:
        schema = self.schema(node_id)
        if schema is None:
            near = difflib.get_close_matches(self.graph.class_of(node_id)[:200], self.known_classes, n=3)
            return [_error("missing_node_type", f"nearest classes: {', '.join(near)}" if near else "")]
        if not is_needed:
            return []
        inputs = self.graph.inputs(node_id)
        missing = [name for name, wanted in schema.inputs.items() if wanted.is_required and name not in inputs]
        errors = [_error("required_input_missing", "Required input is missing", name) for name in missing]
        declared = (self.of_input(node_id, name) for name in inputs if name in schema.inputs)
        return [*errors, *(error for error in declared if error)]

    def of_input(self, node_id: str, name: str) -> dict[str, Any] | None:
        schema = self.schema(node_id)
        if schema is None:  # ComfyUI says so itself
            return None
        wanted = schema.inputs.get(name)
        value = self.graph.inputs(node_id)[name]
        if wanted is None:
            known = ", ".join(list(schema.inputs)[:30]) or "none"
            return (
                None
                if schema.is_open
                else _error("unknown_input", f"has no input {name[:80]!r}; it has {known}", name)
            )
        link = as_link(value)
        return self._of_link(name, wanted, link) if link else self._of_value(name, wanted, value)

    def _of_link(self, name: str, wanted: InputSchema, link: Link) -> dict[str, Any] | None:
        source = self.schema(link.node_id)
        if source is None or wanted.kind.startswith("COMFY_"):
            return None
        if not 0 <= link.slot < len(source.outputs):
            return _error("bad_link", f"output {link.slot} of node {link.node_id} does not exist", name)
        given = source.outputs[link.slot]
        if _fits(given, wanted.kind):
            return None
        place = self.graph.describe(link.node_id)
        return _error("return_type_mismatch", f"{name} must be {wanted.kind}; node {place} gives {given}", name)

    def _of_value(self, name: str, wanted: InputSchema, value: Any) -> dict[str, Any] | None:
        told = {"received_value": value, "input_config": [wanted.kind, dict(wanted.limits)]}
        if wanted.kind in _CONVERTERS:
            try:
                value = _CONVERTERS[wanted.kind](value)
            except (TypeError, ValueError, OverflowError):
                return _error("invalid_input_type", f"{name} must be of type {wanted.kind}", name, **told)
            if isinstance(value, float) and not math.isfinite(value):
                return _error("invalid_input_type", f"{name} must be a number", name, **told)
        least, most = wanted.limits.get("min"), wanted.limits.get("max")
        if isinstance(value, (int, float)) and least is not None and value < least:
            return _error("value_smaller_than_min", f"Value {value} smaller than min of {least}", name, **told)
        if isinstance(value, (int, float)) and most is not None and value > most:
            return _error("value_bigger_than_max", f"Value {value} bigger than max of {most}", name, **told)
        return self._of_option(name, wanted, value)

    def _of_option(self, name: str, wanted: InputSchema, value: Any) -> dict[str, Any] | None:
        options = wanted.options
        if options is None or isinstance(value, list) or value in options:
            return None
        if wanted.is_file:
            is_there = value in self.files or str(value).endswith("]")  # "a.png [output]": of another folder
            return None if is_there else _error("missing_input_file", f"{name}: no file {str(value)[:200]!r}", name)
        told = {"received_value": value, "input_config": [list(options), dict(wanted.limits)]}
        return _error("value_not_in_list", "Value not in list", name, **told)


def _fits(given: str, wanted: str) -> bool:
    """Whether an output may be linked to an input, by ComfyUI's rule: one of the types of each is the same, or any."""
    if "*" in (given, wanted) or given == wanted:
        return True
    if {given, wanted} & {"COMBO"}:  # a text may be linked to a list; what it says is known when it runs
        return bool({given, wanted} & {"STRING"})
    return bool({part.strip() for part in given.split(",")} & {part.strip() for part in wanted.split(",")})


def _error(kind: str, message: str, name: str = "", **extra: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": "", "extra_info": {"input_name": name, **extra}}
