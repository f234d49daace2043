"""The inputs and outputs of node classes, from ComfyUI's /object_info, and the errors of a workflow according to them.

The errors have the format of the `node_errors` in ComfyUI's own answers, so that one module describes both.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from .graph import Graph, Link, as_link, with_dependencies

NodeErrors = dict[str, dict[str, Any]]
"""Node id -> `{"class_type": str, "errors": [{"type", "message", "details", "extra_info"}]}`."""

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
CUSTOM_COMBO = "CustomCombo"
"""A class of ComfyUI whose choice is one of its other inputs: its schema's own list is empty, and not looked at."""
_AUTOGROW = "COMFY_AUTOGROW_V3"

# Flags of an input whose options are the files in the input folder; any file that exists there is valid.
_UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload", "upload", "image_folder", "remote")
_MAX_SEARCHES = 20  # for similar names
_CONVERTERS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}

STAND_IN = "draft_stand_in"
"""The `python_module` of a class that only the draft engine has, in place of one that it does not know."""


@dataclass(frozen=True)
class InputSchema:
    """One input: its type (`INT`, `MODEL`, …, `COMBO` for a list), its parameters, and the options of a list.

    The options of a V3 node's dynamic combo are its keys; each brings inputs of its own, `NAME.INNER`. `parameters` is
    the object after the type in a node's `INPUT_TYPES`: default, min, max, forceInput, ….
    """

    kind: str
    parameters: Mapping[str, Any]
    is_required: bool
    options: tuple[Any, ...] | None = None

    @property
    def is_file(self) -> bool:
        """Whether it names a file in the input folder."""
        return any(self.parameters.get(flag) for flag in _UPLOADS)

    @cached_property
    def inner(self) -> Mapping[str, Mapping[str, InputSchema]]:
        """The inputs that each key of a dynamic combo brings."""
        options = {str(option.get("key")): option for option in reversed(_dynamic_options(self.parameters))}
        return {key: read_inputs(option.get("inputs") or {}) for key, option in options.items()}

    @cached_property
    def least_grown(self) -> Sequence[str]:
        """The names of the inputs of an autogrow that have to be there, without the autogrow's own name."""
        template = self.parameters.get("template")
        if not isinstance(template, Mapping) or not (template.get("input") or {}).get("required"):
            return ()
        least = int(template.get("min") or 0)
        names = template.get("names") or [f"{template.get('prefix', '')}{number}" for number in range(least)]
        return [str(name) for name in names[:least]]

    @cached_property
    def grown(self) -> InputSchema | None:
        """What each input of an autogrow is: the one input of its template. They need not be there."""
        template = self.parameters.get("template")
        sections = template.get("input") if isinstance(template, Mapping) else None
        inputs = list(read_inputs(sections).values()) if isinstance(sections, Mapping) else []
        return replace(inputs[0], is_required=False) if len(inputs) == 1 else None


@dataclass(frozen=True)
class NodeSchema:
    """One node class: `outputs` are the types of its outputs, `pack` is the Python module that defines it.

    `output_names` are what the outputs are called, for as many as have a name. `is_output`: an output node.
    `is_partner`: a paid partner (API) node. `title` is its display name in the editor.
    """

    inputs: Mapping[str, InputSchema]
    outputs: tuple[str, ...]
    is_output: bool
    is_partner: bool
    pack: str
    title: str = ""
    output_names: tuple[str, ...] = ()

    @property
    def is_core(self) -> bool:
        """Whether it is a class of ComfyUI itself."""
        return self.pack == "nodes" or self.pack.startswith("comfy_extras")

    @property
    def is_stand_in(self) -> bool:
        """Whether the draft engine only stands in for the class: inputs and outputs are not those of the real one."""
        return self.pack == STAND_IN

    @property
    def takes_undeclared_inputs(self) -> bool:
        """Whether it takes inputs that it does not declare by name (V3's autogrow and dynamic inputs, stand-ins)."""
        return self.is_stand_in or any(schema.kind.startswith("COMFY_") for schema in self.inputs.values())


