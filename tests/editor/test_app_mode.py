"""What a file's author chose for the editor's App Mode: by the names that the editor shows, at places in the prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from src.editor import class_types, convert, read_document
from src.editor.app_mode import App
from src.workflow.schemas import read_schema

from ..editor_files import (
    Json,
    empty,
    save,
    saved,
    saved_node,
    with_nested_subgraphs,
    with_primitive,
    with_promoted_values,
    with_subgraph,
)

CLASSES: Json = json.loads((Path(__file__).parent.parent / "editor_object_info.json").read_text())["0.21.0"]
GRAPH = "e13112f7-3d09-4ae1-9e84-633a0627d945"


def app_of(file: Json, inputs: Any, outputs: Any = ()) -> App | None:
    """What the author of the file chose, had it been these."""
    chosen = {"inputs": inputs, "outputs": list(outputs)}
    document = read_document({**file, "extra": {"linearData": chosen}})
    schemas = {name: read_schema(CLASSES[name]) if name in CLASSES else None for name in class_types(document)}
    return convert(document, schemas).app


def named(file: Json, inputs: Any, outputs: Any = ()) -> dict[str, list[tuple[str, str]]]:
    """Name to targets."""
    app = app_of(file, inputs, outputs)
    return (
        {}
        if app is None
        else {entry.name: [(target.node_id, target.name) for target in entry.targets] for entry in app.inputs}
    )


def two_pictures() -> Json:
    """Two pictures; one has a title, and a width that the user has renamed."""
    first, second = empty(1), empty(2, title="Second")
    second["inputs"] = [
        {"name": "width", "type": "INT", "link": None, "label": "How wide", "widget": {"name": "width"}}
    ]
    return saved([first, second, save(3, 1), save(4, 2)], [[1, 1, 0, 3, 0, "IMAGE"], [2, 2, 0, 4, 0, "IMAGE"]])


def test_inputs_come_in_the_authors_order_by_the_names_that_the_editor_shows() -> None:
    chosen = [["2", "width"], [1, "width"], ["1", "color", {"description": "?"}]]
    assert list(named(two_pictures(), chosen).items()) == [
        ("How wide", [("2", "width")]),
        ("width", [("1", "width")]),
        ("color", [("1", "color")]),
    ]


def test_equal_names_have_the_title_of_their_node_and_its_id_where_that_is_equal_too() -> None:
    chosen = [[1, "height"], [2, "height"]]
    assert list(named(two_pictures(), chosen)) == ["height (Empty Image)", "height (Second)"]
    file = two_pictures()
    file["nodes"][0]["title"] = "Second"
    assert list(named(file, chosen)) == ["height (Second, node 1)", "height (Second, node 2)"]


@pytest.mark.parametrize(
    "entry",
    [
        [f"{GRAPH}:2:scale_by", "scale_by"],
        ["2", "scale_by"],
        ["6f0d9c1e-0000-4000-8000-000000000001:2", "scale_by"],
    ],
)
def test_a_promoted_widget_is_set_at_the_node_inside(entry: list[str]) -> None:
    assert named(with_subgraph(), [entry]) == {"scale_by": [("2:11", "scale_by")]}


def test_the_parts_of_an_id_are_encoded() -> None:
    assert named(two_pictures(), [[f"{GRAPH}:1:%77idth", "?"]]) == {"width": [("1", "width")]}


def test_a_value_that_goes_to_several_nodes_is_set_at_all_of_them() -> None:
    file = with_subgraph()
    inner = file["definitions"]["subgraphs"][0]
    other = saved_node(15, "ImageScaleBy", ["nearest-exact", 1], {"image": ("IMAGE", 3), "=scale_by": ("FLOAT", 8)}, {"IMAGE": "IMAGE"})  # fmt: skip
    inner["nodes"].append(other)
    inner["inputs"][1]["linkIds"].append(8)
    inner["links"].append(
        {"id": 8, "origin_id": -10, "origin_slot": 1, "target_id": 15, "target_slot": 1, "type": "FLOAT"}
    )
    assert named(file, [["2", "scale_by"]]) == {"scale_by": [("2:11", "scale_by"), ("2:15", "scale_by")]}
    assert named(with_primitive(), [["1", "value"]]) == {"value": [("2", "width"), ("2", "height")]}


def test_a_widget_that_is_promoted_twice_is_set_where_it_is() -> None:
    assert named(with_nested_subgraphs(), [["2", "scale_by"]]) == {"scale_by": [("2:21:11", "scale_by")]}


def test_an_older_file_tells_the_node_inside_if_one_subgraph_node_shows_it() -> None:
    file = with_subgraph()
    assert named(file, [["11", "scale_by"]]) == {}, "two show it"
    file = with_nested_subgraphs()
    assert named(file, [["21", "scale_by"]]) == {"scale_by": [("2:21:11", "scale_by")]}
    shown = with_nested_subgraphs()
    shown["nodes"][1]["properties"]["proxyWidgets"] = [["20", "upscale_method"]]
    outer = shown["definitions"]["subgraphs"][1]
    outer["nodes"].append(saved_node(20, "ImageScaleBy", ["area", 2], {"image": ("IMAGE", None)}, {"IMAGE": "IMAGE"}))
    assert named(shown, [["20", "upscale_method"]]) == {"upscale_method": [("2:20", "upscale_method")]}


def test_what_is_not_there_any_more_is_left_out() -> None:
    file = with_promoted_values()
    muted = two_pictures()
    muted["nodes"][0]["mode"] = 2
    linked = with_primitive()
    for given, entry in (
        (file, ["99", "width"]),
        (file, [1, "no such widget"]),
        (file, ["1"]),
        (file, 7),
        (file, [None, "width"]),
        (muted, [1, "width"]),
        (linked, [2, "width"]),
    ):
        assert app_of(given, [entry]) is None, entry
    assert app_of(file, 5, "?") is None


def test_outputs_are_nodes_of_the_prompt_also_those_inside_a_subgraph() -> None:
    file = with_subgraph()
    inner = file["definitions"]["subgraphs"][0]
    inner["nodes"].append(save(14, 9))
    inner["links"].append(
        {"id": 9, "origin_id": 12, "origin_slot": 0, "target_id": 14, "target_slot": 0, "type": "IMAGE"}
    )
    app = app_of(file, [], ["4", 4, 2, "77"])
    assert app is not None
    assert app.outputs == ("4", "2:14")


def test_a_file_without_a_choice_has_none() -> None:
    assert app_of(with_subgraph(), []) is None
