"""Faults inside ComfyUI: each is answered, the next job runs, nothing is left behind. On a real ComfyUI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from . import workflows
from .conftest import Bench, booted, installation, settings_for
from .workflows import node


@pytest.fixture(scope="module")
def real(model_paths: Path) -> Iterator[Bench]:
    """A real ComfyUI with the test nodes, of this module's own."""
    installation("real")
    with booted("real", settings_for("real", model_paths)) as bench:
        yield bench


def failing(how: str, times: int = 10**6) -> workflows.Workflow:
    """A workflow whose third node fails in that way, so many times."""
    return {
        **workflows.still(color=time.time_ns() % 2**24),
        "3": node("WorkerTestFail", image=["2", 0], how=how, times=times),
    }


def fine_again(bench: Bench) -> bool:
    """Whether the next job works, and nothing of the others is left."""
    answer = bench.run(workflow=workflows.still(color=time.time_ns() % 2**24))
    return answer["status"] == "success" and not bench.leftovers() and bench.engine.client.remaining() == 0


def test_out_of_memory_once_is_mended_by_freeing_memory(real: Bench) -> None:
    number = real.engine.number
    assert real.run(workflow=failing("out of memory", times=1))["status"] == "success"
    assert real.engine.number == number, "nothing was restarted"


def test_out_of_memory_for_good_says_so_and_the_worker_lives_on(real: Bench) -> None:
    number = real.engine.number
    answer = real.run(workflow=failing("out of memory"))
    assert (answer["error_type"], answer["error_code"]) == ("internal", "out_of_memory")
    assert "node 3 (WorkerTestFail) ran out of memory" in answer["error"]
    assert "refresh_worker" not in answer
    assert fine_again(real)
    assert real.engine.number == number


def test_a_cuda_error_retires_the_worker_and_a_job_that_still_comes_gets_a_fresh_process(real: Bench) -> None:
    number = real.engine.number
    answer = real.run(workflow=failing("cuda error"))
    assert (answer["error_code"], answer["refresh_worker"]) == ("cuda_error", True)
    assert fine_again(real)
    assert real.engine.number == number + 1


@pytest.mark.parametrize("how", ["exit", "die"])
def test_a_node_that_ends_comfyui_is_tried_twice_and_told(real: Bench, how: str) -> None:
    started = time.monotonic()
    answer = real.run(workflow=failing(how))
    assert (answer["error_code"], answer["attempts"]) == ("comfyui_crashed", 2)
    assert ("worker thread" in answer["error"]) == (how == "exit")
    assert time.monotonic() - started < 120
    assert fine_again(real)


def test_a_prompt_from_elsewhere_that_ends_the_worker_thread_costs_our_job_nothing(real: Bench) -> None:
    bad = workflows.still()
    bad["1"]["inputs"]["undeclared"] = ["99", 0]
    sent = requests.post(f"{real.engine.process.url}/prompt", json={"prompt": bad, "client_id": "x"}, timeout=10)
    assert sent.status_code == 200
    assert fine_again(real)


def test_a_blocked_branch_is_no_failure_of_the_others(real: Bench) -> None:
    workflow = failing("block")
    workflow["5"] = node("SaveImage", images=["2", 0], filename_prefix="other")
    answer = real.run(workflow=workflow)
    assert answer["status"] == "success", answer
    assert answer["filenames"] == ["other_00001_.png"]
    assert fine_again(real)


def test_a_node_that_cannot_be_interrupted_is_ended_with_comfyui(real: Bench) -> None:
    changed = replace(real.worker, settings=replace(real.worker.settings, job_timeout=1.0, interrupt_grace=0.5))
    workflow = {**workflows.still(), "3": node("WorkerTestSleep", image=["2", 0], seconds=60.0, steps=0)}
    answer: dict[str, Any] = Bench("real", changed).run(workflow=workflow)
    assert answer["error_code"] == "job_timeout"
    assert fine_again(real)


def test_a_progressing_node_is_interrupted_within_a_second(real: Bench) -> None:
    number = real.engine.number
    changed = replace(real.worker, settings=replace(real.worker.settings, job_timeout=1.0))
    workflow = {**workflows.still(), "3": node("WorkerTestSleep", image=["2", 0], seconds=60.0, steps=600)}
    started = time.monotonic()
    assert Bench("real", changed).run(workflow=workflow)["error_code"] == "job_timeout"
    assert time.monotonic() - started < 30
    assert real.engine.number == number, "an interrupt was enough"
    assert fine_again(real)
