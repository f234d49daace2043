"""Many prompts at a time: each gets its own result, and the queue and the history are right throughout."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from .. import workflows
from .conftest import LONG, GatewayClient

COUNT = 200
GIVEN = 32
"""Prompts that the endpoint has at a time as jobs."""


@pytest.fixture(autouse=True)
def _end_all(served: GatewayClient) -> Iterator[None]:
    """Leave nothing to the next test."""
    yield
    served.post("/queue", {"clear": True})
    while any(served.get("/queue").json().values()):
        served.post("/interrupt")
        time.sleep(0.05)


def coloured(color: int) -> workflows.Workflow:
    """A small picture of that colour."""
    return {
        "1": workflows.node("EmptyImage", width=16, height=16, batch_size=1, color=color),
        "2": workflows.node("SaveImage", images=["1", 0], filename_prefix="coloured"),
    }


def endless(seed: int = 1) -> workflows.Workflow:
    """A prompt that takes minutes."""
    workflow = workflows.generative()
    workflow["8"]["inputs"].update(steps=10_000, seed=seed)
    return workflow


def queued(served: GatewayClient) -> tuple[list[str], list[str]]:
    """The ids of the prompts that run and of those that wait."""
    lists = served.get("/queue").json()
    running, waiting = ([item[1] for item in lists[name]] for name in ("queue_running", "queue_pending"))
    return running, waiting


def until_running(served: GatewayClient, *prompt_ids: str) -> None:
    """Wait until these prompts run."""
    end = time.monotonic() + LONG
    while not set(prompt_ids) <= set(queued(served)[0]):
        assert time.monotonic() < end, served.process.log
        time.sleep(0.05)


def job_of(served: GatewayClient, prompt_id: str) -> str:
    """The endpoint's job of a prompt, once it has one."""
    end = time.monotonic() + LONG
    while not (found := re.search(f"prompt {prompt_id} is job (.+)", served.process.log)):
        assert time.monotonic() < end, served.process.log
        time.sleep(0.05)
    return found[1]


def busy(served: GatewayClient) -> list[str]:
    """The ids of three prompts that run on the three workers for minutes."""
    prompt_ids = [served.queue(endless(seed)) for seed in range(3)]
    until_running(served, *prompt_ids)
    return prompt_ids


def colour_of(served: GatewayClient, entry: dict[str, Any]) -> int:
    """That of the picture of a prompt that succeeded."""
    (file,) = entry["outputs"]["2"]["images"]
    red, green, blue = Image.open(io.BytesIO(served.content(file))).convert("RGB").getpixel((3, 3))  # type: ignore[misc]
    return int(red << 16 | green << 8 | blue)


@pytest.mark.slow
def test_each_of_many_prompts_gets_its_own_result_once(served: GatewayClient) -> None:
    served.post("/history", {"clear": True})
    colors: dict[str, int] = {}
    with served.listening() as heard:
        for number in range(COUNT):
            color = number * 83_721 % 2**24
            colors[served.queue(coloured(color))] = color
        all_queued = len(heard)
        history: dict[str, Any] = {}
        end = time.monotonic() + 2 * LONG
        while len(history) < COUNT:
            running, waiting = queued(served)
            history = served.get("/history").json()
            assert len({*running, *waiting}) == len(running) + len(waiting)
            assert {*running, *waiting, *history} == set(colors)
            assert time.monotonic() < end, served.process.log
            time.sleep(0.1)
        while not heard or heard[-1][0] != "executing" or heard[-1][1]["node"] is not None:
            assert time.monotonic() < end, heard[-5:]
            time.sleep(0.05)
    assert {prompt_id: colour_of(served, entry) for prompt_id, entry in history.items()} == colors
    names = [entry["outputs"]["2"]["images"][0]["filename"] for entry in history.values()]
    assert len(set(names)) == COUNT
    results = [data for kind, data in heard if kind == "executed"]
    assert {data["prompt_id"]: data["output"] for data in results} == {
        prompt_id: entry["outputs"]["2"] for prompt_id, entry in history.items()
    }
    assert len(results) == COUNT
    assert counted_down(heard, all_queued)
    served.post("/history", {"clear": True})
    assert served.get("/history").json() == {}


