"""What the scripts of node packs make of a file: converted as the pack's own script does, or refused with the reason."""

from __future__ import annotations

import time
from typing import Any

import pytest

from src.editor import class_types, convert, read_document
from src.editor.values import ConversionContext
from src.errors import GuiFormatWorkflow
from src.workflow.schemas import read_schema

from ..editor_files import Json, saved, saved_node
from .packs import (
    CLASSES,
    UE_LINK,
    comparer,
    efficient,
    everywhere,
    loras,
    seed,
    video,
    with_editor_nodes,
)


def converted(file: Json, without: tuple[str, ...] = ()) -> Json:
    """The prompt, with each seed drawn the highest that may be."""
    document = read_document(file)
    known = {name for name in CLASSES if name not in without}
    schemas = {name: read_schema(CLASSES[name]) if name in known else None for name in class_types(document)}
    context = ConversionContext(time.localtime(), draw=lambda lowest, limit: limit - 1)
    return convert(document, schemas, context).prompt


ROW = {"on": True, "lora": "style.safetensors", "strength": 0.8}


def test_rows_of_loras_are_sent_by_name_and_the_second_strength_only_where_it_is_shown() -> None:
    rows = [{**ROW, "strengthTwo": None}, {**ROW, "on": False, "strengthTwo": 0.5}]
    inputs = converted(loras(rows))["1"]["inputs"]
    assert (inputs["lora_1"], inputs["lora_2"]) == (ROW, {**ROW, "on": False})
    assert inputs["model"] == ["2", 0]
    assert inputs.keys() - {"lora_1", "lora_2", "model"} == {
        "PowerLoraLoaderHeaderWidget",
        "\N{HEAVY PLUS SIGN} Add Lora",
    }
    both = converted(loras(rows, properties={"Show Strengths": "Separate Model & Clip"}))["1"]["inputs"]
    assert [both[name]["strengthTwo"] for name in ("lora_1", "lora_2")] == [1, 0.5]


@pytest.mark.parametrize("value", [-1, -2, -3])
def test_a_special_value_of_a_seed_node_is_a_seed_that_is_drawn(value: int) -> None:
    prompt = converted(seed(value))
    assert prompt["1"]["inputs"] == {"seed": 2**50 - 1}
    assert prompt["2"]["inputs"]["seed"] == ["1", 0]
    assert converted(seed(value, properties={"randomMin": 3, "randomMax": 10}))["1"]["inputs"] == {"seed": 9}


def test_a_fixed_seed_stays() -> None:
    assert converted(seed(777))["1"]["inputs"] == {"seed": 777}
    assert converted(efficient(777))["1"]["inputs"]["seed"] == 777


def test_the_last_seed_that_a_node_shows_is_a_widget_of_its_own() -> None:
    file = seed(5, properties={"showLastSeed": True})
    file["nodes"][0]["widgets_values"].append("Last Seed: 5")
    assert converted(file)["1"]["inputs"] == {"seed": 5, "last_seed": "Last Seed: 5"}


def test_an_efficient_sampler_draws_a_seed_for_minus_one() -> None:
    expected = {"seed": 2**50 - 1, "steps": 20, "preview_method": "auto"}
    assert converted(efficient(-1))["1"]["inputs"] == expected


@pytest.mark.parametrize(("same", "expected"), [(True, -1), (False, 2**50 - 1)])
def test_a_script_draws_no_seed_where_its_button_is_off(same: bool, expected: int) -> None:
    file = saved([saved_node(1, "HighRes-Fix Script", [-1, None, same])], [])
    assert converted(file)["1"]["inputs"]["seed"] == expected


def test_buttons_and_collectors_are_left_out_and_pass_links_on() -> None:
    prompt = converted(with_editor_nodes())
    assert prompt.keys() == {"1", "4"}
    assert prompt["4"]["inputs"]["images"] == ["1", 0]


def test_a_comparer_gets_what_it_showed_as_its_script_sends_it() -> None:
    inputs = converted(comparer())["2"]["inputs"]
    assert inputs["image_a"] == ["1", 0]
    assert [picture["name"] for picture in inputs["rgthree_comparer"]["images"]] == ["A", "B"]


BY_NAME = {"video": "v.mp4", "force_rate": 0, "custom_width": 0, "custom_height": 0, "frame_load_cap": 16, "skip_first_frames": 0, "select_every_nth": 1}  # fmt: skip


def test_an_input_that_a_file_by_names_lacks_has_the_default_of_its_class() -> None:
    shown = {"choose video to upload": "image", "videopreview": {"hidden": False}}
    assert converted(video({**BY_NAME, **shown}))["1"]["inputs"] == {**BY_NAME, "format": "AnimateDiff"}


