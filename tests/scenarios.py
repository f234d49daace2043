"""Faults on a worker, one after the other: what the caller gets, how long until the next job succeeds, what is left.

Used by the tests and by `python -m benchmarks.faults`, which prints the results as a table.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import requests

from src.job import handler as job_handler

from . import workflows
from .conftest import Bench
from .workflows import Workflow, node

_TIMEOUT_SECONDS = 300.0  # only limits a test that hangs
BOTH = ("draft", "real")

Fault = Callable[[Bench], None]
"""Does something bad to the engine of a bench."""


@dataclass(frozen=True)
class Scenario:
    """A job, the faults that its engine gets, and the expected outcome: a status or an error code.

    `before` is called before the job is sent, `during` as soon as ComfyUI runs it. `cancel_after` cancels the job that
    many seconds after it was sent. `behind` queues it behind another job, which must succeed. `times` sends the same
    job more than once.
    """

    name: str
    expected: str
    workflow: Callable[[str], Workflow] = lambda engine: fresh()
    before: Fault | None = None
    during: Fault | None = None
    cancel_after: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    engines: tuple[str, ...] = BOTH
    times: int = 1
    behind: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a scenario. `seconds` is from the start of the job to the end of the next job, a valid one."""

    got: str
    seconds: float
    next_is_fine: bool
    leftovers: list[str]

    def is_recovered(self, scenario: Scenario) -> bool:
        """Whether the job ended as expected, the next one succeeded and no files are left."""
        return self.got == scenario.expected and self.next_is_fine and not self.leftovers


def run_scenario(bench: Bench, scenario: Scenario) -> Outcome:
    """Run one scenario, and a valid job after it."""
    runner = bench.worker.runner
    worker = replace(bench.worker, runner=replace(runner, settings=replace(runner.settings, **scenario.settings)))
    job_handler.set_worker(worker)
    if scenario.before:
        scenario.before(bench)
    started = time.monotonic()
    for _ in range(scenario.times):
        answer = asyncio.run(_answer(bench, scenario))
    got = answer["status"] if answer["status"] != "error" else answer["error_code"]
    next_answer = bench.run(workflow=fresh())
    seconds = time.monotonic() - started
    client = bench.engine.client
    idle = client.queue_remaining() == 0 and not bench.prompts_in_history()
    return Outcome(got, seconds, next_answer["status"] == "success" and idle, bench.leftovers())


async def _answer(bench: Bench, scenario: Scenario) -> dict[str, Any]:
    other = None
    if scenario.behind:
        other = asyncio.ensure_future(_run_handler(seconds_long(bench.name)))
        while not bench.engine.client.queue().running:
            await asyncio.sleep(0.01)
    job = asyncio.ensure_future(_run_handler(scenario.workflow(bench.name)))
    if scenario.during:
        while not bench.engine.client.queue().running:
            await asyncio.sleep(0.01)
        scenario.during(bench)
    if scenario.cancel_after is not None:
        await asyncio.sleep(scenario.cancel_after)
        job.cancel()
    try:
        answer = await asyncio.wait_for(job, _TIMEOUT_SECONDS)
    except asyncio.CancelledError:
        answer = {"status": "cancelled"}
    return answer if other is None or (await other)["status"] == "success" else await other


async def _run_handler(workflow: Workflow) -> dict[str, Any]:
    return await job_handler.handler({"id": "fault", "input": {"workflow": workflow}})


# --- Jobs ----------------------------------------------------------------------------------------------


def fresh(**nodes: Any) -> Workflow:
    """The `still` workflow with a new color, so that nothing is cached, and with these nodes added or replaced."""
    return {**workflows.still(color=time.time_ns() % 2**24), **nodes}


def seconds_long(engine: str) -> Workflow:
    """A job of about two seconds that reports its progress."""
    return _slow(engine, 100 if engine == "draft" else 20, 2.0)


