"""The time that the worker adds to a job, from ComfyUI's `execution_success` to the handler's return.

    python -m benchmarks.overhead [--jobs 50] [--sizes 64 512 1024] [--draft]

Each job saves one noisy image (a PNG that hardly compresses, the worst case), with a new seed so that nothing comes
from a cache. Both times come from this machine's clock, with a resolution of one millisecond.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

from src import job_log
from src.comfy.engine import ComfyEngine
from src.comfy.install import draft_installation, find_comfyui
from src.errors import WorkerError
from src.job import handler as job_handler
from src.job.handler import Worker
from src.job.run import JobRunner
from src.settings import read_settings

_WARM_UP = 5


def main() -> None:
    """Print a table: size of the image, size of the response, median and 95th percentile in milliseconds."""
    options = _parse()
    job_log.configure("WARNING")
    settings = replace(read_settings(), result_limit=100.0)
    installation = draft_installation() if options.draft else find_comfyui(settings)
    with ComfyEngine(installation, settings) as engine:
        engine.wait_ready()
        job_handler.set_worker(Worker(JobRunner.make(engine, settings)))
        print(f"{installation.name}, {options.jobs} jobs per size, {os.cpu_count()} cores")
        print(f"{'image':>10} {'response MB':>12} {'median ms':>10} {'p95 ms':>8}")
        for size in options.sizes:
            asyncio.run(_measure(engine, size, options.jobs))


async def _measure(engine: ComfyEngine, size: int, jobs: int) -> None:
    ended = _record_run_ends(engine)
    overheads, length = [], 0
    for seed in range(jobs + _WARM_UP):
        answer = await job_handler.handler({"id": f"job-{seed}", "input": {"workflow": noisy_workflow(size, seed)}})
        overheads.append(time.time() * 1000 - ended[-1])
        length = sum(map(len, answer["images"]))
    overheads = sorted(overheads[_WARM_UP:])
    p95 = overheads[int(len(overheads) * 0.95)]
    print(f"{size:>9}² {length / 1e6:>12.2f} {statistics.median(overheads):>10.1f} {p95:>8.1f}")


def _record_run_ends(engine: ComfyEngine) -> list[float]:
    """A list that gets the time of `execution_success` (ms since 1970) of each run whose history entry is read."""
    ended: list[float] = []
    history = engine.client.history

    def recording_history(prompt_id: str) -> dict[str, Any] | None:
        entry = history(prompt_id)
        if entry:
            messages = entry["status"]["messages"]
            ended.extend(data["timestamp"] for name, data in messages if name == "execution_success")
        return entry

    engine.client.history = recording_history  # type: ignore[method-assign]
    return ended


def noisy_workflow(size: int, seed: int, pictures: int = 1) -> dict[str, Any]:
    """A workflow that saves pictures of noise, `size` pixels square."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": size, "height": size, "batch_size": pictures, "color": 0},
        },
        "2": {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": seed, "strength": 1.0}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "overhead"}},
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 512, 1024])
    parser.add_argument("--draft", action="store_true", help="on the draft engine instead of ComfyUI")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except WorkerError as error:
        sys.exit(f"{error.error_code}: {error.message}")
