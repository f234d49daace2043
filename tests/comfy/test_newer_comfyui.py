"""What newer versions of ComfyUI do differently; on an engine without it a test says so."""

from __future__ import annotations

from typing import Any

import pytest

from src.comfy.process import plain_line
from src.workflow.graph import Graph
from src.workflow.schemas import check_pitfalls, read_schema

from .. import workflows
from ..conftest import Bench
from ..workflows import node


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("\x1b[32m[INFO]\x1b[0m got prompt\n", "got prompt"),
        ("\x1b[1m\x1b[33m[WARNING]\x1b[0m  odd", " odd"),
        ("[ERROR] !!! Exception", "!!! Exception"),
        ("10%\r50%\r\x1b[2K90%\n", "90%"),
        ("[Manager] starts, [INFO] or not", "[Manager] starts, [INFO] or not"),
    ],
)
def test_a_line_of_the_log_has_neither_colours_nor_a_level(written: str, kept: str) -> None:
    assert plain_line(written) == kept


def test_no_line_of_the_log_has_an_escape(bench: Bench) -> None:
    bench.run(workflow=workflows.still())
    log = bench.engine.process.log_tail(200)
    assert log
    assert not [line for line in log if "\x1b" in line or line.startswith("[INFO]")]


INNER = {"required": {"depth": ["COMBO", {"options": ["8", "16"]}], "more": ["COMFY_DYNAMICCOMBO_V3", {"options": [
    {"key": "a", "inputs": {"required": {"count": ["INT", {"max": 3}]}}}, {"key": "b"}]}]}}  # fmt: skip
DYNAMIC = read_schema(
    {
        "input": {
            "required": {
                "format": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "png", "inputs": INNER}, {"key": "exr"}]}],
            }
        },
        "output": [],
        "output_node": True,
    }
)


@pytest.mark.parametrize(
    ("inputs", "wrong"),
    [
        ({"format": "png", "format.depth": "8", "format.more": "b"}, []),
        ({"format": "exr"}, []),
        ({"format": ["3", 0]}, []),
        ({"format": "avif"}, ["format"]),
        ({"format": "png", "format.more": "c"}, ["format.more"]),
        ({"format": "exr", "format.more": "c"}, []),  # exr brings no such input: ComfyUI leaves it out
    ],
)
def test_the_keys_of_dynamic_combos_are_checked_at_every_depth(inputs: dict[str, Any], wrong: list[str]) -> None:
    graph = Graph({"1": {"class_type": "X", "inputs": inputs}, "3": node("Source")})
    errors = check_pitfalls(graph, {"X": DYNAMIC}).get("1", {"errors": []})["errors"]
    assert [error["extra_info"]["input_name"] for error in errors] == wrong


def test_a_combo_of_a_node_that_does_not_run_is_not_checked() -> None:
    quiet = read_schema({"input": {"required": {"format": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a"}]}]}}})
    graph = Graph({"1": node("X", format="png"), "2": node("Quiet", format="old")})
    assert check_pitfalls(graph, {"X": DYNAMIC, "Quiet": quiet}) == {}


@pytest.mark.parametrize("parameters", [[], [{}], [{"options": ["a", "b"]}], [{"options": None}]])
def test_a_dynamic_combo_of_an_odd_shape_is_let_be(parameters: list[Any]) -> None:
    odd = read_schema({"input": {"required": {"m": ["COMFY_DYNAMICCOMBO_V3", *parameters]}}, "output_node": True})
    assert check_pitfalls(Graph({"1": node("X", m="a", **{"m.x": 1})}), {"X": odd}) == {}


def need_class(bench: Bench, class_type: str) -> None:
    if bench.engine.client.schemas([class_type])[class_type] is None:
        pytest.skip(f"this engine has no {class_type}")


def test_a_format_that_a_saver_does_not_have_is_refused_before_the_run(bench: Bench) -> None:
    need_class(bench, "SaveImageAdvanced")
    workflow = workflows.still()
    workflow["9"] = node("SaveImageAdvanced", images=["1", 0], filename_prefix="x", format="avif")
    answer = bench.run(workflow=workflow)
    assert answer["error_code"] == "invalid_workflow"
    assert "format" in answer["error"]
    assert "png" in answer["error"]
    problems = bench.run(workflow=workflow, action="validate")["problems"]
    assert [problem["input"] for problem in problems] == ["format"]


def test_a_class_that_comfyui_replaces_is_not_called_missing_and_comes_to_be_queued(bench: Bench) -> None:
    """ComfyUI 0.33 fails on one whose node has no `_meta`; here its new class then misses a model."""
    if "T2IAdapterLoader" not in bench.engine.client.node_replacements():
        pytest.skip("this engine does not replace T2IAdapterLoader")
    loader = node("T2IAdapterLoader", t2i_adapter_name="nowhere.safetensors")
    workflow = {**workflows.still(), "7": loader, "8": node("PreviewAny", source=["7", 0])}
    assert bench.run(workflow=workflow, action="validate")["problems"] == []
    answer = bench.run(workflow=workflow)
    assert (answer["error_code"], answer["missing_models"][0]["name"]) == ("missing_model", "nowhere.safetensors")


def test_a_class_that_is_neither_there_nor_replaced_is_missing(bench: Bench) -> None:
    workflow = {**workflows.still(), "7": node("ConditioningAverageOfOld", image=["1", 0])}
    (problem,) = bench.run(workflow=workflow, action="validate")["problems"]
    assert problem["class_type"] == "ConditioningAverageOfOld"
