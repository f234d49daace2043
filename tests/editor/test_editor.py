"""The editor's own save format, converted: as the editor itself exports it, or refused with the reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.editor import Converted, class_types, convert, is_editor_workflow, read_document
from src.editor.dynamic_prompts import choose_texts
from src.editor.values import ConversionContext
from src.errors import GuiFormatWorkflow, InvalidWorkflow
from src.job.request import read_job
from src.workflow import check_workflow
from src.workflow.schemas import read_schema

from ..conftest import Bench
from ..editor_files import (
    DIFFER,
    FILES,
    FRONTENDS,
    empty,
    generative,
    invert,
    save,
    saved,
    saved_node,
    with_bypassed,
    with_primitive,
    with_promoted_values,
    with_reroutes,
    with_subgraph,
)
from ..worker_process import ROOT

HERE = Path(__file__).parent.parent
TOLD: dict[str, Any] = json.loads((HERE / "editor_object_info.json").read_text())
EXPORTS: dict[str, Any] = json.loads((HERE / "editor_exports.json").read_text())
LAST = "0.21.0"


def converted(file: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The file in API format, without titles."""
    document = read_document(file)
    schemas = {name: read_schema(told[name]) if name in told else None for name in class_types(document)}
    prompt = convert(document, schemas).prompt
    return {node_id: {k: v for k, v in node.items() if k != "_meta"} for node_id, node in prompt.items()}


@pytest.mark.parametrize(
    ("version", "name"),
    [(version, name) for version in EXPORTS for name in EXPORTS[version] if (version, name) not in DIFFER],
)
def test_a_file_becomes_what_the_editor_itself_exports(version: str, name: str) -> None:
    file = FILES[name]()
    file["extra"] = {"frontendVersion": FRONTENDS[version]}
    assert converted(file, TOLD[version]) == EXPORTS[version][name]


# --- What other editors, packs and versions save -------------------------------------------------------------

NEW, OLD = TOLD[LAST], TOLD["0.3.64"]


def class_of(*inputs: tuple[str, Any], outputs: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """What /object_info would say of a class with such inputs, all required."""
    return {"input": {"required": dict(inputs)}, "output": list(outputs), **more}


def test_what_is_set_is_got_by_its_name() -> None:
    file = saved(
        [
            empty(1),
            saved_node(2, "SetNode", ["picture"], {"IMAGE": ("IMAGE", 1)}, {"*": "*"}),
            saved_node(3, "GetNode", ["picture"], outputs={"IMAGE": "IMAGE"}),
            saved_node(4, "Reroute (rgthree)", None, {"": ("*", 2)}, {"": "*"}),
            save(5, 3),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 3, 0, 4, 0, "IMAGE"], [3, 4, 0, 5, 0, "IMAGE"]],
    )
    assert converted(file, NEW)["5"]["inputs"]["images"] == ["1", 0]
    assert converted(file, NEW).keys() == {"1", "5"}


def test_a_primitive_without_a_value_has_that_of_its_first_target() -> None:
    file = with_primitive()
    del file["nodes"][0]["widgets_values"]
    inputs = converted(file, NEW)["2"]["inputs"]
    assert (inputs["width"], inputs["height"]) == (64, 64)


def test_former_names_of_classes_are_known() -> None:
    sockets = {"conditioning_to": ("CONDITIONING", None), "conditioning_from": ("CONDITIONING", None)}
    told = {"ConditioningAverage": class_of(("conditioning_to_strength", ["FLOAT", {"default": 1.0}]))}
    file = saved([saved_node(1, "ConditioningAverage ", [0.5], sockets)], [])
    assert converted(file, told)["1"] == {
        "class_type": "ConditioningAverage",
        "inputs": {"conditioning_to_strength": 0.5},
    }


