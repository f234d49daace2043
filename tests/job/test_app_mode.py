"""The inputs that a workflow's author chose in the editor are a job's by the names that its author gave them."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from src.editor import App, AppInput, set_app_inputs
from src.workflow.graph import Slot

from ..conftest import Bench
from ..editor_files import Json, saved, saved_node
from ..workflows import node


def app(*chosen: list[str]) -> Json:
    """A picture whose author chose these inputs; its width has a name of the author's own."""
    picture = saved_node(1, "EmptyImage", [64, 64, 1, 255], outputs={"IMAGE": "IMAGE"})
    picture["inputs"] = [
        {"name": "width", "type": "INT", "link": None, "label": "How wide", "widget": {"name": "width"}}
    ]
    saver = saved_node(2, "SaveImage", ["app"], {"images": ("IMAGE", 1)})
    data = {"inputs": list(chosen), "outputs": ["2"]}
    return saved([picture, saver], [[1, 1, 0, 2, 0, "IMAGE"]], extra={"linearData": data})


CHOSEN = (["1", "width"], ["1", "color"])


def size(answer: dict[str, Any]) -> tuple[int, int]:
    """Of the one picture in an answer."""
    assert answer["status"] == "success", answer
    (picture,) = answer["images"]
    return Image.open(io.BytesIO(base64.b64decode(picture))).size


def test_an_input_is_set_by_the_authors_name(bench: Bench) -> None:
    assert size(bench.run(workflow=app(*CHOSEN), inputs={"How wide": 96})) == (96, 64)
    more = {"1": {"inputs": {"height": 80}}}
    assert size(bench.run(workflow=app(*CHOSEN), inputs={"color": 0}, overrides=more)) == (64, 80)


def test_the_authors_inputs_are_shown_before_what_is_traced(draft_bench: Bench) -> None:
    answer = draft_bench.run(action="validate", workflow=app(*CHOSEN))
    named = ("name", "value", "node_id", "title", "given_in")
    assert [{name: field[name] for name in named} for field in answer["fields"][:2]] == [
        {"name": "How wide", "value": 64, "node_id": "1", "title": "EmptyImage", "given_in": "inputs"},
        {"name": "color", "value": 255, "node_id": "1", "title": "EmptyImage", "given_in": "inputs"},
    ]
    assert {field["name"] for field in answer["fields"][2:]} == {"width", "height", "batch_size"}


def test_a_name_that_the_author_did_not_choose_lists_those_there_are(draft_bench: Bench) -> None:
    answer = draft_bench.run(workflow=app(*CHOSEN), inputs={"How wyde": 96})
    assert (answer["error_type"], answer["field"]) == ("validation", "inputs")
    assert "chose 'How wide', 'color', not 'How wyde'; did you mean 'How wide'?" in answer["error"]
    answer = draft_bench.run(workflow=app(), inputs={"How wide": 96})
    assert "this workflow has no App Mode inputs" in answer["error"]


def test_an_authors_input_and_a_field_for_the_same_place_are_an_error(draft_bench: Bench) -> None:
    answer = draft_bench.run(workflow=app(*CHOSEN), inputs={"How wide": 96}, width=128, height=128)
    assert answer["error_code"] == "override_target"
    assert "inputs['How wide'] and width and height would both go into width of node 1 (EmptyImage)" in answer["error"]


def test_a_value_that_does_not_fit_is_refused_before_the_run(bench: Bench) -> None:
    answer = bench.run(workflow=app(*CHOSEN), inputs={"How wide": "broad"})
    assert (answer["error_type"], "prompt_id" in answer) == ("validation", False)
    assert "width must be of type INT, not 'broad'" in answer["error"]


def test_an_authors_input_and_an_override_of_the_same_place_are_an_error(draft_bench: Bench) -> None:
    answer = draft_bench.run(
        workflow=app(*CHOSEN), inputs={"How wide": 96}, overrides={"1": {"inputs": {"width": 80}}}
    )
    assert answer["error_type"] == "validation"
    assert "inputs['How wide'] and overrides would both go into width of node 1 (EmptyImage)" in answer["error"]
    assert size(draft_bench.run(workflow=app(*CHOSEN), inputs={"How wide": None, "color": None})) == (64, 64)


def test_a_custom_combo_of_the_authors_keeps_the_place_of_its_choice() -> None:
    prompt = {
        "1": {"class_type": "CustomCombo", "inputs": {"choice": "a", "index": 0, "option1": "a", "option2": "b"}}
    }
    chosen = App((AppInput("Which", (Slot("1", "choice"),)),), ())
    changed, called = set_app_inputs(prompt, chosen, {"Which": "b"})
    assert changed["1"]["inputs"] == {"choice": "b", "index": 1, "option1": "a", "option2": "b"}
    assert called == {Slot("1", "choice"): "inputs['Which']"}


def test_a_value_that_comfyui_would_make_another_of_is_refused_before_the_run(bench: Bench) -> None:
    workflow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "2": node("SaveAnimatedWEBP", images=["1", 0], filename_prefix="o", fps=6, lossless=True, quality=80,
                  method="default"),
    }  # fmt: skip
    wrong = [
        ("filename_prefix", None, "STRING, not null"),
        ("filename_prefix", True, "STRING, not true"),
        ("lossless", "false", "BOOLEAN, not 'false'"),
        ("lossless", None, "BOOLEAN, not null"),
    ]
    for name, value, words in wrong:
        answer = bench.run(workflow=workflow, overrides={"2": {"inputs": {name: value}}})
        assert f"{name} must be of type {words}" in answer["error"]
    fitting = {"filename_prefix": 7, "lossless": 0, "fps": "5"}
    assert bench.run(workflow=workflow, overrides={"2": {"inputs": fitting}})["status"] == "success"