def counted_down(heard: list[Any], all_queued: int) -> bool:
    """Whether each prompt that ended, once all were queued, was told with the number of those that were left."""
    left, ended, is_right = COUNT, 0, True
    for index, (kind, data) in enumerate(heard):
        if kind == "status":
            left = data["status"]["exec_info"]["queue_remaining"]
        elif kind == "executing" and data["node"] is None:
            ended += 1
            is_right &= index < all_queued or left == COUNT - ended
    return is_right and ended == COUNT


def test_two_prompts_run_at_a_time_and_an_interrupt_of_one_leaves_the_other(served: GatewayClient) -> None:
    one, other = served.queue(endless(1)), served.queue(endless(2))
    until_running(served, one, other)
    assert served.get("/prompt").json() == {"exec_info": {"queue_remaining": 2}}
    served.post("/interrupt", {"prompt_id": one})
    entry = served.entry(one)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert served.endpoint.get(f"status/{job_of(served, one)}")["status"] == "CANCELLED"
    assert queued(served) == ([other], [])
    assert served.endpoint.get(f"status/{job_of(served, other)}")["status"] == "IN_PROGRESS"


def test_a_pending_prompt_that_is_deleted_is_cancelled_on_the_endpoint(served: GatewayClient) -> None:
    running = busy(served)
    waiting = [served.queue(coloured(number)) for number in range(2)]
    jobs = [job_of(served, prompt_id) for prompt_id in waiting]
    assert queued(served) == (running, waiting)
    served.post("/queue", {"delete": [waiting[0]]})
    assert served.endpoint.ended(jobs[0])["status"] == "CANCELLED"
    assert served.endpoint.get(f"status/{jobs[1]}")["status"] == "IN_QUEUE"
    while waiting[0] in queued(served)[1]:
        time.sleep(0.05)
    served.post("/interrupt", {"prompt_id": running[0]})
    assert colour_of(served, served.entry(waiting[1])) == 1
    assert queued(served) == (running[1:], [])
    assert served.get(f"/history/{waiting[0]}").json() == {}


def test_clearing_the_queue_leaves_what_runs(served: GatewayClient) -> None:
    running = busy(served)
    waiting = [served.queue(coloured(number)) for number in range(GIVEN + 5)]  # some are no jobs yet
    jobs = [job_of(served, prompt_id) for prompt_id in waiting[: GIVEN - 3]]
    served.post("/queue", {"clear": True})
    assert [served.endpoint.ended(job_id)["status"] for job_id in jobs] == ["CANCELLED"] * len(jobs)
    end = time.monotonic() + LONG
    while queued(served) != (running, []):
        assert time.monotonic() < end, queued(served)
        time.sleep(0.05)
    history = served.get("/history").json()
    assert not {*running, *waiting} & set(history)


def test_a_prompt_at_the_front_is_the_next_to_be_given_to_the_endpoint(served: GatewayClient) -> None:
    running = busy(served)
    given = [served.queue(coloured(number)) for number in range(GIVEN - 3)]
    for prompt_id in given:
        job_of(served, prompt_id)
    last, first = served.queue(coloured(100)), served.queue(coloured(101), front=True)
    assert queued(served) == (running, [*given, first, last])
    served.post("/queue", {"delete": given[:1]})
    job_of(served, first)
    assert f"prompt {last} is job" not in served.process.log
    assert queued(served) == (running, [*given[1:], first, last])
    served.post("/interrupt", {"prompt_id": running[0]})
    assert [colour_of(served, served.entry(prompt_id)) for prompt_id in (first, last)] == [101, 100]
