"""The end of a wait that is not success: time-out, cancel, a dead engine."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

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


def test_an_engine_that_dies_is_reported_and_booted_again_for_the_next_job(own: Bench) -> None:
    serverless_worker._set_worker(own.worker)

    async def killed() -> dict[str, object]:
        job = asyncio.ensure_future(serverless_worker.handler({"id": "k", "input": {"workflow": slow(own.name)}}))
        while not own.engine.client.queue().running:
            await asyncio.sleep(0.05)
        process = own.engine.process._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        return await job

    answer = asyncio.run(asyncio.wait_for(killed(), LONG))
    assert answer["error_code"] == "comfyui_crashed"
    assert "SIGKILL" in str(answer["error"])
    assert fine_again(own)


def test_an_engine_that_will_not_stop_is_restarted(own: Bench) -> None:
    from dataclasses import replace

    impatient = Bench(own.name, replace(own.worker, settings=replace(own.worker.settings, interrupt_grace=0.3)))
    serverless_worker._set_worker(impatient.worker)
    process = own.engine.process._process
    assert process is not None

    async def frozen() -> dict[str, object]:
        job = asyncio.ensure_future(serverless_worker.handler({"id": "f", "input": {"workflow": slow(own.name)}}))
        while not own.engine.client.queue().running:
            await asyncio.sleep(0.05)
        os.kill(process.pid, signal.SIGSTOP)
        return await job

    answer = asyncio.run(asyncio.wait_for(frozen(), LONG))
    assert answer["error_code"] == "job_timeout"
    assert process.poll() is not None
    assert fine_again(own)


def test_a_dropped_socket_costs_progress_but_no_result(own: Bench) -> None:
    own.engine.events._close_socket()
    started = time.monotonic()
    assert own.run(workflow=workflows.still(color=4711))["status"] == "success"
    assert time.monotonic() - started < LONG
