"""What the benchmarks tell follows from their figures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from benchmarks import boot, report
from src.worker.boot_timeline import BootTimeline

from ..loopback_queue import serving
from ..worker_process import ROOT

FIGURES: dict[str, Any] = {
    "engine": "ComfyUI 0.21.0",
    "machine": "2 cores",
    "runs": 3,
    "cold": {"warm": {"ours": [5.0, 4.0, 9.0], "worker-comfyui": [10.0, 10.0, 8.0], "limit": [4.0, 5.0, 4.0]}},
    "busy": [
        {"job": 1.0, "name": "ours", "line": 0.0, "each": 1.01},
        {"job": 1.0, "name": "worker-comfyui", "line": 0.0, "each": 2.02},
    ],
    "overhead": [
        {"name": "ours", "side": 64, "pictures": 1, "ms": [4.0, 6.0, 5.0], "growth_mb": [1.0]},
        {"name": "worker-comfyui", "side": 64, "pictures": 1, "ms": [10.0], "growth_mb": [1.0]},
        {"name": "limit", "side": 64, "pictures": 1, "ms": [2.5], "growth_mb": [1.0]},
    ],
}


def test_the_table_has_medians_and_ratios() -> None:
    lines = report.table(FIGURES).splitlines()
    assert lines[2:] == [
        "| cold start, warm page cache | 5 s | 10 s | **0.50** |",
        "| full queue of 1 s jobs, per job | 1.01 s | 2.02 s | **0.50** |",
        "| handler overhead, 1 x 64² | 5 ms | 10 ms | **0.50** |",
        "| cold start, warm page cache, compared with ComfyUI's own boot and a bare client (4 s) | 5 s | | 1.25 |",
        "| handler overhead, 1 x 64², compared with a bare client (2.5 ms) | 5 ms | | 2.00 |",
    ]


def test_what_is_kept_is_the_figures_the_table_and_a_plot_a_case(tmp_path: Path) -> None:
    report.write(FIGURES, tmp_path / "performance")
    kept = tmp_path / "performance"
    assert json.loads((kept / "figures.json").read_text()) == FIGURES
    assert report.table(FIGURES) in (kept / "README.md").read_text()
    for case in ("cold", "busy", "overhead"):
        assert (kept / f"{case}.png").read_bytes().startswith(b"\x89PNG")
        assert f"({case}.png)" in (kept / "README.md").read_text()


def test_a_boot_is_drawn_from_what_the_worker_logged(tmp_path: Path) -> None:
    timeline = BootTimeline(time.monotonic() - 2)
    with timeline.span("RunPod's SDK"):
        pass
    found = boot.read_spans(f"first line\n2026-01-01 INFO - worker: {timeline.summary()}\nlast line")
    assert found == [("imports", 0.0, 2.0), ("RunPod's SDK", 2.0, 2.0)]
    first, second = boot.format_bars(found).splitlines()
    assert first == f"     imports {'█' * 60}  0.0-2.0 s"
    assert second == f"RunPod's SDK {' ' * 60}█ 2.0-2.0 s"
    boot.draw(found, tmp_path / "boot.png")
    assert (tmp_path / "boot.png").read_bytes().startswith(b"\x89PNG")
    assert boot.read_spans("nothing of the kind") == []


def test_every_benchmark_is_listed_with_what_it_measures() -> None:
    command = [sys.executable, "-m", "benchmarks", "--list"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    parts = {"__init__", "__main__", "contenders", "handler_times", "report", "slow_volume"}
    for file in (ROOT / "benchmarks").glob("*.py"):
        assert (f"== {file.stem}: " in told) == (file.stem not in parts), file.stem


def test_the_queue_hands_out_several_jobs_to_who_asks_for_them() -> None:
    with serving() as queue:
        for number in range(3):
            queue.put(f"j{number}", {})
        url = f"{queue.url}/v2/local/job-take-batch/w?batch_size=2&job_in_progress=0"
        assert [job["id"] for job in requests.get(url, timeout=10).json()] == ["j0", "j1"]
        assert [job["id"] for job in requests.get(url, timeout=10).json()] == ["j2"]
        assert requests.get(url, timeout=10).status_code == 204
