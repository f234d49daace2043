"""Many jobs while engines and workers are killed, results are refused, inputs are poisoned and jobs are cancelled.

Each job is answered, with its own result.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web
from PIL import Image

from src.endpoint import worker_routes
from src.endpoint.server import EndpointOptions, running_endpoint
from src.endpoint.workers import WorkerPool

from .. import workflows
from ..conftest import REAL_ARGS, installation
from ..endpoint.test_endpoint import free_port

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

JOBS = {"draft": 1000, "real": 200} if os.environ.get("LONG_TESTS") else {"draft": 90, "real": 30}
WORKERS = 3
LONG = 1500.0  # a hang limit, no measure
KILL_EVERY = {"draft": 15, "real": 20}  # answers
KILL_PAUSE = 2.0  # seconds: a ComfyUI that is killed twice while it boots has its job fail
MOST_OPEN = 24  # jobs


class RefusesResults:
    """In place of the route job-done: of some results the first tries fail."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.refused = 0
        self._route = worker_routes.WorkerRoutes.done

    async def __call__(self, routes: Any, request: web.Request) -> web.Response:
        if self.random.random() < 0.1:
            self.refused += 1
            status = self.random.choice([429, 500, 302, 0])
            if not status:
                await asyncio.sleep(60)
            return web.Response(status=status or 500, headers={"Location": "/nowhere", "Retry-After": "1"})
        return await self._route(routes, request)


@contextmanager
def endpoint(name: str, folder: Path, concurrency: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """An endpoint with three workers, in a thread; its URL and its pool."""
    refuses = RefusesResults(concurrency)

    async def done(self: Any, request: web.Request) -> web.Response:
        return await refuses(self, request)

    monkeypatch.setattr(worker_routes.WorkerRoutes, "done", done)
    environment = {**os.environ, "CONCURRENCY": str(concurrency), "TMPDIR": str(folder), "JOB_RETRIES": "10"}
    environment = {key: value for key, value in environment.items() if not key.startswith("RUNPOD_")}
    if name == "real":
        arguments = f"{REAL_ARGS} --disable-all-custom-nodes"
        environment |= {"COMFYUI_PATH": str(installation(name).directory), "COMFYUI_ARGS": arguments}
    port, ready, ended, pools = free_port(), threading.Event(), asyncio.Event(), list[WorkerPool]()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        options = EndpointOptions(port, WORKERS, ["--draft"] if name == "draft" else [])
        async with running_endpoint(options, environment) as pool:
            pools.append(pool)
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield f"http://127.0.0.1:{port}/v2/local", (pools[0], refuses)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(60)


def kill_something(pool: WorkerPool, source: random.Random) -> str:
    """Kill a worker, or more often its ComfyUI."""
    workers = [worker.process.pid for worker in pool._workers.values() if worker.is_ready]
    if not workers:
        return ""
    worker, kills_worker = source.choice(workers), source.random() < 0.25
    children = Path(f"/proc/{worker}/task/{worker}/children")
    engines = [
        int(child)
        for task in Path(f"/proc/{worker}/task").glob("*/children")
        for child in task.read_text().split()
        if b"comfy_launcher" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    target = worker if kills_worker or not engines or not children.exists() else source.choice(engines)
    os.kill(target, signal.SIGKILL)
    return "worker" if target == worker else "engine"


def colour_of(number: int) -> tuple[int, int, int]:
    """The colour of a job's picture, far enough from that of every other: ComfyUI rounds."""
    return number % 32 * 8, number // 32 * 8, 0


def is_own_picture(answer: dict[str, Any], number: int) -> bool:
    """Whether the picture is that of the job's number: the inverse of its colour."""
    with Image.open(io.BytesIO(base64.b64decode(answer["output"]["images"][0]))) as picture:
        found: Any = picture.convert("RGB").getpixel((0, 0))
    return all(abs(255 - part - value) <= 1 for part, value in zip(colour_of(number), found, strict=True))


@pytest.mark.parametrize("name", ["draft", "real"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_every_job_is_answered_with_its_own_result(
    name: str, concurrency: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation(name)
    source = random.Random(concurrency)
    kills: list[str] = []
    with endpoint(name, tmp_path, concurrency, monkeypatch) as (url, (pool, refuses)):
        kinds, open_jobs = dict[int, str](), dict[int, str]()
        answers: dict[int, dict[str, Any]] = {}
        end, next_kill, last_kill = time.monotonic() + LONG, 1, 0.0
        while len(answers) < JOBS[name]:
            assert time.monotonic() < end, f"{len(open_jobs)} jobs are not answered"
            while len(open_jobs) < MOST_OPEN and len(kinds) < JOBS[name]:
                number = len(kinds)
                kinds[number] = source.choices(["good", "poison", "cancel"], [80, 10, 10])[0]
                red, green, _ = colour_of(number)
                job_input: Any = {"workflow": workflows.still(color=red << 16 | green << 8)}
                if kinds[number] == "poison":
                    job_input = source.choice([{"workflow": {}}, {"workflow": workflows.still(), "seed": -1}])
                open_jobs[number] = requests.post(f"{url}/run", json={"input": job_input}, timeout=60).json()["id"]
            for number, job_id in list(open_jobs.items()):
                state = requests.get(f"{url}/status/{job_id}", timeout=60).json()
                if kinds[number] == "cancel" and state["status"] == "IN_PROGRESS":
                    requests.post(f"{url}/cancel/{job_id}", timeout=60)
                if state["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
                    answers[number] = state
                    del open_jobs[number]
            may_kill = len(answers) >= next_kill and time.monotonic() - last_kill > KILL_PAUSE
            if may_kill and (killed := kill_something(pool, source)):
                kills.append(killed)
                next_kill, last_kill = len(answers) + KILL_EVERY[name], time.monotonic()
            time.sleep(0.05)
    wrong = {number: answer for number, answer in answers.items() if not is_right(kinds[number], answer, number)}
    print(f"{name}, CONCURRENCY={concurrency}: {len(answers)} jobs, {refuses.refused} results refused, kills: {kills}")
    assert not wrong
    assert kills


def is_right(kind: str, answer: dict[str, Any], number: int) -> bool:
    """Whether an answer is what such a job must get."""
    if kind == "poison":
        return bool(answer["status"] == "FAILED" and answer["output"]["error_type"] == "validation")
    if kind == "cancel" and answer["status"] == "CANCELLED":
        return True
    return bool(answer["status"] == "COMPLETED" and is_own_picture(answer, number))
