"""What ComfyUI says of a prompt that it refuses reaches the caller in ComfyUI's own shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from src.comfy.refusal import public_refusal

from .. import workflows
from ..conftest import Bench
from ..workflows import node

FAILED = "prompt_outputs_failed_validation"


def errors_of(bench: Bench, workflow: dict[str, Any], **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """`comfyui_error` of a job that is refused: its error, and its node errors."""
    answer = bench.run(workflow=workflow, **fields)
    assert answer["error_type"] == "validation", answer
    assert not bench.prompts_in_history()
    return answer["comfyui_error"]["error"], answer["comfyui_error"]["node_errors"]


def test_the_errors_of_nodes_are_by_node_id_as_comfyui_says_them(bench: Bench) -> None:
    workflow = workflows.still()
    workflow["1"]["inputs"]["width"] = 0
    del workflow["3"]["inputs"]["crop"]
    error, node_errors = errors_of(bench, workflow)
    assert error == {"type": FAILED, "message": "Prompt outputs failed validation", "details": "", "extra_info": {}}
    assert node_errors.keys() == {"1", "3"}
    assert node_errors["3"]["class_type"] == "ImageScale"
    assert node_errors["3"]["dependent_outputs"] == ["4"]
    (missing,) = node_errors["3"]["errors"]
    assert (missing["type"], missing["message"]) == ("required_input_missing", "Required input is missing")
    assert (missing["details"], missing["extra_info"]) == ("crop", {"input_name": "crop"})
    (small,) = node_errors["1"]["errors"]
    assert small["type"] == "value_smaller_than_min"
    assert (small["extra_info"]["input_name"], small["extra_info"]["received_value"]) == ("width", 0)
    assert small["extra_info"]["input_config"][0] == "INT"


def test_the_options_of_a_choice_are_left_out(bench: Bench) -> None:
    workflow = workflows.still()
    workflow["3"]["inputs"]["upscale_method"] = "magic"
    _, node_errors = errors_of(bench, workflow)
    (wrong,) = node_errors["3"]["errors"]
    assert wrong["type"] == "value_not_in_list"
    assert "input_config" not in wrong["extra_info"]
    assert wrong["extra_info"]["received_value"] == "magic"


def test_a_prompt_of_which_comfyui_would_run_a_part_has_them_too(bench: Bench) -> None:
    workflow = workflows.still()
    workflow["5"] = node("SaveImage", filename_prefix="other")
    error, node_errors = errors_of(bench, workflow)
    assert error["type"] == FAILED
    assert node_errors.keys() == {"5"}


def test_what_the_worker_finds_before_comfyui_looks_the_same(bench: Bench) -> None:
    error, node_errors = errors_of(bench, workflows.still(), overrides={"1": {"inputs": {"width": 0}}})
    assert error["type"] == FAILED
    assert [found["type"] for found in node_errors["1"]["errors"]] == ["value_smaller_than_min"]
    assert node_errors["1"]["class_type"] == "EmptyImage"
    assert node_errors["1"]["dependent_outputs"] == []


def test_missing_classes_are_told_with_all_their_nodes(bench: Bench) -> None:
    workflow = workflows.still()
    workflow["2"]["class_type"] = "NoSuchNode"
    workflow["5"] = node("NoSuchNode", image=["2", 0])
    workflow["6"] = node("NorThisOne", image=["5", 0])
    workflow["7"] = node("SaveImage", images=["6", 0], filename_prefix="x")
    answer = bench.run(workflow=workflow)
    assert answer["error_code"] == "missing_node_type"
    assert answer["missing_nodes"] == [
        {"node_id": "2", "class_type": "NoSuchNode"},
        {"node_id": "5", "class_type": "NoSuchNode"},
        {"node_id": "6", "class_type": "NorThisOne"},
    ]
    assert answer["also_missing"] == ["NorThisOne"]
    assert answer["comfyui_error"]["error"]["type"] in ("missing_node_type", "invalid_prompt")
    assert answer["comfyui_error"]["error"]["details"] == "Node ID '#2'"
    assert answer["comfyui_error"]["node_errors"] == {}


def test_a_node_that_fails_says_its_exception(bench: Bench) -> None:
    workflow = {**workflows.still(), "5": workflows.raising(bench.name)}
    workflow["6"] = node("SaveImage", images=["5" if bench.name == "real" else "3", 0], filename_prefix="x")
    answer = bench.run(workflow=workflow)
    assert (answer["error_code"], answer["node_id"]) == ("node_execution_error", "5")
    assert answer["class_type"] == workflow["5"]["class_type"]
    assert answer["exception_type"]
    assert answer["exception_message"] and answer["exception_message"] in answer["error"]


# --- Whatever ComfyUI says -----------------------------------------------------------------------------


def error_with(**extra: Any) -> dict[str, Any]:
    """One error of a node."""
    return {"type": "t", "message": "m", "details": "d", "extra_info": extra}


def of_one(error: dict[str, Any]) -> dict[str, Any]:
    """What is left of it."""
    refusal = public_refusal(None, {"4": {"errors": [error], "dependent_outputs": ["9"], "class_type": "X"}})
    kept: dict[str, Any] = refusal["node_errors"]["4"]["errors"][0]
    return kept


def test_no_folder_of_the_worker_and_of_a_job_is_told() -> None:
    error = {
        "type": "exception_during_validation",
        "message": "no /srv/worker/secret/place",
        "details": "job-0123456789ab/out is no path",
        "extra_info": {"traceback": ["File /srv/worker/x.py"], "received_value": "job-0123456789ab/out"},
    }
    assert of_one(error) == {
        "type": "exception_during_validation",
        "message": "no …/place",
        "details": "out is no path",
        "extra_info": {"received_value": "out"},
    }


@pytest.mark.parametrize(
    ("received", "kept"),
    [
        (5, 5),
        (0.5, 0.5),
        (None, None),
        (True, True),
        (["1", 0], ["1", 0]),
        (float("nan"), "nan"),
        ("a\ud800b", "a?b"),
        ("x" * 9000, "x" * 499 + "…"),
        ([[[[1]]]], [["[[1]]"]]),
        (list(range(100)), list(range(20))),
    ],
)
def test_a_value_that_was_received_stays_as_far_as_it_is_small(received: Any, kept: Any) -> None:
    assert of_one(error_with(received_value=received))["extra_info"] == {"received_value": kept}


def test_there_are_at_most_twenty_nodes_and_fifty_thousand_characters() -> None:
    entry = {"errors": [error_with()], "dependent_outputs": [], "class_type": "X"}
    assert len(public_refusal({}, {str(number): entry for number in range(30)})["node_errors"]) == 20
    large = {**entry, "errors": [error_with(**{f"a{n}": "é" * 5000 for n in range(19)})] * 30}
    kept = public_refusal({}, {str(number): large for number in range(30)})
    assert len(json.dumps(kept["node_errors"])) <= 50_000


@pytest.mark.parametrize("said", [None, [], "text", 5, {"4": None}, {"4": {"errors": [5], "dependent_outputs": 5}}])
def test_what_makes_no_sense_is_left_out(said: Any) -> None:
    refusal = public_refusal(said, said)
    assert refusal.keys() == {"error", "node_errors"}
    assert all(not entry["errors"] for entry in refusal["node_errors"].values())
