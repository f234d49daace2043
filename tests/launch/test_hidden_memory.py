"""The worker's secrets cannot be read from the processes that it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..container import DOCKER_CAPABILITIES
from ..loopback_queue import serving
from ..worker_process import ROOT, WORKER, WorkerProcess, killed_on_exit

LONG = 60.0  # a hang limit, no measure
LIMITED = ["setpriv", "--inh-caps=-all", f"--bounding-set={DOCKER_CAPABILITIES}"]
READ = """
import sys
for name in ("environ", "mem", "maps"):
    try:
        with open(f"/proc/{sys.argv[1]}/{name}", "rb") as file:
            file.seek(0)
            print(name, len(file.read(100)) if name != "mem" else "opened")
    except OSError as error:
        print(name, "refused", error.strerror)
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="wants root on Linux with setpriv, to take capabilities away",
)


def read(process_id: int) -> str:
    """What another process of root, with Docker's capabilities, can read of that process."""
    command = [*LIMITED, sys.executable, "-c", READ, str(process_id)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_process_of_the_same_user_reads_neither_memory_nor_environment_of_the_worker(tmp_path: Path) -> None:
    command = [*LIMITED, sys.executable, str(WORKER), "--draft"]
    with serving() as queue, killed_on_exit(WorkerProcess(command, queue.environment, tmp_path)) as worker:
        worker.wait_for_log("taking jobs", LONG)
        found = read(worker.process.pid)
        assert [line.split()[:2] for line in found.splitlines()] == [
            [name, "refused"] for name in ("environ", "mem", "maps")
        ]


def test_that_can_be_seen(tmp_path: Path) -> None:
    """The same look at a process that does not hide."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [*LIMITED, sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as open_one:
        assert open_one.stdout
        open_one.stdout.readline()
        assert "environ 100" in read(open_one.pid)
        open_one.communicate()
