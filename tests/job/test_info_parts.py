"""`action: info` with `parts`: everything that this ComfyUI can do, for programs that stand in for it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from src.comfy.http import Answer

from .. import workflows
from ..conftest import Bench

PARTS = {"object_info", "node_replacements", "all_models"}


def unpacked(packed: str) -> bytes:
    """What is in a part that is packed."""
    return gzip.decompress(base64.b64decode(packed, validate=True))


def raw(bench: Bench, route: str) -> Any:
    """ComfyUI's own answer to a GET."""
    return bench.engine.client._connections.request("GET", route, None, {}, 60.0)


def test_without_parts_there_is_none_of_them(bench: Bench) -> None:
    assert not PARTS & bench.run(action="info").keys()


def test_object_info_is_what_comfyui_answers_byte_for_byte(bench: Bench) -> None:
    answer = bench.run(action="info", parts=["object_info"])
    assert PARTS & answer.keys() == {"object_info", "node_replacements"}
    assert unpacked(answer["object_info"]) == raw(bench, "/object_info").body
    replacements = raw(bench, "/node_replacements")
    assert answer["node_replacements"] == (json.loads(replacements.body) if replacements.status == 200 else {})
    assert answer["node_packs"]


def test_all_models_are_the_whole_lists_of_every_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"{number}.safetensors" for number in range(700)]
    models = bench.engine.client.models
    monkeypatch.setattr(bench.engine.client, "model_folders", lambda: ["loras", "vae"])
    monkeypatch.setattr(bench.engine.client, "models", lambda folder: many if folder == "loras" else [])
    answer = bench.run(action="info", parts=["models"])
    assert PARTS & answer.keys() == {"all_models"}
    assert json.loads(unpacked(answer["all_models"])) == {"loras": many, "vae": []}
    assert (len(answer["models"]["loras"]), answer["models"]["loras (count)"]) == (500, 700)
    monkeypatch.undo()
    every = json.loads(unpacked(bench.run(action="info", parts=["models"])["all_models"]))
    assert every == {folder: models(folder) for folder in bench.engine.client.model_folders()}


def test_both_parts_may_be_named_in_any_order_and_twice(draft_bench: Bench) -> None:
    answer = draft_bench.run(action="info", parts=["models", "object_info", "models"])
    assert answer.keys() >= PARTS


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (["everything"], "parts[0] must be one of object_info, models, not 'everything'"),
        (["models", 5], "parts[1] must be one of object_info, models, not 5"),
        ("models", "parts must be a list; each entry one of object_info, models, not 'models'"),
    ],
)
def test_a_part_that_is_none_names_those_there_are(draft_bench: Bench, parts: Any, said: str) -> None:
    answer = draft_bench.run(action="info", parts=parts)
    assert (answer["error_code"], answer["field"]) == ("invalid_input", "parts")
    assert said in answer["error"]


def test_parts_of_a_run_are_told_to_be_of_no_use(draft_bench: Bench) -> None:
    answer = draft_bench.run(workflow=workflows.still(), parts=["models"])
    assert answer["warnings"] == ["parts was not used: only action: info has parts"]


def test_parts_that_runpod_would_lose_are_an_error(draft_bench: Bench) -> None:
    runner = draft_bench.worker.runner
    small = replace(runner, settings=replace(runner.settings, result_limit=0.01))
    own = replace(draft_bench, worker=replace(draft_bench.worker, runner=small))
    answer = own.run(action="info", parts=["object_info"])
    assert (answer["error_type"], answer["error_code"]) == ("validation", "output_too_large")
    assert "over the limit of 0.01 MB (RESULT_LIMIT_MB" in answer["error"]
    assert answer["error"].endswith("request fewer of its parts at a time")
    assert answer["size_bytes"] > answer["limit_bytes"] == 10_000
    assert own.run(action="info")["status"] == "success"


@pytest.fixture
def broken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A worker whose ComfyUI cannot list its classes."""
    connections = bench.engine.client._connections
    request = connections.request

    def answer(method: str, target: str, *rest: Any) -> Answer:
        return Answer(500, b"500") if target == "/object_info" else request(method, target, *rest)

    monkeypatch.setattr(connections, "request", answer)
    yield bench


def test_a_comfyui_that_cannot_list_its_classes_says_what_to_do(broken: Bench) -> None:
    answer = broken.run(action="info", parts=["object_info"])
    assert (answer["error_type"], answer["error_code"]) == ("internal", "comfyui_unexpected_answer")
    assert "one of its node classes is broken" in answer["error"]
    assert "action: validate names the class" in answer["error"]
    assert broken.run(action="info", parts=["models"])["status"] == "success"
