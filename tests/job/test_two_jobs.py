"""Two jobs at a time (CONCURRENCY): neither gets, loses or waits for what is the other's."""

from __future__ import annotations

import base64
import io
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.job import handler as job_handler
from src.outputs import LocalFile, Outcome, Plan, deliver

from .. import workflows
from ..conftest import Bench, booted, settings_for
from ..workflows import node

LONG = 60.0  # a hang limit, no measure


@pytest.fixture(params=["draft", pytest.param("real", marks=pytest.mark.slow)])
def own(request: pytest.FixtureRequest, model_paths: Path) -> Iterator[Bench]:
    """An engine of this test's own, to be harmed."""
    with booted(request.param, settings_for(request.param, model_paths)) as bench:
        job_handler.set_worker(bench.worker)
        yield bench


def answer(workflow: Any, job_id: str = "job", **more: Any) -> dict[str, Any]:
    """The answer to a job, in the thread that asks."""
    job = {"id": job_id, "input": {"workflow": workflow, **more}}
    return job_handler.answer_job(job, threading.Event())


def test_pictures_of_one_name_are_each_their_jobs_own(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("all its nodes that save have a prefix")
    job_handler.set_worker(bench.worker)

    def red_of(number: int) -> int:
        picture = node("EmptyImage", width=512, height=512, batch_size=1, color=number << 16)
        found = answer({"1": picture, "4": node("WorkerTestSave", images=["1", 0])})
        (data,) = found["images"]
        red = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getpixel((3, 3))
        assert isinstance(red, tuple)
        return int(red[0])

    wanted = list(range(5, 245, 10))
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(red_of, wanted)) == wanted
    assert not bench.leftovers()


@pytest.mark.parametrize("output", [{}, {"format": "webp"}])
def test_a_job_that_delivers_does_not_mind_that_comfyui_dies(
    own: Bench, output: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    delivers, may_go_on = threading.Event(), threading.Event()

    def slow_deliver(files: Sequence[LocalFile], plan: Plan, encoding: Any, folder: Path) -> Outcome:
        if plan.job_id == "delivers":
            delivers.set()
            assert may_go_on.wait(LONG)
        return deliver(files, plan, encoding, folder)

    monkeypatch.setattr("src.job.run.deliver", slow_deliver)
    long = workflows.generative()
    long["8"]["inputs"]["steps"] = 200
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(answer, workflows.still(), "delivers", output=output)
        assert delivers.wait(LONG)
        second = pool.submit(answer, long, "runs")
        until(lambda: own.engine.client.queue().running)
        os.kill(own.engine.process.pid or 0, 9)
        until(lambda: own.engine.generation > 0)
        may_go_on.set()
        assert first.result(LONG)["status"] == second.result(LONG)["status"] == "success"


def test_a_job_that_waits_for_its_turn_can_be_cancelled_and_its_time_does_not_run(own: Bench) -> None:
    stop, long = threading.Event(), workflows.generative()
    long["8"]["inputs"]["steps"] = 10_000
    stop_waiting = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        jobs = {"id": "long", "input": {"workflow": long}}, {"id": "waits", "input": {"workflow": workflows.still()}}
        first = pool.submit(job_handler.answer_job, jobs[0], stop)
        until(lambda: own.engine.client.queue().running)
        second = pool.submit(job_handler.answer_job, jobs[1], stop_waiting)
        third = pool.submit(answer, workflows.still())
        stop_waiting.set()
        assert second.result(LONG)["error_code"] == "cancelled"
        assert not third.done()
        stop.set()
        assert first.result(LONG)["error_code"] == "cancelled"
        assert third.result(LONG)["timings"]["queue"] > 0
    assert not own.leftovers()


def until(is_so: Any) -> None:
    """Wait for it, but not for ever."""
    end = time.monotonic() + LONG
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)