@pytest.mark.parametrize(
    ("size", "expected"), [("512x?", (512, 0)), ("?x300", (0, 300)), ("Disabled", (0, 0)), ("256x256", (256, 256))]
)
def test_the_former_size_of_a_video_is_two_numbers_now(size: str, expected: tuple[int, int]) -> None:
    values = {name: value for name, value in BY_NAME.items() if not name.startswith("custom")}
    inputs = converted(video({**values, "force_size": size}))["1"]["inputs"]
    assert (inputs["custom_width"], inputs["custom_height"]) == expected
    assert "force_size" not in inputs
    listed = converted(video(["v.mp4", 0, size, 16, 0, 1, "image"]))["1"]["inputs"]
    assert listed == inputs


def test_a_former_name_of_a_value_is_known() -> None:
    values = {"format": "gif", "save_image": False, "crf": 19}
    file = saved([saved_node(1, "VHS_VideoCombine", values, {"images": ("IMAGE", None)})], [])
    assert converted(file)["1"]["inputs"] == {"format": "gif", "save_output": False, "crf": 19}


# --- Use Everywhere ------------------------------------------------------------------------------------------


def test_links_that_a_script_makes_while_queueing_are_followed_where_the_file_tells_them() -> None:
    assert converted(everywhere([UE_LINK]))["3"]["inputs"]["clip"] == ["1", 1]
    assert "clip" not in converted(everywhere([]))["3"]["inputs"], "the list is there, and has none"


def test_what_only_connects_others_may_be_of_an_unknown_class_once_it_has_done_so() -> None:
    prompt = converted(everywhere([UE_LINK]), without=("Anything Everywhere",))
    assert prompt.keys() == {"1", "3"}
    assert prompt["3"]["inputs"]["clip"] == ["1", 1]


def test_a_broadcast_to_a_widget_counts_all_the_inputs_of_the_running_editor() -> None:
    nodes = [saved_node(1, "Seed Everywhere", [5, "fixed"], outputs={"INT": "INT"}), saved_node(2, "Sampler", [1, "fixed", 4], {"model": ("MODEL", None)})]  # fmt: skip
    link = {"downstream": 2, "downstream_slot": 1, "upstream": 1, "upstream_slot": 0, "controller": 1, "type": "INT"}
    prompt = converted(saved(nodes, [], extra={"ue_links": [link]}))
    assert prompt["2"]["inputs"] == {"seed": ["1", 0], "steps": 4}


def test_a_broadcast_whose_links_the_file_does_not_tell_is_refused_with_that_reason() -> None:
    with pytest.raises(GuiFormatWorkflow, match=r"such as to node 3.*it has no extra\.ue_links") as raised:
        converted(everywhere(None))
    assert raised.value.details["node_id"] == "2"


def test_a_broadcast_that_can_reach_nothing_needs_no_links() -> None:
    assert converted(everywhere(None, clip=7))["3"]["inputs"]["clip"] == ["1", 1]


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ({**UE_LINK, "downstream_slot": 7}, "does not identify one of its inputs"),
        ({**UE_LINK, "type": "MODEL"}, "does not identify one of its inputs"),
        ({**UE_LINK, "upstream": "103:4"}, "a node that does not exist"),
        ({"downstream": 3}, "has no source or no target"),
    ],
)
def test_a_broadcast_to_or_from_nowhere_is_refused(link: Json, reason: str) -> None:
    with pytest.raises(GuiFormatWorkflow, match=reason):
        converted(everywhere([link]))


def test_many_broadcasts_take_little_time() -> None:
    senders = [saved_node(n, "Anything Everywhere", [], {f"i{k}": ("A,B", 1) for k in range(9)}) for n in range(2000)]
    others = [saved_node(4000 + n, "Loader", [], {f"x{k}": ("C,D", None) for k in range(9)}) for n in range(2000)]
    source = saved_node(9000, "Loader", [], outputs={"MODEL": "E"})
    began = time.monotonic()
    assert len(converted(saved([*senders, *others, source], [[1, 9000, 0, 1, 0, "E"]]))) == 4001
    assert time.monotonic() - began < 20


def test_a_node_that_unmutes_others_at_random_is_refused_with_that_reason() -> None:
    file: Any = saved([saved_node(1, "Random Unmuter (rgthree)", []), saved_node(2, "Loader", [])], [])
    with pytest.raises(GuiFormatWorkflow, match="unmutes nodes at random"):
        converted(file)
