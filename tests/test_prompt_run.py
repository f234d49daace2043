"""The end of a wait that is not success: time-out, cancel, a dead engine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import serverless_worker

from . import workflows
from .conftest import ENGINES, Bench, booted, settings_for

LONG = 300.0  # a hang limit, no measure


def slow(name: str) -> workflows.Workflow:
    """A workflow whose sampler takes minutes, in steps that can be interrupted."""
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = 10_000
    if name == "real":
        workflow["5"]["inputs"].update(width=512, height=512)
    return workflow


def takes_seconds(name: str) -> workflows.Workflow:
    """A workflow whose sampler takes a second or two."""
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = 60 if name == "draft" else 40
    if name == "real":
        workflow["5"]["inputs"].update(width=512, height=512)
    return workflow


@pytest.fixture(scope="module", params=ENGINES)
def own(request: pytest.FixtureRequest, model_paths: object) -> Iterator[Bench]:
    """A worker of this module's own, with short limits."""
    settings = settings_for(request.param, model_paths, job_timeout=3.0)  # type: ignore[arg-type]
    with booted(request.param, settings) as bench:
        bench.run(workflow=workflows.generative())  # models are loaded now
        yield bench


def fine_again(bench: Bench) -> bool:
    """Whether the next job works and nothing is queued or left."""
    answer = bench.run(workflow=workflows.still())
    queue = bench.engine.client.queue()
    return answer["status"] == "success" and not queue.running and not queue.pending and not bench.leftovers()


def test_a_job_over_its_time_is_interrupted_and_says_so(own: Bench) -> None:
    process = own.engine.process.url
    answer = own.run(workflow=slow(own.name))
    assert (answer["error_type"], answer["error_code"]) == ("timeout", "job_timeout")
    assert "JOB_TIMEOUT" in answer["error"]
    assert fine_again(own)
    assert own.engine.process.url == process, "an interrupt was enough"


def test_a_cancelled_job_leaves_the_engine_free(own: Bench) -> None:
    serverless_worker._set_worker(own.worker)

    async def cancelled() -> None:
        job = asyncio.ensure_future(serverless_worker.handler({"id": "c", "input": {"workflow": slow(own.name)}}))
        await asyncio.sleep(0.1)
        while not own.engine.client.queue().running:
            await asyncio.sleep(0.05)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

    asyncio.run(asyncio.wait_for(cancelled(), LONG))
    queue = own.engine.client.queue()
    assert not queue.running
    assert not queue.pending
    assert fine_again(own)


async def answer_after(bench: Bench, workflow: workflows.Workflow, harm: Callable[[int], None]) -> dict[str, Any]:
    """The answer to a job whose engine is harmed once, by its process id, while the job runs."""
    job = asyncio.ensure_future(serverless_worker.handler({"id": "harmed", "input": {"workflow": workflow}}))
    while not bench.engine.client.queue().running:
        await asyncio.sleep(0.02)
    process = bench.engine.process._process
    assert process is not None
    harm(process.pid)
    return await asyncio.wait_for(job, LONG)


def harmed(bench: Bench, workflow: workflows.Workflow, harm: Callable[[int], None], **changes: Any) -> dict[str, Any]:
    """The same, for a worker with changed settings."""
    changed = replace(bench.worker, settings=replace(bench.worker.settings, **changes))
    serverless_worker._set_worker(changed)
    return asyncio.run(answer_after(bench, workflow, harm))


HARMS: dict[str, Callable[[int], None]] = {
    "killed": lambda process_id: os.kill(process_id, signal.SIGKILL),
    "frozen": lambda process_id: os.kill(process_id, signal.SIGSTOP),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_a_job_whose_engine_dies_or_hangs_runs_again_on_a_fresh_one(own: Bench, harm: Callable[[int], None]) -> None:
    answer = harmed(own, takes_seconds(own.name), harm, job_timeout=LONG)
    assert answer["status"] == "success", answer
    assert fine_again(own)


def test_without_retries_the_caller_hears_why_and_what_comfyui_said_last(own: Bench) -> None:
    answer = harmed(own, slow(own.name), HARMS["killed"], job_timeout=LONG, job_retries=0)
    assert (answer["error_type"], answer["error_code"]) == ("internal", "comfyui_crashed")
    assert "SIGKILL" in answer["error"]
    assert answer["attempts"] == 1
    assert isinstance(answer["comfyui_log"], list)
    assert "/root" not in json.dumps(answer)
    assert fine_again(own)


def test_a_frozen_engine_is_noticed_at_the_start_of_the_next_job(own: Bench) -> None:
    process = own.engine.process._process
    assert process is not None
    own.engine.client.answered_at = 0.0  # as after an idle minute
    os.kill(process.pid, signal.SIGSTOP)
    changed = replace(own.worker, settings=replace(own.worker.settings, job_timeout=LONG))
    assert Bench(own.name, changed).run(workflow=workflows.still())["status"] == "success"
    assert process.poll() is not None


def test_a_run_without_progress_is_ended_and_says_so(own: Bench) -> None:
    workflow = slow(own.name)
    if own.name == "real":
        workflow = {
            **workflows.still(),
            "3": workflows.node("WorkerTestSleep", image=["1", 0], seconds=100.0, steps=0),
        }
    else:
        own.engine.process._settings = replace(own.engine.process._settings, comfyui_args="--step-seconds 100")
        own.engine.renew(own.engine.number)
        own.engine.process._settings = replace(own.engine.process._settings, comfyui_args="")
    changed = replace(
        own.worker, settings=replace(own.worker.settings, stall_timeout=0.5, interrupt_grace=0.5, job_timeout=LONG)
    )
    answer = Bench(own.name, changed).run(workflow=workflow)
    assert (answer["error_type"], answer["error_code"]) == ("timeout", "job_stalled")
    assert "STALL_TIMEOUT" in answer["error"]
    assert fine_again(own)


def test_a_dropped_socket_costs_progress_but_no_result(own: Bench) -> None:
    own.engine.events._close_socket()
    started = time.monotonic()
    assert own.run(workflow=workflows.still(color=4711))["status"] == "success"
    assert time.monotonic() - started < LONG
