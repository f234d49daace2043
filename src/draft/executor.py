"""Runs prompts: order, cache and nodes, as ComfyUI 0.33.0 was observed to."""

from __future__ import annotations

import hashlib
import json
import threading
import traceback
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..protocol.executor import Folders, ValidationResult
from ..protocol.queue import QueuedPrompt
from ..protocol.report import RunReport
from ..workflow.graph import as_link
from . import diffusion, images, saving, texts
from .any_node import run_node
from .schema import all_classes, classes_of, declared_inputs, served_object_info, stand_in
from .validation import validate
from .values import Context, Interrupted, Output, input_file

PREVIEW_METHODS = ("none", "auto", "latent2rgb", "taesd")
"""ComfyUI's; all but the first are the same here."""

_ANY = ("*", "COMFY_MATCHTYPE_V3")

NODES: dict[str, Callable[..., Output]] = {**images.NODES, **texts.NODES, **saving.NODES, **diffusion.NODES}
"""The function that runs each node class, by class name."""


@dataclass
class _NodeResult:
    """The output of a node that ran. The cache `key` is a hash of its class, its inputs and its ancestors."""

    key: str
    output: Output


@dataclass
class DraftExecutor:
    """Runs prompts one after the other; keeps the results of the last one, as ComfyUI's classic cache does.

    With `any_class` it also runs classes that it does not know, by what the nodes linked to them want.
    """

    folders: Folders
    step_seconds: float
    saves_metadata: bool
    caches: bool
    any_class: bool = False
    concurrency: int = 1
    preview_method: str = "none"
    version: str = "0.33.0"
    devices: Sequence[Mapping[str, Any]] = ({"name": "draft", "type": "cpu", "index": None},)
    interrupted: threading.Event = field(default_factory=threading.Event)
    _cache: dict[str, _NodeResult] = field(default_factory=dict)

    def validate(self, prompt: dict[str, Any], targets: Collection[str] | None = None) -> ValidationResult:
        """See `Executor`."""
        return validate(prompt, self.folders, classes_of(prompt, self.any_class), targets)

    def execute(self, queued: QueuedPrompt, report: RunReport) -> None:
        """See `Executor`."""
        run = _Run(self, queued, report)
        self.interrupted.clear()
        run.run()

    def interrupt(self, prompt_id: str) -> None:
        """See `Executor`."""
        self.interrupted.set()

    def withdraw(self, prompt_id: str) -> None:
        """See `Executor`: every prompt begins at once."""

    def free_memory(self) -> None:
        """See `Executor`."""
        self._cache = {}

    def object_info(self) -> Mapping[str, Mapping[str, Any]]:
        """See `Executor`."""
        return served_object_info()

    def node_class(self, name: str) -> Mapping[str, Any] | None:
        """See `Executor`."""
        return served_object_info().get(name) or (stand_in(name) if self.any_class else None)

    def reuse_cache(self, keys: dict[str, str]) -> dict[str, _NodeResult]:
        """The results of the last prompt that this one can use, by node id; all others are dropped from the cache."""
        by_key = {result.key: result for result in self._cache.values()} if self.caches else {}
        self._cache = {node_id: by_key[key] for node_id, key in keys.items() if key in by_key}
        return self._cache


