"""Whatever comes in, the answer is in the contract's shape, tells nothing of the inside, and comes soon."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.errors import WorkerError
from src.job import handler as job_handler
from src.workflow import check_workflow
from src.workflow.leftovers import without_leftovers

from .. import workflows
from ..conftest import Bench

CASES = 5000 if os.environ.get("LONG_TESTS") else 300
FAST_SECONDS = 5.0  # a hang limit, no measure: the median is a millisecond

TEXT = st.text(st.characters(codec=None), max_size=30)  # lone surrogates included
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXT,
    st.sampled_from([2**64, -1, 0, 10**30, "1", "6", "25", "27", "../x", "/etc/passwd", "", "\0"]),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["workflow", "prompt", "seed", "width", "height", "prompt_node_id", "seed_node_id", "size_node_id", "images", "x"]
)
VALID = [workflows.still(), workflows.flux(), workflows.generative(), workflows.text_only(), workflows.animated_webp()]


@st.composite
def mutated_jobs(draw: st.DrawFn) -> Any:
    """A valid job with a few places changed to anything, or none."""
    job: dict[str, Any] = {"id": "fuzz", "input": {"workflow": copy.deepcopy(draw(st.sampled_from(VALID)))}}
    for _ in range(draw(st.integers(0, 3))):
        job["input"][draw(FIELDS)] = draw(JSON)
    for _ in range(draw(st.integers(0, 3))):
        place: Any = job
        for _ in range(draw(st.integers(0, 6))):
            if isinstance(place, dict) and place:
                key = draw(st.sampled_from(sorted(place, key=repr)))
                if not isinstance(place[key], (dict, list)):
                    break
                place = place[key]
        if isinstance(place, dict):
            key = draw(st.one_of(TEXT, st.sampled_from(sorted(map(str, place)) or ["x"])))
            if draw(st.booleans()):
                place[key] = draw(JSON)
            else:
                place.pop(key, None)
    return job


SHAPES = [
    lambda given: given,
    lambda given: {"input": given},
    lambda given: given.get("workflow"),
    lambda given: {**given, "prompt": given.get("workflow"), "workflow": None},
    lambda given: {"workflow": {"prompt": given.get("workflow")}},
    lambda given: {**given, "workflow": "custom", "payload": given.get("workflow")},
]
"""An input as clients of other workers would send it."""


@st.composite
def jobs_of_other_clients(draw: st.DrawFn) -> Any:
    """A mutated job in another shape, some as a JSON text."""
    job = draw(mutated_jobs())
    if isinstance(job.get("input"), dict):
        job["input"] = draw(st.sampled_from(SHAPES))(job["input"])
    if draw(st.booleans()):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            job["input"] = json.dumps(job["input"])
    return job


def check_answer(answer: Any) -> None:
    """The contract's shape, encodable as the SDK encodes it, and silent about the inside."""
    encoded = json.dumps(answer, ensure_ascii=False, allow_nan=False).encode("utf-8")
    assert isinstance(answer["execution_time_seconds"], float)
    if answer["status"] == "success":
        assert isinstance(answer["prompt_id"], str)
        assert len(answer["images"]) == len(answer["filenames"])
        assert all(base64.b64decode(image, validate=True) for image in answer["images"])
    else:
        assert answer["status"] == "error"
        assert answer["error_type"] in ("validation", "timeout", "internal")
        assert answer["error_code"] != "internal_error", answer
        assert isinstance(answer["error"], str)
        assert len(answer["error"]) > 10
    for inside in (
        b"Traceback",
        b"comfyui-worker-",
        str(Path(__file__).parent.parent).encode(),
        str(Path.home()).encode() + b"/",
    ):
        assert inside not in encoded


def reaches_engine(job: Any) -> bool:
    """Whether the workflow passes our own checks."""
    try:
        check_workflow(without_leftovers(job["input"]["workflow"])[0])
    except (WorkerError, TypeError, KeyError):
        return False
    return True


@pytest.fixture(scope="module")
def loop() -> Any:
    """One event loop for all cases."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


FUZZ = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=not os.environ.get("LONG_TESTS"),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@FUZZ
@given(job=mutated_jobs())
def test_mutated_jobs_get_clean_answers(draft_bench: Bench, loop: asyncio.AbstractEventLoop, job: Any) -> None:
    job_handler.set_worker(draft_bench.worker)
    started = time.monotonic()
    answer = loop.run_until_complete(job_handler.handler(job))
    check_answer(answer)
    if not reaches_engine(job):
        assert answer["status"] == "error"
        assert time.monotonic() - started < FAST_SECONDS


@FUZZ
@given(job=st.one_of(JSON, st.fixed_dictionaries({"id": JSON, "input": JSON})))
def test_jobs_from_nothing_get_clean_answers(draft_bench: Bench, loop: asyncio.AbstractEventLoop, job: Any) -> None:
    job_handler.set_worker(draft_bench.worker)
    check_answer(loop.run_until_complete(job_handler.handler(job)))


@FUZZ
@given(job=jobs_of_other_clients())
def test_mutated_jobs_of_other_clients_get_clean_answers(
    draft_bench: Bench, loop: asyncio.AbstractEventLoop, job: Any
) -> None:
    job_handler.set_worker(draft_bench.worker)
    check_answer(loop.run_until_complete(job_handler.handler(job)))


def test_nothing_is_left_of_all_that(draft_bench: Bench) -> None:
    assert not draft_bench.leftovers()
    assert not draft_bench.prompts_in_history()