def test_values_by_name_are_taken_by_name_also_those_that_a_script_added() -> None:
    told = {
        "VHS_VideoCombine": class_of(
            ("images", ["IMAGE"]), ("frame_rate", ["FLOAT", {}]), ("format", [["a", "b"], {}])
        )
    }
    values = {"frame_rate": 8, "format": "b", "crf": 19, "videopreview": {"hidden": False}}
    file = saved([saved_node(1, "VHS_VideoCombine", values, {"images": ("IMAGE", None)})], [])
    assert converted(file, told)["1"]["inputs"] == {"frame_rate": 8, "format": "b", "crf": 19}


def test_a_list_is_wrapped_so_that_nobody_takes_it_for_a_link() -> None:
    told = {"C": class_of(("names", [["1", "2"], {"multi_select": True}]), ("curve", ["CURVE", {}]))}
    file = saved([saved_node(1, "C", [["1", 0], [[0, 0], [1, 1]]])], [])
    assert converted(file, told)["1"]["inputs"] == {
        "names": {"__value__": ["1", 0]},
        "curve": {"__type__": "CURVE", "__value__": [[0, 0], [1, 1]]},
    }


def test_what_a_node_showed_of_its_last_run_is_not_sent() -> None:
    told = {"ImageCompare": class_of(("compare_view", ["IMAGECOMPARE", {}]))}
    for values in ([], [{"before": "a", "after": "b"}], ["a", "b"]):
        file = saved([saved_node(1, "ImageCompare", values)], [])
        assert converted(file, told)["1"]["inputs"] == {"compare_view": {"__value__": ["", ""]}}


def test_a_colour_that_older_editors_saved_twice_is_one() -> None:
    told = {
        "Painter": class_of(
            ("mask", ["STRING", {"widgetType": "PAINTER", "image_upload": True}]), ("bg", ["COLOR", {}])
        )
    }
    file = saved([saved_node(1, "Painter", ["a.png [input]", "#000000", "#000000"])], [])
    assert converted(file, told)["1"]["inputs"] == {"mask": "a.png [input]", "bg": "#000000"}


def test_nothing_in_place_of_a_choice_is_the_first_option() -> None:
    told = {"C": class_of(("name", [["p", "q"], {}]), ("size", ["INT", {}]))}
    assert converted(saved([saved_node(1, "C", [None, 5])], []), told)["1"]["inputs"] == {"name": "p", "size": 5}


def test_inputs_that_were_widgets_once_have_no_place_if_the_file_counts_them() -> None:
    told = {"C": class_of(("a", ["INT", {"forceInput": True}]), ("seed", ["INT", {}]), ("b", ["STRING", {}]))}
    old = saved([saved_node(1, "C", [9, 5, "fixed", "x"])], [])
    assert converted(old, told)["1"]["inputs"] == {"seed": 5, "b": "x"}


def test_a_combo_has_two_controls_behind_it() -> None:
    told = {
        "C": class_of(
            ("name", ["COMBO", {"options": ["p", "q"], "control_after_generate": True}]),
            ("any", ["*", {}]),
            ("kind", ["FLOAT", {"widgetType": "STRING"}]),
        )
    }
    file = saved([saved_node(1, "C", ["q", "increment", "/x/", "k"])], [])
    assert converted(file, told)["1"]["inputs"] == {"name": "q", "kind": "k"}


def test_placeholders_of_a_file_name_are_filled_in_by_the_editor() -> None:
    told = {"SaveImage": NEW["SaveImage"], "EmptyImage": NEW["EmptyImage"]}
    node = save(2, 1, "%date:yyyy-MM-dd_hh.mm.ss%/%Empty/1.width%%Other.width%%width%%a.b.c%")
    file = saved([{**empty(1), "properties": {"Node name for S&R": "Empty/1"}}, node], [[1, 1, 0, 2, 0, "IMAGE"]])
    document = read_document(file)
    schemas = {name: read_schema(told[name]) for name in class_types(document)}
    moment = ConversionContext(time.struct_time((2026, 3, 4, 5, 6, 7, 0, 0, 0)))
    prefix = convert(document, schemas, moment).prompt["2"]["inputs"]["filename_prefix"]
    assert prefix == "2026-03-04_05.06.07/64%Other.width%%width%%a.b.c%"