def endless(engine: str) -> Workflow:
    """A job that takes minutes and can be interrupted."""
    return _slow(engine, 10_000, 600.0)


def silent(engine: str) -> Workflow:
    """A job that takes minutes, reports no progress and cannot be interrupted (on the draft engine it can)."""
    if engine == "draft":
        return _slow(engine, 10_000, 0)
    return fresh(**{"3": node("WorkerTestSleep", image=["2", 0], seconds=600.0, steps=0)})


def _slow(engine: str, steps: int, seconds: float) -> Workflow:
    if engine == "real":
        return fresh(**{"3": node("WorkerTestSleep", image=["2", 0], seconds=seconds, steps=steps)})
    workflow = workflows.generative()
    workflow["8"]["inputs"].update(steps=steps, seed=time.time_ns() % 2**60)
    return workflow


def failing(how: str, times: int = 10**6) -> Callable[[str], Workflow]:
    """A job with a node that fails in this way, the first `times` times that it runs."""
    return lambda engine: fresh(**{"3": node("WorkerTestFail", image=["2", 0], how=how, times=times)})


def _raising(engine: str) -> Workflow:
    return fresh(**{"3": workflows.raising(engine)})


def _half_valid(engine: str) -> Workflow:
    return fresh(
        **{
            "5": node("SaveImage", images=["6", 0], filename_prefix="other"),
            "6": node("EmptyImage", width=0, height=64, batch_size=1, color=0),
        }
    )


def _blocked(engine: str) -> Workflow:
    return {**failing("block")(engine), "5": node("SaveImage", images=["2", 0], filename_prefix="other")}


def _noisy(engine: str) -> Workflow:
    return fresh(
        **{
            "2": node("EmptyImage", width=512, height=512, batch_size=1, color=0),
            "3": node("ImageAddNoise", image=["2", 0], seed=time.time_ns() % 2**60, strength=1.0),
        }
    )


# --- Faults --------------------------------------------------------------------------------------------


def _send(number: signal.Signals) -> Fault:
    def inject(bench: Bench) -> None:
        process = bench.engine.process._process
        assert process is not None
        os.kill(process.pid, number)

    return inject


def _freeze_idle(bench: Bench) -> None:
    bench.engine.client.answered_at = 0.0  # as if the engine had been idle for a minute
    _send(signal.SIGSTOP)(bench)


def _end_worker_thread(bench: Bench) -> None:
    bad = workflows.still()
    bad["1"]["inputs"]["undeclared"] = ["99", 0]
    with contextlib.suppress(requests.ConnectionError):  # it may exit before it answers
        requests.post(f"{bench.engine.process.url}/prompt", json={"prompt": bad, "client_id": "x"}, timeout=10)


def _drop_socket(bench: Bench) -> None:
    bench.engine.events._close_socket()


def _no_socket(bench: Bench) -> None:
    bench.engine.events.stop()


def _silence_socket(bench: Bench) -> None:
    bench.engine.events._dispatch = lambda message: None  # type: ignore[method-assign]


def _drop_socket_at_the_end(bench: Bench) -> None:
    events, dispatch = bench.engine.events, bench.engine.events._dispatch

    def dispatch_until_success(message: object) -> None:
        if isinstance(message, dict) and message.get("type") == "execution_success":
            events._dispatch = dispatch  # type: ignore[method-assign]
            events._close_socket()
        else:
            dispatch(message)

    events._dispatch = dispatch_until_success  # type: ignore[method-assign]


def _on_entry(act: Callable[[Bench, Path], None]) -> Fault:
    """Do something to each output file between the end of the run and the worker's reading of it, once."""

    def inject(bench: Bench) -> None:
        client, history = bench.engine.client, bench.engine.client.history

        def history_then_act(prompt_id: str) -> dict[str, Any] | None:
            entry = history(prompt_id)
            if entry:
                client.history = history  # type: ignore[method-assign]
                for file in bench.engine.process.folders.output.rglob("*.png"):
                    act(bench, file)
            return entry

        client.history = history_then_act  # type: ignore[method-assign]

    return inject


