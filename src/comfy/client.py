"""ComfyUI's HTTP routes, one method each; the only HTTP client of ComfyUI.

Every call has a timeout and raises ComfyUnreachable if no answer came, UnexpectedAnswer if the answer is not one of
ComfyUI's protocol.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ..errors import BrokenNodeType, UnexpectedAnswer
from ..redaction import public_text
from ..workflow.schemas import NodeSchema, read_schema
from .boot_log import BootLog
from .http import Answer, HttpConnections

_MAX_CLASS_LENGTH = 500
_MEMORY_ROUTE_SECONDS = 1.5  # routes that only read memory: longer means that ComfyUI is busy or frozen
_DISK_ROUTE_SECONDS = 60.0  # validation and schemas list model folders, which is slow on a network volume


@dataclass(frozen=True)
class Submission:
    """ComfyUI's answer to POST /prompt. `body` holds `error` and `node_errors` if it refused the prompt."""

    accepted: bool
    body: Mapping[str, Any]

    @property
    def is_whole(self) -> bool:
        """Whether ComfyUI will run all of it: it drops output nodes with errors if at least one has none."""
        return self.accepted and not self.body.get("node_errors")


@dataclass(frozen=True)
class QueueState:
    """The ids of the prompts that ComfyUI has accepted and not finished."""

    running: frozenset[str]
    pending: frozenset[str]

    def __contains__(self, prompt_id: str) -> bool:
        return prompt_id in self.running or prompt_id in self.pending


