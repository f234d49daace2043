"""What RunPod's SDK loses by itself is not lost: signals, slots and jobs at the wrong moment, in the SDK's own loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest

from src.job import handler as job_handler
from src.worker import jobs_in_hand, result_delivery
from src.worker.sdk_loop import patched_scaler

LONG = 30.0  # a hang limit, no measure


@pytest.fixture
def in_progress() -> Iterator[Any]:
    """The SDK's set of jobs, of which there is one in a process."""
    from runpod.serverless.modules.worker_state import JobsProgress  # sleeps for a second

    progress = JobsProgress()
    progress.clear()
    yield progress
    progress.clear()


class SdkLoop:
    """The SDK's loop over these jobs; only its HTTP is left out. Ends after as many answers as are wanted."""

    def __init__(self, jobs: list[str], concurrency: int = 1, wanted: int = 1) -> None:
        from runpod.serverless.modules import rp_scale

        self.waiting, self.wanted = list(jobs), wanted
        self.begun, self.ended = list[str](), list[str]()
        self.scaler = patched_scaler(rp_scale.JobScaler)(
            {"handler": self.answer, "concurrency_modifier": lambda current: concurrency}
        )
        self.scaler._take_jobs, self.scaler.stop_signals_fetcher = self.fetch, self.no_signal

    async def fetch(self, session: Any, count: int) -> list[dict[str, Any]]:
        if not self.waiting:
            await asyncio.sleep(0.05)
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return [{"id": job_id, "input": {}} for job_id in taken]

    async def no_signal(self, session: Any) -> list[str]:
        await asyncio.sleep(0.05)
        return []

    async def post(self, session: Any, job_id: str, body: bytes) -> result_delivery._Response:
        self.wanted -= 1
        if self.wanted == 0:
            self.scaler.kill_worker()
        return result_delivery._Response(200)

    def stop_as_they_begin(self, *jobs: str) -> None:
        """Have these stopped in the turn of the event loop in which their task is created."""
        begin = self.scaler._jobs.begin

        def begin_and_stop(session: Any, job: dict[str, Any]) -> None:
            begin(session, job)
            if job["id"] in jobs:  # what the SDK's monitor does, up to its first wait, of which there is none
                with pytest.raises(StopIteration):
                    self.scaler.stop_job(job["id"]).send(None)

        self.scaler._jobs.begin = begin_and_stop

    async def answer(self, job: dict[str, Any], on_safe: Callable[[], object]) -> dict[str, Any]:
        self.begun.append(job["id"])
        await asyncio.sleep(0.01)
        self.ended.append(job["id"])
        return {"refresh_worker": True} if job["id"] == "last" else {}

    def to_the_end(self) -> list[str]:
        """The jobs that were answered, in their order."""
        with patch.object(result_delivery, "_post", self.post):
            asyncio.run(asyncio.wait_for(self.scaler.run(), LONG))
        return self.ended


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_job_stopped_as_its_task_is_created_costs_no_slot(in_progress: Any, concurrency: int) -> None:
    loop = SdkLoop(["first", "second", "third", "fourth"], concurrency, wanted=2)
    loop.stop_as_they_begin("first", "second")
    assert loop.to_the_end() == ["third", "fourth"]
    assert not in_progress


def test_a_job_stopped_at_once_does_not_run_to_its_end(in_progress: Any) -> None:
    loop = SdkLoop(["first", "second"])

    async def signal(session: Any) -> list[str]:
        while in_progress.get("first") is None:
            await asyncio.sleep(0)
        loop.scaler.stop_signals_fetcher = loop.no_signal
        return ["first"]

    loop.scaler.stop_signals_fetcher = signal
    assert loop.to_the_end() == ["second"]
    assert not in_progress


def test_a_signal_for_a_job_that_is_not_here_stops_nothing(in_progress: Any) -> None:
    loop = SdkLoop(["first"])
    assert asyncio.run(loop.scaler.stop_job("first")) is False
    assert loop.to_the_end() == ["first"]


def test_a_job_that_comes_after_sigterm_is_run(in_progress: Any) -> None:
    loop = SdkLoop([])

    async def fetch(session: Any, count: int) -> list[dict[str, Any]]:
        loop.scaler.kill_worker()
        await asyncio.sleep(0.5)
        return [{"id": "late", "input": {}}]

    loop.scaler._take_jobs = fetch
    assert loop.to_the_end() == ["late"]
    assert not in_progress


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_worker_that_is_to_be_replaced_takes_no_more_jobs(in_progress: Any, concurrency: int) -> None:
    loop = SdkLoop(["last", *"abcdef"], concurrency, wanted=100)

    async def for_a_while() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.scaler.run(), 3.0)

    with patch.object(result_delivery, "_post", loop.post):
        asyncio.run(for_a_while())
    assert loop.ended == ["last", "a"][:concurrency]


class Leaving:
    """A handler whose jobs are safe at once, and whose answers wait until they are let go."""

    def __init__(self) -> None:
        self.safe = list[str]()
        self.let_go = asyncio.Event()

    async def __call__(self, job: dict[str, Any], on_safe: Callable[[], object]) -> dict[str, Any]:
        await asyncio.to_thread(on_safe)
        self.safe.append(job["id"])
        await self.let_go.wait()
        return {}


def test_the_next_job_begins_while_the_one_before_leaves_and_not_too_many_leave_at_a_time(in_progress: Any) -> None:
    loop, leaving = SdkLoop([f"{number}" for number in range(30)], wanted=30), Leaving()
    loop.scaler._jobs._handler = leaving

    async def run() -> None:
        running = asyncio.ensure_future(loop.scaler.run())
        while len(leaving.safe) <= jobs_in_hand._MAX_LEAVING:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert len(leaving.safe) == jobs_in_hand._MAX_LEAVING + 1, "those that leave, and one that holds the slot"
        assert len(in_progress) == jobs_in_hand._MAX_LEAVING + 1, "RunPod is told of them"
        leaving.let_go.set()
        await asyncio.wait_for(running, LONG)

    with patch.object(result_delivery, "_post", loop.post):
        asyncio.run(run())
    assert sorted(leaving.safe, key=int) == [f"{number}" for number in range(30)]
    assert not in_progress


def test_a_job_that_leaves_is_stopped_by_a_signal_and_waited_for_at_the_end(in_progress: Any) -> None:
    loop, leaving = SdkLoop(["first", "second"]), Leaving()
    loop.scaler._jobs._handler = leaving

    async def run() -> None:
        running = asyncio.ensure_future(loop.scaler.run())
        while len(leaving.safe) < 2:
            await asyncio.sleep(0.01)
        assert await loop.scaler.stop_job("first")
        loop.scaler.kill_worker()
        await asyncio.sleep(0.3)
        assert not running.done()
        assert [str(job) for job in in_progress] == ["second"]
        leaving.let_go.set()
        await asyncio.wait_for(running, LONG)

    with patch.object(result_delivery, "_post", loop.post):
        asyncio.run(run())
    assert loop.wanted == 0, "one answer was posted"
    assert not in_progress


def test_a_job_that_is_cancelled_again_and_again_is_left_only_when_its_work_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()

    def work(job: object, stop: threading.Event, on_safe: Callable[[], object]) -> dict[str, Any]:
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
