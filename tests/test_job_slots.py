"""A job that RunPod stops at the wrong moment costs no slot, in the SDK's own loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from src import job_handler
from src.job_slots import JobSlots

LONG = 30.0  # a hang limit, no measure


@pytest.fixture
def in_progress() -> Iterator[Any]:
    """The SDK's set of jobs, of which there is one in a process."""
    from runpod.serverless.modules.worker_state import JobsProgress  # sleeps for a second

    progress = JobsProgress()
    progress.clear()
    yield progress
    progress.clear()


class StoppedAtOnce(dict[str, Any]):
    """The SDK's tasks by job id, where a stop signal for some comes as soon as their task is there."""

    def __init__(self, job_ids: set[str]) -> None:
        super().__init__()
        self.job_ids = job_ids

    def __setitem__(self, job_id: str, task: Any) -> None:
        super().__setitem__(job_id, task)
        if job_id in self.job_ids:
            task.cancel()


class SdkLoop:
    """The SDK's loop over these jobs; only its HTTP is left out. Ends after as many answers as are wanted."""

    def __init__(
        self, in_progress: Any, jobs: list[str], stopped: set[str], concurrency: int, wanted: int, seconds: float = 0.0
    ) -> None:
        from runpod.serverless.modules import rp_scale

        self.waiting, self.begun, self.wanted, self.seconds = list(jobs), list[str](), wanted, seconds
        slots = JobSlots(concurrency, self.answer, in_progress)
        scaler = rp_scale.JobScaler({"handler": slots.handle, "concurrency_modifier": slots.concurrency})
        scaler.jobs_tasks = StoppedAtOnce(stopped)
        scaler.jobs_fetcher, scaler.stop_signals_fetcher, scaler.jobs_handler = self.fetch, self.no_signal, self.run
        self.scaler = scaler

    async def fetch(self, session: Any, count: int) -> list[dict[str, Any]]:
        if not self.waiting:
            await asyncio.sleep(0.05)
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return [{"id": job_id, "input": {}} for job_id in taken]

    async def no_signal(self, session: Any) -> list[str]:
        await asyncio.sleep(0.05)
        return []

    async def run(self, session: Any, config: dict[str, Any], job: dict[str, Any]) -> None:
        await config["handler"](job)
        await asyncio.sleep(self.seconds)  # the answer is posted
        self.wanted -= 1
        if self.wanted == 0:
            self.scaler.kill_worker()

    async def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        self.begun.append(job["id"])
        return {"refresh_worker": True} if job["id"] == "last" else {}

    def to_the_end(self) -> list[str]:
        """The jobs that began, in their order."""
        asyncio.run(asyncio.wait_for(self.scaler.run(), LONG))
        return self.begun


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_job_stopped_before_it_began_costs_no_slot(
    in_progress: Any, concurrency: int, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = {"first", "second"}
    loop = SdkLoop(in_progress, ["first", "second", "third", "fourth"], stopped, concurrency, wanted=2)
    assert loop.to_the_end() == ["third", "fourth"]
    assert not in_progress
    assert all(f"job {job_id} was stopped before it began" in caplog.text for job_id in stopped)


def test_a_job_whose_answer_takes_long_to_post_keeps_its_slot(
    in_progress: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = SdkLoop(in_progress, ["first", "second"], set(), concurrency=2, wanted=2, seconds=3.5)
    assert loop.to_the_end() == ["first", "second"]
    assert "slot" not in caplog.text


def test_a_job_that_comes_again_and_is_stopped_before_it_begins_costs_no_slot(
    in_progress: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(job: dict[str, Any]) -> dict[str, Any]:
        return {}

    monkeypatch.setattr("src.job_slots._SECONDS", 0.0)
    slots = JobSlots(2, answer, in_progress)
    in_progress.add("job")
    asyncio.run(slots.handle({"id": "job"}))
    slots.concurrency(2)
    in_progress.remove("job")
    in_progress.add("job")
    for _ in range(3):
        assert in_progress
        slots.concurrency(2)
    assert not in_progress


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_worker_that_is_to_be_replaced_takes_no_more_jobs(in_progress: Any, concurrency: int) -> None:
    loop = SdkLoop(in_progress, ["last", *"abcdef"], set(), concurrency, wanted=100)

    async def for_a_while() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.scaler.run(), 4.0)

    asyncio.run(for_a_while())
    assert loop.begun == ["last", "a"][:concurrency]


def test_a_job_that_is_cancelled_again_and_again_is_left_only_when_its_work_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()

    def work(job: object, stop: threading.Event) -> dict[str, Any]:
        assert stop.wait(LONG)
        time.sleep(0.3)
        ended.set()
        return {}

    async def cancelled_three_times() -> None:
        task = asyncio.ensure_future(job_handler.handler({}))
        for _ in range(3):
            await asyncio.sleep(0.05)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    monkeypatch.setattr(job_handler, "answer_job", work)
    asyncio.run(cancelled_three_times())
