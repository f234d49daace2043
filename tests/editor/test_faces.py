"""The face of a subgraph node: which values it sends, by the version of the editor that saved the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from src.editor import Converted, class_types, convert, read_document
from src.errors import GuiFormatWorkflow
from src.workflow.schemas import read_schema

from ..editor_files import (
    Json,
    empty,
    invert,
    saved_node,
    with_linked_promoted_widget,
    with_nested_subgraphs,
    with_subgraph,
)

CLASSES: Json = json.loads((Path(__file__).parent.parent / "editor_object_info.json").read_text())["0.21.0"]


def converted(file: Json, version: str | None = None, told: Json = CLASSES) -> Converted:
    """The file as if that version of the editor had saved it."""
    if version is not None:
        file = {**file, "extra": {"frontendVersion": version}}
    document = read_document(file)
    return convert(
        document, {name: read_schema(told[name]) if name in told else None for name in class_types(document)}
    )


def with_proxies(proxies: list[list[str]], values: list[Any]) -> Json:
    """A subgraph used twice; the first one shows such widgets, and has such values for them."""
    file = with_subgraph()
    file["nodes"][1] |= {"properties": {"proxyWidgets": proxies}, "widgets_values": values}
    file["nodes"][2]["widgets_values"] = []
    return file


OWN = [["-1", "scale_by"]]


@pytest.mark.parametrize(
    ("version", "expected", "is_told"),
    [(None, 0.25, True), ("1.37.10", 0.25, False), ("1.43.18", 0.5, True), ("1.49.6", 0.25, False)],
)
def test_a_value_of_its_own_is_sent_as_the_version_that_saved_it_would_and_a_choice_is_told(
    version: str | None, expected: float, is_told: bool
) -> None:
    done = converted(with_proxies(OWN, [0.25]), version)
    assert done.prompt["2:11"]["inputs"]["scale_by"] == expected
    assert done.prompt["3:11"]["inputs"]["scale_by"] == 0.5
    assert bool(done.warnings) == is_told
    assert all(
        warning.startswith("node 2 (Scaling): the editor's versions send different values")
        for warning in done.warnings
    )


@pytest.mark.parametrize("version", [None, "1.37.10", "1.43.18", "1.49.6"])
def test_where_versions_agree_nothing_is_told(version: str | None) -> None:
    for file in (with_proxies(OWN, [0.5]), with_proxies(OWN, []), with_subgraph()):
        assert converted(file, version).warnings == ()


def test_a_widget_inside_that_a_subgraph_node_shows_has_the_value_there_in_that_instance_only() -> None:
    done = converted(with_proxies([["11", "upscale_method"], ["11", "scale_by"]], ["area", 0.25]), "1.37.10")
    first, second = done.prompt["2:11"]["inputs"], done.prompt["3:11"]["inputs"]
    assert (first["upscale_method"], first["scale_by"]) == ("area", 0.25)
    assert (second["upscale_method"], second["scale_by"]) == ("nearest-exact", 0.5)


def test_a_shown_widget_of_a_subgraph_inside_is_found_by_its_name_and_by_the_node_in_it() -> None:
    for proxy in (["21", "scale_by"], ["21", "scale_by", "11"], ["21", "11: scale_by", "11"]):
        file = with_nested_subgraphs()
        outer = file["definitions"]["subgraphs"][1]
        outer["nodes"][0]["inputs"][1]["link"] = None
        outer["links"] = [link for link in outer["links"] if link["id"] != 2]
        outer["inputs"][1]["linkIds"] = []
        file["nodes"][1] |= {"properties": {"proxyWidgets": [proxy]}, "widgets_values": [0.125]}
        assert converted(file, "1.37.10").prompt["2:21:11"]["inputs"]["scale_by"] == 0.125, proxy


def test_a_primitive_inside_that_is_shown_gives_its_targets_the_value_there() -> None:
    file = with_proxies([["20", "value"]], [0.125])
    inner = file["definitions"]["subgraphs"][0]
    inner["nodes"].append(saved_node(20, "PrimitiveNode", [0.75, "fixed"], outputs={"FLOAT": "FLOAT"}))
    inner["links"][1] |= {"origin_id": 20, "origin_slot": 0}
    inner["inputs"][1]["linkIds"] = []
    prompt = converted(file, "1.37.10").prompt
    assert [prompt[node_id]["inputs"]["scale_by"] for node_id in ("2:11", "3:11")] == [0.125, 0.75]


def test_an_empty_value_leaves_what_is_inside_and_is_told() -> None:
    done = converted(with_proxies([["11", "upscale_method"]], [None]), "1.37.10")
    assert done.prompt["2:11"]["inputs"]["upscale_method"] == "nearest-exact"
    assert "for upscale_method the last saved values are sent" in done.warnings[0]


def test_a_value_that_the_editor_has_put_aside_is_sent_if_none_was_saved_since() -> None:
    file = with_subgraph()
    aside = [{"originalEntry": ["-1", "scale_by"], "reason": "missingSourceNode", "hostValue": 0.125}]
    file["nodes"][1] |= {"properties": {"proxyWidgetErrorQuarantine": aside}, "widgets_values": []}
    assert converted(file, "1.49.6").prompt["2:11"]["inputs"]["scale_by"] == 0.125
    file["nodes"][1]["widgets_values"] = [0.75]
    done = converted(file, "1.49.6")
    assert done.prompt["2:11"]["inputs"]["scale_by"] == 0.75
    assert "for scale_by the last saved values are sent" in done.warnings[0]


def test_a_primitive_at_a_subgraph_node_reaches_nothing_inside_in_newer_versions_and_that_is_told() -> None:
    old, new = (converted(with_linked_promoted_widget(), version) for version in ("1.43.18", "1.49.6"))
    assert old.prompt["3:11"]["inputs"]["scale_by"] == 0.3
    assert new.prompt["3:11"]["inputs"]["scale_by"] == 0.5
    assert "not that of the linked primitive 8" in new.warnings[0]


@pytest.mark.parametrize(("version", "expected"), [("1.49.6", "{a|a}"), (None, "{a|a}"), ("1.43.18", "a")])
def test_a_text_that_a_newer_editor_shows_on_the_subgraph_node_is_sent_as_it_is(
    version: str | None, expected: str
) -> None:
    file = with_proxies([["13", "text"]], [])
    told = {**CLASSES, "Text": {"input": {"required": {"text": ["STRING", {"dynamicPrompts": True}]}}, "output": []}}
    file["definitions"]["subgraphs"][0]["nodes"].append(saved_node(13, "Text", ["{a|a}"]))
    prompt = converted(file, version, told).prompt
    assert prompt["2:13"]["inputs"]["text"] == expected
    assert prompt["3:13"]["inputs"]["text"] == "a"


def test_an_input_that_is_linked_to_what_gives_nothing_leaves_the_value_inside() -> None:
    for given in (saved_node(7, "PrimitiveFloat", [0.6], outputs={"FLOAT": "FLOAT"}, mode=2), invert(7, 9, mode=4), saved_node(7, "GetNode", ["x"], outputs={"*": "*"})):  # fmt: skip
        file = with_subgraph()
        file["nodes"][1]["widgets_values"] = [0.25]
        file["nodes"][1]["inputs"][1]["link"] = 8
        file["nodes"] += [given, empty(6)]
        file["links"] += [[8, 7, 0, 2, 1, "FLOAT"], [9, 6, 0, 7, 0, "IMAGE"]]
        assert converted(file).prompt["2:11"]["inputs"]["scale_by"] == 0.5


def test_values_are_taken_by_name_where_a_class_inside_has_changed() -> None:
    file = with_subgraph()
    file["nodes"][1] |= {"widgets_values": ["x", 0.25], "widgets_values_named": {"gone": "x", "scale_by": 0.25}}
    done = converted(file, "1.49.6")
    assert done.prompt["2:11"]["inputs"]["scale_by"] == 0.25
    assert "matched by name" in done.warnings[0]
    del file["nodes"][1]["widgets_values_named"]
    with pytest.raises(GuiFormatWorkflow, match="2 values for the 1 widgets of its inputs"):
        converted(file, "1.49.6")


def test_a_bypassed_node_of_a_dynamic_type_passes_what_the_file_says_that_it_is() -> None:
    told = {
        "Switch": {
            "input": {"required": {name: ["COMFY_MATCHTYPE_V3", {}] for name in ("off", "on")}},
            "output": ["COMFY_MATCHTYPE_V3"],
        },
        "Mask": {"input": {"required": {}}, "output": ["MASK"]},
        "Use": {"input": {"required": {"image": ["IMAGE"]}}, "output": []},
    }
    kinds = {"off": ("MASK", 1), "on": ("IMAGE", 2)}
    nodes = [
        saved_node(1, "Mask", [], outputs={"MASK": "MASK"}),
        empty(2),
        saved_node(3, "Switch", [], kinds, {"output": "IMAGE"}, mode=4),
        saved_node(4, "Use", [], {"image": ("IMAGE", 3)}),
    ]
    links = [[1, 1, 0, 3, 0, "MASK"], [2, 2, 0, 3, 1, "IMAGE"], [3, 3, 0, 4, 0, "IMAGE"]]
    file = {"nodes": nodes, "links": links}
    assert converted(file, told={**CLASSES, **told}).prompt["4"]["inputs"]["image"] == ["2", 0]


# --- Classes that have changed, and options that the user writes -----------------------------------------------


def changed(named: Json | None, values: list[Any]) -> Converted:
    """A node that has fewer inputs here than where it was saved."""
    told = {"C": {"input": {"required": {"width": ["INT", {}], "name": [["p", "q"], {}]}}, "output": []}}
    more = {} if named is None else {"widgets_values_named": named}
    return converted({"nodes": [saved_node(1, "C", values, **more)], "links": []}, told=told)


def test_values_are_taken_by_name_where_the_list_does_not_fit_the_class() -> None:
    done = changed({"mode": "fast", "width": 5, "name": "q"}, ["fast", 5, "q"])
    assert done.prompt["1"]["inputs"] == {"width": 5, "name": "q"}
    assert done.warnings[0].endswith("matched by name, and it no longer has an input for the saved mode")


def test_the_list_goes_first_where_it_fits() -> None:
    done = changed({"width": 7, "name": "p"}, [5, "q"])
    assert done.prompt["1"]["inputs"] == {"width": 5, "name": "q"}
    assert done.warnings == ()


def test_a_list_that_does_not_fit_is_refused_without_the_names() -> None:
    with pytest.raises(GuiFormatWorkflow, match="3 values for its 2 widgets"):
        changed(None, ["fast", 5, "q"])


def test_a_choice_that_a_class_does_not_offer_is_refused_with_that_reason() -> None:
    options = [{"key": "v1", "inputs": {"required": {"size": ["INT", {}]}}}]
    told = {"C": {"input": {"required": {"model": ["COMFY_DYNAMICCOMBO_V3", {"options": options}]}}, "output": []}}
    file = {"nodes": [saved_node(1, "C", ["v2", 5, "fast"])], "links": []}
    with pytest.raises(GuiFormatWorkflow, match="its 'model' is 'v2', which its class does not offer"):
        converted(file, told=told)


COMBO = {"CustomCombo": {"input": {"required": {"choice": ["COMBO", {"options": []}]}}, "output": ["STRING"]}}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", 0, "a", "b", ""], {"choice": "b", "index": 1, "option1": "a", "option2": "b", "option3": ""}),
        (["a", 0, "a"], {"choice": "a", "index": 0, "option1": "a", "option2": ""}),
        (["c", 0, "a", "", "c"], {"choice": "c", "index": -1, "option1": "a", "option2": ""}),
    ],
)
def test_options_that_the_user_writes_are_sent_up_to_the_first_empty_one(values: list[Any], expected: Json) -> None:
    done = converted({"nodes": [saved_node(1, "CustomCombo", values, {"=choice": ("COMBO", None)})], "links": []}, told=COMBO)  # fmt: skip
    assert done.prompt["1"]["inputs"] == expected


def test_the_place_of_a_choice_is_that_of_the_choice_which_is_sent() -> None:
    file = with_subgraph()
    inner = file["definitions"]["subgraphs"][0]
    inner["nodes"].append(saved_node(15, "CustomCombo", ["a", 0, "a", "b", ""], {"=choice": ("COMBO", 9)}))
    inner["links"].append(
        {"id": 9, "origin_id": -10, "origin_slot": 2, "target_id": 15, "target_slot": 0, "type": "COMBO"}
    )
    inner["inputs"].append({"id": "c", "name": "choice", "type": "COMBO", "linkIds": [9]})
    file["nodes"][1]["widgets_values"] = [0.5, "b"]
    file["nodes"][2]["widgets_values"] = []
    done = converted(file, "1.58.0", {**CLASSES, **COMBO})
    first, second = (done.prompt[node_id]["inputs"] for node_id in ("2:15", "3:15"))
    assert (first["choice"], first["index"]) == ("b", 1)
    assert (second["choice"], second["index"]) == ("a", 0)
    assert len(done.warnings) == 1
