"""Runs one prompt: order, cache, events and the history entry, as ComfyUI 0.3.64 was seen to give them."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import diffusion, images, saving, texts
from .schema import declared_inputs
from .values import Context, Folders, Interrupted, Output, input_file

NODES: dict[str, Callable[..., Output]] = {**images.NODES, **texts.NODES, **saving.NODES, **diffusion.NODES}
"""Class name to the function that runs it."""

Send = Callable[[str, "dict[str, Any] | bytes"], None]
"""Sends an event (type, data) to the client that queued the prompt; a picture's bytes go as a binary frame."""


@dataclass(frozen=True)
class Item:
    """A prompt in the queue."""

    number: float
    prompt_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]

    def as_json(self) -> list[Any]:
        """As /queue and the history show it."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


@dataclass
class _Done:
    """A node that ran: `key` tells its class, inputs and ancestry."""

    key: str
    output: Output


@dataclass
class Executor:
    """Runs prompts one after the other; keeps the results of the last one, as ComfyUI's classic cache does."""

    folders: Folders
    step_seconds: float
    saves_metadata: bool
    caches: bool
    interrupt: threading.Event = field(default_factory=threading.Event)
    _cache: dict[str, _Done] = field(default_factory=dict)

    def forget(self) -> None:
        """Empty the cache."""
        self._cache = {}

    def run(self, item: Item, send: Send) -> dict[str, Any]:
        """Run a prompt to its end; the history entry."""
        return _Run(self, item, send).entry()

    def reuse(self, keys: dict[str, str]) -> dict[str, _Done]:
        """What the last prompt left that this one can use: node id to result."""
        by_key = {done.key: done for done in self._cache.values()} if self.caches else {}
        self._cache = {node_id: by_key[key] for node_id, key in keys.items() if key in by_key}
        return self._cache


