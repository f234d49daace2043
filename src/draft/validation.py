"""ComfyUI's validation errors, in ComfyUI's words: the body of a 400 to /prompt, or the `node_errors` of a 200.

Types, messages and details are those that a real ComfyUI 0.33.0 was observed to answer; its tracebacks are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..protocol.executor import Folders, ValidationResult
from .schema import MODEL_FILE_INPUTS, all_classes, declared_inputs, object_info
from .values import input_file

_MAX_LISTED_OPTIONS = 20
_CONVERTERS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
Problem = dict[str, Any]


def validate(
    prompt: dict[str, Any],
    folders: Folders,
    classes: Mapping[str, Mapping[str, Any]] | None = None,
    targets: Collection[str] | None = None,
) -> ValidationResult:
    """Validate a prompt as POST /prompt does; numbers and strings are converted in place, as in ComfyUI.

    `classes` are those that there are, by name; None for ComfyUI's own. Of the output nodes only `targets` will run.
    """
    classes = all_classes() if classes is None else classes
    for node_id, node in prompt.items():
        class_type = node.get("class_type")
        if class_type not in classes:
            title = (node.get("_meta") or {}).get("title") or class_type
            message = f"Node '{title}' not found. The custom node may not be installed."
            if class_type is None:
                name = title or f"ID #{node_id}"
                message = (
                    f"Node '{name}' has no class_type. The workflow may be corrupted or a custom node is missing."
                )
            extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
            error = _prompt_error("missing_node_type", message, f"Node ID '#{node_id}'")
            return ValidationResult(error={**error, "extra_info": extra})
    outputs = [node_id for node_id, node in prompt.items() if classes[node["class_type"]]["output_node"]]
    outputs = [node_id for node_id in outputs if targets is None or node_id in targets]
    if not outputs:
        return ValidationResult(error=_prompt_error("prompt_no_outputs", "Prompt has no outputs"))
    return _check_outputs(prompt, outputs, _NodeChecks(prompt, folders, classes))


def _check_outputs(prompt: dict[str, Any], outputs: list[str], checks: _NodeChecks) -> ValidationResult:
    result = ValidationResult()
    for output in outputs:
        needed = checks.ancestors(output)
        failed = {node_id: problems for node_id in needed if (problems := checks.problems_of(node_id))}
        if not failed:
            result.outputs.append(output)
        for node_id, problems in failed.items():
            entry = {"errors": problems, "dependent_outputs": [], "class_type": prompt[node_id]["class_type"]}
            result.node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
    if not result.outputs:
        own = [problem for output in outputs for problem in checks.problems_of(output)]
        details = "\n".join(f"{problem['message']}: {problem['details']}" for problem in own)
        result.error = _prompt_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
    return result


class _NodeChecks:
    """The problems of each node; each node is checked once."""

    def __init__(self, prompt: dict[str, Any], folders: Folders, classes: Mapping[str, Mapping[str, Any]]) -> None:
        self._prompt = prompt
        self._classes = classes
        self._folders = folders
        self._problems: dict[str, list[Problem]] = {}
        self._reached_by: dict[str, tuple[str, list[Any], list[Any]]] = {}

    def problems_of(self, node_id: str) -> list[Problem]:
        if node_id not in self._problems:
            try:
                self._problems[node_id] = self._check_node(node_id)
            except (KeyError, IndexError, TypeError) as error:  # ComfyUI reports exceptions in its checks like this
                self._problems[node_id] = [self._exception(node_id, error)]
        return self._problems[node_id]

    def _exception(self, node_id: str, error: Exception) -> Problem:
        """The problem of a node whose check raised: told by the node that it is linked to, if there is one."""
        details, kind = str(error), type(error).__name__
        if node_id not in self._reached_by:
            message = "Exception when validating node"
            return _problem("exception_during_validation", message, details, exception_type=kind)
        name, config, link = self._reached_by[node_id]
        return _problem(
            "exception_during_inner_validation",
            "Exception when validating inner node",
            details,
            input_name=name,
            input_config=config,
            exception_message=details,
            exception_type=kind,
            linked_node=link,
        )

    def ancestors(self, output: str) -> list[str]:
        """An output node and all that it depends on through declared inputs; links to missing nodes are skipped here.

        Nodes that depend on themselves get their problem here.
        """
        seen: dict[str, None] = {}
        path: list[str] = []  # from the output to the node at hand
        waiting = [(output, 0)]
        while waiting:
            current, depth = waiting.pop()
            del path[depth:]
            if current in path:
                self._refuse_cycle([*path[path.index(current) :], current])
            if current in seen or current not in self._prompt:
                continue
            seen[current] = None
            path.append(current)
            inputs = self._prompt[current].get("inputs", {})
            for name, (kind, limits, _) in declared_inputs(self._prompt[current], self._classes).items():
                link = inputs.get(name)
                if isinstance(link, list) and len(link) == 2:
                    self._reached_by.setdefault(link[0], (name, [kind, limits], link))
                    waiting.append((link[0], depth + 1))
        return list(seen)

    def _refuse_cycle(self, path: list[str]) -> None:
        details = " -> ".join(f"{node_id} ({self._prompt[node_id]['class_type']})" for node_id in path)
        nodes = list(dict.fromkeys(path))
        for node_id in nodes:
            problem = _problem(
                "dependency_cycle", "Dependency cycle detected", details, node_id=node_id, cycle_nodes=nodes
            )
            self._problems[node_id] = [problem]

    def _check_node(self, node_id: str) -> list[Problem]:
        node = self._prompt[node_id]
        problems = []
        for name, (kind, limits, required) in declared_inputs(node, self._classes).items():
            if name not in node["inputs"]:
                if required:
                    problems.append(
                        _problem("required_input_missing", "Required input is missing", name, input_name=name)
                    )
                continue
            value = node["inputs"][name]
            found = (
                self._check_link(name, kind, limits, value)
                if isinstance(value, list)
                else self._check_value(node, name, kind, limits)
            )
            problems.extend([found] if found else [])
        return problems

    def _check_link(self, name: str, kind: Any, limits: Mapping[str, Any], link: list[Any]) -> Problem | None:
        extra_info = {"input_name": name, "input_config": [kind, limits]}
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return _problem("bad_linked_input", message, name, **extra_info, received_value=link)
        received = tuple(self._classes[self._prompt[link[0]]["class_type"]]["output"])[link[1]]
        expected = "COMBO" if isinstance(kind, list) else kind
        if (
            _is_any(received)
            or _is_any(expected)
            or received == expected
            or (expected == "COMBO" and received == "STRING")
        ):
            return None
        details = f"{name}, received_type({received}) mismatch input_type({kind})"
        return _problem(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            details,
            **extra_info,
            received_type=received,
            linked_node=link,
        )

    def _check_value(self, node: dict[str, Any], name: str, kind: Any, limits: Mapping[str, Any]) -> Problem | None:
        extra_info = {"input_name": name, "input_config": [kind, limits]}
        value = node["inputs"][name]
        if isinstance(kind, str) and kind in _CONVERTERS:
            try:
                value = node["inputs"][name] = _CONVERTERS[kind](value)
            except (TypeError, ValueError, OverflowError) as error:
                message = f"Failed to convert an input value to a {kind} value"
                return _problem(
                    "invalid_input_type",
                    message,
                    f"{name}, {value}, {error}",
                    **extra_info,
                    received_value=value,
                    exception_message=str(error),
                )
        if "min" in limits and value < limits["min"]:
            message = f"Value {value} smaller than min of {limits['min']}"
            return _problem("value_smaller_than_min", message, name, **extra_info, received_value=value)
        if "max" in limits and value > limits["max"]:
            message = f"Value {value} bigger than max of {limits['max']}"
            return _problem("value_bigger_than_max", message, name, **extra_info, received_value=value)
        if node["class_type"] in ("LoadImage", "LoadImageMask") and name == "image":
            return self._check_file(name, value)
        if node["class_type"] not in object_info():
            is_file = any("upload" in name for name in limits)
            return self._check_file(name, value) if is_file and isinstance(value, str) else None
        options = limits.get("options") if kind == "COMBO" else kind
        return _check_option(name, options, kind, limits, value) if isinstance(options, list) else None

    def _check_file(self, name: str, value: object) -> Problem | None:
        if input_file(self._folders, str(value)).is_file():
            return None
        details = f"{name} - Invalid image file: {value}"
        return _problem("custom_validation_failed", "Custom validation failed for node", details, input_name=name)


def _is_any(kind: object) -> bool:
    """Whether a type takes, or may be, several."""
    return kind == "*" or "," in str(kind) or str(kind).startswith("COMFY_")


def _check_option(
    name: str, options: list[Any], kind: Any, limits: Mapping[str, Any], value: object
) -> Problem | None:
    if value in options or (name in MODEL_FILE_INPUTS and isinstance(value, str) and value):
        return None
    is_long = len(options) > _MAX_LISTED_OPTIONS
    listed = f"(list of length {len(options)})" if is_long else str(options)
    extra_info = {"input_name": name, "input_config": None if is_long else [kind, limits], "received_value": value}
    return _problem("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {listed}", **extra_info)


def _problem(kind: str, message: str, details: str, **extra: Any) -> Problem:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _prompt_error(kind: str, message: str, details: str = "") -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}
