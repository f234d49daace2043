"""The end of a wait that is not success: time-out, cancel, a dead engine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from src.comfy.client import ComfyClient
from src.comfy.record import Run
from src.job import handler as job_handler

from .. import editor_files, workflows
from ..conftest import ENGINES, Bench, booted, settings_for

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


def kill(bench: Bench) -> None:
    """End its engine as the kernel would."""
    process = bench.engine.process._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)


def test_without_retries_the_caller_hears_why_and_what_comfyui_said_last(own: Bench) -> None:
    settings = replace(own.worker.runner.settings, job_timeout=LONG, job_retries=0)
    worker = replace(own.worker, runner=replace(own.worker.runner, settings=settings))
    job_handler.set_worker(worker)

    async def killed() -> dict[str, Any]:
        job = asyncio.ensure_future(job_handler.handler({"id": "k", "input": {"workflow": slow(own.name)}}))
        while not own.engine.client.queue().running:
            await asyncio.sleep(0.02)
        kill(own)
        return await asyncio.wait_for(job, LONG)

    answer = asyncio.run(killed())
    assert (answer["error_type"], answer["error_code"]) == ("internal", "comfyui_crashed")
    assert "SIGKILL" in answer["error"]
    assert answer["attempts"] == 1
    assert isinstance(answer["comfyui_log"], list)
    assert "/root" not in json.dumps(answer)
    assert fine_again(own)


def test_a_file_of_the_editor_is_converted_though_comfyui_dies_before_and_meanwhile(
    own: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = editor_files.with_subgraph()
    kill(own)
    answer = own.run(workflow=file)
    assert (answer["status"], answer.get("converted")) == ("success", True), answer
    asked, deaths = ComfyClient.schemas, [True]

    def dying(client: ComfyClient, *arguments: Any, **more: Any) -> Any:
        if deaths:
            deaths.pop()
            client._schemas.clear()  # else it need not ask
            kill(own)
        return asked(client, *arguments, **more)

    monkeypatch.setattr(ComfyClient, "schemas", dying)
    answer = own.run(workflow=file)
    assert (answer["status"], answer.get("converted"), deaths) == ("success", True, []), answer
    assert fine_again(own)


def test_what_cannot_be_forgotten_is_gone_with_the_process(own: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no client for a moment when another job has ComfyUI restarted."""
    monkeypatch.setattr(own.engine, "_client", None)
    own.engine.forget("some-id")


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_clock_that_is_set_while_a_prompt_runs_makes_no_times_of_days(jump: float) -> None:
    began, ended = 1000.1, 1000.6 + jump
    messages = [
        ["execution_start", {"timestamp": began * 1000}],
        ["execution_success", {"timestamp": ended * 1000}],
    ]
    run = Run("id", {}, {"status": {"messages": messages}}, queued_at=1000.0 - jump, waited=0.7)
    assert 0.0 <= run.execution_seconds <= 0.7
    assert 0.0 <= run.queue_seconds <= 0.7
