"""The endpoint's node classes are asked for once, kept in a file, and asked for again when its worker changes."""

from __future__ import annotations

import base64
import gzip
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from src.draft.schema import object_info
from src.gateway.endpoint import Endpoint
from src.gateway.node_classes import NodeClasses

from .here import VERSIONS, WAITS, gateway_here, info, packed, tracebacks
from .scripted_endpoint import ScriptedEndpoint, scripted_endpoint


@contextmanager
def classes(
    folder: Path, *statuses: Any, max_seconds: float = 30, **script: Any
) -> Iterator[tuple[NodeClasses, ScriptedEndpoint]]:
    """Those of an endpoint that answers so."""
    with scripted_endpoint(statuses=list(statuses), **script) as endpoint:
        yield NodeClasses(Endpoint(endpoint.url, "key"), folder / "classes", max_seconds), endpoint


def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


def test_they_are_asked_for_with_one_job_and_kept_in_a_file(tmp_path: Path) -> None:
    with classes(tmp_path, WAITS, info()) as (found, endpoint):
        assert not found.are_known
        found.ask()
        assert (found.failure, found.are_known) == ("", True)
        assert endpoint.jobs == [{"action": "info", "parts": ["object_info", "models"]}]
    again = NodeClasses(Endpoint("http://127.0.0.1:9", "key"), tmp_path / "classes")
    assert again.kept == found.kept
    assert again.kept.object_info.keys() == object_info().keys()
    assert again.kept.models["checkpoints"] == ["a.safetensors"]
    assert (again.kept.versions["worker"], again.kept.devices[0]["name"]) == ("0.6.0", "cuda:0")
    assert again.kept.schemas["SaveImage"].is_output
    assert [path.name for path in tmp_path.iterdir()] == ["classes"]


def test_those_who_wait_for_an_answer_share_it(tmp_path: Path) -> None:
    released = threading.Event()
    with classes(tmp_path, info(), asked=lambda count: released.wait(20)) as (found, endpoint):
        threads = [threading.Thread(target=found.ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: endpoint.jobs)
        released.set()
        for thread in threads:
            thread.join(20)
        assert len(endpoint.jobs) == 1
        found.ask()
        assert len(endpoint.jobs) == 2


def test_they_are_asked_for_again_when_the_worker_changes_and_once_for_each_version(tmp_path: Path) -> None:
    new = {**VERSIONS, "worker": "0.7.0"}
    with classes(tmp_path, info()) as (found, endpoint):
        found.ask()
        found.note_versions(VERSIONS)
        found.note_versions({})
        assert len(endpoint.jobs) == 1
        endpoint.statuses = [info(versions=new)]
        found.note_versions(new)
        until(lambda: found.kept.versions["worker"] == "0.7.0")
        until(lambda: not any(thread.name == "node-classes" for thread in threading.enumerate()))
        for _ in range(3):  # workers of both versions answer while the endpoint changes
            for versions in (VERSIONS, new):
                found.note_versions(versions)
                until(lambda: not any(thread.name == "node-classes" for thread in threading.enumerate()))
        assert len(endpoint.jobs) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x", gzip.compress(b""), gzip.compress(b"[]"), gzip.compress(b"{"), gzip.compress(b'{"other": 1}'),
        gzip.compress(b'{"object_info": []}'), gzip.compress(b'{"object_info": {"A": 5}}'),
        gzip.compress(b'{"models": {"a": [5]}}'), gzip.compress(b'{"models": {"a": "b"}}'),
        gzip.compress(b'{"versions": null}'), gzip.compress(b"\xff"), gzip.compress(b"[" * 100_000),
        gzip.compress(b'{"object_info": {}}')[:-9], b"\x1f\x8b\x08\x00" + b"\xff" * 40,
    ],
    ids=itertools.count(),  # what gzip makes has the time in it
)  # fmt: skip
def test_a_broken_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "classes").write_bytes(content)
    with classes(tmp_path, info()) as (found, _):
        assert not found.are_known
        found.ask()
        assert found.are_known
        assert (tmp_path / "classes").read_bytes() != content


