"""Gateways in front of local endpoints, each a process as users start it."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket

from ..conftest import settings_for
from ..endpoint.conftest import browser  # noqa: F401  a fixture
from ..endpoint.test_endpoint import KEY, Client, free_port, serving
from ..worker_process import WorkerProcess, running

LONG = 90.0  # a hang limit, no measure


@dataclass
class GatewayClient:
    """A client of a gateway that uses the HTTP routes and the websocket as the editor does."""

    url: str
    folder: Path
    process: WorkerProcess
    endpoint: Client
    client_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def get(self, path: str, **params: str) -> requests.Response:
        """GET."""
        return requests.get(f"{self.url}{path}", params=params, timeout=LONG)

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        """POST."""
        return requests.post(f"{self.url}{path}", json=body, timeout=LONG, **more)

    def queue(self, prompt: Mapping[str, Any], **more: Any) -> str:
        """Queue a prompt that is accepted; its id."""
        response = self.post("/prompt", {"prompt": prompt, "client_id": self.client_id, **more})
        assert response.status_code == 200, response.text
        return str(response.json()["prompt_id"])

    def entry(self, prompt_id: str) -> dict[str, Any]:
        """The history entry of a prompt, once it has ended."""
        end = time.monotonic() + LONG
        while True:
            found = self.get(f"/history/{prompt_id}").json()
            if prompt_id in found:
                return dict(found[prompt_id])
            assert time.monotonic() < end, self.process.log
            time.sleep(0.05)

    def ran(self, prompt: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """The history entry of a prompt that is queued and has ended."""
        return self.entry(self.queue(prompt, **more))

    def content(self, file: Mapping[str, str]) -> bytes:
        """The bytes of a file that a node reports."""
        response = self.get("/view", **{name: file[name] for name in ("filename", "subfolder", "type")})
        assert response.status_code == 200
        return response.content

    @contextmanager
    def listening(self, **flags: Any) -> Iterator[list[Any]]:
        """The events that arrive meanwhile, each (type, data) or the bytes of a binary frame."""
        address = self.url.replace("http://", "ws://", 1)
        connection = websocket.create_connection(f"{address}/ws?clientId={self.client_id}", timeout=LONG)
        heard: list[Any] = []
        if flags:
            connection.send(json.dumps({"type": "feature_flags", "data": flags}))

        def drain() -> None:
            for _ in itertools.count():
                try:
                    opcode, data = connection.recv_data()
                except (OSError, websocket.WebSocketException):
                    return
                if opcode == websocket.ABNF.OPCODE_BINARY:
                    heard.append(data)
                elif opcode == websocket.ABNF.OPCODE_TEXT:
                    message = json.loads(data)
                    heard.append((message["type"], message["data"]))

        thread = threading.Thread(target=drain, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread
            thread.join(5)


@contextmanager
def serving_real(folder: Path, model_paths: Path) -> Iterator[Client]:
    """A local endpoint with one worker on the real ComfyUI, with the tiny models and the test nodes."""
    port, arguments = free_port(), settings_for("real", model_paths).comfyui_args
    command = ["--serve", "--workers", "1", "--port", str(port)]
    with running(command, {"SERVE_API_KEY": KEY, "COMFYUI_ARGS": arguments}, folder) as process:
        process.wait_for_log("serving http://", LONG)
        yield Client(f"http://127.0.0.1:{port}/v2/local", process)


@contextmanager
def gateway(folder: Path, endpoint: Client, **environment: str) -> Iterator[GatewayClient]:
    """`python serverless_worker.py --gateway` in front of a local endpoint."""
    port, kept = free_port(), folder / "gateway"
    command = ["--gateway", "--local", endpoint.url, "--port", str(port), "--folder", str(kept)]
    with running(command, {"SERVE_API_KEY": KEY, **environment}, folder) as process:
        process.wait_for_log("prompts run on", LONG)
        yield GatewayClient(f"http://127.0.0.1:{port}", kept, process, endpoint)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An endpoint with three workers on the draft engine."""
    with serving(tmp_path_factory.mktemp("endpoint"), "--workers", "3") as served:
        yield served


@pytest.fixture(scope="module")
def served(endpoint: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayClient]:
    """A gateway in front of it."""
    with gateway(tmp_path_factory.mktemp("gateway"), endpoint) as client:
        yield client
