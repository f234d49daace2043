"""Names of models as another system writes them."""

from __future__ import annotations

from typing import Any

import pytest

from src.workflow.schemas import read_schema
from src.workflow.spelling import respell

from ..test_growth import MOST_GROWTH, SMALL, steps
from ..workflows import Workflow, node

NAMES = ["SDXL/foo.safetensors", "a/b\\c.pt", "both/x.pt", "both\\x.pt", "two/y\\z.pt", "two\\y/z.pt", "plain.pt"]
INNER = {"required": {"lora": [NAMES], "more": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "c/d"}]}]}}
SCHEMAS = {
    "Old": read_schema({"input": {"required": {"name": [NAMES], "text": ["STRING"]}}}),
    "New": read_schema({"input": {"optional": {"name": ["COMBO", {"options": NAMES}]}}}),
    "File": read_schema({"input": {"required": {"image": [["in/a.png"], {"image_upload": True}]}}}),
    "Dynamic": read_schema(
        {"input": {"required": {"kind": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a/b", "inputs": INNER}]}]}}}
    ),
    "Unknown": None,
}  # fmt: skip


def respelled(class_type: str, separator: str = "\\", **inputs: Any) -> tuple[dict[str, Any], int, set[str]]:
    """The inputs of one node, the number of warnings, the classes whose lists lack a name."""
    workflow = {"4": node(class_type, **inputs)}
    before = repr(workflow)
    found = respell(workflow, SCHEMAS, separator)
    assert repr(workflow) == before, "its argument was edited"
    return found.workflow["4"]["inputs"], len(found.warnings), set(found.lacking)


@pytest.mark.parametrize("class_type", ["Old", "New"])
def test_a_name_that_only_the_separator_is_wrong_of_is_taken(class_type: str) -> None:
    found = respelled(class_type, name="SDXL\\foo.safetensors", text="a\\b")
    assert found == ({"name": "SDXL/foo.safetensors", "text": "a\\b"}, 1, set())


def test_the_warning_names_node_input_and_what_was_taken() -> None:
    (told,) = respell({"4": node("Old", name="SDXL\\foo.safetensors")}, SCHEMAS, "\\").warnings
    assert told.startswith("node 4 (Old): name was read as 'SDXL/foo.safetensors'")


def test_the_other_way_round_too() -> None:
    assert respelled("Old", "/", name="a/b/c.pt") == ({"name": "a/b\\c.pt"}, 1, set())


@pytest.mark.parametrize(
    ("class_type", "inputs"),
    [
        ("Old", {"name": "both\\x.pt"}),
        ("Old", {"name": "SDXL/foo.safetensors"}),
        ("Old", {"name": "plain.pt"}),
        ("Old", {"name": ["1", 0]}),
        ("Old", {"other": "SDXL\\foo.safetensors"}),
        ("File", {"image": "in\\a.png"}),
        ("Unknown", {"name": "SDXL\\foo.safetensors"}),
    ],
)
def test_what_is_there_and_what_is_no_model_stay(class_type: str, inputs: dict[str, Any]) -> None:
    assert respelled(class_type, **inputs) == (inputs, 0, set())


@pytest.mark.parametrize("name", ["SDXL\\other.safetensors", "two\\y\\z.pt", "sdxl\\foo.safetensors"])
def test_a_name_that_is_not_there_or_fits_two_stays_and_the_class_is_told(name: str) -> None:
    assert respelled("Old", name=name) == ({"name": name}, 0, {"Old"})


def test_inside_a_dynamic_combo_too_whatever_the_order() -> None:
    inputs = {"kind.lora": "SDXL\\foo.safetensors", "kind.more": "c\\d", "kind": "a\\b"}
    found, warnings, lacking = respelled("Dynamic", **inputs)
    assert (found, warnings, lacking) == ({"kind": "a/b", "kind.lora": NAMES[0], "kind.more": "c/d"}, 3, set())


def loaders(size: int) -> Workflow:
    return {str(n): node("Old", name="SDXL\\foo.safetensors") for n in range(size)}


def test_twice_as_many_take_about_twice_the_steps_and_not_all_are_told() -> None:
    few, many = loaders(SMALL), loaders(2 * SMALL)
    assert steps(lambda: respell(many, SCHEMAS, "\\")) < MOST_GROWTH * steps(lambda: respell(few, SCHEMAS, "\\")) + 100
    assert respell(many, SCHEMAS, "\\").warnings[-1] == f"and {2 * SMALL - 20} more such names"