class _Run:
    """One prompt while it runs."""

    def __init__(self, executor: Executor, item: Item, send: Send) -> None:
        self._executor = executor
        self._item = item
        self._prompt = item.prompt
        self._send = send
        self._messages: list[list[Any]] = []
        self._order = _order(item.prompt, item.outputs)
        self._keys = _keys(item.prompt, executor.folders)
        self._done: dict[str, _Done] = {}
        self._states: dict[str, dict[str, Any]] = {}

    def entry(self) -> dict[str, Any]:
        self._executor.interrupt.clear()
        self._tell("execution_start")
        self._done = self._executor.reuse(self._keys)
        cached = list(self._done)
        self._tell("execution_cached", nodes=cached)
        for node_id in self._order:
            if node_id in cached:
                self._show(node_id)
            elif not self._run_node(node_id):
                break
        else:
            self._tell("execution_success")
        return self._history()

    def _run_node(self, node_id: str) -> bool:
        """Run one node; whether the run goes on."""
        self._state(node_id, "running", 0, 1)
        self._event("executing", node=node_id, display_node=node_id)
        try:
            if self._executor.interrupt.is_set():
                raise Interrupted
            output = self._call(node_id)
        except Interrupted:
            self._tell(
                "execution_interrupted", node_id=node_id, node_type=self._class(node_id), executed=list(self._done)
            )
            return False
        except Exception as error:  # noqa: BLE001  whatever a node raises is an execution_error
            self._tell_error(node_id, error)
            return False
        self._done[node_id] = _Done(self._keys[node_id], output)
        self._show(node_id)
        self._state(node_id, "finished", 1, 1)
        return True

    def _call(self, node_id: str) -> Output:
        """Call the node's function with its declared inputs; an output node's values may be what it was given."""
        node = self._prompt[node_id]
        inputs = {
            name: self._value(node["inputs"][name])
            for name in declared_inputs(node["class_type"])
            if name in node["inputs"]
        }
        context = Context(
            self._executor.folders,
            self._executor.step_seconds,
            self._executor.interrupt,
            lambda step, steps: self._progress(node_id, step, steps),
            self._metadata(),
            lambda png: self._send("picture", png),
        )
        return NODES[node["class_type"]](context, **inputs)

    def _value(self, value: Any) -> Any:
        return self._done[value[0]].output.values[value[1]] if isinstance(value, list) else value

    def _metadata(self) -> dict[str, str] | None:
        if not self._executor.saves_metadata:
            return None
        extra = self._item.extra_data.get("extra_pnginfo") or {}
        return {"prompt": json.dumps(self._prompt), **{key: json.dumps(value) for key, value in extra.items()}}

    # --- Telling -----------------------------------------------------------------------------------

    def _event(self, kind: str, **data: Any) -> None:
        self._send(kind, {**data, "prompt_id": self._item.prompt_id})

    def _tell(self, kind: str, **data: Any) -> None:
        """An event that the history keeps."""
        message = {**data, "prompt_id": self._item.prompt_id, "timestamp": int(time.time() * 1000)}
        self._messages.append([kind, message])
        self._send(kind, message)

    def _tell_error(self, node_id: str, error: Exception) -> None:
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        self._tell(
            "execution_error",
            node_id=node_id,
            node_type=self._class(node_id),
            executed=list(self._done),
            exception_message=str(error),
            exception_type=f"{module}{kind.__qualname__}",
            traceback=traceback.format_tb(error.__traceback__),
            current_inputs={name: [str(value)] for name, value in self._prompt[node_id]["inputs"].items()},
            current_outputs=list(self._done),
        )

    def _progress(self, node_id: str, step: int, steps: int) -> None:
        self._state(node_id, "running", step, steps)
        self._event("progress", value=step, max=steps, node=node_id)

    def _state(self, node_id: str, state: str, value: int, most: int) -> None:
        names = dict.fromkeys(("node_id", "display_node_id", "real_node_id"), node_id)
        told = {"value": value, "max": most, "state": state, "prompt_id": self._item.prompt_id, "parent_node_id": None}
        self._states[node_id] = {**told, **names}
        self._event("progress_state", nodes=dict(self._states))

    def _show(self, node_id: str) -> None:
        ui = self._done[node_id].output.ui
        if ui is not None:
            self._event("executed", node=node_id, display_node=node_id, output=ui)

    def _class(self, node_id: str) -> str:
        return str(self._prompt[node_id]["class_type"])

    def _history(self) -> dict[str, Any]:
        shown = {node_id: done.output.ui for node_id, done in self._done.items() if done.output.ui is not None}
        succeeded = self._messages[-1][0] == "execution_success"
        return {
            "prompt": self._item.as_json(),
            "outputs": shown,
            "status": {
                "status_str": "success" if succeeded else "error",
                "completed": succeeded,
                "messages": self._messages,
            },
            "meta": {
                node_id: {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
                for node_id in shown
            },
        }


def _order(prompt: dict[str, Any], outputs: list[str]) -> list[str]:
    """What the outputs need, each node after those that it takes from."""
    order: dict[str, None] = {}
    waiting = [(output, False) for output in reversed(outputs)]
    while waiting:
        node_id, is_ready = waiting.pop()
        if is_ready:
            order[node_id] = None
        elif node_id not in order:
            waiting.append((node_id, True))
            waiting.extend((source, False) for source in _sources(prompt, node_id) if source not in order)
    return list(order)


def _sources(prompt: dict[str, Any], node_id: str) -> list[str]:
    return [value[0] for value in prompt[node_id]["inputs"].values() if isinstance(value, list)]


def _keys(prompt: dict[str, Any], folders: Folders) -> dict[str, str]:
    """A key for each node from its class, all its inputs (declared or not) and those of its ancestors."""
    keys: dict[str, str] = {}
    for node_id in _order(prompt, list(prompt)):
        node = prompt[node_id]
        parts: list[Any] = [node["class_type"]]
        for name, value in sorted(node["inputs"].items()):
            parts.append([name, [keys[value[0]], value[1]] if isinstance(value, list) else value])
        if node["class_type"].startswith("LoadImage"):
            file = input_file(folders, str(node["inputs"].get("image")))
            parts.append(hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None)
        if node["class_type"] == "SaveImageWebsocket":  # never from the cache
            parts.append(uuid.uuid4().hex)
        keys[node_id] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return keys
