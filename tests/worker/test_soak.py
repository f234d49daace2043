"""Many jobs in one process: memory, open files, threads, folders and ComfyUI's history do not grow."""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .. import workflows
from ..conftest import booted, settings_for
from ..endpoint.test_endpoint import serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

JOBS, SETTLED = (1000, 100) if os.environ.get("LONG_TESTS") else (300, 100)


def resident_bytes() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    """How many files and sockets this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.slow
def test_many_jobs_through_the_real_loop_leave_nothing_behind(tmp_path: Path) -> None:
    with serving(tmp_path, CONCURRENCY="4") as client:
        client.wait_for_workers(1)

        def run(numbers: range) -> None:
            with ThreadPoolExecutor(8) as pool:
                jobs = list(pool.map(lambda number: client.run({"workflow": workflows.still(color=number)}), numbers))
            assert {client.ended(job_id)["status"] for job_id in jobs} == {"COMPLETED"}

        def left() -> list[Path]:
            """What jobs left in the folders of the engine, or beside them."""
            folders = [folder for folder in tmp_path.glob("comfyui-worker-*") if (folder / "output").exists()]
            inside = [entry for part in ("input", "output", "temp") for entry in (folders[0] / part).iterdir()]
            return [*inside, *set(tmp_path.glob("comfyui-worker-*")).difference(folders)]

        def figures() -> dict[str, int]:
            end = time.monotonic() + 10  # the last answers go before what they leave
            while left() and time.monotonic() < end:
                time.sleep(0.02)
            assert not left()
            (worker,) = client.worker_processes()
            status = Path(f"/proc/{worker}/status").read_text()
            told = {
                name: int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) for name in ("VmRSS", "Threads")
            }
            return {**told, "files": sum(1 for _ in Path(f"/proc/{worker}/fd").iterdir())}

        run(range(SETTLED))
        before = figures()
        run(range(SETTLED, JOBS))
        after = figures()
        assert after["VmRSS"] - before["VmRSS"] < 10_000  # kB
        assert after["Threads"] <= before["Threads"] + 1
        assert abs(after["files"] - before["files"]) <= 4  # polls that are under way


def test_many_jobs_leave_nothing_behind() -> None:
    with booted("draft", settings_for("draft")) as bench:

        def run(numbers: range) -> None:
            for number in numbers:
                workflow = workflows.batch_of_four() if number % 3 else workflows.animated_webp()
                if number % 10 == 9:
                    workflow = {**workflow, "77": workflows.node("NoSuchNode", image=["1", 0])}
                answer = bench.run(workflow=workflow, **({"seed": number} if number % 3 else {}))
                assert answer["status"] == ("error" if number % 10 == 9 else "success"), answer

        run(range(SETTLED))
        assert not bench.leftovers()
        gc.collect()
        before = (resident_bytes(), open_files(), threading.active_count())
        run(range(SETTLED, JOBS))
        assert not bench.leftovers()
        gc.collect()
        after = (resident_bytes(), open_files(), threading.active_count())
        assert after[0] - before[0] < 10_000_000
        assert after[1] <= before[1] + 1  # a connection to ComfyUI, kept open for what is done beside an answer
        assert after[2] == before[2]
        assert not bench.prompts_in_history()
