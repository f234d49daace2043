"""The node classes and models of the endpoint's workers, asked for once and kept in a file.

To ask costs a job, which may start a worker. So they are asked for where there are none, when a person wants that, and
when an answer comes from another version of the worker, which is then running anyway.
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..workflow.schemas import NodeSchema, read_schema
from .endpoint import Endpoint, EndpointFailed

log = logging.getLogger(__name__)

_REQUEST = {"action": "info", "parts": ["object_info", "models"]}
_MAX_SECONDS = 900.0  # from asking to the answer: a worker may have to be started, with a large image
_KEPT = ("versions", "devices", "memory", "node_replacements", "object_info", "models")


@dataclass(frozen=True)
class Kept:
    """What is kept: the fields of ComfyUI's routes, and of the worker's `info`."""

    object_info: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, list[str]] = field(default_factory=dict)
    node_replacements: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    devices: list[Mapping[str, Any]] = field(default_factory=list)
    memory: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def schemas(self) -> Mapping[str, NodeSchema]:
        """The schema of each class."""
        return {name: read_schema(entry) for name, entry in self.object_info.items() if isinstance(entry, dict)}


class NodeClasses:
    """Those of one endpoint. May be used from several threads."""

    def __init__(self, endpoint: Endpoint, file: Path) -> None:
        self._endpoint = endpoint
        self._file = file
        self._asking = threading.Lock()
        self._asked_at = 0.0
        self.failure = ""
        """Why the last attempt to ask failed; empty if it did not."""
        self.kept = self._read()

    @property
    def are_known(self) -> bool:
        """Whether there are any."""
        return bool(self.kept.object_info)

    def ask(self) -> None:
        """Ask the endpoint, wait for the answer and keep it. If that fails, `failure` says why.

        Threads that call this while another one asks get that answer.
        """
        called_at = time.monotonic()
        with self._asking:
            if self._asked_at > called_at:
                return
            self._asked_at = time.monotonic()
            try:
                self.kept = self._read_answer(self._run())
                self.failure = ""
                self._write()
            except EndpointFailed as error:
                self.failure = error.message
                log.warning("the node classes could not be asked for: %s", error)

    def note_versions(self, versions: Mapping[str, str]) -> None:
        """Ask again, in a thread, if a job was answered by another version of the worker or of ComfyUI."""
        if versions and versions != {name: self.kept.versions.get(name) for name in versions}:
            threading.Thread(target=self.ask, daemon=True, name="node-classes").start()

    def _run(self) -> Mapping[str, Any]:
        """The answer of the worker. Raises EndpointFailed."""
        log.info("asking the endpoint for its node classes; this may start a worker")
        stop = threading.Event()
        limit = threading.Timer(_MAX_SECONDS, stop.set)
        limit.daemon = True
        limit.start()
        status = self._endpoint.follow(self._endpoint.run(_REQUEST), stop)
        limit.cancel()
        if stop.is_set() and status.state == "CANCELLED":
            raise EndpointFailed(f"no worker of the endpoint answered within {_MAX_SECONDS:.0f} s")
        answer = status.output if isinstance(status.output, dict) else {}
        if status.state != "COMPLETED" or answer.get("status") != "success":
            raise EndpointFailed(str(status.error or answer.get("error") or f"the job is {status.state}")[:500])
        if "object_info" not in answer:
            raise EndpointFailed("the worker of the endpoint is too old for a gateway: update its image")
        return answer

    @staticmethod
    def _read_answer(answer: Mapping[str, Any]) -> Kept:
        try:
            return Kept(
                object_info=_unpacked(answer["object_info"]),
                models=_unpacked(answer["all_models"]),
                node_replacements=answer.get("node_replacements") or {},
                versions={name: answer["versions"][name] for name in ("worker", "comfyui")},
                devices=answer.get("devices") or [],
                memory=answer.get("memory") or {},
            )
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise EndpointFailed("the endpoint's answer is not that of this worker") from error

    def _read(self) -> Kept:
        try:
            return Kept(**json.loads(gzip.decompress(self._file.read_bytes())))
        except (OSError, ValueError, TypeError, EOFError):
            return Kept()

    def _write(self) -> None:
        content = json.dumps({name: getattr(self.kept, name) for name in _KEPT}).encode()
        new = self._file.with_suffix(".new")
        new.write_bytes(gzip.compress(content))
        new.replace(self._file)


def _unpacked(packed: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(packed)))