def test_one_of_several_texts_is_chosen_as_the_editor_does() -> None:
    told = {"T": class_of(("text", ["STRING", {"dynamicPrompts": True}]))}
    document = read_document(saved([saved_node(1, "T", ["{a|{b|c}} \\{d\\|\\} {e|f"])], []))
    schemas = {"T": read_schema(told["T"])}
    first = convert(document, schemas, ConversionContext(time.localtime(), lambda options: options[0])).prompt
    last = convert(document, schemas, ConversionContext(time.localtime(), lambda options: options[-1])).prompt
    assert [prompt["1"]["inputs"]["text"] for prompt in (first, last)] == ["a {d|} e", "c {d|} f"]


def test_titles_and_only_they_go_into_meta() -> None:
    document = read_document(generative())
    prompt = convert(document, {name: read_schema(OLD[name]) for name in class_types(document)}).prompt
    assert prompt["3"]["_meta"] == {"title": "Sampler"}
    assert check_workflow(prompt) == prompt


# --- What is refused -----------------------------------------------------------------------------------------


def two(node: dict[str, Any], *links: list[Any], **more: Any) -> dict[str, Any]:
    """A node that is saved."""
    return saved([node, save(9, 9)], [[9, node["id"], 0, 9, 0, "IMAGE"], *links], **more)


def in_a_circle() -> dict[str, Any]:
    """Two reroutes that lead to each other."""
    nodes = [saved_node(n, "Reroute", None, {"": ("*", n)}, {"": "*"}) for n in (1, 2)]
    return saved([*nodes, save(3, 3)], [[1, 2, 0, 1, 0, "*"], [2, 1, 0, 2, 0, "*"], [3, 2, 0, 3, 0, "IMAGE"]])


def in_itself() -> dict[str, Any]:
    """A subgraph that holds itself."""
    file = with_subgraph()
    file["definitions"]["subgraphs"][0]["nodes"].append({**file["nodes"][1], "id": 99})
    return file


