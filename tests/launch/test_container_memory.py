"""The memory that there is: of the container, where it has less than the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from src.launch.container_memory import free_memory, kernel_kills, memory_limit, total_memory

from ..memory_group import memory_group
from ..worker_process import ROOT

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n"
GB = 1 << 30
GROUPS: dict[str, tuple[dict[str, str], int, int]] = {
    "no group": ({}, 16_000_000 << 10, 8_000_000 << 10),
    "version 2": (
        {"memory.max": f"{4 * GB}", "memory.current": f"{3 * GB}", "memory.stat": f"anon 5\ninactive_file {GB}\n"},
        4 * GB,
        2 * GB,
    ),
    "version 2 without a limit": ({"memory.max": "max\n", "memory.current": "5"}, 16_000_000 << 10, 8_000_000 << 10),
    "version 1": (
        {
            "memory/memory.limit_in_bytes": f"{4 * GB}",
            "memory/memory.usage_in_bytes": f"{2 * GB}",
            "memory/memory.stat": f"cache 1\ntotal_inactive_file {GB // 2}\n",
        },
        4 * GB,
        5 * GB // 2,
    ),
    "version 1 without a limit": (
        {"memory/memory.limit_in_bytes": "9223372036854771712"},
        16_000_000 << 10,
        8_000_000 << 10,
    ),
    "a group that is used up": ({"memory.max": "100", "memory.current": "200"}, 100, 0),
}


@pytest.mark.parametrize(("files", "total", "free"), GROUPS.values(), ids=GROUPS.keys())
def test_memory_is_that_of_the_container(tmp_path: Path, files: dict[str, str], total: int, free: int) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert total_memory(tmp_path, tmp_path) == total
    assert free_memory(tmp_path, tmp_path) == free


def test_a_system_that_tells_nothing_has_no_memory_to_spare(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path / "none") == 0


def test_the_limit_of_a_group_within_a_group_counts(tmp_path: Path) -> None:
    """As where the container shares the machine's control groups."""
    for name, content in {
        "meminfo": MEMINFO,
        "self/cgroup": "0::/a/b\n",
        "a/b/memory.max": "max",
        "a/memory.max": f"{3 * GB}",
        "a/memory.current": f"{GB}",
        "a/memory.events": "low 0\noom 4\noom_kill 2\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert memory_limit(tmp_path, tmp_path) == total_memory(tmp_path, tmp_path) == 3 * GB
    assert free_memory(tmp_path, tmp_path) == 2 * GB
    assert kernel_kills(tmp_path, tmp_path) == 2


# --- With a real control group ---------------------------------------------------------------------------


def in_group(limit: int, code: str) -> list[str]:
    """What code says that is run in a group of its own, with a limit in bytes."""
    with memory_group(limit) as enter:
        command = [*enter, sys.executable, "-c", code]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.splitlines()


def test_psutil_tells_the_memory_of_the_group() -> None:
    pytest.importorskip("psutil")
    code = (
        "import psutil\nfrom src.launch.container_memory import limit_psutil\nlimit_psutil()\n"
        "told = psutil.virtual_memory()\nprint(told.total, 0 < told.available < told.total, told.percent > 0)"
    )
    assert in_group(300 << 20, code) == [f"{300 << 20} True True"]


def test_a_kill_by_the_kernel_is_counted() -> None:
    code = """
import subprocess, sys
from src.launch.container_memory import kernel_kills
before = kernel_kills()
eat = "x = bytearray(1 << 30); x[::4096] = b'1' * len(x[::4096])"
print(subprocess.run([sys.executable, "-c", eat]).returncode, kernel_kills() - before)
"""
    assert in_group(300 << 20, code) == ["-9 1"]