def read_schema(entry: Mapping[str, Any]) -> NodeSchema:
    """The schema from the entry of a class in /object_info, for V1 and V3 nodes."""
    sections = entry.get("input")
    inputs = read_inputs(sections if isinstance(sections, Mapping) else {})
    pack = str(entry.get("python_module") or "")
    outputs = tuple(output if isinstance(output, str) else "COMBO" for output in entry.get("output") or ())
    is_partner = bool(entry.get("api_node")) or pack.startswith("comfy_api_nodes")
    title = str(entry.get("display_name") or entry.get("name") or "")
    names = tuple(str(name) for name in entry.get("output_name") or ())
    return NodeSchema(inputs, outputs, bool(entry.get("output_node")), is_partner, pack, title, names)


def read_inputs(sections: Mapping[str, Any]) -> dict[str, InputSchema]:
    """The inputs in `{"required": {name: [type, parameters]}, "optional": …}`, in the order of their declaration."""
    return {
        name: _read_input(config, section == "required")
        for section in ("required", "optional")
        if isinstance(declared := sections.get(section), Mapping)
        for name, config in declared.items()
        if isinstance(config, list) and config  # a pack may declare what ComfyUI cannot read either
    }


def _read_input(config: list[Any], is_required: bool) -> InputSchema:
    kind, parameters = config[0], config[1] if len(config) > 1 and isinstance(config[1], Mapping) else {}
    options = kind if isinstance(kind, list) else parameters.get("options") if kind == "COMBO" else None
    if kind == DYNAMIC_COMBO:
        options = [option.get("key") for option in _dynamic_options(parameters)] or None
    name = "COMBO" if isinstance(kind, list) else str(kind)
    return InputSchema(name, parameters, is_required, tuple(options) if isinstance(options, list) else None)


def input_schema(schema: NodeSchema, inputs: Mapping[str, Any], name: str) -> InputSchema | None:
    """The schema of an input of a node that has these `inputs`; None for one that its class does not declare.

    V3's dynamic inputs are among them: `NAME.INNER` of a dynamic combo, by the key that it has, and of an autogrow.
    """
    return schema.inputs.get(name) or _inner_input(schema, inputs, name)