class ComfyClient:
    """One ComfyUI server, over keep-alive connections. May be used from several threads."""

    def __init__(self, url: str, name: str = "ComfyUI", boot_log: BootLog | None = None) -> None:
        self.name = name
        """What it is called, with its version as far as that is known."""
        self.boot_log = boot_log or BootLog()
        self.answered_at = 0.0
        """When it last answered anything, by the monotonic clock."""
        self._schemas: dict[str, NodeSchema] = {}
        parts = urlsplit(url)
        self._connections = HttpConnections(str(parts.hostname), parts.port or 80)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def system_stats(self) -> dict[str, Any]:
        """GET /system_stats: versions, devices and the arguments the server was started with."""
        return self._json("GET", "/system_stats")

    def queue_prompt(
        self, prompt: Mapping[str, Any], prompt_id: str, client_id: str, extra_data: Mapping[str, Any]
    ) -> Submission:
        """POST /prompt. `prompt_id` must be a lowercase UUID (newer versions insist), `client_id` gets the events.

        Each node is given a `_meta`: ComfyUI 0.33 fails without one where it replaces a class that is gone.
        """
        nodes = {
            node_id: {**node, "_meta": node.get("_meta") or {"title": node["class_type"]}}
            for node_id, node in prompt.items()
        }
        body = {"prompt": nodes, "prompt_id": prompt_id, "client_id": client_id, "extra_data": dict(extra_data)}
        response = self._request("POST", "/prompt", body=body, seconds=_DISK_ROUTE_SECONDS, accept=(200, 400))
        return Submission(response.status == 200, self._decoded(response))

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """GET /history/{id}: the entry of a run that ended, None while it has not."""
        entry = self._json("GET", f"/history/{prompt_id}").get(prompt_id)
        return entry if isinstance(entry, dict) else None

    def queue(self) -> QueueState:
        """GET /queue: which prompts run or wait."""
        state = self._json("GET", "/queue")
        return QueueState(_prompt_ids(state.get("queue_running")), _prompt_ids(state.get("queue_pending")))

    def interrupt(self, prompt_id: str) -> None:
        """POST /interrupt: stop that prompt if it is the one that runs."""
        self._request("POST", "/interrupt", body={"prompt_id": prompt_id})

    def dequeue(self, prompt_id: str) -> None:
        """POST /queue: take that prompt out if it waits."""
        self._request("POST", "/queue", body={"delete": [prompt_id]})

    def forget(self, prompt_id: str) -> None:
        """POST /history: drop that entry, which ComfyUI would keep with the whole prompt."""
        self._request("POST", "/history", body={"delete": [prompt_id]})

    def free(self) -> None:
        """POST /free: unload all models and forget cached results, as soon as nothing runs."""
        self._request("POST", "/free", body={"unload_models": True, "free_memory": True})

    def queue_remaining(self) -> int:
        """GET /prompt: how many prompts run or wait; the cheapest sign of life."""
        info = self._json("GET", "/prompt").get("exec_info")
        return int(info.get("queue_remaining", 0)) if isinstance(info, dict) else 0

    def view(self, filename: str, subfolder: str, folder_type: str) -> bytes | None:
        """GET /view: the bytes of a file, None if ComfyUI has no such file."""
        params = {"filename": filename, "subfolder": subfolder, "type": folder_type}
        response = self._request("GET", "/view", params=params, seconds=_DISK_ROUTE_SECONDS, accept=(200, 404))
        return response.body if response.status == 200 else None

    def schemas(self, class_types: Iterable[str], is_fresh: bool = False) -> dict[str, NodeSchema | None]:
        """GET /object_info/{class}: what node classes take, None for one that ComfyUI does not have.

        Requested once per class, unless `is_fresh`: lists of files change while ComfyUI runs. Raises BrokenNodeType
        for a class that fails where it should say what it takes.
        """
        found: dict[str, NodeSchema | None] = {}
        for class_type in set(class_types):
            if class_type in self._schemas and not is_fresh:
                found[class_type] = self._schemas[class_type]
                continue
            found[class_type] = None
            if class_type in (".", "..") or len(class_type) > _MAX_CLASS_LENGTH:  # it would be another route
                continue
            route = f"/object_info/{quote(class_type, safe='')}"
            response = self._request("GET", route, seconds=_DISK_ROUTE_SECONDS, accept=(200, 500))
            if response.status == 500:
                raise self._broken(class_type)
            schema = self._decoded(response).get(class_type)
            if isinstance(schema, dict):
                found[class_type] = self._schemas[class_type] = read_schema(schema)
        return found

    def _broken(self, class_type: str) -> BrokenNodeType:
        pack = public_text(self.boot_log.origin_of(class_type), 100)
        shown = public_text(class_type, 100)
        return BrokenNodeType(
            f"node class {shown!r} of {f'the node pack {pack}' if pack else 'a node pack'} is broken: it fails when "
            f"{self.name} asks for its inputs (the worker's log has the reason); fix or update the pack in the "
            "image, or use another node",
            class_type=shown,
            **({"node_pack": pack} if pack else {}),
        )

    def node_replacements(self) -> dict[str, Any]:
        """GET /node_replacements: the classes that are gone, but that ComfyUI replaces; none before it had them."""
        response = self._request("GET", "/node_replacements", accept=(200, 404, 405))
        return self._decoded(response) if response.status == 200 else {}

    def object_info(self) -> bytes:
        """GET /object_info, as it came: what every node class takes. Large and, on a network volume, slow."""
        return self._all_classes().body

    def all_schemas(self) -> dict[str, NodeSchema]:
        """The same as schemas."""
        classes = self._decoded(self._all_classes())
        return {name: read_schema(schema) for name, schema in classes.items() if isinstance(schema, dict)}

    def _all_classes(self) -> Answer:
        return self._request("GET", "/object_info", seconds=_DISK_ROUTE_SECONDS)

    def model_folders(self) -> list[str]:
        """GET /models: the kinds of model files, which are folders."""
        return self._names("/models")

    def models(self, folder: str) -> list[str]:
        """GET /models/{folder}: the files there."""
        return self._names(f"/models/{quote(folder, safe='')}")

    def _names(self, route: str) -> list[str]:
        try:
            names = json.loads(self._request("GET", route, seconds=_DISK_ROUTE_SECONDS).body)
        except (ValueError, RecursionError) as error:
            raise UnexpectedAnswer("ComfyUI's response is not valid JSON") from error
        return [str(name) for name in names] if isinstance(names, list) else []

    def options(self, class_type: str, name: str) -> list[str]:
        """The values that a node class allows for an input now, empty if it has no list."""
        schema = self.schemas([class_type], is_fresh=True)[class_type]
        config = schema.inputs.get(name) if schema else None
        return [str(option) for option in config.options or ()] if config else []

    def _json(self, method: str, route: str) -> dict[str, Any]:
        return self._decoded(self._request(method, route))

    def _decoded(self, response: Answer) -> dict[str, Any]:
        try:
            decoded = json.loads(response.body)
        except (ValueError, RecursionError) as error:
            raise UnexpectedAnswer("ComfyUI's response is not valid JSON") from error
        if not isinstance(decoded, dict):
            raise UnexpectedAnswer("ComfyUI's response is not a JSON object")
        return decoded

    def _request(
        self,
        method: str,
        route: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        seconds: float = _MEMORY_ROUTE_SECONDS,
        accept: tuple[int, ...] = (200,),
    ) -> Answer:
        data = json.dumps(body, allow_nan=False).encode() if body is not None else None
        response = self._connections.request(
            method,
            f"{route}?{urlencode(params)}" if params else route,
            data,
            {"Content-Type": "application/json"} if data is not None else {},
            seconds,
        )
        self.answered_at = time.monotonic()
        if response.status not in accept:
            raise UnexpectedAnswer(f"ComfyUI answered {method} {route.split('/')[1]} with status {response.status}")
        return response


def _prompt_ids(items: object) -> frozenset[str]:
    """The ids in a list of queue items, `[number, prompt_id, prompt, …]`."""
    if not isinstance(items, list):
        return frozenset()
    return frozenset(item[1] for item in items if isinstance(item, list) and len(item) > 1)