SAMPLER = generative()["nodes"][4]
REFUSED = {
    "unknown class": (two(saved_node(1, "NoSuchNode", [], outputs={"IMAGE": "IMAGE"})), "1", "no such node class"),
    "unknown node of a script": (two(saved_node(1, "Power Puter (editor)", [])), "1", "no such node class"),
    "group node": (two(saved_node(1, "workflow>mine", [])), "1", "it is a group node"),
    "one value too few": (two({**SAMPLER, "inputs": [], "widgets_values": [42, 20, 7.5, "euler", "normal", 1]}), "3", "6 values for its 7"),
    "one value too many": (two({**SAMPLER, "inputs": [], "widgets_values": [*SAMPLER["widgets_values"], 5]}), "3", "8 values for its 7"),
    "values by name that lack one": (two(saved_node(1, "NoDefault", {"width": 1})), "1", "no value for mode, and its class has no default"),
    "values of a script's own widgets": (two(saved_node(1, "ImageInvert", [{}, {"on": True, "lora": "a.safetensors"}], {"image": ("IMAGE", None)}, {"IMAGE": "IMAGE"})), "1", "2 values for its 0"),
    "other number of promoted values": (two({**with_subgraph()["nodes"][1], "id": 1, "inputs": [], "widgets_values": [1, 2]}, definitions=with_subgraph()["definitions"]), "1", "2 values for the 1 widgets"),
    "two setters": (saved([*(saved_node(n, "SetNode", ["x"], {"*": ("*", None)}, {"*": "*"}) for n in (1, 2)), saved_node(3, "GetNode", ["x"], outputs={"*": "*"}), save(9, 9)], [[9, 3, 0, 9, 0, "IMAGE"]]), "3", "several other nodes set 'x'"),
    "subgraph that is not there": (two(saved_node(1, "6f0d9c1e-0000-4000-8000-00000000000f")), "1", "whose definition is not in the file"),
    "sender": (saved([empty(1) | {"properties": {"ue_properties": {"ue_convert": True}}}, save(9, None)], []), "1", "connects nodes when the editor queues"),
    "too many nodes": (saved([empty(n) for n in range(5001)], []), None, "more than 5000 nodes"),
    "dangling link": (two(invert(1, 77)), "1", "a link that does not exist"),
    "link to no node": (two(invert(1, 5), [5, 44, 0, 1, 0, "IMAGE"]), "1", "a node that does not exist"),
    "circle": (in_a_circle(), "2", "form a cycle"),
    "subgraph in itself": (in_itself(), None, "nested more than 30 deep"),
    "picture of a camera": (two(saved_node(1, "WebcamCapture", [])), "1", "the browser creates its values"),
    "two of one id": (saved([empty(1), empty(1)], []), "1", "the same id"),
    "nothing left": (saved([empty(1, mode=2)], []), None, "all of its nodes are muted"),
    "nodes that are none": ({"nodes": [1]}, None, "nodes must be a list of objects"),
    "a node without a type": ({"nodes": [{"id": 1}]}, None, "no id or no type"),
    "links that are none": ({"nodes": [], "links": {"1": 2}}, None, "its links are not a list"),
}  # fmt: skip
NEWER = {
    **NEW,
    "NoDefault": class_of(("width", ["INT", {}]), ("mode", [[], {}])),
    "WebcamCapture": class_of(("image", ["WEBCAM", {}])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_sure_is_refused_with_the_node_and_the_way_around(name: str) -> None:
    file, node_id, reason = REFUSED[name]
    with pytest.raises(GuiFormatWorkflow, match=re.escape(reason)) as raised:
        converted(file, NEWER)
    assert raised.value.details.get("node_id") == node_id
    is_missing = "has no such node class" in raised.value.message  # in API format it would be missing as well
    assert ("nstall its node pack" if is_missing else "Export (API)") in raised.value.message
    if node_id is not None:
        assert raised.value.details.keys() == {"node_id", "title", "reason"}


def test_a_muted_node_inside_keeps_the_place_of_its_promoted_value() -> None:
    file = with_promoted_values()
    inner = file["definitions"]["subgraphs"][0]
    muted = saved_node(13, "EmptyImage", [64, 64, 1, 255], {"=width": ("INT", 5)}, {"IMAGE": "IMAGE"}, mode=2)
    inner["nodes"].append(muted)
    inner["links"].append(
        {"id": 5, "origin_id": -10, "origin_slot": 0, "target_id": 13, "target_slot": 0, "type": "INT"}
    )
    inner["links"][0]["origin_slot"], inner["links"][1]["origin_slot"] = 1, 2
    inner["inputs"].insert(0, {"id": "w", "name": "width", "type": "INT", "linkIds": [5]})
    file["nodes"] = [node for node in file["nodes"] if node["id"] in (1, 2)]
    file["nodes"][1]["widgets_values"] = [128, 0.25]
    file["definitions"]["subgraphs"].pop()
    assert converted(file, OLD)["2:11"]["inputs"]["scale_by"] == 0.25


def test_nothing_comes_through_a_muted_reroute() -> None:
    file = with_reroutes()
    file["nodes"][1]["mode"] = 2
    assert "images" not in converted(file, NEW)["4"]["inputs"]


def test_whole_numbers_may_be_written_with_a_point() -> None:
    text = json.dumps(with_bypassed())
    pointed = json.loads(re.sub(r'"(link|mode|id)": (\d+)', r'"\1": \2.0', text))
    assert converted(pointed, NEW) == converted(with_bypassed(), NEW)


def test_what_nobody_named_has_the_title_of_its_class() -> None:
    document = read_document(generative())
    prompt = convert(document, {name: read_schema(NEW[name]) for name in class_types(document)}).prompt
    assert prompt["4"]["_meta"] == {"title": "Load Checkpoint"}


@pytest.mark.parametrize(
    "text", ["/*" * 500_000, "{" * 500_000, "{" + "\\a" * 500_000, "{a|" * 300_000, "//" * 500_000]
)
def test_a_hostile_text_takes_no_time(text: str) -> None:
    began = time.monotonic()
    choose_texts(text, lambda options: options[0])
    assert time.monotonic() - began < 20


def test_a_hostile_file_is_refused_before_it_takes_memory() -> None:
    wide = saved_node(1, "Note", [], {f"i{n}": ("*", None) for n in range(90_000)})
    subgraph = {"id": "s", "nodes": [wide], "links": [], "inputs": [], "outputs": []}
    for file in (
        saved([saved_node(n, "s", []) for n in range(2000)], [], definitions={"subgraphs": [subgraph]}),
        saved([saved_node(1, "Note", [], {f"i{n}": ("*", None) for n in range(200_000)})], []),
        saved([empty(1)], [[n, 1, 0, 2, 0, "*"] for n in range(200_000)]),
    ):
        with pytest.raises(GuiFormatWorkflow, match="more than 100000"):
            converted(file, NEW)


def test_a_file_of_the_editor_gets_no_further_than_one_in_api_format() -> None:
    for node in (
        saved_node(1, "LoadImage", ["/etc/passwd", "image"], outputs={"IMAGE": "IMAGE", "MASK": "MASK"}),
        save(1, None, "../../x"),
    ):
        with pytest.raises(InvalidWorkflow):
            read_job({"input": {"workflow": saved([node], [])}}, convert=lambda file: Converted(converted(file, OLD)))


def test_what_nothing_sets_gives_nothing_and_is_told() -> None:
    document = read_document(two(saved_node(1, "GetNode", ["x"], outputs={"*": "*"})))
    done = convert(document, {name: read_schema(NEW[name]) for name in class_types(document)})
    assert "images" not in done.prompt["9"]["inputs"]
    assert done.warnings == ("node 1 (GetNode): nothing sets 'x', so it has no value",)


def test_what_a_graph_around_sets_is_got_inside() -> None:
    file = with_subgraph()
    getter = saved_node(13, "GetNode", ["picture"], outputs={"IMAGE": "IMAGE"})
    inner = file["definitions"]["subgraphs"][0]
    inner["nodes"] += [getter, save(14, 9)]
    inner["links"].append(
        {"id": 9, "origin_id": 13, "origin_slot": 0, "target_id": 14, "target_slot": 0, "type": "IMAGE"}
    )
    file["nodes"].append(saved_node(30, "SetNode", ["picture"], {"IMAGE": ("IMAGE", 9)}, {"*": "*"}))
    file["links"].append([9, 1, 0, 30, 0, "IMAGE"])
    assert converted(file, NEW)["2:14"]["inputs"]["images"] == ["1", 0]


@pytest.mark.parametrize("value", [18446744073709552000, 10**400])
def test_a_number_beyond_64_bits_that_nobody_sends_is_no_reason_to_refuse(value: int) -> None:
    file = with_primitive()
    file["nodes"][1]["inputs"][0]["widget"]["config"] = ["INT", {"min": 0, "max": value}]
    job = read_job({"input": {"workflow": file}}, convert=lambda saved_file: Converted(converted(saved_file, NEW)))
    assert job.workflow["2"]["inputs"]["width"] == 96
    assert job.extra_pnginfo is not None
    json.dumps(job.extra_pnginfo, allow_nan=False)


def test_a_file_that_is_deep_or_no_text_is_refused_before_it_is_converted() -> None:
    deep: Any = {}
    for _ in range(5000):
        deep = {"a": deep}
    for extra in (deep, "\ud800", float("nan")):
        with pytest.raises(InvalidWorkflow, match="workflow"):
            read_job({"input": {"workflow": {**generative(), "extra": {"x": extra}}}}, convert=Converted)


def test_what_is_muted_may_be_of_an_unknown_class() -> None:
    file = two(empty(1))
    file["nodes"].append(saved_node(5, "NoSuchNode", [1, 2, 3], mode=2))
    assert converted(file, NEW).keys() == {"1", "9"}


def test_a_long_chain_of_reroutes_is_followed() -> None:
    count = 3000
    nodes = [empty(0), *(saved_node(n, "Reroute", None, {"": ("*", n)}, {"": "*"}) for n in range(1, count))]
    file = saved([*nodes, save(count, count)], [[n, n - 1, 0, n, 0, "*"] for n in range(1, count + 1)])
    assert converted(file, NEW)[str(count)]["inputs"]["images"] == ["0", 0]


def test_links_in_a_circle_are_refused_wherever_they_are_entered() -> None:
    for mode in (0, 4):
        circle = [saved_node(n, "Reroute", None, {"": ("IMAGE", n)}, {"": "IMAGE"}, mode=mode) for n in (1, 2)]
        file = saved(
            [*circle, save(3, 3), save(4, 4)],
            [[1, 2, 0, 1, 0, "*"], [2, 1, 0, 2, 0, "*"], [3, 1, 0, 3, 0, "*"], [4, 2, 0, 4, 0, "*"]],
        )
        with pytest.raises(GuiFormatWorkflow, match="form a cycle"):
            converted(file, NEW)


# --- Fuzz ----------------------------------------------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers(-3, 12) | st.floats(allow_nan=False) | st.text(max_size=5)
JUNK = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in places(part, (*path, key)))]