def _dynamic_options(parameters: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The options of a dynamic combo, `{"key": …, "inputs": {"required": …}}` each."""
    return [option for option in parameters.get("options") or () if isinstance(option, Mapping)]


# --- What is wrong -------------------------------------------------------------------------------------


def check_nodes(
    graph: Graph,
    schemas: Mapping[str, NodeSchema | None],
    files: Container[str] = (),
    known_classes: Sequence[str] = (),
) -> NodeErrors:
    """The errors of each node: unknown class, missing input, bad value, link of the wrong type.

    Of nodes that no output node depends on only the class is checked, as ComfyUI does. `files` are the names of the
    job's files for the input folder; `known_classes` are searched for names similar to an unknown class.
    """
    checks = _Checks(graph, schemas, files, known_classes)
    outputs, needed = checks.outputs(), checks.needed()
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
    """The errors of only those inputs that a job has changed: `slots`, a (node id, input name) for each."""
    checks = _Checks(graph, schemas, files)
    found = {
        node_id: [
            error
            for name in graph.inputs(node_id)
            if (node_id, name) in slots and (error := checks.of_changed(node_id, name))
        ]
        for node_id in graph
    }
    return {node_id: checks.entry(node_id, errors) for node_id, errors in found.items() if errors}


def check_pitfalls(graph: Graph, schemas: Mapping[str, NodeSchema | None]) -> NodeErrors:
    """The errors of dynamic combos that have a key which there is not; ComfyUI finds that when the node runs.

    And of lists in inputs that the class declares: ComfyUI takes each for a link, and says little if it is none. Of
    nodes that no output node depends on nothing is checked: they do not run.
    """
    checks = _Checks(graph, schemas, ())
    found = {
        node_id: [error for name in checks.pitfalls(node_id) if (error := checks.of_input(node_id, name))]
        for node_id in checks.needed()
    }
    return {node_id: checks.entry(node_id, errors) for node_id, errors in found.items() if errors}


@dataclass(frozen=True)
class _Checks:
    graph: Graph
    schemas: Mapping[str, NodeSchema | None]
    files: Container[str]
    known_classes: Sequence[str] = ()
    _similar: dict[str, list[str]] = field(default_factory=dict)

    def entry(self, node_id: str, errors: list[dict[str, Any]]) -> dict[str, Any]:
        return {"class_type": self.graph.class_of(node_id), "errors": errors}

    def outputs(self) -> list[str]:
        """The output nodes."""
        return [node_id for node_id in self.graph if (schema := self.schema(node_id)) and schema.is_output]

    def needed(self) -> set[str]:
        """The nodes that run: the output nodes, and what they depend on."""
        return set(with_dependencies(self.graph, self.outputs()))

    def schema(self, node_id: str) -> NodeSchema | None:
        return self.schemas.get(self.graph.class_of(node_id))

    def _similar_classes(self, class_type: str) -> list[str]:
        """Known classes of a similar name, for the first few unknown classes: a search takes milliseconds."""
        if class_type not in self._similar and len(self._similar) < _MAX_SEARCHES:
            self._similar[class_type] = difflib.get_close_matches(class_type, self.known_classes, n=3)
        return self._similar.get(class_type, [])

    def of_node(self, node_id: str, is_needed: bool) -> list[dict[str, Any]]:
        schema = self.schema(node_id)
        if schema is None:
            similar = self._similar_classes(self.graph.class_of(node_id)[:200])
            return [_error("missing_node_type", f"nearest classes: {', '.join(similar)}" if similar else "")]
        if not is_needed:
            return []
        inputs = self.graph.inputs(node_id)
        missing = (name for name in _required_names(schema.inputs, inputs) if name not in inputs)
        errors = [_error("required_input_missing", "Required input is missing", name) for name in missing]
        known = [name for name in inputs if input_schema(schema, inputs, name)]
        declared = (self.of_input(node_id, name) for name in known)
        return [*errors, *(error for error in declared if error)]

    def of_input(self, node_id: str, name: str) -> dict[str, Any] | None:
        schema = self.schema(node_id)
        if schema is None:  # ComfyUI itself reports an unknown class
            return None
        inputs = self.graph.inputs(node_id)
        expected, value = input_schema(schema, inputs, name), inputs[name]
        if expected is None:
            known = ", ".join(list(schema.inputs)[:30]) or "none"
            return (
                None
                if schema.takes_undeclared_inputs
                else _error("unknown_input", f"has no input {name[:80]!r}; it has {known}", name)
            )
        link = as_link(value)
        if link is None and isinstance(value, list):
            return _error("bad_linked_input", "Bad linked input", name, received_value=value)
        if link is not None:
            return self._of_link(name, expected, link)
        is_own_choice = self.graph.class_of(node_id) == CUSTOM_COMBO and expected.options == ()
        return None if is_own_choice else self._of_value(name, expected, value)

    def of_changed(self, node_id: str, name: str) -> dict[str, Any] | None:
        """The same, and the error of a value that ComfyUI would make another of: `"false"` would be true."""
        error, schema, inputs = self.of_input(node_id, name), self.schema(node_id), self.graph.inputs(node_id)
        expected, value = input_schema(schema, inputs, name) if schema else None, inputs[name]
        if error is not None or expected is None or as_link(value):
            return error
        is_sound = {
            "BOOLEAN": isinstance(value, (bool, int, float)),
            "STRING": isinstance(value, (str, int, float)) and not isinstance(value, bool),
        }
        if is_sound.get(expected.kind, True):
            return None
        return self._of_another_type(name, expected, value)

    def pitfalls(self, node_id: str) -> Iterator[str]:
        """The inputs of a node that are dynamic combos, or have a list that is no link."""
        schema = self.schema(node_id)
        if schema is None:
            return
        inputs = self.graph.inputs(node_id)
        for name, value in inputs.items():
            is_list = isinstance(value, list) and as_link(value) is None
            if not is_list and not schema.takes_undeclared_inputs:
                continue
            expected = input_schema(schema, inputs, name)
            if expected is not None and (is_list or expected.kind == DYNAMIC_COMBO):
                yield name

    def _of_link(self, name: str, expected: InputSchema, link: Link) -> dict[str, Any] | None:
        source = self.schema(link.node_id) if link.node_id in self.graph else None  # `check_graph` tells the latter
        if source is None or expected.kind.startswith("COMFY_"):
            return None
        if not 0 <= link.slot < len(source.outputs):
            return _error("bad_link", f"output {link.slot} of node {link.node_id} does not exist", name)
        output_type = source.outputs[link.slot]
        if fits(output_type, expected.kind):
            return None
        source_node = self.graph.describe(link.node_id)
        return _error(
            "return_type_mismatch", f"{name} must be {expected.kind}; node {source_node} gives {output_type}", name
        )

    def _of_another_type(self, name: str, expected: InputSchema, value: Any) -> dict[str, Any]:
        extra_info = {"received_value": value, "input_config": [expected.kind, dict(expected.parameters)]}
        return _error("invalid_input_type", f"{name} must be of type {expected.kind}", name, **extra_info)

    def _of_value(self, name: str, expected: InputSchema, value: Any) -> dict[str, Any] | None:
        extra_info = {"received_value": value, "input_config": [expected.kind, dict(expected.parameters)]}
        if expected.kind in _CONVERTERS:
            try:
                value = _CONVERTERS[expected.kind](value)
            except (TypeError, ValueError, OverflowError):
                return self._of_another_type(name, expected, value)
            if isinstance(value, float) and not math.isfinite(value):
                return _error("invalid_input_type", f"{name} must be a number", name, **extra_info)
        minimum, maximum = expected.parameters.get("min"), expected.parameters.get("max")
        if isinstance(value, (int, float)) and minimum is not None and value < minimum:
            return _error("value_smaller_than_min", f"Value {value} smaller than min of {minimum}", name, **extra_info)
        if isinstance(value, (int, float)) and maximum is not None and value > maximum:
            return _error("value_bigger_than_max", f"Value {value} bigger than max of {maximum}", name, **extra_info)
        return self._of_option(name, expected, value)

    def _of_option(self, name: str, expected: InputSchema, value: Any) -> dict[str, Any] | None:
        options = expected.options
        if options is None or isinstance(value, list) or value in options:
            return None
        if expected.is_file:
            exists = value in self.files or str(value).endswith("]")  # "a.png [output]": in another folder
            return None if exists else _error("missing_input_file", f"{name}: no file {str(value)[:200]!r}", name)
        extra_info = {"received_value": value, "input_config": [list(options), dict(expected.parameters)]}
        return _error("value_not_in_list", "Value not in list", name, **extra_info)


def _required_names(declared: Mapping[str, InputSchema], inputs: Mapping[str, Any], outer: str = "") -> Iterator[str]:
    """The names of the inputs that a node has to have; of V3's dynamic ones those that they bring, as ComfyUI does."""
    for name, expected in declared.items():
        if expected.kind == _AUTOGROW:
            yield from (f"{outer}{name}.{grown}" for grown in expected.least_grown)
            continue
        if expected.is_required:
            yield f"{outer}{name}"
        if expected.kind == DYNAMIC_COMBO:
            chosen = expected.inner.get(str(inputs.get(f"{outer}{name}")), {})
            yield from _required_names(chosen, inputs, f"{outer}{name}.")


def _inner_input(schema: NodeSchema, inputs: Mapping[str, Any], name: str) -> InputSchema | None:
    """The schema of `NAME.INNER`, which a dynamic combo's key brings, or an autogrow; None for any other name."""
    declared, outer = schema.inputs, ""
    while True:
        combo = next((known for known in declared if name.startswith(f"{outer}{known}.")), None)
        if combo is not None and declared[combo].kind == _AUTOGROW:
            return declared[combo].grown
        if combo is None or declared[combo].kind != DYNAMIC_COMBO:
            return None
        outer, key = f"{outer}{combo}.", inputs.get(f"{outer}{combo}")
        declared = declared[combo].inner.get(str(key), {})
        if name.removeprefix(outer) in declared:
            return declared[name.removeprefix(outer)]


def fits(output_type: str, expected: str) -> bool:
    """Whether an output may be linked to an input, by ComfyUI's rule: they share a type, or one of them is `*`."""
    if "*" in (output_type, expected) or output_type == expected:
        return True
    if {output_type, expected} & {"COMBO"}:  # a string may be linked to a combo; its value is known only when it runs
        return bool({output_type, expected} & {"STRING"})
    return bool({part.strip() for part in output_type.split(",")} & {part.strip() for part in expected.split(",")})


def _error(kind: str, message: str, name: str = "", **extra: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": "", "extra_info": {"input_name": name, **extra}}
