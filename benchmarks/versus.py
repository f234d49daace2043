"""Our worker compared with runpod-workers/worker-comfyui: cold start, busy queue, overhead, memory.

    COMFYUI_PATH=… python -m benchmarks.versus --peer WORKER_COMFYUI [--only cold busy] [--write docs/performance]

Both run alternately, with the same ComfyUI (CPU), the same RunPod SDK and the same queue on loopback; the output has
medians and ratios. `--write` saves the figures as JSON, the table and the plots. Dropping the page cache needs root.
Port 8188 must be free, because it is hard-coded in worker-comfyui.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks import boot, report
from benchmarks.contenders import (
    Contender,
    cached_bytecode,
    comfyui_arguments,
    drop_page_cache,
    empty_image_workflow,
    our_worker,
    peer_worker,
)
from benchmarks.memory import loopback_buckets
from src.comfy.engine import ComfyEngine
from src.comfy.install import Installation, find_comfyui
from src.comfy.prompt import run_prompt
from src.comfy.run_limits import RunLimits
from src.deadline import Deadline
from src.errors import WorkerError
from src.settings import read_settings
from tests.loopback_queue import LoopbackQueue, serving
from tests.worker_process import WorkerProcess

_TIMEOUT_SECONDS = 240.0
_BUSY_CASES = ((0.05, 20), (0.5, 12), (1.0, 10), (5.0, 3))
"""Seconds that a job takes, and the number of jobs."""
_SLOW_LINE = 0.2
"""Seconds that RunPod takes to accept an answer, in a second run of our worker."""
_OVERHEAD_CASES = [[64, 1, 40], [512, 1, 30], [1024, 1, 20], [2048, 1, 6], [512, 4, 10], [512, 16, 6]]
_MEMORY_CASES = [[2048, 16, 1]]
"""Side of a picture in pixels, pictures per job, number of jobs."""


class Versus:
    """The cases (a public method each), and what they share."""

    def __init__(self, installation: Installation, checkout: Path, folder: Path, runs: int) -> None:
        self._folder, self._runs, self._checkout = folder, runs, checkout
        self._installation = installation
        self._arguments = comfyui_arguments(folder)
        self._ours = our_worker(installation, self._arguments)
        self._peer = peer_worker(checkout, installation, self._arguments, folder)
        self._folders = 0
        self.timeline: list[boot.Span] = []
        """Of our worker's last cold start."""

    def cold(self) -> dict[str, Any]:
        """Seconds from the start of the process to the first answer, with ComfyUI's own boot as the limit."""
        found: dict[str, dict[str, list[float]]] = {}
        for run in range(self._runs + 1):  # the first run only fills the page cache
            for cache in ("warm", "dropped") if run else ("warm",):
                for name, measure in self._ways_to_start():
                    if cache == "dropped" and not drop_page_cache():
                        continue
                    seconds = measure()
                    if run:
                        found.setdefault(cache, {}).setdefault(name, []).append(seconds)
                        print(f"cold start, {cache} cache: {name} {seconds:.2f} s", flush=True)
        return found

    def _ways_to_start(self) -> list[tuple[str, Any]]:
        ways: list[tuple[str, Any]] = [
            (c.name, lambda c=c: self._time_to_first_answer(c)) for c in (self._ours, self._peer)
        ]
        undeferred = ("limit, nothing deferred", lambda: self._time_bare_boot(defers=False))
        return [*ways, ("limit", self._time_bare_boot), undeferred]

    def _time_to_first_answer(self, contender: Contender) -> float:
        with serving() as queue:
            queue.put("first", {"workflow": empty_image_workflow(0)})
            began = time.monotonic()
            with contender.started(queue, self._new_folder()) as worker:
                _wait_for_answers(queue, 1, worker)
                seconds = time.monotonic() - began
                self.timeline = boot.read_spans(worker.log) or self.timeline
                return seconds

    def _time_bare_boot(self, defers: bool = True) -> float:
        """Seconds until ComfyUI, with our flags and launcher, has run a job that was sent as soon as it was ready.

        `defers` is whether its imports of large libraries are put off, as our launcher does.
        """
        settings = replace(read_settings({}), comfyui_args=self._arguments, comfyui_defer_imports=defers)
        began = time.monotonic()
        with ComfyEngine(self._installation, settings) as engine:
            engine.wait_ready()
            limits = RunLimits(Deadline(_TIMEOUT_SECONDS), _TIMEOUT_SECONDS, 10.0)
            run_prompt(engine, empty_image_workflow(0), limits, lambda event: None)
            return time.monotonic() - began

    def busy(self) -> list[dict[str, Any]]:
        """Seconds per job of a full queue with the default settings, by duration of the job; ours on a slow line, too.

        `idle` is what of it ComfyUI did not run, of which only our answers tell.
        """
        found = []
        for seconds, jobs in _BUSY_CASES:
            for contender, line in ((self._ours, 0.0), (self._ours, _SLOW_LINE), (self._peer, 0.0)):
                with self._warm_worker(contender) as (queue, worker):
                    queue.done_seconds = line
                    runs = [_time_full_queue(queue, worker, seconds, jobs, run) for run in range(self._runs)]
                each, idle = (statistics.median(values) for values in zip(*runs, strict=True))
                entry = {"job": seconds, "name": contender.name, "line": line, "each": each}
                found.append({**entry, "idle": idle} if contender is self._ours else entry)
                print(f"busy queue: {found[-1]}", flush=True)
        return found

    @contextmanager
    def _warm_worker(self, contender: Contender) -> Iterator[tuple[LoopbackQueue, WorkerProcess]]:
        with serving() as queue:
            queue.put("warm", {"workflow": empty_image_workflow(1)})
            with contender.started(queue, self._new_folder()) as worker:
                _wait_for_answers(queue, 1, worker)
                yield queue, worker

    def overhead(self) -> list[dict[str, Any]]:
        """Milliseconds that a handler takes in addition to ComfyUI's own execution."""
        return self._measure_handlers(_OVERHEAD_CASES)

    def memory(self) -> list[dict[str, Any]]:
        """Megabytes by which a handler's process grows at its peak, with the pictures as base64."""
        return self._measure_handlers(_MEMORY_CASES)

    def memory_bucket(self) -> list[dict[str, Any]]:
        """The same with the pictures in a bucket: as base64, so many are too large for RunPod."""
        with loopback_buckets("worker", time.strftime("%m-%y")) as bucket:  # the peer names its bucket after the month
            environment = {
                "BUCKET_ENDPOINT_URL": bucket.endpoint_url,
                "BUCKET_ACCESS_KEY_ID": bucket.access_key_id,
                "BUCKET_SECRET_ACCESS_KEY": bucket.secret_access_key,
                "BUCKET_NAME": bucket.name,
                "OUTPUT_DELIVERY": "bucket",
            }
            return self._measure_handlers(_MEMORY_CASES, environment)

    def _measure_handlers(
        self, cases: list[list[int]], environment: Mapping[str, str] = MappingProxyType({})
    ) -> list[dict[str, Any]]:
        """Measure each handler in turn, `--runs` times, each time in a new process; the jobs of a case are pooled."""
        handlers = {self._ours.name: [], self._peer.name: ["--peer", str(self._checkout)]}
        if not environment:
            handlers["limit"] = ["--bare"]
        found: dict[tuple[str, int, int], dict[str, Any]] = {}
        for _ in range(self._runs):
            for name, flags in handlers.items():
                for entry in self._run_handler(name, [json.dumps(cases), *flags], environment):
                    case = (name, entry["side"], entry["pictures"])
                    pooled = found.setdefault(case, {"name": name, **entry, "ms": [], "growth_mb": []})
                    pooled["ms"].extend(entry["ms"])
                    pooled["growth_mb"].append(entry["growth_mb"])
        for (name, side, pictures), entry in found.items():
            median, growth = statistics.median(entry["ms"]), statistics.median(entry["growth_mb"])
            print(f"handler: {name}, {pictures} x {side}²: {median:.1f} ms, grows by {growth:.0f} MB", flush=True)
        return list(found.values())

    def _run_handler(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "benchmarks.handler_times", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=900, env={**os.environ, **environment}
        )
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        entries: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return entries

    def _new_folder(self) -> Path:
        self._folders += 1
        return self._folder / f"worker{self._folders}"