# What an endpoint may do wrong: its answers, and a part of what a person is told.
FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "its worker fails": ({"statuses": [(200, {"status": "FAILED", "error": "no GPU left"})]}, "no GPU left"),
    "the job takes too long": ({"statuses": [(200, {"status": "TIMED_OUT"})]}, "TIMED_OUT"),
    "the job is cancelled": ({"statuses": [(200, {"status": "CANCELLED"})]}, "CANCELLED"),
    "the worker answers an error": (
        {
            "statuses": [
                (200, {"status": "COMPLETED", "output": {"status": "error", "error": "object_info is not known"}})
            ]
        },
        "object_info is not known",
    ),
    "its worker is older": (
        {"statuses": [(200, {"status": "COMPLETED", "output": {"status": "success", "versions": VERSIONS}})]},
        "too old for a gateway",
    ),
    "it runs another worker": ({"statuses": [(200, {"status": "COMPLETED", "output": ["picture"]})]}, "COMPLETED"),
    "it knows no such key": ({"submitted": (401, {"error": "unauthorized"})}, "RUNPOD_API_KEY"),
    "there is no such endpoint": ({"submitted": (404, {})}, "does not exist"),
    "it gives no id": ({"submitted": (200, {})}, "no id"),
    "it is another server": ({"submitted": (200, b"<html>")}, "not answer as a RunPod endpoint"),
    "it breaks": ({"submitted": (500, {})}, "HTTP 500"),
    "it breaks off": ({"submitted": (0, None)}, "did not answer"),
    "its classes are no base64": ({"statuses": [info(object_info="§")]}, "not that of this worker"),
    "its classes are not packed": (
        {"statuses": [info(object_info=base64.b64encode(b"x").decode())]},
        "not that of this",
    ),
    "its classes are cut off": (
        {"statuses": [info(object_info=packed(object_info())[:400])]},
        "not that of this worker",
    ),
    "its classes are garbled": (
        {"statuses": [info(object_info=base64.b64encode(b"\x1f\x8b\x08\x00" + b"\xff" * 40).decode())]},
        "not that of this worker",
    ),
    "its classes are a list": ({"statuses": [info(object_info=packed([1]))]}, "not that of this worker"),
    "a class is none": ({"statuses": [info(object_info=packed({"A": None}))]}, "not that of this worker"),
    "its models are none": ({"statuses": [info(all_models=packed({"a": {"b": 1}}))]}, "not that of this worker"),
    "its versions are none": ({"statuses": [info(versions="x")]}, "not that of this worker"),
    "its devices are none": ({"statuses": [info(devices={"a": 1})]}, "not that of this worker"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_whatever_goes_wrong_is_told_and_what_was_kept_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    script, said = FAILURES[name]
    with classes(tmp_path, info()) as (found, endpoint):
        found.ask()
        kept, content = found.kept, (tmp_path / "classes").read_bytes()
        for key, value in script.items():
            setattr(endpoint, key, list(value) if isinstance(value, list) else value)
        found.ask()
        assert said in found.failure
        assert said in caplog.text
        assert (found.kept, (tmp_path / "classes").read_bytes()) == (kept, content)
        endpoint.submitted, endpoint.statuses = (200, {"id": "job-2"}), [info()]
        found.ask()
        assert found.failure == ""
    assert tracebacks(caplog.records) == []


def test_a_worker_that_does_not_start_is_waited_for_only_so_long_and_its_job_is_cancelled(tmp_path: Path) -> None:
    with classes(tmp_path, WAITS, max_seconds=0.2) as (found, endpoint):
        found.ask()
        assert "no worker of the endpoint answered within 0 s" in found.failure
        until(lambda: endpoint.cancels == 1)


def test_an_endpoint_that_goes_away_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with classes(tmp_path, (0, None), max_seconds=0.2) as (found, _):
        found.ask()
        assert "no worker of the endpoint answered" in found.failure


def test_a_file_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    with classes(tmp_path / "gone", info()) as (found, _):
        found.ask()
        assert found.are_known


# --- By HTTP -------------------------------------------------------------------------------------------


def test_the_editor_waits_for_the_first_classes_and_gets_them(tmp_path: Path) -> None:
    with gateway_here(tmp_path, is_asked=True, statuses=[WAITS, WAITS, info()]) as here:
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(here.get("/api/object_info"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [answer.json.keys() == object_info().keys() for answer in answers] == [True] * 4
        assert len(here.endpoint.jobs) == 1
        assert here.get("/object_info/SaveImage").json["SaveImage"]["output_node"]
        assert here.get("/object_info/Nope").json == {}
        assert here.get("/models").json == ["checkpoints", "embeddings"]
        assert here.get("/models/checkpoints").json == ["a.safetensors"]
        assert here.get("/models/nope").status == 404
        assert here.get("/embeddings").json == ["sub/b", "c"]
        assert [folder["name"] for folder in here.get("/api/experiment/models").json] == ["checkpoints", "embeddings"]
        assert here.get("/api/experiment/models/checkpoints").json == [{"name": "a.safetensors", "pathIndex": 0}]
        system = here.get("/api/system_stats").json["system"]
        assert (system["comfyui_version"], system["pytorch_version"], system["argv"]) == ("0.33.0", "2.11", [])


def test_classes_that_cannot_be_had_are_a_clear_answer_and_asked_for_again(tmp_path: Path) -> None:
    script: dict[str, Any] = {"submitted": (401, {}), "statuses": [info()]}
    with gateway_here(tmp_path, is_asked=True, **script) as here:
        for path in ("/object_info", "/api/object_info/SaveImage"):
            answer = here.get(path)
            assert (answer.status, "set RUNPOD_API_KEY" in answer.text) == (502, True)
        assert here.get("/models").json == []
        assert here.get("/api/system_stats").status == 200
        here.endpoint.submitted = (200, {"id": "job-1"})
        assert here.get("/object_info").json.keys() == object_info().keys()


def test_a_refresh_asks_anew_and_says_why_it_failed(tmp_path: Path) -> None:
    with gateway_here(tmp_path, statuses=[info(object_info=packed({"New": {"input": {}, "output": []}}))]) as here:
        assert here.post("/api/gateway/refresh").json == {"error": ""}
        assert list(here.get("/object_info").json) == ["New"]
        here.endpoint.statuses = [(200, {"status": "FAILED", "error": "no GPU left"})]
        assert "no GPU left" in here.post("/gateway/refresh").json["error"]
        assert list(here.get("/object_info").json) == ["New"]


def test_nobody_is_asked_while_the_classes_are_known(tmp_path: Path) -> None:
    with gateway_here(tmp_path) as here:
        assert here.get("/object_info").status == 200
        assert here.endpoint.jobs == []
