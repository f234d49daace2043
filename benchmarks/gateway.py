"""The time that the gateway adds to a job, beside the same job sent to the endpoint directly.

    python -m benchmarks.gateway [--seconds 0.2 1 3] [--jobs 15]

A local endpoint with one real SDK worker runs the jobs on the draft engine, alternately sent to /run, whose status is
then polled every 10 ms, and to the gateway's /prompt, whose websocket says when the prompt has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.busy_queue import sampling_workflow, wait_until_completed, worker_environment
from src import REPOSITORY
from src.endpoint.server import EndpointOptions, running_endpoint

_STEP_SECONDS = 0.02
_CLIENT_ID = "benchmark"
_START_SECONDS = 60.0


def main() -> None:
    """Print a table with a row for each length of a job: medians of both ways, and the difference."""
    options = _parse()
    print(f"{options.jobs} jobs of each length, {os.cpu_count()} cores; seconds from sending to the end")
    print("   job   direct  gateway   added, median   added, 95 %   ratio")
    asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> None:
    endpoint = EndpointOptions(options.port, 1, ["--draft"])
    environment = worker_environment(f"--step-seconds {_STEP_SECONDS}", 1)
    url, gateway_port = f"http://127.0.0.1:{options.port}/v2/local", options.port + 1
    async with (
        running_endpoint(endpoint, environment),
        aiohttp.ClientSession() as session,
        _gateway(session, url, gateway_port) as gateway,
        session.ws_connect(f"{gateway}/ws?clientId={_CLIENT_ID}") as events,
    ):
        for number, seconds in enumerate(options.seconds):
            direct, by_gateway = [], []
            for job in range(options.jobs + 1):
                workflow = _workflow(seconds, seed=1000 * number + job)
                direct.append(await _run_directly(session, url, workflow))
                workflow["4"]["inputs"]["seed"] += 500
                by_gateway.append(await _run_by_gateway(session, gateway, events, workflow))
            _print_row(seconds, direct[1:], by_gateway[1:])


def _print_row(seconds: float, direct: list[float], by_gateway: list[float]) -> None:
    base, through = statistics.median(direct), statistics.median(by_gateway)
    p95 = sorted(by_gateway)[int(len(by_gateway) * 0.95)] - base
    print(f"{seconds:>6g} {base:>8.2f} {through:>8.2f} {through - base:>15.2f} {p95:>13.2f} {through / base:>7.2f}")


@asynccontextmanager
async def _gateway(session: aiohttp.ClientSession, url: str, port: int) -> AsyncIterator[str]:
    """A gateway that knows the endpoint's node classes; its URL."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(REPOSITORY / "serverless_worker.py"), "--gateway", "--local", url]
        command += ["--port", str(port), "--folder", folder]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + _START_SECONDS
        try:
            while not await _answers(session, address):
                if time.monotonic() > end or process.poll() is not None:
                    raise SystemExit("the gateway did not start: " + (Path(folder) / "log").read_text())
                await asyncio.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()


async def _answers(session: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with session.get(f"{address}/object_info/KSampler") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


def _workflow(seconds: float, seed: int) -> dict[str, Any]:
    workflow = sampling_workflow()
    workflow["4"]["inputs"].update(steps=max(1, round(seconds / _STEP_SECONDS)), seed=seed)
    return workflow


async def _run_directly(session: aiohttp.ClientSession, url: str, workflow: dict[str, Any]) -> float:
    began = time.monotonic()
    async with session.post(f"{url}/run", json={"input": {"workflow": workflow}}) as response:
        job_id = (await response.json())["id"]
    await wait_until_completed(session, url, job_id)
    return time.monotonic() - began


async def _run_by_gateway(
    session: aiohttp.ClientSession, gateway: str, events: Any, workflow: dict[str, Any]
) -> float:
    began = time.monotonic()
    async with session.post(f"{gateway}/prompt", json={"prompt": workflow, "client_id": _CLIENT_ID}) as response:
        prompt_id = (await response.json())["prompt_id"]
    while True:
        event = await events.receive_json()
        if event["data"].get("prompt_id") != prompt_id:
            continue
        if event["type"] == "execution_error":
            raise SystemExit(f"a prompt failed: {event['data']['exception_message']}")
        if event["type"] == "executing" and event["data"]["node"] is None:
            return time.monotonic() - began


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.2, 1.0, 3.0])
    parser.add_argument("--jobs", type=int, default=15)
    parser.add_argument("--port", type=int, default=8101)
    return parser.parse_args()


if __name__ == "__main__":
    main()
