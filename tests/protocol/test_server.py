"""The protocol server speaks for any executor: here one that is not the draft engine."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket
from aiohttp import web

from src.comfy.client import ComfyClient
from src.comfy.events import Event, EventStream
from src.protocol.clients import Clients
from src.protocol.executor import Executor, Folders, ValidationResult
from src.protocol.queue import QueuedPrompt
from src.protocol.report import ENDINGS, RunReport
from src.protocol.server import Server

PROMPT = {"1": {"class_type": "Say", "inputs": {"text": "hello"}}}
REFUSED = {"type": "invalid_prompt", "message": "No", "details": "", "extra_info": {}}


@dataclass
class SayingExecutor:
    """Has one node class, which shows its text; a text of "wait" waits for an interrupt, "fail" fails."""

    folders: Folders
    concurrency: int = 1
    version: str = "1.2.3"
    devices: tuple[Mapping[str, Any], ...] = ({"name": "test"},)
    stopped: threading.Event = field(default_factory=threading.Event)
    freed: int = 0
    interrupted: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)

    def validate(self, prompt: dict[str, Any], targets: Collection[str] | None) -> ValidationResult:
        known = all(node["class_type"] == "Say" for node in prompt.values())
        return ValidationResult(list(targets or prompt)) if known else ValidationResult(error=REFUSED)

    def execute(self, queued: QueuedPrompt, report: RunReport) -> None:
        report.started()
        report.cached({})
        for node_id in queued.outputs:
            text = queued.prompt[node_id]["inputs"]["text"]
            report.node_started(node_id)
            if text == "fail":
                return report.failed(node_id, [], "ValueError", "it failed")
            if text == "wait" and self.stopped.wait(20):
                return report.interrupted(node_id, [])
            report.progress(node_id, 1, 2)
            report.output(node_id, {"text": [text]})
            report.node_finished(node_id)
        report.succeeded()
        time.sleep(0.05)  # as one that has to clean up
        return None

    def interrupt(self, prompt_id: str) -> None:
        self.interrupted.append(prompt_id)
        self.stopped.set()

    def withdraw(self, prompt_id: str) -> None:
        self.withdrawn.append(prompt_id)

    def free_memory(self) -> None:
        self.freed += 1

    def object_info(self) -> Mapping[str, Mapping[str, Any]]:
        return {"Say": {"input": {"required": {"text": ["STRING", {}]}}, "output": [], "output_node": True}}

    def node_class(self, name: str) -> Mapping[str, Any] | None:
        return self.object_info().get(name)


@dataclass
class Served:
    """A server that runs, and a client of the worker's."""

    executor: SayingExecutor
    client: ComfyClient
    url: str

    def ran(self, text: str) -> dict[str, Any]:
        """The history entry of a prompt that ends."""
        prompt_id = self.queue(text)
        return self.entry(prompt_id)

    def queue(self, text: str) -> str:
        prompt_id = str(uuid.uuid4())
        prompt = {"1": {"class_type": "Say", "inputs": {"text": text}}}
        assert self.client.queue_prompt(prompt, prompt_id, "nobody", {}).is_whole
        return prompt_id

    def entry(self, prompt_id: str) -> dict[str, Any]:
        for _ in range(400):
            entry = self.client.history(prompt_id)
            if entry is not None:
                return entry
            threading.Event().wait(0.02)
        raise AssertionError("no entry")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    executor = SayingExecutor(Folders(*(tmp_path / name for name in ("input", "output", "temp"))))
    checked: Executor = executor
    loop, ready, address = asyncio.new_event_loop(), threading.Event(), list[str]()

    async def serve() -> None:
        runner = web.AppRunner(Server(checked, ["test"], clients=Clients(patience=0.3)).application())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()

    loop.create_task(serve())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    assert ready.wait(10)
    client = ComfyClient(address[0])
    yield Served(executor, client, address[0])
    client.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def test_a_prompt_runs_and_its_entry_has_what_the_executor_reported(served: Served) -> None:
    entry = served.ran("hello")
    assert entry["outputs"] == {"1": {"text": ["hello"]}}
    assert entry["status"]["status_str"] == "success"
    assert [kind for kind, _ in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]


