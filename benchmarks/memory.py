"""The handler's peak memory for a large result, compared with the bytes that it returns.

    python -m benchmarks.memory [--side 5000] [--draft]

One noisy image of about 40 MB is delivered in three ways: as base64 (with a limit that allows it), to a bucket (moto's
S3 server on loopback, from requirements-dev.txt), and refused for its size. Growth is the peak resident memory of the
process during the job, as counted by the kernel (VmHWM), minus its memory before. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.overhead import noisy_workflow
from src import job_log
from src.comfy.engine import ComfyEngine
from src.comfy.install import draft_installation, find_comfyui
from src.errors import WorkerError
from src.job import handler as job_handler
from src.job.handler import Worker
from src.job.run import JobRunner
from src.outputs.answer import json_size
from src.settings import BucketConfig, read_settings
from src.storage.bucket import Bucket

_MB = 1_000_000
_BOUND_MB = 60.0


def main() -> None:
    """Print a table: way, size of the file and of the answer, growth, and the bound 1.5 x bytes returned + 60 MB."""
    options = _parse()
    job_log.configure("ERROR")
    settings = replace(read_settings(), result_limit=1000.0)
    installation = draft_installation() if options.draft else find_comfyui(settings)
    with ComfyEngine(installation, settings) as engine, loopback_buckets("memory") as config:
        engine.wait_ready()
        runner = replace(JobRunner.make(engine, settings), bucket=Bucket(config))
        runner.check_bucket()
        asyncio.run(_run_job(runner, 64, 0, {}))  # what is imported and created once
        asyncio.run(_run_job(runner, 64, 1, {"delivery": "bucket"}))
        print(f"{installation.name}; before the jobs the handler uses {process_memory('VmRSS') / _MB:.0f} MB")
        print(f"{'way':>8} {'file MB':>8} {'response MB':>12} {'growth MB':>10} {'bound MB':>9}")
        for way, output, limit in (
            ("base64", {"delivery": "base64"}, 1000.0),
            ("bucket", {"delivery": "bucket"}, 1000.0),
            ("refused", {"delivery": "base64"}, 9.5),
        ):
            limited = replace(runner, settings=replace(settings, result_limit=limit))
            _measure(way, limited, options.side, output)


def _measure(way: str, runner: JobRunner, side: int, output: dict[str, Any]) -> None:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak
    before = process_memory("VmRSS")
    answer = asyncio.run(_run_job(runner, side, int(time.time() * 1000) % 2**31, output))
    growth = process_memory("VmHWM") - before
    size = answer["files"][0]["size_bytes"]
    returned = json_size(answer) if answer["status"] == "success" else 0
    bound = 1.5 * max(returned, size if way == "bucket" else 0) + _BOUND_MB * _MB
    print(f"{way:>8} {size / _MB:>8.1f} {returned / _MB:>12.1f} {growth / _MB:>10.1f} {bound / _MB:>9.1f}")


async def _run_job(runner: JobRunner, side: int, seed: int, output: dict[str, Any]) -> dict[str, Any]:
    job_handler.set_worker(Worker(runner))
    job_input = {"workflow": noisy_workflow(side, seed), "output": output}
    return await job_handler.handler({"id": "memory", "input": job_input})


def process_memory(name: str) -> int:
    """A value of /proc/self/status in bytes: VmRSS (resident memory) or VmHWM (its peak)."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) * 1024 if found else 0


@contextmanager
def loopback_buckets(*buckets: str) -> Iterator[BucketConfig]:
    """Run an S3 server on loopback and create these buckets; the configuration names the first one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)) and server.poll() is None:
            time.sleep(0.05)
        config = BucketConfig(f"http://127.0.0.1:{port}", "any", "any", buckets[0], region="us-east-1")
        for name in buckets:
            Bucket(config)._client().create_bucket(Bucket=name)
        yield config
    finally:
        server.kill()
        server.wait()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=5000)
    parser.add_argument("--draft", action="store_true", help="on the draft engine instead of ComfyUI")
    return parser.parse_args()


if __name__ == "__main__":
    if os.name != "posix" or not Path("/proc/self/clear_refs").exists():
        sys.exit("benchmarks.memory needs Linux")
    try:
        main()
    except WorkerError as error:
        sys.exit(f"{error.error_code}: {error.message}")
