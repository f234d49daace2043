"""Growth over many jobs: memory, open files and threads of the worker, memory of ComfyUI, files in its folders.

    COMFYUI_PATH=… python -m benchmarks.growth [--jobs 1000] [--every 200]

Each job makes a 64² image of a different colour. Needs Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import re
import threading
import time
from pathlib import Path

from benchmarks.contenders import empty_image_workflow
from src import job_log
from src.comfy.engine import ComfyEngine
from src.comfy.install import draft_installation, find_comfyui
from src.job import handler as job_handler
from src.job.handler import Worker
from src.job.run import JobRunner
from src.settings import read_settings

_CLEANUP_SECONDS = 0.1  # the worker cleans up after it has answered


def main() -> None:
    """Run the jobs, and print a row after every `--every` of them."""
    options = _parse()
    job_log.configure("ERROR")
    settings = read_settings()
    installation = draft_installation() if options.draft else find_comfyui(settings)
    with ComfyEngine(installation, settings) as engine:
        engine.wait_ready()
        job_handler.set_worker(Worker(JobRunner.make(engine, settings)))
        loop = asyncio.new_event_loop()
        print(f"{installation.name}, {options.jobs} jobs")
        print("  jobs  worker MB  open files  threads  ComfyUI MB  files left  ms per job")
        began = time.monotonic()
        for number in range(1, options.jobs + 1):
            answer = loop.run_until_complete(
                job_handler.handler({"id": "g", "input": {"workflow": empty_image_workflow(number)}})
            )
            if answer["status"] != "success":
                raise SystemExit(f"job {number}: {answer['error']}")
            if number % options.every == 0:
                job_milliseconds = (time.monotonic() - began) / options.every * 1000
                _print_row(engine, number, job_milliseconds)
                began = time.monotonic()


def _print_row(engine: ComfyEngine, jobs: int, job_milliseconds: float) -> None:
    gc.collect()
    time.sleep(_CLEANUP_SECONDS)
    folders = engine.process.folders
    left = [f for folder in (folders.input, folders.output, folders.temp) for f in folder.rglob("*") if f.is_file()]
    opened = sum(1 for _ in Path("/proc/self/fd").iterdir())
    own, comfyui = _resident_megabytes("self"), _resident_megabytes(str(engine.process.pid))
    row = f"{jobs:>6} {own:>10.1f} {opened:>11} {threading.active_count():>8} {comfyui:>11.1f}"
    print(f"{row} {len(left):>11} {job_milliseconds:>11.1f}")


def _resident_megabytes(process: str) -> float:
    """Resident memory of a process (its id, or `self`) in megabytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found.group(1)) / 1000 if found else 0.0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--draft", action="store_true", help="on the draft engine instead of ComfyUI")
    return parser.parse_args()


if __name__ == "__main__":
    main()
