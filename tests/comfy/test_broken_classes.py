"""A node class that fails where it should say what it takes: ComfyUI answers 500 for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from src.comfy.http import Answer
from src.workflow.schemas import read_schema

from .. import editor_files
from ..conftest import Bench
from ..workflows import node, still


@pytest.fixture
def broken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A worker whose ComfyUI has a class WorkerTestBroken, and cannot list its classes. It is not restarted."""
    connections = bench.engine.client._connections
    request = connections.request

    def answer(method: str, target: str, *rest: Any) -> Answer:
        is_broken = target == "/object_info" or (bench.name == "draft" and target.endswith("/WorkerTestBroken"))
        return Answer(500, b"500 Internal Server Error") if is_broken else request(method, target, *rest)

    monkeypatch.setattr(connections, "request", answer)
    generation = bench.engine.generation
    yield bench
    assert bench.engine.generation == generation


@pytest.mark.parametrize("action", ["run", "validate"])
def test_it_is_named_with_its_pack_and_nothing_is_restarted(broken: Bench, action: str) -> None:
    answer = broken.run(workflow={**still(), "2": node("WorkerTestBroken", image=["1", 0])}, action=action)
    assert (answer["error_type"], answer["error_code"]) == ("validation", "broken_node_type")
    pack = "the node pack worker_test_nodes" if broken.name == "real" else "a node pack"
    assert f"node class 'WorkerTestBroken' of {pack} is broken" in answer["error"]
    assert answer["class_type"] == "WorkerTestBroken"
    assert broken.run(workflow=still())["status"] == "success"


def test_in_a_file_of_the_editor_too(broken: Bench) -> None:
    file = editor_files.saved([editor_files.saved_node(1, "WorkerTestBroken", [])], [])
    assert broken.run(workflow=file)["error_code"] == "broken_node_type"


def test_an_unknown_class_is_told_though_the_classes_cannot_be_listed(broken: Bench) -> None:
    answer = broken.run(workflow={**still(), "2": node("NoSuchNode", image=["1", 0])}, action="validate")
    assert [problem["reason"] for problem in answer["problems"]] == ["missing_node_type"]


def test_info_tells_the_rest(broken: Bench) -> None:
    answer = broken.run(action="info")
    assert answer["status"] == "success", answer
    assert answer["node_packs"] == {}
    assert "node_packs are not known: ComfyUI answered" in answer["warnings"][0]


ODD: list[Any] = [
    {"input": []},
    {"input": {"required": []}},
    {"input": {"required": {"a": [], "b": None, "c": "INT", "d": {}}}},
    {"input": {"required": None, "optional": 5}},
]


@pytest.mark.parametrize("entry", ODD)
def test_what_no_editor_could_read_is_no_input(entry: dict[str, Any]) -> None:
    assert read_schema(entry).inputs == {}