class _Run:
    """One prompt while it runs."""

    def __init__(self, executor: DraftExecutor, queued: QueuedPrompt, report: RunReport) -> None:
        self._executor = executor
        self._prompt = queued.prompt
        self._classes = classes_of(queued.prompt, executor.any_class)
        self._extra_data = queued.extra_data
        self._report = report
        self._execution_order = _execution_order(queued.prompt, queued.outputs)
        self._cache_keys = _cache_keys(queued.prompt, executor.folders)
        self._results: dict[str, _NodeResult] = {}
        self._wanted: dict[str, list[str]] = {}

    def run(self) -> None:
        self._report.started()
        self._results = self._executor.reuse_cache(self._cache_keys)
        cached = {node_id: result.output.ui for node_id, result in self._results.items()}
        self._report.cached(cached)
        for node_id in self._execution_order:
            if node_id in cached:
                self._report.output(node_id, cached[node_id])
            elif not self._run_node(node_id):
                return
        self._report.succeeded()

    def _run_node(self, node_id: str) -> bool:
        """Run one node. Returns False if that ended the run."""
        self._report.node_started(node_id)
        try:
            if self._executor.interrupted.is_set():
                raise Interrupted
            output = self._call_function(node_id)
        except Interrupted:
            self._report.interrupted(node_id, list(self._results))
            return False
        except Exception as error:  # noqa: BLE001  the edge of a node: whatever it raises is an execution_error
            self._report_failure(node_id, error)
            return False
        self._results[node_id] = _NodeResult(self._cache_keys[node_id], output)
        self._report.output(node_id, output.ui)
        self._report.node_finished(node_id)
        return True

    def _call_function(self, node_id: str) -> Output:
        """Call the node's function with its declared inputs."""
        node = self._prompt[node_id]
        declared = declared_inputs(node, self._classes)
        inputs = {name: self._value(node["inputs"][name]) for name in declared if name in node["inputs"]}
        context = Context(
            self._executor.folders,
            self._executor.step_seconds,
            self._executor.interrupted,
            lambda step, steps: self._report.progress(node_id, step, steps),
            self._metadata(),
            self._report.picture,
            self._report.preview if self._sends_previews else None,
        )
        class_type = node["class_type"]
        if class_type in NODES:
            return NODES[class_type](context, **inputs)
        entry = self._classes[class_type]
        outputs = entry["output"] if class_type in all_classes() else self._wanted_of(node_id)
        return run_node(context, class_type, outputs, inputs, bool(entry["output_node"]))

    @property
    def _sends_previews(self) -> bool:
        asked = self._extra_data.get("preview_method")
        return (asked if asked in PREVIEW_METHODS else self._executor.preview_method) != "none"

    def _wanted_of(self, node_id: str) -> list[str]:
        """The types that the nodes linked to this one want of its outputs; of those that take any, what is next."""
        if node_id in self._wanted:
            return self._wanted[node_id]
        wanted: dict[int, str] = {}
        for other, node in self._prompt.items():
            for name, (kind, _, _) in declared_inputs(node, self._classes).items():
                link = as_link(node.get("inputs", {}).get(name))
                if link and link.node_id == node_id and wanted.get(link.slot, "*") == "*":
                    wanted[link.slot] = kind if isinstance(kind, str) else "COMBO"
                    if kind in _ANY:
                        wanted[link.slot] = next((after for after in self._wanted_of(other) if after != "*"), "*")
        self._wanted[node_id] = [wanted.get(slot, "*") for slot in range(max(wanted, default=-1) + 1)]
        return self._wanted[node_id]

    def _value(self, value: Any) -> Any:
        link = as_link(value)
        return self._results[link.node_id].output.values[link.slot] if link else value

    def _metadata(self) -> dict[str, str] | None:
        if not self._executor.saves_metadata:
            return None
        extra = self._extra_data.get("extra_pnginfo") or {}
        return {"prompt": json.dumps(self._prompt), **{key: json.dumps(value) for key, value in extra.items()}}

    def _report_failure(self, node_id: str, error: Exception) -> None:
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        lines = traceback.format_tb(error.__traceback__)
        self._report.failed(node_id, list(self._results), f"{module}{kind.__qualname__}", str(error), lines)


def _execution_order(prompt: dict[str, Any], outputs: list[str]) -> list[str]:
    """The nodes that the outputs depend on, each after those that it is linked to."""
    order: dict[str, None] = {}
    waiting = [(output, False) for output in reversed(outputs)]
    while waiting:
        node_id, is_ready = waiting.pop()
        if is_ready:
            order[node_id] = None
        elif node_id not in order:
            waiting.append((node_id, True))
            waiting.extend((source, False) for source in _linked_nodes(prompt, node_id) if source not in order)
    return list(order)


def _linked_nodes(prompt: dict[str, Any], node_id: str) -> list[str]:
    return [link.node_id for value in prompt[node_id]["inputs"].values() if (link := as_link(value))]


def _cache_keys(prompt: dict[str, Any], folders: Folders) -> dict[str, str]:
    """A cache key for each node, from its class, all its inputs (declared or not) and those of its ancestors."""
    keys: dict[str, str] = {}
    for node_id in _execution_order(prompt, list(prompt)):
        node = prompt[node_id]
        parts: list[Any] = [node["class_type"]]
        for name, value in sorted(node["inputs"].items()):
            link = as_link(value)
            parts.append([name, [keys[link.node_id], link.slot] if link else value])
        if node["class_type"].startswith("LoadImage"):
            file = input_file(folders, str(node["inputs"].get("image")))
            parts.append(hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None)
        if node["class_type"] == "SaveImageWebsocket":  # never cached
            parts.append(uuid.uuid4().hex)
        keys[node_id] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return keys
