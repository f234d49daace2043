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
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..workflow.schemas import NodeSchema, read_schema
from .endpoint import Endpoint, EndpointFailed, JobStatus

log = logging.getLogger(__name__)

_REQUEST = {"action": "info", "parts": ["object_info", "models"]}
_MAX_SECONDS = 900.0  # from asking to the answer: a worker may have to be started, with a large image
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, OSError, EOFError, RecursionError, zlib.error)
_KEPT = {
    "versions": dict,
    "devices": list,
    "memory": dict,
    "node_replacements": dict,
    "object_info": dict,
    "models": dict,
}


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

    def __init__(self, endpoint: Endpoint, file: Path, max_seconds: float = _MAX_SECONDS) -> None:
        self._endpoint = endpoint
        self._file = file
        self._max_seconds = max_seconds
        self._asking = threading.Lock()
        self._answered_at = 0.0
        self._noted = list[Mapping[str, str]]()
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
            if self._answered_at > called_at:
                return
            try:
                self.kept = self._read_answer(self._answer())
                self.failure = ""
                self._write()
            except EndpointFailed as error:
                self.failure = error.message
                log.warning("the node classes could not be asked for: %s", error)
            except OSError as error:
                log.warning("the node classes could not be kept in %s: %s", self._file, error.strerror)
            self._answered_at = time.monotonic()

    def note_versions(self, versions: Mapping[str, str]) -> None:
        """Ask again, in a thread, if a job was answered by another version of the worker or of ComfyUI.

        Once for each: while an endpoint changes from one to the next, its workers are of both.
        """
        if not versions or versions == {name: self.kept.versions.get(name) for name in versions}:
            return
        if versions not in self._noted:
            self._noted.append(versions)
            threading.Thread(target=self.ask, daemon=True, name="node-classes").start()

    def _answer(self) -> Mapping[str, Any]:
        """The answer of the worker. Raises EndpointFailed."""
        log.info("asking the endpoint for its node classes; this may start a worker")
        status = self._ended(self._endpoint.run(_REQUEST))
        answer = status.output if isinstance(status.output, dict) else {}
        if status.state != "COMPLETED" or answer.get("status") != "success":
            raise EndpointFailed(str(status.error or answer.get("error") or f"the job is {status.state}")[:500])
        if "object_info" not in answer:
            raise EndpointFailed("the worker of the endpoint is too old for a gateway: update its image")
        return answer

    def _ended(self, job_id: str) -> JobStatus:
        """How the job ended. Raises EndpointFailed, also if that takes too long: then it is cancelled.

        In a thread of its own: that of a job whose endpoint is away stays until it can be cancelled.
        """
        stop, ended = threading.Event(), SimpleQueue[JobStatus | EndpointFailed]()

        def follow() -> None:
            try:
                ended.put(self._endpoint.follow(job_id, stop))
            except EndpointFailed as error:
                ended.put(error)

        threading.Thread(target=follow, daemon=True, name="node-classes-job").start()
        try:
            status = ended.get(timeout=self._max_seconds)
        except Empty:
            stop.set()
            raise EndpointFailed(
                f"no worker of the endpoint answered within {self._max_seconds:.0f} s; RunPod's console shows whether "
                "its workers start"
            ) from None
        if isinstance(status, EndpointFailed):
            raise status
        return status

    @staticmethod
    def _read_answer(answer: Mapping[str, Any]) -> Kept:
        try:
            found = Kept(
                object_info=_unpacked(answer["object_info"]),
                models=_unpacked(answer["all_models"]),
                node_replacements=answer.get("node_replacements") or {},
                versions=dict(answer["versions"]),
                devices=answer.get("devices") or [],
                memory=answer.get("memory") or {},
            )
            return _checked(found)
        except _BROKEN as error:
            raise EndpointFailed("the endpoint's answer is not that of this worker") from error

    def _read(self) -> Kept:
        try:
            return _checked(Kept(**json.loads(gzip.decompress(self._file.read_bytes()))))
        except FileNotFoundError:
            return Kept()
        except _BROKEN:
            log.warning("%s is broken: the node classes will be asked for again", self._file)
            return Kept()

    def _write(self) -> None:
        content = json.dumps({name: getattr(self.kept, name) for name in _KEPT}).encode()
        new = self._file.with_suffix(".new")
        new.write_bytes(gzip.compress(content))
        new.replace(self._file)


def _checked(kept: Kept) -> Kept:
    """Raises TypeError unless everything has its type."""
    models = kept.models.values() if isinstance(kept.models, dict) else ()
    if not (
        all(isinstance(getattr(kept, name), kind) for name, kind in _KEPT.items())
        and all(isinstance(entry, dict) for entry in kept.object_info.values())
        and all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in models)
    ):
        raise TypeError
    return kept


def _unpacked(packed: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(packed)))
