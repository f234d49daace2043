"""As a container's first process, the worker leaves an init behind that does what one has to do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..container import DOCKER_CAPABILITIES
from ..worker_process import ROOT

HANG = 30.0
AS_FIRST_PROCESS = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
BEGIN = f"""
import os, signal, subprocess, sys, time
sys.path.insert(0, {str(ROOT)!r})
from src.launch.comfy_launcher import hide_memory
from src.launch.container_init import leave_init_behind
hide_memory()
leave_init_behind()
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="wants root on Linux with unshare, for process ids of its own",
)


@contextmanager
def started(program: str) -> Iterator[subprocess.Popen[str]]:
    command = [*AS_FIRST_PROCESS, sys.executable, "-c", BEGIN + program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_process(of: subprocess.Popen[str]) -> int:
    return int(Path(f"/proc/{of.pid}/task/{of.pid}/children").read_text().split()[0])


@pytest.mark.parametrize(("ending", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 137)])
def test_it_ends_as_the_worker_ends(ending: str, status: int) -> None:
    with started(ending) as process:
        assert process.wait(HANG) == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_worker(number: signal.Signals) -> None:
    program = f"""
signal.signal({int(number)}, lambda number, _: os._exit(10 + number))
print("ready", flush=True)
time.sleep({HANG})
"""
    with started(program) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        os.kill(first_process(process), number)
        assert process.wait(HANG) == 10 + number


def test_orphans_are_reaped_and_end_with_the_worker() -> None:
    program = """
for _ in range(20):
    subprocess.run(["sh", "-c", "sleep 0.05 & sleep 100 > /dev/null &"], check=True)
time.sleep(1)
states = [open(f"/proc/{name}/stat").read().rsplit(")", 1)[1].split()[:2] for name in os.listdir("/proc")
          if name.isdigit()]
print(sum(state == ["Z", "1"] for state in states), sum(state == ["S", "1"] for state in states), flush=True)
"""
    with started(program) as process:
        assert process.stdout
        zombies, sleeping = map(int, process.stdout.readline().split())
        assert process.wait(HANG) == 0
    assert (zombies, sleeping) == (0, 20), "of each pair of orphans one has ended, and one sleeps"


def test_its_environment_cannot_be_read() -> None:
    program = """
try:
    print(open("/proc/1/environ").read()[:10], flush=True)
except OSError as error:
    print(error.strerror, flush=True)
"""
    limited = ["setpriv", "--inh-caps=-all", f"--bounding-set={DOCKER_CAPABILITIES}"]
    command = [*AS_FIRST_PROCESS, *limited, sys.executable, "-c", BEGIN + program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "Permission denied\n"


def test_elsewhere_nothing_happens() -> None:
    command = [sys.executable, "-c", f"import os\nbefore = os.getpid()\n{BEGIN}\nprint(os.getpid() == before)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