def test_events_reach_the_client_that_queued_the_prompt(served: Served) -> None:
    events = EventStream(served.url)
    events.start()
    prompt_id, client_id = str(uuid.uuid4()), events.client_id(5)
    with events.listen(prompt_id) as listener:
        served.client.queue_prompt(PROMPT, prompt_id, client_id, {})
        heard: list[Event] = []
        while not heard or not heard[-1].is_last:
            event = listener.next(10)
            assert event is not None
            heard.append(event)
    events.stop()
    assert [(event.node_id, event.step, event.steps) for event in heard if event.node_id] == [("1", 0, 0), ("1", 1, 2)]
    assert heard[-2].is_ending


@pytest.mark.parametrize("body", [b"", b"null", b"no JSON", b"{}", b'{"client_id": "a"}'])
def test_an_interrupt_that_names_no_prompt_stops_what_runs(served: Served, body: bytes) -> None:
    prompt_id = served.queue("wait")
    while prompt_id not in served.client.queue().running:
        threading.Event().wait(0.02)
    assert requests.post(f"{served.url}/interrupt", data=body, timeout=20).text == ""
    assert served.entry(prompt_id)["status"]["messages"][-1][0] == "execution_interrupted"


def test_the_history_has_a_prompt_before_its_client_hears_of_the_end(served: Served) -> None:
    connection = websocket.create_connection(f"{served.url.replace('http', 'ws', 1)}/ws?clientId=a", timeout=20)
    prompt_id, heard = str(uuid.uuid4()), list[str]()
    assert served.client.queue_prompt(PROMPT, prompt_id, "a", {}).is_whole
    while not heard or heard[-1] not in ENDINGS:
        heard.append(json.loads(connection.recv())["type"])
    entry = served.client.history(prompt_id)
    connection.close()
    assert entry is not None
    assert entry["status"]["messages"][-1][0] == heard[-1]


def test_a_client_that_does_not_read_or_goes_away_stops_nobody(served: Served) -> None:
    address = f"{served.url.replace('http', 'ws', 1)}/ws?clientId="
    deaf = socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])))
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    deaf.sendall(f"GET /ws?clientId=deaf HTTP/1.1\r\nHost: x\r\n{upgrade}{key}\r\n\r\n".encode())
    assert deaf.recv(12) == b"HTTP/1.1 101"
    gone = websocket.create_connection(f"{address}gone", timeout=20)
    assert gone.sock is not None
    gone.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # to reset the connection
    gone.shutdown()  # type: ignore[no-untyped-call]
    prompts = []
    for client_id in ("deaf", "gone", "deaf", "nobody"):
        prompts.append(str(uuid.uuid4()))
        prompt = {"1": {"class_type": "Say", "inputs": {"text": "x" * 9_000_000}}}
        assert served.client.queue_prompt(prompt, prompts[-1], client_id, {}).is_whole
    assert [served.entry(prompt_id)["status"]["status_str"] for prompt_id in prompts] == ["success"] * 4
    deaf.close()


def test_what_the_executor_refuses_is_a_400_with_its_words(served: Served) -> None:
    refused = served.client.queue_prompt({"1": {"class_type": "Nope", "inputs": {}}}, str(uuid.uuid4()), "nobody", {})
    assert (refused.accepted, refused.body) == (False, {"error": REFUSED, "node_errors": {}})


def test_a_failure_and_an_interrupt_end_a_run(served: Served) -> None:
    kind, message = served.ran("fail")["status"]["messages"][-1]
    assert (kind, message["exception_message"], message["node_type"]) == ("execution_error", "it failed", "Say")
    prompt_id = served.queue("wait")
    while prompt_id not in served.client.queue().running:
        threading.Event().wait(0.02)
    waiting = served.queue("later")
    served.client.interrupt(waiting)  # which does not run: nothing happens
    assert prompt_id in served.client.queue()
    served.client.dequeue(waiting)
    served.client.interrupt(prompt_id)
    assert served.entry(prompt_id)["status"]["messages"][-1][0] == "execution_interrupted"
    assert waiting not in served.client.queue()
    assert served.client.history(waiting) is None


def test_what_it_says_of_itself_is_the_executors(served: Served) -> None:
    stats = served.client.system_stats()
    assert (stats["system"]["comfyui_version"], stats["devices"]) == ("1.2.3", [{"name": "test"}])
    assert served.client.schemas(["Say", "Nope"])["Nope"] is None
    served.client.free()
    assert served.executor.freed == 1
