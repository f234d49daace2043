"""One to four workers on one queue, measured and simulated with `benchmarks.scaling`.

    python -m benchmarks.many_workers [--workers 1 2 4] [--seconds 1] [--jobs 24]

All jobs are first sent at once, to measure how much more several workers do than one. Then jobs arrive at random times
(Poisson) at 70 % of the workers' capacity, and the benchmark measures how long each waits until a worker starts it. A
local endpoint with real SDK workers runs the jobs, which sleep in the draft engine. The simulation gets the same
arrivals, the same number of workers (always on), and the time that a worker needs for a job when the queue is full.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from itertools import accumulate
from typing import Any

import aiohttp

from benchmarks.busy_queue import STEPS, sampling_workflow, wait_until_completed, worker_environment
from benchmarks.scaling import Endpoint, simulate
from src.endpoint.server import EndpointOptions, running_endpoint

_LOAD = 0.7


def main() -> None:
    """Print a table with one row per number of workers."""
    options = _parse()
    print(
        f"jobs of {options.seconds:g} s, {os.cpu_count()} cores; waits in seconds, random arrivals at {_LOAD:.0%} load"
    )
    print(" workers  full queue s/job   gain    wait  simulated    95 %  simulated")
    first = 0.0
    for workers in options.workers:
        each, waits, expected = asyncio.run(_measure(workers, options))
        first = first or each
        p95, expected_p95 = (sorted(w)[int(len(w) * 0.95)] for w in (waits, expected))
        print(
            f"{workers:>8} {each:>17.3f} {first / each:>6.2f} {statistics.mean(waits):>7.2f} "
            f"{statistics.mean(expected):>10.2f} {p95:>7.2f} {expected_p95:>10.2f}"
        )


async def _measure(workers: int, options: argparse.Namespace) -> tuple[float, list[float], list[float]]:
    """Seconds per job of a full queue, the waits of randomly arriving jobs, and their simulated waits."""
    url = f"http://127.0.0.1:{options.port}/v2/local"
    environment = worker_environment(f"--step-seconds {options.seconds / STEPS}", 1)
    endpoint = EndpointOptions(options.port, workers, ["--draft"])
    async with running_endpoint(endpoint, environment), aiohttp.ClientSession() as session:
        await _wait_until_ready(session, url, workers)
        await _run(session, url, [0.0] * workers)
        count = options.jobs * workers
        began = time.monotonic()
        await _run(session, url, [0.0] * count)
        each = (time.monotonic() - began) / count
        generator = random.Random(workers)
        times = list(accumulate(generator.expovariate(_LOAD / each) for _ in range(count)))
        waits = await _run(session, url, times)
    job = each * workers  # includes the SDK's gap between jobs
    expected = simulate(Endpoint(workers, 1e9, 0.0, 0.0, job, min_workers=workers), times, until=times[-1])
    return each, waits, list(expected.waits)


async def _wait_until_ready(session: aiohttp.ClientSession, url: str, workers: int) -> None:
    while True:
        async with session.get(f"{url}/health") as response:
            if (await response.json())["workers"]["ready"] >= workers:
                return
        await asyncio.sleep(0.05)


async def _run(session: aiohttp.ClientSession, url: str, times: list[float]) -> list[float]:
    """Send a job at each of those times; the seconds that each waited for a worker, as the endpoint reports it."""
    began = time.monotonic()

    async def run_job(number: int, at: float) -> dict[str, Any]:
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        job = {"input": {"workflow": sampling_workflow(), "seed": number}}
        async with session.post(f"{url}/run", json=job) as response:
            return await wait_until_completed(session, url, (await response.json())["id"])

    answers = await asyncio.gather(*(run_job(number, at) for number, at in enumerate(times)))
    return [answer["delayTime"] / 1000 for answer in answers]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=24, help="jobs per worker")
    parser.add_argument("--port", type=int, default=18766)
    return parser.parse_args()


if __name__ == "__main__":
    main()
