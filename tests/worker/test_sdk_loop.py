"""The real RunPod SDK, unchanged, against a queue on loopback."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .. import workflows
from ..conftest import REAL_ARGS, installation
from ..loopback_queue import LoopbackQueue, serving
from ..worker_process import ROOT, running

LONG = 120.0  # a hang limit, no measure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def start(name: str, queue: LoopbackQueue, folder: Path) -> Any:
    """A worker with that engine on that queue."""
    flags = ["--draft"] if name == "draft" else []
    arguments = "" if name == "draft" else f"{REAL_ARGS} --disable-all-custom-nodes"
    environment = {**queue.environment, "COMFYUI_ARGS": arguments}
    if name == "real":
        environment["COMFYUI_PATH"] = str(installation(name).directory)
    return running(flags, environment, folder)


def twenty_jobs() -> dict[str, tuple[Any, str]]:
    """Id to (input, the status or error_type that must come back)."""
    good = [({"workflow": workflows.still(color=number)}, "success") for number in range(12)]
    bad: list[tuple[Any, str]] = [
        ({"workflow": {}}, "validation"),
        ({"workflow": {"nodes": [], "links": []}}, "validation"),
        ({"workflow": {**workflows.still(), "2": workflows.node("ImageInvert")}}, "validation"),
        ({"workflow": workflows.still(), "seed": -1}, "validation"),
        ({"workflow": {"1": {"class_type": "EmptyImage"}}}, "validation"),
        ({"workflow": workflows.text_only()}, "success"),
        ({"workflow": workflows.still(), "prompt": "no encoder here"}, "validation"),
        ([1, 2], "validation"),
    ]
    mixed = [job for pair in zip(good, [*bad, *good[8:]], strict=False) for job in pair]
    return {f"job-{number}": job for number, job in enumerate(mixed[:20])}


@pytest.mark.parametrize("name", ["draft", pytest.param("real", marks=pytest.mark.slow)])
def test_twenty_jobs_good_and_bad_are_each_answered_rightly_and_sigterm_leaves_nothing(
    name: str, tmp_path: Path
) -> None:
    installation(name)
    with serving() as queue, start(name, queue, tmp_path) as worker:
        jobs = twenty_jobs()
        for job_id, (job_input, _) in jobs.items():
            queue.put(job_id, job_input)
        queue.wait_for(len(jobs), LONG)
        for job_id, (_, expected) in jobs.items():
            check_answer(queue.posted[job_id], expected)
        assert len(worker.process_tree()) >= 3  # the worker, its engine, the SDK's ping process
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait(LONG)
        assert worker.process.returncode == 0, worker.log
        assert worker.process_tree_ends(5)
        assert not list(tmp_path.glob("comfyui-worker-*"))
        assert "Traceback" not in worker.log
        assert "iVBOR" not in worker.log
        assert re.search(
            r"taking jobs \d+\.\d s after the process began: imports .*, ComfyUI .*, RunPod's SDK .*, models ",
            worker.log,
        )


def check_answer(posted: list[dict[str, Any]], expected: str) -> None:
    """One answer, in the shape the SDK posts: `error` stands beside `output`."""
    assert len(posted) == 1
    output = posted[0]["output"]
    if expected == "success":
        assert output["status"] == "success", posted
        assert "error" not in posted[0]
        assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in output["images"])
    else:
        assert output["status"] == "error"
        assert output["error_type"] == expected
        assert isinstance(posted[0]["error"], str)


@pytest.mark.parametrize("name", ["draft", pytest.param("real", marks=pytest.mark.slow)])
def test_a_worker_killed_with_sigkill_leaves_no_orphan(name: str, tmp_path: Path) -> None:
    installation(name)
    with serving() as queue, start(name, queue, tmp_path) as worker:
        queue.put("one", {"workflow": workflows.still()})
        queue.wait_for(1, LONG)
        assert len(worker.process_tree()) >= 3
        worker.process.send_signal(signal.SIGKILL)
        assert worker.process_tree_ends(5), worker.log


@pytest.mark.parametrize("name", ["draft", pytest.param("real", marks=pytest.mark.slow)])
def test_sigterm_while_comfyui_boots_leaves_no_orphan(name: str, tmp_path: Path) -> None:
    installation(name)
    with serving() as queue, start(name, queue, tmp_path) as worker:
        worker.wait_for_log(f"starting {installation(name).name}", LONG)
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait(LONG)
        assert worker.process_tree_ends(5)


def test_a_cancel_from_runpod_stops_the_job_and_the_next_one_runs(tmp_path: Path) -> None:
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = 10_000
    with serving() as queue, start("draft", queue, tmp_path) as worker:
        queue.put("long", {"workflow": workflow})
        worker.wait_for_log("queued prompt", LONG)
        queue.to_stop.append("long")
        queue.put("next", {"workflow": workflows.still()})
        queue.wait_for(1, LONG)
        assert list(queue.posted) == ["next"]


@pytest.mark.parametrize("name", ["draft", pytest.param("real", marks=pytest.mark.slow)])
def test_sigterm_while_a_job_runs_lets_it_end_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    installation(name)
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = 80
    if name == "real":  # some seconds without a model
        large = workflows.node("EmptyImage", width=4096, height=4096, batch_size=1, color=0)
        workflow = {
            **workflows.still(),
            "2": workflows.node("ImageAddNoise", image=["5", 0], seed=1, strength=1.0),
            "5": large,
        }
    with serving() as queue, start(name, queue, tmp_path) as worker:
        queue.put("running", {"workflow": workflow})
        worker.wait_for_log("queued prompt", LONG)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(LONG) == 0
        assert queue.posted["running"][0]["output"]["status"] == "success"
        assert worker.process_tree_ends(5)


@pytest.mark.parametrize("statuses", [[500, 502, 503, 500], [429], [408], [400], [401], [302], [404]], ids=repr)
def test_a_result_that_runpod_does_not_accept_at_once_is_tried_again(tmp_path: Path, statuses: list[int]) -> None:
    with serving() as queue, start("draft", queue, tmp_path):
        queue.refuse_results = list(statuses)
        queue.put("refused", {"workflow": workflows.still()})
        queue.put("next", {"workflow": workflows.still()})
        queue.wait_for(2, LONG)
        for job_id in ("refused", "next"):
            check_answer(queue.posted[job_id], "success")


def test_a_result_that_hangs_holds_no_slot_and_those_on_their_way_survive_sigterm(tmp_path: Path) -> None:
    with serving() as queue, start("draft", queue, tmp_path) as worker:
        queue.refuse_results = [0, 500]
        queue.put("hangs", {"workflow": workflows.still()})
        queue.put("is refused", {"workflow": workflows.still(color=1)})
        queue.put("next", {"workflow": workflows.still(color=2)})
        queue.wait_for(1, 15)
        assert "hangs" not in queue.posted
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(LONG) == 0
        assert queue.posted.keys() == {"hangs", "is refused", "next"}
        for posted in queue.posted.values():
            check_answer(posted, "success")


def test_no_job_waits_behind_another_while_a_worker_is_idle(tmp_path: Path) -> None:
    slow = workflows.generative()
    slow["8"]["inputs"]["steps"] = 10_000
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with serving() as queue, start("draft", queue, folders[0]) as one, start("draft", queue, folders[1]) as two:
        for worker in (one, two):
            worker.wait_for_log("taking jobs", LONG)
        queue.put("slow", {"workflow": slow})
        for number in range(12):
            queue.put(f"fast {number}", {"workflow": workflows.still(color=number)})
        queue.wait_for(12, LONG)
        assert "slow" in queue.taken
        assert "slow" not in queue.posted
        queue.to_stop.append("slow")


def test_a_slow_line_costs_no_time_between_jobs_and_piles_up_no_answers(tmp_path: Path) -> None:
    with serving() as queue, start("draft", queue, tmp_path):
        queue.done_seconds = 5.0
        for number in range(30):
            queue.put(f"{number}", {"workflow": workflows.still(color=number)})
        end = time.monotonic() + LONG
        while len(queue.taken) < 9:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert not queue.posted, "the next jobs were taken while the first answer was on its way"
        time.sleep(1.0)
        assert len(queue.taken) == 9, "eight that leave, and one that holds the slot"
        queue.done_seconds = 0.0
        queue.wait_for(30, LONG)
        for posted in queue.posted.values():
            check_answer(posted, "success")


def test_a_result_that_is_refused_for_its_size_is_answered_by_a_small_error(tmp_path: Path) -> None:
    with serving() as queue, start("draft", queue, tmp_path):
        queue.refuse_over = 20_000
        noise = workflows.node("ImageAddNoise", image=["1", 0], seed=1, strength=1.0)
        queue.put("large", {"workflow": {**workflows.still(), "2": noise}})
        queue.wait_for(1, LONG)
        (posted,) = queue.posted["large"]
        assert posted["output"]["error_code"] == "result_refused"
        assert "413" in posted["error"]


DEEP, LONG_NUMBER = "[" * 1100 + "]" * 1100, "9" * 5000


@pytest.mark.parametrize("poison", [f'{{"workflow": {DEEP}}}', f'{{"seed": {LONG_NUMBER}}}'], ids=["deep", "number"])
def test_a_job_that_cannot_be_read_is_answered_and_costs_no_other_of_its_batch(tmp_path: Path, poison: str) -> None:
    good = json.dumps({"workflow": workflows.still()})
    with serving() as queue:
        environment = {**queue.environment, "CONCURRENCY": "3"}
        jobs = [("first", good), ("poison", poison), ("third", good)]
        batch = ", ".join(f'{{"id": "{job_id}", "webhook": null, "input": {given}}}' for job_id, given in jobs)
        queue.raw_answers = [f"[{batch}]"]
        with running(["--draft"], environment, tmp_path):
            queue.wait_for(3, LONG)
        check_answer(queue.posted["first"], "success")
        check_answer(queue.posted["third"], "success")
        check_answer(queue.posted["poison"], "validation")
        assert "cannot be read" in queue.posted["poison"][0]["error"]


def test_what_is_no_job_is_skipped_and_the_worker_goes_on(tmp_path: Path) -> None:
    odd = ["[null]", "[1]", "[{}]", '[{"id": [1], "input": {}}]', '[{"id": 5, "input": {}}]', "[[[", "", "no JSON"]
    with serving() as queue, start("draft", queue, tmp_path) as worker:
        queue.raw_answers = odd
        queue.put("good", {"workflow": workflows.still()})
        queue.wait_for(1, LONG)
        assert worker.process.poll() is None
        assert worker.log.count("something other than a job with an id and an input") >= 5


def test_a_full_disk_is_told_and_costs_only_the_jobs_that_need_it(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    large = workflows.still()
    large["2"] = workflows.node("EmptyImage", width=1024, height=1024, batch_size=1, color=0)
    large["3"] = workflows.node("ImageAddNoise", image=["2", 0], seed=1, strength=1.0)
    try:
        with serving() as queue:
            queue.put("large", {"workflow": large})
            queue.put("small", {"workflow": workflows.still()})
            brought = base64.b64encode(bytes(3_000_000)).decode()
            queue.put("brings", {"workflow": workflows.still(), "files": [{"name": "a.bin", "data": brought}]})
            with running(["--draft"], {**queue.environment, "FITNESS_CHECKS": "none"}, tmp_path):
                queue.wait_for(3, LONG)
            assert queue.posted["brings"][0]["output"]["error_code"] == "disk_full"
            assert queue.posted["large"][0]["output"]["error_code"] == "node_execution_error"
            assert "No space left" in queue.posted["large"][0]["error"]
            assert queue.posted["small"][0]["output"]["status"] == "success"
        with serving() as queue, running(["--draft"], queue.environment, tmp_path) as unfit:
            assert unfit.process.wait(LONG) == 1
            assert "MIN_FREE_DISK_MB" in unfit.log
            assert unfit.process_tree_ends(5)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_slow_boot_lets_the_jobs_wait(tmp_path: Path) -> None:
    checkout = tmp_path / "ComfyUI"
    (checkout / "comfy").mkdir(parents=True)
    root = str(ROOT)
    (checkout / "main.py").write_text(
        f"import sys, time\ntime.sleep(4)\nsys.path.insert(0, {root!r})\nfrom src.draft.__main__ import main\nmain()\n"
    )
    with serving() as queue:
        queue.put("early", {"workflow": workflows.still()})
        environment = {**queue.environment, "COMFYUI_PATH": str(checkout), "COMFYUI_PYTHON": sys.executable}
        with running([], environment, tmp_path):
            queue.wait_for(1, LONG)
        assert queue.posted["early"][0]["output"]["status"] == "success"


def test_progress_comes_at_most_once_a_second_grows_and_ends_before_the_result(tmp_path: Path) -> None:
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = 150
    with serving() as queue, start("draft", queue, tmp_path):
        queue.put("long", {"workflow": workflow})
        queue.wait_for(1, LONG)
        told = [update["output"] for update in queue.progress["long"]]
        percents = [update["percent"] for update in told]
        assert 2 <= len(told) <= 4
        assert percents == sorted(percents)
        assert 0 < percents[-1] < 100
        assert told[-1]["node"] == "KSampler"
        assert told[-1]["steps"] == 150
        assert queue.posted["long"][0]["output"]["status"] == "success"


def test_previews_come_with_the_progress_and_their_base64_is_in_no_log(tmp_path: Path) -> None:
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = 150
    with serving() as queue:
        environment = {"LIVE_PREVIEWS": "true", "LOG_LEVEL": "DEBUG", "RUNPOD_LOG_LEVEL": "DEBUG"}
        with running(["--draft"], {**queue.environment, **environment}, tmp_path) as worker:
            queue.put("with", {"workflow": workflow})
            queue.wait_for(1, LONG)
            queue.put("without", {"workflow": workflow, "seed": 5, "output": {"live_previews": False}})
            queue.wait_for(2, LONG)
            told = {name: [update["output"] for update in queue.progress[name]] for name in queue.posted}
            assert len(told["with"]) <= 5
            pictures = [base64.b64decode(update["preview"]) for update in told["with"] if "preview" in update]
            assert pictures
            assert all(picture.startswith(b"\xff\xd8\xff") and len(picture) <= 32_000 for picture in pictures)
            assert len(set(pictures)) == len(pictures)
            assert not any("preview" in update for update in told["without"])
            assert "Progress Update Sent" in worker.log
            assert "/9j/" not in worker.log
            assert all(posts[0]["output"]["status"] == "success" for posts in queue.posted.values())


def test_a_worker_whose_comfyui_cannot_start_answers_why_and_asks_to_be_replaced(tmp_path: Path) -> None:
    checkout = tmp_path / "ComfyUI"
    (checkout / "comfy").mkdir(parents=True)
    (checkout / "main.py").write_text("import no_such_module\n")
    with serving() as queue:
        environment = {**queue.environment, "COMFYUI_PATH": str(checkout), "COMFYUI_PYTHON": sys.executable}
        with running([], environment, tmp_path) as worker:
            queue.put("bad", {"workflow": {}})
            queue.put("one", {"workflow": workflows.still()})
            queue.wait_for(2, LONG)
            worker.wait_for_log("takes no more jobs", LONG)
            queue.put("next", {"workflow": workflows.still()})
            (posted,) = queue.posted["one"]
            assert posted["stopPod"] is True
            assert posted["output"]["error_code"] == "comfyui_boot_failed"
            assert "COMFYUI_PYTHON" in posted["error"]
            assert "Traceback" not in str(posted)
            assert queue.posted["bad"][0]["output"]["error_type"] == "validation"
            assert "No module named 'no_such_module'" in worker.log
            assert "COMFYUI_PYTHON" in worker.log
            worker.process.send_signal(signal.SIGTERM)
            assert worker.process.wait(LONG) == 0
        assert [job["id"] for job in queue.waiting] == ["next"], "it waits for another worker"


def test_importing_the_worker_starts_nothing() -> None:
    check = (
        "import sys, threading, serverless_worker, src.worker.start, src.job.handler;"
        "assert 'runpod' not in sys.modules; assert threading.active_count() == 1;"
        "assert src.job.handler._worker is None"
    )
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)


def test_comfyui_is_started_before_what_takes_long_to_import() -> None:
    check = (
        "import sys, serverless_worker; later = {'asyncio', 'pydantic', 'PIL', 'requests', 'urllib3', 'websocket'};"
        "assert not later & sys.modules.keys(), later & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)
