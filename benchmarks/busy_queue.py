"""A full queue with the real SDK loop: the share of time that the engine is busy, by CONCURRENCY.

    python -m benchmarks.busy_queue [--jobs 20] [--seconds 1.0] [--concurrency 1 2]

One worker uses the draft engine, whose sampler takes a fixed time per step; the local endpoint hands out the jobs.
`busy` is the engine's own time for the jobs, divided by the time from sending them to the end of the last one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from src.comfy.engine import ComfyEngine
from src.comfy.install import draft_installation
from src.comfy.prompt import run_prompt
from src.comfy.run_limits import RunLimits
from src.deadline import Deadline
from src.endpoint.server import EndpointOptions, running_endpoint
from src.overrides import Overrides, apply_overrides
from src.settings import local_worker_environment, read_settings

STEPS = 50
"""Sampling steps of a job; the draft engine takes `--step-seconds` for each."""
_INHERITED_VARIABLES = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Figures:
    """Results of one run; times in seconds, `busy` as a share of the time."""

    concurrency: int
    wall: float
    busy: float
    idle_per_job: float


def main() -> None:
    """Print a table with one row per concurrency, and the figures as JSON."""
    options = _parse()
    print(f"{options.jobs} jobs of {options.seconds:g} s, one worker, {os.cpu_count()} cores")
    print(f"{'concurrency':>11} {'wall s':>8} {'busy':>6} {'idle ms/job':>12}")
    arguments = f"--step-seconds {options.seconds / STEPS}"
    engine_seconds = _engine_seconds(arguments)
    for concurrency in options.concurrency:
        figures = asyncio.run(_measure(concurrency, options.jobs, arguments, engine_seconds, options.port))
        print(f"{concurrency:>11} {figures.wall:>8.2f} {figures.busy:>6.3f} {figures.idle_per_job * 1000:>12.0f}")
        print(json.dumps(figures.__dict__))


async def _measure(concurrency: int, jobs: int, arguments: str, engine_seconds: float, port: int) -> Figures:
    endpoint, environment = EndpointOptions(port, 1, ["--draft"]), worker_environment(arguments, concurrency)
    url = f"http://127.0.0.1:{port}/v2/local"
    async with running_endpoint(endpoint, environment), aiohttp.ClientSession() as session:
        await _run_all(session, url, 1, 0)  # waits until the worker has booted
        started = time.monotonic()
        answers = await _run_all(session, url, jobs, 1)
        wall = time.monotonic() - started
    busy = len(answers) * engine_seconds
    return Figures(concurrency, wall, busy / wall, (wall - busy) / jobs)


def worker_environment(arguments: str, concurrency: int) -> dict[str, str]:
    """Environment variables of a worker that logs errors only; `arguments` are COMFYUI_ARGS."""
    return {
        **{name: value for name, value in local_worker_environment().items() if name in _INHERITED_VARIABLES},
        "CONCURRENCY": str(concurrency),
        "COMFYUI_ARGS": arguments,
        "LOG_LEVEL": "ERROR",
        "RUNPOD_LOG_LEVEL": "ERROR",
    }


def _engine_seconds(arguments: str) -> float:
    """Seconds from `execution_start` to `execution_success` of one job, the median of three."""
    settings = replace(read_settings({}), comfyui_args=arguments)
    limits = RunLimits(Deadline(600.0), 600.0, 10.0)
    times = []
    with ComfyEngine(draft_installation(), settings) as engine:
        engine.ensure_ready()
        for seed in range(3):
            workflow = apply_overrides(sampling_workflow(), Overrides(seed=seed)).workflow
            messages = dict(run_prompt(engine, workflow, limits, lambda event: None).entry["status"]["messages"])
            times.append(messages["execution_success"]["timestamp"] - messages["execution_start"]["timestamp"])
    return float(statistics.median(times)) / 1000


async def _run_all(session: aiohttp.ClientSession, url: str, jobs: int, first_seed: int) -> list[dict[str, Any]]:
    ids = []
    for seed in range(first_seed, first_seed + jobs):
        async with session.post(
            f"{url}/run", json={"input": {"workflow": sampling_workflow(), "seed": seed}}
        ) as response:
            ids.append((await response.json())["id"])
    return [await wait_until_completed(session, url, job_id) for job_id in ids]


async def wait_until_completed(session: aiohttp.ClientSession, url: str, job_id: str) -> dict[str, Any]:
    """Poll a job of a local endpoint until it has completed; its status. Exits the program if it fails."""
    while True:
        async with session.get(f"{url}/status/{job_id}") as response:
            status: dict[str, Any] = await response.json()
        if status["status"] == "COMPLETED":
            return status
        if status["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
            raise SystemExit(f"a job ended as {status['status']}: {status.get('error')}")
        await asyncio.sleep(0.01)


def sampling_workflow() -> dict[str, Any]:
    """A workflow of `STEPS` steps for the draft engine."""

    def node(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs}

    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="any.safetensors"),
        "2": node("CLIPTextEncode", text="a cat", clip=["1", 1]),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node(
            "KSampler", seed=0, steps=STEPS, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0,
            model=["1", 0], positive=["2", 0], negative=["2", 0], latent_image=["3", 0],
        ),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="busy"),
    }  # fmt: skip


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--port", type=int, default=18765)
    return parser.parse_args()


if __name__ == "__main__":
    main()