def _time_full_queue(
    queue: LoopbackQueue, worker: WorkerProcess, seconds: float, jobs: int, run: int
) -> tuple[float, float]:
    """Seconds per job, with and without those that ComfyUI ran it (by the timings of our answers).

    From the first answer to the last, since a queue that is empty is not asked at once.
    """
    before = len(queue.posted)
    ids = [f"{run}-{number}" for number in range(jobs)]
    for number, job_id in enumerate(ids):  # each of another colour, so that nothing comes from ComfyUI's cache
        queue.put(job_id, {"workflow": _sleep_workflow(seconds, 1000 * (run + 1) + number)})
    _wait_for_answers(queue, before + 1, worker)
    began = time.monotonic()
    _wait_for_answers(queue, before + jobs, worker)
    each = (time.monotonic() - began) / (jobs - 1)
    outputs = [queue.posted[job_id][0]["output"] for job_id in ids[1:]]
    return each, each - sum(output.get("timings", {}).get("execution", 0.0) for output in outputs) / (jobs - 1)


def _wait_for_answers(queue: LoopbackQueue, count: int, worker: WorkerProcess) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while len(queue.posted) < count:
        if worker.process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{len(queue.posted)} of {count} responses:\n{worker.log[-3000:]}")
        time.sleep(0.005)
    failed = [body for posted in queue.posted.values() for body in posted if "error" in body]
    if failed:
        raise SystemExit(f"a job failed: {str(failed[0])[:2000]}")


def _sleep_workflow(seconds: float, color: int) -> dict[str, Any]:
    inputs = {"image": ["1", 0], "seconds": seconds, "steps": 0}
    workflow = empty_image_workflow(color)
    workflow["9"]["inputs"]["images"] = ["2", 0]
    return {**workflow, "2": {"class_type": "WorkerTestSleep", "inputs": inputs}}


def main() -> None:
    """Run the cases, print their table, and save everything with `--write`."""
    options = _parse()
    installation = find_comfyui(read_settings())
    with tempfile.TemporaryDirectory() as folder, cached_bytecode(installation):
        versus = Versus(installation, options.peer.resolve(), Path(folder), options.runs)
        figures: dict[str, Any] = {
            "engine": installation.name,
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
            "runs": options.runs,
        }
        for case in options.only:
            figures[case] = getattr(versus, case)()
        if versus.timeline:
            figures["boot"] = versus.timeline
    print(report.table(figures))
    if options.write:
        report.write(figures, options.write)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = ["cold", "busy", "overhead", "memory", "memory_bucket"]
    parser.add_argument("--peer", type=Path, required=True, help="a checkout of runpod-workers/worker-comfyui")
    parser.add_argument("--only", nargs="+", choices=cases, default=cases)
    parser.add_argument("--runs", type=int, default=3, help="how often each case is measured")
    parser.add_argument("--write", type=Path, help="folder for figures.json, the table and the plots")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except WorkerError as error:
        sys.exit(f"{error.error_code}: {error.message}")
