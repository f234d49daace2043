"""In a container with little memory: large pictures are made, and what does not fit is told by the limit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ..conftest import REAL_ARGS, installation
from ..loopback_queue import serving
from ..memory_group import memory_group
from ..worker_process import WORKER, WorkerProcess, killed_on_exit

JOBS = 60 if os.environ.get("LONG_TESTS") else 12

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="control groups are of Linux")]


def noisy(side: int, seed: int) -> dict[str, Any]:
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": side, "height": side, "batch_size": 1, "color": seed * 977},
        },
        "2": {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": seed, "strength": 0.3}},
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "limit"}},
    }


def answers(folder: Path, gigabytes: float, side: int, jobs: int) -> list[dict[str, Any]]:
    """The answers to jobs with pictures of that side, each its own, in a container of so much memory."""
    real = installation("real")
    environment = {"COMFYUI_PATH": str(real.directory), "COMFYUI_ARGS": REAL_ARGS, "OUTPUT_FORMAT": "jpeg"}
    with memory_group(int(gigabytes * (1 << 30))) as enter, serving() as queue:
        command = [*enter, sys.executable, str(WORKER)]
        with killed_on_exit(WorkerProcess(command, {**queue.environment, **environment}, folder)) as worker:
            for number in range(jobs):
                queue.put(f"job{number}", {"workflow": noisy(side, number + 1)})
            queue.wait_for(jobs, 600)
            worker.process.terminate()
            worker.process.wait(60)
        return [queue.posted[f"job{number}"][0] for number in range(jobs)]


def test_large_pictures_are_made_in_three_gigabytes(tmp_path: Path) -> None:
    outputs = [answer["output"] for answer in answers(tmp_path, 3, 2048, JOBS)]
    assert [output["status"] for output in outputs] == ["success"] * JOBS
    assert not [output for output in outputs if "attempts" in output]
    assert len({output["images"][0] for output in outputs}) == JOBS


def test_what_does_not_fit_is_answered_with_the_limit(tmp_path: Path) -> None:
    (answer,) = answers(tmp_path, 2, 12000, 1)
    assert answer["output"]["error_code"] == "memory_limit_reached"
    assert "killed by the kernel at this container's memory limit of 2.0 GB" in answer["error"]
    assert "COMFYUI_CACHE=none" in answer["error"]
