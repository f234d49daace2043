"""Time to the first image of a cold worker with its models on a slow volume, with and without reading ahead.

    python -m benchmarks.read_ahead [--latency-ms 2] [--mb-per-second 300] [--runs 3]

Runs a real ComfyUI with the tests' small models (including a text encoder of 247 MB) on a volume that is throttled
with `benchmarks.slow_volume`. RunPod states 200 to 400 MB/s for its network volumes; the latency is a guess. Each run
mounts the volume again, so that none of it is in memory. Three ways are measured in turn: models are read only when
nodes ask for them; they are read ahead while ComfyUI boots; they are read ahead and warmed up, so that the first job
finds them loaded. Times are in seconds from the start of ComfyUI's process: `ready` until the worker accepts jobs,
`first image` until the first response. `job` is the difference, the time that a caller waits for a worker that is
already running.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.slow_volume import slow_volume
from src import job_log
from src.comfy.engine import ComfyEngine
from src.comfy.install import find_comfyui
from src.errors import WorkerError
from src.job import handler as job_handler
from src.job.handler import Worker
from src.job.run import JobRunner
from src.settings import Settings, read_settings
from src.worker.warm_up import read_warm_up, warm_up
from tests.tiny_models import make_models
from tests.workflows import generative

_WAYS: dict[str, dict[str, Any]] = {
    "when asked for": {"read_ahead": False},
    "read ahead": {"read_ahead": True},
    "read ahead, warmed up": {"read_ahead": True, "warmup_workflow": "warm.json"},
}


@dataclass(frozen=True)
class Figures:
    """Seconds from ComfyUI's start until jobs are taken, and until the first job is answered."""

    ready: float
    first_image: float


def main() -> None:
    """Print a table with one row per way: medians of the runs, and the ratio of the job's time to the first row's."""
    options = _parse()
    job_log.configure(options.log)
    with tempfile.TemporaryDirectory(prefix="read-ahead-") as folder:
        root = Path(folder)
        make_models(root / "models")
        (root / "warm.json").write_text(json.dumps(generative()))
        measured: dict[str, list[Figures]] = {way: [] for way in _WAYS}
        _measure(root, {"read_ahead": True}, options)  # brings ComfyUI's own files into the page cache
        for _ in range(options.runs):
            for way, changes in _WAYS.items():
                measured[way].append(_measure(root, changes, options))
    _print_table(measured, options)


def _measure(root: Path, changes: dict[str, Any], options: argparse.Namespace) -> Figures:
    with slow_volume(root / "models", root / "volume", options.latency_ms, options.mb_per_second) as volume:
        overrides = {**changes, "models_dir": str(volume)}
        if "warmup_workflow" in overrides:
            overrides["warmup_workflow"] = str(root / overrides["warmup_workflow"])
        settings = replace(read_settings(), **overrides)
        started = time.monotonic()
        with ComfyEngine(find_comfyui(settings), settings) as engine:
            _make_ready(engine, settings)
            ready = time.monotonic() - started
            answer = asyncio.run(job_handler.handler({"id": "first", "input": {"workflow": generative()}}))
            first_image = time.monotonic() - started
    if answer["status"] != "success":
        sys.exit(f"the job failed: {answer['error']}")
    return Figures(ready, first_image)


def _make_ready(engine: ComfyEngine, settings: Settings) -> None:
    """Do what a worker does before it takes jobs. The files that are read ahead are those of the job's workflow."""
    runner, request = JobRunner.make(engine, settings), read_warm_up(settings)
    runner.models.start(generative())
    engine.ensure_ready()
    runner.models.wait()
    if request is not None:
        warm_up(runner, replace(request, overrides=replace(request.overrides, seed=12345)))
    job_handler.set_worker(Worker(runner))


def _print_table(measured: dict[str, list[Figures]], options: argparse.Namespace) -> None:
    print(
        f"volume: {options.latency_ms:g} ms per read, {options.mb_per_second:g} MB/s; {options.runs} runs, medians; "
        f"{os.cpu_count()} cores"
    )
    print(f"{'models':>22} {'ready s':>8} {'job s':>7} {'first image s':>14} {'job, ratio':>11}")
    baseline = 0.0
    for way, figures in measured.items():
        ready = statistics.median(run.ready for run in figures)
        job = statistics.median(run.first_image - run.ready for run in figures)
        first_image = statistics.median(run.first_image for run in figures)
        baseline = baseline or job
        print(f"{way:>22} {ready:>8.2f} {job:>7.2f} {first_image:>14.2f} {job / baseline:>11.2f}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=2.0)
    parser.add_argument("--mb-per-second", type=float, default=300.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--log", default="ERROR")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except WorkerError as error:
        sys.exit(f"{error.error_code}: {error.message}")