def _link_outside(bench: Bench, file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/hostname")


def _late_history(bench: Bench) -> None:
    client, history = bench.engine.client, bench.engine.client.history
    seen: list[float] = []

    def late_history(prompt_id: str) -> dict[str, Any] | None:
        entry = history(prompt_id)
        if entry and not seen:
            seen.append(time.monotonic())
        if entry and time.monotonic() - seen[0] < 0.5:
            return None
        if entry:
            client.history = history  # type: ignore[method-assign]
        return entry

    client.history = late_history  # type: ignore[method-assign]


SCENARIOS = [
    Scenario("engine killed while a job runs", "success", seconds_long, during=_send(signal.SIGKILL)),
    Scenario("the same, no retry", "comfyui_crashed", seconds_long, during=_send(signal.SIGKILL), settings={"job_retries": 0}),
    Scenario("engine frozen while a job runs", "success", seconds_long, during=_send(signal.SIGSTOP)),
    Scenario("engine frozen before the job", "success", before=_freeze_idle),
    Scenario("worker thread ended (link to nowhere)", "success", before=_end_worker_thread, engines=("real",)),
    Scenario("worker thread ended (a node exits)", "comfyui_crashed", failing("exit"), engines=("real",)),
    Scenario("a node kills ComfyUI", "comfyui_crashed", failing("die"), engines=("real",)),
    Scenario("no progress", "job_stalled", silent, settings={"stall_timeout": 1.0, "interrupt_grace": 0.5}, engines=("real",)),
    Scenario("job over its time", "job_timeout", endless, settings={"job_timeout": 1.0}),
    Scenario("over its time, cannot be interrupted", "job_timeout", silent, settings={"job_timeout": 1.0, "interrupt_grace": 0.5}),
    Scenario("socket dropped while a job runs", "success", seconds_long, during=_drop_socket),
    Scenario("socket dropped at completion", "success", before=_drop_socket_at_the_end),
    Scenario("socket never accepted", "success", before=_no_socket),
    Scenario("fresh engine after that", "success", before=lambda bench: bench.engine.restart(bench.engine.generation)),
    Scenario("socket silent", "success", before=_silence_socket),
    Scenario("fresh engine after that ", "success", before=lambda bench: bench.engine.restart(bench.engine.generation)),
    Scenario("history half a second late", "success", before=_late_history),
    Scenario("a node raises", "node_execution_error", _raising),
    Scenario("a branch is blocked", "success", _blocked, engines=("real",)),
    Scenario("one of two outputs is invalid", "invalid_workflow", _half_valid),
    Scenario("identical job twice", "success", lambda engine: workflows.still(color=3), times=2),
    Scenario(
        "two savers with equal inputs", "success",
        lambda engine: fresh(**{"5": node("SaveImage", images=["3", 0], filename_prefix="still")}),
    ),
    Scenario("out of memory, then fine", "success", failing("out of memory", times=1), engines=("real",)),
    Scenario("out of memory", "out_of_memory", failing("out of memory"), engines=("real",)),
    Scenario("CUDA error", "cuda_error", failing("cuda error"), engines=("real",)),
    Scenario("cancelled while it waits behind another", "cancelled", endless, cancel_after=0.5, behind=True),
    Scenario("cancelled at once", "cancelled", endless, cancel_after=0.0),
    Scenario("cancelled while it runs", "cancelled", endless, cancel_after=0.7),
    Scenario("cancelled while it ends", "cancelled", seconds_long, cancel_after=1.9),
    Scenario("output deleted before it is read", "success", before=_on_entry(lambda bench, file: file.unlink())),
    Scenario("output is a link to elsewhere", "output_refused", before=_on_entry(_link_outside)),
    Scenario("answer over the limit", "output_too_large", _noisy, settings={"result_limit": 0.2}),
]  # fmt: skip