def spoilt(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """A copy with something else at a path."""
    if not path:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = spoilt(value[path[0]], path[1:], junk)
    return copy


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.integers(0, 10**6), JUNK), min_size=1, max_size=4))
def test_a_spoilt_file_is_converted_to_a_sound_prompt_or_refused(name: str, changes: list[tuple[int, Any]]) -> None:
    file: Any = FILES[name]()
    for number, junk in changes:
        paths = [path for path in places(file) if path]
        if paths:
            file = spoilt(file, paths[number % len(paths)], junk)
    if not is_editor_workflow(file):
        return
    try:
        check_workflow(converted(file, NEW))
    except InvalidWorkflow as error:
        assert error.message


# --- The command ---------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m src.workflow` with these arguments."""
    line = [sys.executable, "-m", "src.workflow", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_a_command_writes_a_file_in_api_format(draft_bench: Bench, tmp_path: Path) -> None:
    url, file, written = draft_bench.engine.process.url, tmp_path / "saved.json", tmp_path / "api.json"
    file.write_text(json.dumps(with_subgraph()))
    assert command("convert", str(file), "--url", url, "--output", str(written)).returncode == 0
    prompt = json.loads(written.read_text())
    assert draft_bench.run(workflow=prompt)["status"] == "success"
    printed = command("convert", str(written), "--url", url)
    assert json.loads(printed.stdout) == prompt, "what is in API format stays as it is"


def test_a_command_says_what_it_cannot_convert(draft_bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "saved.json"
    for content, told in (
        (json.dumps(in_a_circle()), "workflow_format_ui: "),
        ("{", "invalid_workflow: saved.json: it cannot be read as JSON"),
    ):
        file.write_text(content)
        done = command("convert", str(file), "--url", draft_bench.engine.process.url)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(told)
    missing = command("convert", str(tmp_path / "none.json"))
    assert (missing.returncode, missing.stderr) == (1, f"{tmp_path / 'none.json'}: No such file or directory\n")
