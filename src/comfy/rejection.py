"""ComfyUI's rejections and failures, turned into our errors. Pure.

They come in two ways: the body of a 400 to /prompt (or the `node_errors` of a 200: ComfyUI then runs the rest and
drops what is wrong), and the messages of a history entry. Shapes as seen on ComfyUI 0.3.64; where newer versions
differ, both are read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

from ..errors import (
    CudaFailed,
    InvalidWorkflow,
    MissingModel,
    MissingNodeType,
    NodeFailed,
    OutOfMemory,
    RunInterrupted,
    WorkerError,
)
from ..models.folders import MODEL_FILE, folder_names, folder_of_input
from ..redaction import public_text
from ..workflow.graph import Graph, Workflow
from .boot_log import FailedPack
from .record import messages_of
from .refusal import public_refusal


class Engine(NamedTuple):
    """What an explanation needs to know of the ComfyUI that it is about."""

    name: str = "ComfyUI"
    """With its version."""
    find_options: Callable[[str, str], list[str]] = lambda class_type, name: []
    """(class_type, input name) -> the values that it allows there."""
    is_core: Callable[[str], bool] = lambda class_type: False
    """Whether a class that it has is one of its own, not of a node pack."""
    failed_pack: Callable[[str], FailedPack | None] = lambda class_type: None
    """The node pack with that class, if it could not be installed or imported."""


# What `extra_model_paths.yaml` adds to ComfyUI's own.
_WHERE_MODELS_ARE = (
    "Models are searched for in MODELS_DIR, ComfyUI's own models folder, /runpod-volume/models, "
    "/runpod-volume/ComfyUI/models, /workspace/models and /workspace/ComfyUI/models: put the file into one of them, "
    "or use one that exists"
)

_JSON_CONSTANTS = {"None": "null", "True": "true", "False": "false"}
_NOT_FOUND_AT_RUN = re.compile(r"Model in folder '([^']+)' with filename '([^']+)' not found")

_OUT_OF_MEMORY = re.compile(r"OutOfMemory|MemoryError|out of memory|can't allocate memory", re.IGNORECASE)
# After these the process's GPU context is lost: every later call fails too.
_CUDA_FATAL = re.compile(
    r"CUDA error|CUDA driver error|AcceleratorError|device-side assert|illegal memory access"
    r"|unspecified launch failure|CUBLAS_STATUS_(?!ALLOC)|cuDNN error"
)
_NO_SUCH_FILE = re.compile(r"Invalid \w+ file: ")
_SHOWN_ERRORS = 10
_SHOWN_CHARACTERS = 300  # of what may be the content of a file, not its name


# --- Refused prompts -----------------------------------------------------------------------------------


def explain_rejection(body: object, workflow: Workflow, engine: Engine) -> WorkerError:
    """The error for what /prompt answered: `{"error": {...}, "node_errors": {...}}`.

    The engine is asked for options only where ComfyUI left out the allowed values (it does above 20 of them).
    """
    body = body if isinstance(body, Mapping) else {}
    problems = list_problems(_mapping(body.get("node_errors")), workflow, engine)
    error = explain_problems(problems) if problems else _explain_whole(_mapping(body.get("error")), engine)
    error.details["comfyui_error"] = public_refusal(body.get("error"), body.get("node_errors"))
    return error


def list_problems(node_errors: Mapping[str, Any], workflow: Workflow, engine: Engine) -> list[Problem]:
    """What each of ComfyUI's `node_errors` means, in the workflow's order; ComfyUI has none."""
    graph = Graph(workflow)
    engine = engine._replace(find_options=cache(engine.find_options), failed_pack=cache(engine.failed_pack))
    return [
        Problem(graph, node_id, error, engine)
        for node_id in graph
        for error in _mapping(node_errors.get(node_id)).get("errors") or []
        if isinstance(error, Mapping)
    ]


def explain_problems(problems: Sequence[Problem]) -> WorkerError:
    """One error for all of them."""
    is_missing_model = any(problem.is_missing_model for problem in problems)
    between = "\n" if is_missing_model else "; "  # a line for each file
    texts = [problem.text for problem in problems[:_SHOWN_ERRORS]]
    texts += [f"and {len(problems) - _SHOWN_ERRORS} more"] if len(problems) > _SHOWN_ERRORS else []
    details = [{**problem.details, "message": problem.text} for problem in problems[:_SHOWN_ERRORS]]
    if is_missing_model:
        missing = [problem.missing_model for problem in problems if problem.is_missing_model]
        is_all = len(missing) == len(problems)
        message = between.join([*texts, _WHERE_MODELS_ARE])
        return MissingModel(message, is_all, node_errors=details, missing_models=missing)
    return InvalidWorkflow(between.join(texts), node_errors=details)


def _explain_whole(error: Mapping[str, Any], engine: Engine) -> WorkerError:
    """An error that belongs to no node."""
    kind, message, details = (
        error.get("type"),
        public_text(error.get("message", "")),
        public_text(error.get("details", "")),
    )
    if kind == "prompt_no_outputs":
        return InvalidWorkflow("the workflow has no output node; add one that saves something, such as SaveImage")
    if kind == "missing_node_type" or "does not exist" in message:
        found = re.search(r"node (.+) does not exist", message)
        class_type = str(_mapping(error.get("extra_info")).get("class_type") or (found.group(1) if found else "?"))
        return MissingNodeType(
            f"node class {public_text(class_type, 100)!r} ({details or message}): {why_missing(class_type, engine)}",
            class_type=public_text(class_type, 100),
        )
    return InvalidWorkflow(
        f"ComfyUI refused the workflow: {': '.join(filter(None, (message, details))) or 'no reason given'}"
    )


def why_missing(class_type: str, engine: Engine) -> str:
    """Why an engine does not have a node class, and what to do."""
    pack = engine.failed_pack(class_type)
    if pack is not None and not pack.is_installed:
        return f"{engine.name} has no such node class; it may belong to a pack of CUSTOM_NODES: {pack}"
    if pack is not None:
        return (
            f"its node pack {public_text(pack.name, 100)} is installed, but {engine.name} could not import it: "
            f"{pack.error}; install its dependencies in the image"
        )
    return (
        f"{engine.name} has no such node class; use a newer ComfyUI if it has the class, install its node pack in "
        "the image (a paid partner node needs ENABLE_API_NODES=true), or use another node"
    )


class Problem:
    """One entry of `node_errors[id].errors`: `text` for people, `details` for programs."""

    def __init__(self, graph: Graph, node_id: str, error: Mapping[str, Any], engine: Engine) -> None:
        extra = _mapping(error.get("extra_info"))
        self.kind = str(error.get("type"))
        self.class_type = graph.class_of(node_id)
        self.name = str(extra.get("input_name") or "")
        self.received = extra.get("received_value")
        self._error = error
        self._graph = graph
        self._type, self._limits = _config(extra.get("input_config"))
        self._engine = engine
        self.allowed = self._allowed()
        self.is_missing_model = self.kind == "value_not_in_list" and self._names_model()
        self._node = graph.describe(node_id)
        self.details = {"node_id": node_id, "class_type": self.class_type, "input": self.name, "reason": self.kind}
        if self.received is not None:
            self.details["received"] = public_text(self.received, 200)

    @cached_property
    def text(self) -> str:
        """The problem for people."""
        return f"node {self._node}: {self._sentence()}"

    @property
    def missing_model(self) -> dict[str, str]:
        """Name and folder (ComfyUI's name of it, '' if that is not known) of a model that is missing."""
        return _model(self.received, folder_of_input(self.class_type, self.name))

    def _sentence(self) -> str:
        said = repr(self.received)
        received = _JSON_CONSTANTS.get(said) or public_text(said[:1000], 100)
        if self.is_missing_model:
            return self._missing_model()
        sentences = {
            "missing_node_type": "; ".join(
                filter(None, (self._error.get("message"), why_missing(self.class_type, self._engine)))
            ),
            "invalid_input_type": f"{self.name} must be of type {self._type}, not {received}" if self._type else "",
            "required_input_missing": f"input {self.name} is missing",
            "value_not_in_list": f"{self.name} must be one of {_listed(self.allowed)}, not {received}{self._newer()}",
            "value_smaller_than_min": f"{self.name} must be at least {self._limit('min')}, not {received}",
            "value_bigger_than_max": f"{self.name} must be at most {self._limit('max')}, not {received}",
            "bad_linked_input": self._bad_link(received),
        }
        return sentences.get(self.kind) or self._comfyui_message()

    def _bad_link(self, received: str) -> str:
        """What is wrong with a list that is no link: ComfyUI takes every list for one."""
        source = self.received[0] if isinstance(self.received, list) and len(self.received) == 2 else None
        if not isinstance(source, str) and str(source) in self._graph:
            return (
                f"its input {self.name!r} must be linked by a node id that is a string and an output number, like "
                f'["{source}", 0]'
            )
        return (
            f'{self.name} must be a value or a link ["node id", output number], not {received}; '
            'a list that is a value is written {"__value__": [...]}'
        )

    def _comfyui_message(self) -> str:
        if self._error.get("details") == "tuple index out of range":
            return "one of its links uses an output that the other node does not have"
        message, details = public_text(self._error.get("message", "")), public_text(self._error.get("details", ""))
        if self.kind == "missing_input_file" or _NO_SUCH_FILE.search(details):
            return (
                f"{(details or message)[:_SHOWN_CHARACTERS]}; send it with the job under that name, in images or files"
            )
        return ": ".join(filter(None, (message, details))) or self.kind

    def _missing_model(self) -> str:
        kind = folder_of_input(self.class_type, self.name)
        folder = " or ".join(folder_names().get(kind, (kind,))) if kind else "of its models"
        name = str(self.received)
        near = difflib.get_close_matches(name, self.allowed, n=3, cutoff=0.5)
        hint = f"similar names there: {_listed(near)}" if near else f"it has {_listed(self.allowed) or 'no files'}"
        return f"{self.name} {public_text(repr(name), 200)} was not found in the folder {folder}; {hint}"

    def _newer(self) -> str:
        """A word about newer versions, for a choice that a class of ComfyUI itself does not have; files are none."""
        is_choice = self.kind == "value_not_in_list" and isinstance(self.received, str) and "." not in self.received
        if not is_choice or not self._engine.is_core(self.class_type):
            return ""
        return f" ({self._engine.name} does not have it; a newer ComfyUI may)"

    def _names_model(self) -> bool:
        return bool(folder_of_input(self.class_type, self.name) or MODEL_FILE.search(str(self.received)))

    def _limit(self, which: str) -> object:
        return self._limits.get(which, "?")

    def _allowed(self) -> list[str]:
        if self.kind != "value_not_in_list":
            return []
        if isinstance(self._type, list):
            return [str(option) for option in self._type]
        return self._engine.find_options(self.class_type, self.name)


def _config(value: object) -> tuple[object, Mapping[str, Any]]:
    """The `input_config` of an error: (type or list of options, limits), of which ComfyUI may send nothing."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value[0], _mapping(value[1])
    return None, {}


def _model(name: object, folder: str) -> dict[str, str]:
    return {"name": public_text(name, 200), "folder": folder}


def _listed(options: list[str]) -> str:
    shown = ", ".join(public_text(repr(option), 100) for option in options[:10])
    return f"{shown} and {len(options) - 10} more" if len(options) > 10 else shown


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# --- Failed runs ---------------------------------------------------------------------------------------


def explain_failure(entry: Mapping[str, Any], workflow: Workflow) -> WorkerError | None:
    """The error for a history entry, or None if the run succeeded.

    Success is what the messages say: `status_str` alone may be left over from the run before.
    """
    status, messages = _mapping(entry.get("status")), messages_of(entry)
    if "execution_error" in messages:
        return _explain_node_failure(messages["execution_error"], Graph(workflow))
    if "execution_interrupted" in messages:
        return RunInterrupted("the run was interrupted inside ComfyUI before it ended")
    if "execution_success" in messages or (not messages and status.get("completed") is True):
        return None
    return NodeFailed("ComfyUI ended the run unsuccessfully, without giving a reason")


def _explain_node_failure(error: Mapping[str, Any], graph: Graph) -> WorkerError:
    node_id = str(error.get("node_id"))
    where = graph.describe(node_id) if node_id in graph else f"{node_id} ({public_text(error.get('node_type'), 100)})"
    exception = public_text(error.get("exception_type"), 100)
    message = public_text(error.get("exception_message", ""))
    class_type = public_text(error.get("node_type"), 100)
    details: dict[str, Any] = {
        "node_id": node_id,
        "class_type": class_type,
        "exception_type": exception,
        "exception_message": message,
    }
    if _OUT_OF_MEMORY.search(f"{exception} {message}"):
        return OutOfMemory(
            f"node {where} ran out of memory; use a smaller size or batch, a smaller (fp8) model, or a larger GPU",
            **details,
        )
    if _CUDA_FATAL.search(f"{exception} {message}"):
        return CudaFailed(
            f"node {where} failed because the GPU failed: {exception}: {message}; send the job again", **details
        )
    missing = _NOT_FOUND_AT_RUN.search(str(error.get("exception_message", "")))
    if missing:
        return MissingModel(
            f"node {where}: {public_text(repr(missing.group(2)), 200)} was not found "
            f"in the folder {public_text(missing.group(1), 80)}. {_WHERE_MODELS_ARE}",
            missing_models=[_model(missing.group(2), public_text(missing.group(1), 80))],
            **details,
        )
    return NodeFailed(f"node {where} failed: {exception}: {message}", **details)
