"""What RunPod's queue answers is read job by job: one that json cannot read costs no other."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.job.request import UnreadableInput
from src.worker.job_take import read_jobs

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
DEEP = "[" * 2000 + "]" * 2000
DIGITS = "1" * 5000
HAS_DIGIT_LIMIT = hasattr(sys, "get_int_max_str_digits")


def batch(*inputs: str) -> bytes:
    """An answer of job-take-batch, from the JSON texts of the inputs."""
    jobs = (f'{{"id": "job-{number}", "input": {text}}}' for number, text in enumerate(inputs))
    return f"[{', '.join(jobs)}]".encode()


def test_one_job_or_a_list_of_them() -> None:
    assert read_jobs(b'{"id": "a", "input": {"x": 1}}') == [{"id": "a", "input": {"x": 1}}]
    assert [job["id"] for job in read_jobs(batch("{}", "[]", "null"))] == ["job-0", "job-1", "job-2"]
    assert read_jobs(b"") == read_jobs(b" ") == read_jobs(b"[]") == []


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_what_json_can_read_beside_a_poisoned_job_is_what_json_reads(values: list[object]) -> None:
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    jobs = read_jobs(batch(DEEP, *texts))
    assert isinstance(jobs[0]["input"], UnreadableInput)
    assert [job["input"] for job in jobs[1:]] == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DEEP, "nested too deeply"),
        ('{"workflow": ' + '{"a":' * 3000 + "1" + "}" * 3000 + "}", "nested too deeply"),
        pytest.param(
            f'{{"seed": {DIGITS}}}',
            "too many digits",
            marks=pytest.mark.skipif(not HAS_DIGIT_LIMIT, reason="no limit"),
        ),
        ("{1: 2}", "not valid JSON"),
        ("tru", "not valid JSON"),
    ],
    ids=["list", "object", "digits", "key", "word"],
)
def test_a_job_that_cannot_be_read_says_why(text: str, reason: str) -> None:
    (job,) = read_jobs(batch(text))
    assert job["id"] == "job-0"
    assert isinstance(job["input"], UnreadableInput)
    assert reason in job["input"].reason


def test_braces_commas_and_quotes_inside_texts_are_texts() -> None:
    odd = {"text": 'a"]},{[\\" \\\\', "id": "inner"}
    jobs = read_jobs(batch(DEEP, json.dumps(odd)))
    assert jobs[1]["input"] == odd


def test_an_answer_that_is_cut_off_gives_the_jobs_before_the_cut() -> None:
    jobs = read_jobs(batch('{"a": 1}', '{"b": 2}')[:-6])
    assert [job["id"] for job in jobs] == ["job-0", "job-1"]
    assert jobs[0]["input"] == {"a": 1}
    assert isinstance(jobs[1]["input"], UnreadableInput)


@pytest.mark.parametrize(
    "entry",
    ["null", "1", "{}", '{"id": "a"}', '{"id": [1], "input": 1}', '{"id": 5, "input": 1}', '{"id": "", "input": 1}'],
)
def test_what_is_no_job_is_left_out(entry: str) -> None:
    assert [job["id"] for job in read_jobs(f'[{entry}, {{"id": "good", "input": {{}}}}]'.encode())] == ["good"]


def test_a_job_that_comes_twice_is_taken_once_and_odd_fields_are_left_out() -> None:
    jobs = read_jobs(
        b'[{"id": "a", "input": 1, "self": 2, "__class__": 3, "a b": 4, "webhook": "w"}, {"id": "a", "input": 2}]'
    )
    assert jobs == [{"id": "a", "input": 1, "webhook": "w"}]
