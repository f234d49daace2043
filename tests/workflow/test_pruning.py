"""Nodes that ComfyUI could not take and that no output needs."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from src.workflow.pruning import without_unneeded
from src.workflow.schemas import read_schema

from ..conftest import Bench
from ..test_growth import MOST_GROWTH, SMALL, steps
from ..workflows import Workflow, node, still

PLAIN = read_schema({"input": {"required": {"image": ["IMAGE"]}}, "output": ["IMAGE"], "output_node": False})
OUTPUT = read_schema({"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True})
LONE = {"8": node("NoSuch", text="x")}
DEAD = {"8": node("NoSuch", image=["1", 0]), "9": node("ImageInvert", image=["8", 0])}
DANGLING = {"8": node("ImageInvert", image=["99", 0]), "9": node("ImageInvert", image=["8", 0])}


def pruned(workflow: Workflow, replaced: Any = ()) -> tuple[set[str], list[str]]:
    """The nodes that are left, and the warnings."""
    known = {"SaveImage": OUTPUT, "EmptyImage": PLAIN, "ImageInvert": PLAIN, "ImageScale": PLAIN}
    schemas = {n["class_type"]: known.get(n["class_type"]) for n in workflow.values()}
    left, told = without_unneeded(workflow, schemas, replaced)
    return set(left), told


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (LONE, ["no such node class: 8 (NoSuch)"]),
        (DEAD, ["no such node class: 8 (NoSuch)", "depend on nodes that were left out: 9 (ImageInvert)"]),
        (DANGLING, ["does not have: 8 (ImageInvert)", "depend on nodes that were left out: 9 (ImageInvert)"]),
    ],
)
def test_what_no_output_needs_is_left_out_and_named(more: Workflow, words: list[str]) -> None:
    left, told = pruned({**more, **still()})
    assert left == set(still())
    assert [line.endswith(word) for line, word in zip(told, words, strict=True)] == [True] * len(words)


def test_a_sound_workflow_stays_as_it_is() -> None:
    workflow = {**still(), "9": node("ImageInvert", image=["1", 0])}
    assert without_unneeded(
        workflow, dict.fromkeys(("EmptyImage", "ImageInvert", "ImageScale"), PLAIN) | {"SaveImage": OUTPUT}
    ) == (workflow, [])


KEPT = {
    "needed": {"2": node("NoSuch", image=["1", 0])},
    "needed, with a link to nowhere": {"2": node("ImageInvert", image=["99", 0])},
    "an output perhaps": {"8": node("NoSuch", image=["3", 0])},
    "an output perhaps, behind another": {"8": node("NoSuch", image=["3", 0]), "9": node("NoMore", image=["8", 0])},
    "an output perhaps, with a link to nowhere": {"8": node("NoSuch", image=["99", 0])},
    "an output that is known": {"8": node("SaveImage", images=["99", 0])},
    "no output": {"4": node("NoSuch", images=["3", 0])},
}


@pytest.mark.parametrize("more", KEPT.values(), ids=KEPT.keys())
def test_what_an_output_needs_or_may_be_one_is_left_to_be_refused(more: Workflow) -> None:
    workflow = {**still(), **more}
    assert pruned(workflow) == (set(workflow), [])


def test_a_class_that_comfyui_replaces_is_known_to_it() -> None:
    workflow = {**still(), "2": node("Old", image=["1", 0]), "8": node("Old", image=["7", 0]), "7": node("EmptyImage")}
    assert pruned(workflow, {"Old"}) == (set(workflow), [])


@pytest.mark.parametrize("more", [LONE, DEAD, DANGLING], ids=["lone", "dead", "dangling"])
@pytest.mark.parametrize("fields", [{}, {"overrides": {"1": {"inputs": {"width": 32}}}}])
def test_a_job_runs_in_spite_of_them_and_says_so(bench: Bench, more: Workflow, fields: dict[str, Any]) -> None:
    answer = bench.run(workflow={**still(), **more}, **fields)
    assert answer["status"] == "success", answer
    assert "left out, as no output needs them" in answer["warnings"][0]
    assert "8 (" in answer["warnings"][0]
    checked = bench.run(workflow={**still(), **more}, action="validate", **fields)
    assert (checked["valid"], checked["warnings"]) == (True, answer["warnings"])


@pytest.mark.parametrize("action", ["run", "validate"])
def test_a_link_to_nowhere_in_a_needed_node_is_the_same_error_as_ever(bench: Bench, action: str) -> None:
    workflow = {**still(), **DANGLING, "2": node("ImageInvert", image=["99", 0])}
    answer = bench.run(workflow=workflow, action=action)
    assert answer["error_code"] == "invalid_workflow"
    assert "node 2 (ImageInvert): its input 'image' is linked to node '99', which the workflow" in answer["error"]


def test_an_unknown_class_that_is_needed_is_the_same_error_as_ever(bench: Bench) -> None:
    answer = bench.run(workflow={**still(), **LONE, "2": node("NoMore", image=["1", 0])})
    assert answer["error_code"] == "missing_node_type"
    assert "'NoMore'" in answer["error"]


def test_what_is_left_out_is_not_in_the_pictures_metadata_and_is_told_with_an_error_too(bench: Bench) -> None:
    workflow = {**still(), **LONE}
    (picture,) = bench.run(workflow=workflow, output={"metadata": True})["images"]
    prompt = json.loads(Image.open(io.BytesIO(base64.b64decode(picture))).info["prompt"])
    assert prompt.keys() == still().keys()
    note = {"77": node("Note", text="read me")}
    answer = bench.run(workflow={**workflow, **note}, overrides={"99": {"inputs": {"text": "y"}}})
    assert answer["error_code"] == "override_target"
    assert "77 (Note)" in answer["warnings"][0]


def test_a_value_for_a_node_that_is_left_out_does_no_harm(bench: Bench) -> None:
    answer = bench.run(workflow={**still(), **LONE}, overrides={"8": {"inputs": {"text": "y"}}})
    assert answer["status"] == "success", answer


def unneeded(size: int) -> Workflow:
    """Chains and single nodes that are all left out."""
    links = {f"d{n}": node("ImageInvert", image=[f"d{n - 1}" if n else "none", 0]) for n in range(size)}
    return {**still(), **links, **{f"u{n}": node(f"No{n}", image=n) for n in range(size)}}


def test_twice_as_many_take_about_twice_the_steps() -> None:
    few, many = unneeded(SMALL), unneeded(2 * SMALL)
    assert len(pruned(many)[0]) == len(still())
    assert steps(lambda: pruned(many)) < MOST_GROWTH * steps(lambda: pruned(few)) + 100


# --- Lists that look like links --------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["run", "validate"])
def test_a_link_by_a_number_is_refused_with_how_it_is_written(bench: Bench, action: str) -> None:
    answer = bench.run(workflow={**still(), "2": node("ImageInvert", image=[1, 0])}, action=action)
    words = "its input 'image' must be linked by a node id that is a string and an output number, like [\"1\", 0]"
    assert words in answer["error"]


def test_a_list_of_numbers_where_no_class_declares_it_is_a_value(bench: Bench) -> None:
    workflow = {**still(), "1": node("EmptyImage", width=64, height=64, batch_size=1, color=0, size=[2, 3])}
    assert bench.run(workflow=workflow)["status"] == "success"
    assert bench.run(workflow=workflow, action="validate")["valid"] is True


@pytest.mark.parametrize("value", [[512, 768], [1, 2, 3], [], [["1", 0], 0], [None, None]])
def test_a_list_where_comfyui_takes_a_link_is_told_how_to_write_a_value(bench: Bench, value: Any) -> None:
    workflow = {**still(), "1": node("EmptyImage", width=value, height=64, batch_size=1, color=0)}
    answer = bench.run(workflow=workflow)
    assert answer["error_code"] == "invalid_workflow"
    assert 'a list that is a value is written {"__value__": [...]}' in answer["error"]
    checked = bench.run(workflow=workflow, action="validate")
    assert [problem["reason"] for problem in checked["problems"]] == ["bad_linked_input"]


def test_a_list_in_a_node_that_does_not_run_does_no_harm(bench: Bench) -> None:
    answer = bench.run(workflow={**still(), "9": node("ImageInvert", image=[1, 0])})
    assert answer["status"] == "success", answer
