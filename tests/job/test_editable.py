"""`action: validate` says of each field what ComfyUI says of its input."""

from __future__ import annotations

from typing import Any

import pytest

from src.job.editable import widget_of
from src.workflow.schemas import read_inputs

from .. import workflows
from ..conftest import Bench
from ..editor_files import saved, saved_node
from ..workflows import node
from .test_app_mode import app


def fields_of(bench: Bench, workflow: Any) -> dict[str, dict[str, Any]]:
    answer = bench.run(action="validate", workflow=workflow)
    assert answer["status"] == "success", answer
    return {field["name"]: field for field in answer["fields"]}


def test_fields_have_the_types_limits_and_options_of_their_inputs(bench: Bench) -> None:
    fields = fields_of(bench, workflows.generative())
    assert fields["prompt"]["type"] == "STRING"
    assert {name: fields["steps"][name] for name in ("type", "min", "max")} == {"type": "INT", "min": 1, "max": 10000}
    cfg = {"type": "FLOAT", "min": 0.0, "max": 100.0, "step": 0.1}
    assert {name: fields["cfg"][name] for name in cfg} == cfg
    assert fields["seed"]["max"] == 2**64 - 1
    assert fields["width"]["step"] > 1
    assert (fields["sampler_name"]["type"], fields["scheduler"]["type"]) == ("COMBO", "COMBO")
    assert "euler" in fields["sampler_name"]["options"]
    assert "simple" in fields["scheduler"]["options"]
    assert "options" not in fields["steps"]


def test_a_value_that_another_node_holds_has_the_limits_of_the_input_that_takes_it(draft_bench: Bench) -> None:
    workflow = workflows.generative()
    workflow["50"] = node("PrimitiveInt", value=7)
    workflow["8"]["inputs"]["steps"] = ["50", 0]
    steps = fields_of(draft_bench, workflow)["steps"]
    assert (steps["value"], steps["min"], steps["max"]) == (7, 1, 10000)


def test_what_the_author_chose_has_a_type_too(bench: Bench) -> None:
    width = fields_of(bench, app(["1", "width"]))["How wide"]
    assert (width["type"], width["min"]) == ("INT", 1)


def widget(*config: Any) -> dict[str, Any]:
    return widget_of(read_inputs({"required": {"x": list(config)}})["x"])


@pytest.mark.parametrize("kind", [["a", "b"], "COMBO"])
def test_options_of_both_kinds_of_nodes(kind: Any) -> None:
    parameters = {"options": ["a", "b"]} if kind == "COMBO" else {}
    assert widget(kind, parameters) == {"type": "COMBO", "options": ["a", "b"]}


def test_long_lists_input_files_and_odd_parameters_are_left_out() -> None:
    assert widget([str(n) for n in range(300)])["options"][-1] == "299"
    assert widget([str(n) for n in range(301)]) == {"type": "COMBO"}
    assert widget(["a.png"], {"image_upload": True}) == {"type": "COMBO"}
    assert widget([]) == {"type": "COMBO"}
    assert widget([["a"], None]) == {"type": "COMBO"}
    assert widget("INT", {"min": True, "max": float("inf"), "step": "1"}) == {"type": "INT"}


def test_all_options_together_are_bounded(draft_bench: Bench) -> None:
    """A sampler's list has some 40 names: a workflow of many samplers does not make a response of many lists."""
    count = 200
    nodes = [saved_node(1, "EmptyImage", [64, 64, 1, 255], outputs={"IMAGE": "IMAGE"})]
    nodes.append(saved_node(2, "SaveImage", ["app"], {"images": ("IMAGE", 1)}))
    nodes.extend(saved_node(n, "KSamplerSelect", ["euler"], outputs={"SAMPLER": "SAMPLER"}) for n in range(3, count))
    chosen = {"inputs": [[str(n), "sampler_name"] for n in range(3, count)], "outputs": ["2"]}
    file = saved(nodes, [[1, 1, 0, 2, 0, "IMAGE"]], extra={"linearData": chosen})
    fields = fields_of(draft_bench, file)
    of_samplers = [field for field in fields.values() if field["type"] == "COMBO"]
    assert len(of_samplers) == count - 3
    listed = [field["options"] for field in of_samplers if "options" in field]
    assert listed
    assert sum(map(len, listed)) <= 3_000
