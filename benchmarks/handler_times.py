"""The time that a handler adds to ComfyUI's own execution, in its own process: a part of `benchmarks.versus`.

    python -m benchmarks.handler_times CASES [--peer WORKER_COMFYUI | --bare]

CASES is a JSON list of [side, images, jobs]. Prints JSON with one entry per case: `ms`, for each job the handler's
time minus the time from `execution_start` to `execution_success`; `growth_mb`, the peak memory of this process minus
its memory before; `answer_mb`, the size of the images in the response. Each job saves noisy images (PNGs that hardly
compress) with a new seed. `--bare` measures the lower limit: one POST, the websocket until the run has ended, one GET,
the files from the disk as base64, and nothing else. Images are uploaded to a bucket if the environment names one
(BUCKET_ENDPOINT_URL and the related variables, for both). Needs Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pybase64
import requests
import websocket

from benchmarks.contenders import PEER_PORT, comfyui_arguments, copy_peer_files, peer_comfyui_command
from benchmarks.memory import process_memory
from benchmarks.overhead import noisy_workflow
from src import job_log
from src.comfy.engine import ComfyEngine
from src.comfy.install import find_comfyui
from src.job import handler as job_handler
from src.job.handler import Worker
from src.job.run import JobRunner
from src.settings import configure_sdk_environment, read_settings

_WARM_UP = 10
_BOOT_SECONDS = 120.0
_MB = 1_000_000

Handle = Callable[[dict[str, Any]], tuple[dict[str, Any], float]]
"""Runs a job. Returns its answer, and the seconds that ComfyUI itself took."""


def main() -> None:
    """Measure every case with one handler, and print the results as JSON."""
    options = _parse()
    with tempfile.TemporaryDirectory() as folder, _make_handler(options, Path(folder)) as handle:
        for seed in range(_WARM_UP):
            handle({"id": f"warm-{seed}", "input": {"workflow": noisy_workflow(64, seed, 4)}})
        print(json.dumps([_measure(handle, *case) for case in json.loads(options.cases)]))


def _measure(handle: Handle, side: int, pictures: int, jobs: int) -> dict[str, Any]:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak
    before, times, size = process_memory("VmRSS"), [], 0
    for seed in range(jobs):
        job = {"id": f"job-{side}-{seed}", "input": {"workflow": noisy_workflow(side, 100 + seed, pictures)}}
        began = time.monotonic()
        answer, execution_seconds = handle(job)
        times.append((time.monotonic() - began - execution_seconds) * 1000)
        images = answer.get("images") or []
        if len(images) != pictures:
            raise SystemExit(f"{len(images)} images instead of {pictures}: {str(answer)[:1000]}")
        size = sum(map(len, images))
        del answer, images
    growth = (process_memory("VmHWM") - before) / _MB
    return {"side": side, "pictures": pictures, "ms": times, "growth_mb": growth, "answer_mb": size / _MB}


@contextmanager
def _make_handler(options: argparse.Namespace, folder: Path) -> Iterator[Handle]:
    settings = replace(read_settings(), comfyui_args=comfyui_arguments(folder), result_limit=1000.0)
    installation = find_comfyui(settings)
    job_log.configure("ERROR")
    if options.peer is None:
        with ComfyEngine(installation, settings) as engine:
            engine.wait_ready()
            if options.bare:
                with _bare_client(engine) as handle:
                    yield handle
            else:
                job_handler.set_worker(Worker(JobRunner.make(engine, settings)))
                yield _our_handler(engine)
        return
    command = peer_comfyui_command(installation, settings.comfyui_args, folder)
    comfyui = subprocess.Popen(
        command, cwd=installation.directory, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        _wait_until_ready(f"http://127.0.0.1:{PEER_PORT}/", comfyui)
        Path("/tmp/comfyui.pid").write_text(str(comfyui.pid))  # where the peer's start script puts it
        yield _peer_handler(copy_peer_files(options.peer, folder))
    finally:
        comfyui.kill()
        comfyui.wait()


def _our_handler(engine: ComfyEngine) -> Handle:
    seconds: list[float] = []
    history = engine.client.history

    def recording_history(prompt_id: str) -> dict[str, Any] | None:
        entry = history(prompt_id)
        if entry:
            seconds.append(_execution_seconds(entry))
        return entry

    engine.client.history = recording_history  # type: ignore[method-assign]

    loop = asyncio.new_event_loop()  # one loop for all jobs, as in the SDK

    def handle(job: dict[str, Any]) -> tuple[dict[str, Any], float]:
        answer = loop.run_until_complete(job_handler.handler(job))
        files = answer.get("files") or []
        pictures = [entry.get("url") or answer["images"][entry["image_index"]] for entry in files]
        return {**answer, "images": pictures}, seconds[-1]

    return handle


@contextmanager
def _bare_client(engine: ComfyEngine) -> Iterator[Handle]:
    """The lower limit: a client that does only what it must, and checks nothing."""
    address, output = urlsplit(engine.process.url), engine.process.folders.output
    http = HTTPConnection(str(address.hostname), address.port)
    events = websocket.create_connection(f"ws://{address.netloc}/ws?clientId=bare", timeout=60)

    def request(method: str, route: str, body: str | None = None) -> dict[str, Any]:
        http.request(method, route, body, {"Content-Type": "application/json"} if body else {})
        answer: dict[str, Any] = json.loads(http.getresponse().read())
        return answer

    def handle(job: dict[str, Any]) -> tuple[dict[str, Any], float]:
        prompt = {"prompt": job["input"]["workflow"], "client_id": "bare"}
        prompt_id = request("POST", "/prompt", json.dumps(prompt))["prompt_id"]
        while True:
            event = json.loads(events.recv())
            if event["type"] == "executing" and event["data"]["node"] is None:
                break
        entry = request("GET", f"/history/{prompt_id}")[prompt_id]
        files = [output / image["filename"] for node in entry["outputs"].values() for image in node["images"]]
        images = [pybase64.b64encode_as_string(file.read_bytes()) for file in files]
        return {"images": images}, _execution_seconds(entry)

    with closing(http), closing(events):
        yield handle


def _peer_handler(files: Path) -> Handle:
    configure_sdk_environment()
    sys.path.insert(0, str(files))
    module = _import_file(files / "handler.py")

    def handle(job: dict[str, Any]) -> tuple[dict[str, Any], float]:
        with Path(os.devnull).open("w") as devnull, contextlib.redirect_stdout(devnull):
            began = time.monotonic()
            answer = module.handler(job)
            wall = time.monotonic() - began
        images = [image["data"] for image in answer.get("images", [])]
        entry = next(
            iter(requests.get(f"http://127.0.0.1:{PEER_PORT}/history?max_items=1", timeout=30).json().values())
        )
        # Reading the history is the benchmark's work, not the handler's: its time must not count.
        return {**answer, "images": images}, _execution_seconds(entry) + time.monotonic() - began - wall

    return handle


def _import_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("handler", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _execution_seconds(entry: dict[str, Any]) -> float:
    """Seconds from `execution_start` to `execution_success`, by the timestamps (milliseconds) of a history entry."""
    timestamps = {name: data["timestamp"] for name, data in entry["status"]["messages"] if "timestamp" in data}
    return float(timestamps["execution_success"] - timestamps["execution_start"]) / 1000


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.05)
    raise SystemExit(f"ComfyUI does not respond at {url}; is the port in use?")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases")
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--bare", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
