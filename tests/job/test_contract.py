"""The same job, the same answer: on the draft engine always, on a real ComfyUI where there is one."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.outputs import write_frames

from .. import editor_files, workflows
from ..conftest import Bench
from ..workflows import node


def images(answer: dict[str, Any]) -> list[Image.Image]:
    """The pictures of an answer that must be a success."""
    assert answer["status"] == "success", answer
    return [Image.open(io.BytesIO(base64.b64decode(image))) for image in answer["images"]]


def test_a_still_image_comes_back_with_every_field_of_the_contract(bench: Bench) -> None:
    answer = bench.run(workflow=workflows.still(color=0x102030))
    (picture,) = images(answer)
    assert picture.size == (128, 96)
    assert picture.getpixel((5, 5)) == (0xEF, 0xDF, 0xCF)
    assert answer["filenames"] == ["still_00001_.png"]
    assert answer.keys() == {
        *("status", "images", "filenames", "execution_time_seconds", "prompt_id"),
        *("files", "outputs", "timings", "cached_nodes", "versions"),
    }
    assert isinstance(answer["execution_time_seconds"], float)
    assert len(answer["prompt_id"]) == 36


def test_a_batch_comes_back_in_order(bench: Bench) -> None:
    answer = bench.run(workflow=workflows.batch_of_four())
    assert len(images(answer)) == 4
    assert answer["filenames"] == [f"batch_0000{number}_.png" for number in (1, 2, 3, 4)]
    assert len(set(answer["images"])) == 4


def test_a_subfolder_of_the_prefix_is_part_of_the_name(bench: Bench) -> None:
    answer = bench.run(workflow=workflows.batch_of_four("sub/dir/batch"))
    assert answer["filenames"][0] == "sub/dir/batch_00001_.png"


def test_a_prefix_that_a_node_computes_is_kept_apart_too(bench: Bench) -> None:
    workflow = workflows.still()
    workflow["5"] = node("PrimitiveString", value="made/up")
    workflow["4"]["inputs"]["filename_prefix"] = ["5", 0]
    for _ in range(2):
        answer = bench.run(workflow=workflow)
        assert answer["filenames"] == ["made/up_00001_.png"]


def test_texts_come_back_without_images(bench: Bench) -> None:
    answer = bench.run(workflow=workflows.text_only())
    assert answer["status"] == "success"
    assert answer["images"] == answer["filenames"] == []
    assert answer["text"] == ["HELLO WORLD"]


def test_an_animated_webp_comes_back_with_its_frames(bench: Bench) -> None:
    answer = bench.run(workflow=workflows.animated_webp())
    (picture,) = images(answer)
    assert answer["filenames"] == ["anim_00001_.webp"]
    assert (picture.format, getattr(picture, "n_frames", 1)) == ("WEBP", 8)


def test_previews_are_not_returned(bench: Bench) -> None:
    workflow = workflows.still()
    workflow["5"] = node("PreviewImage", images=["1", 0])
    assert len(images(bench.run(workflow=workflow))) == 1


def test_two_nodes_that_save_the_same_picture_return_it_once_or_twice_but_never_lose_it(bench: Bench) -> None:
    workflow = workflows.still()
    workflow["5"] = node("SaveImage", images=["3", 0], filename_prefix="still")
    assert len(images(bench.run(workflow=workflow))) >= 1


def test_the_same_job_twice_gives_the_same_image_twice(bench: Bench) -> None:
    first, second = (bench.run(workflow=workflows.still(color=77)) for _ in range(2))
    assert images(first)
    assert first["images"] == second["images"]
    assert first["filenames"] == second["filenames"]
    assert first["prompt_id"] != second["prompt_id"]


def test_jobs_a_b_a_each_give_their_own_image(bench: Bench) -> None:
    answers = [bench.run(workflow=workflows.still(color=color)) for color in (1, 0xFFFFFF, 1)]
    assert answers[0]["images"] == answers[2]["images"] != answers[1]["images"]


def test_a_cached_node_that_names_a_deleted_file_runs_again(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("all its nodes that save have a prefix")
    workflow = workflows.still(color=31337)
    workflow["4"] = node("WorkerTestSave", images=["3", 0])
    first, second = (bench.run(workflow=workflow) for _ in range(2))
    assert len(images(first)) == 1
    assert (first["images"], first["filenames"]) == (second["images"], ["fixed.png"])
    assert not bench.leftovers()


def test_clearing_up_after_a_job_spares_a_file_of_the_same_name_of_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bench.name == "draft":
        pytest.skip("all its nodes that save have a prefix")

    def after_clearing_up(*arguments: Any) -> Any:
        bench.leftovers()  # waits for what is being cleared up, before this job's files are gathered
        return write_frames(*arguments)

    monkeypatch.setattr("src.job.turn.write_frames", after_clearing_up)
    for color in (1, 2, 2):
        workflow = workflows.still(color=color)
        workflow["4"] = node("WorkerTestSave", images=["3", 0])
        assert bench.run(workflow=workflow)["filenames"] == ["fixed.png"]


def test_nothing_of_a_job_stays_behind(bench: Bench) -> None:
    workflow = workflows.batch_of_four("a/b/c")
    workflow["5"] = node("PreviewImage", images=["1", 0])
    images(bench.run(workflow=workflow))
    failing = {**workflow, "6": workflows.raising(bench.name)}
    failing["7"] = node("SaveImage", images=["6", 0], filename_prefix="never")
    assert bench.run(workflow=failing)["error_code"] == "node_execution_error"
    assert not [file for file in bench.leftovers() if file.endswith(".png")]
    assert not bench.prompts_in_history()


# --- Overrides on the tiny generative chain ---------------------------------------------------------------


def generate(bench: Bench, **fields: Any) -> tuple[Image.Image, str]:
    """The picture and its base64."""
    answer = bench.run(workflow=workflows.generative(), **fields)
    (picture,) = images(answer)
    return picture, answer["images"][0]


def test_equal_seeds_give_equal_bytes_and_others_do_not(bench: Bench) -> None:
    _, first = generate(bench, seed=5)
    _, again = generate(bench, seed=5)
    _, other = generate(bench, seed=2**64 - 1)
    assert first == again != other


def test_the_prompt_reaches_the_positive_encoder(bench: Bench) -> None:
    _, cat = generate(bench, seed=5, prompt="a cat")
    _, dog = generate(bench, seed=5, prompt="a dog")
    assert cat != dog
    workflow = workflows.generative()
    workflow["31"]["inputs"]["text"] = "a dog"
    assert bench.run(workflow=workflow, seed=5)["images"] == [dog]


def test_the_size_is_the_size_of_the_picture(bench: Bench) -> None:
    picture, _ = generate(bench, width=128, height=96)
    assert picture.size == (128, 96)


# --- What the engine refuses -----------------------------------------------------------------------------


def refused(bench: Bench, workflow: Any) -> dict[str, Any]:
    """The answer to a workflow that must be refused."""
    answer = bench.run(workflow=workflow)
    assert answer["status"] == "error", answer
    assert answer["error_type"] == "validation"
    assert "Traceback" not in json.dumps(answer)
    assert "/root" not in json.dumps(answer)
    return answer


def test_an_unknown_class_is_named(bench: Bench) -> None:
    workflow = workflows.still()
    workflow["2"]["class_type"] = "NoSuchNode"
    answer = refused(bench, workflow)
    assert answer["error_code"] == "missing_node_type"
    assert "NoSuchNode" in answer["error"]


def test_a_workflow_without_output_node_says_so(bench: Bench) -> None:
    workflow = workflows.still()
    del workflow["4"]
    assert "no output node" in refused(bench, workflow)["error"]


def test_a_missing_model_says_where_we_looked_and_what_is_near(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("the draft engine takes any model name")
    workflow = workflows.generative()
    workflow["1"]["inputs"]["unet_name"] = "tiny_sd_3.safetensors"
    answer = refused(bench, workflow)
    assert answer["error_code"] == "missing_model"
    for part in (
        "unet_name",
        "tiny_sd_3.safetensors",
        "diffusion_models",
        "/runpod-volume/models",
        "tiny_sd3.safetensors",
    ):
        assert part in answer["error"]
    assert answer["node_errors"][0]["node_id"] == "1"
    assert "warnings" not in answer


def test_a_missing_model_that_is_known_says_where_it_is_to_be_had(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("the draft engine takes any model name")
    workflow = workflows.generative()
    workflow["7"]["inputs"]["vae_name"] = "ae.safetensors"
    answer = refused(bench, workflow)
    assert "ae.safetensors for models/vae is available at https://huggingface.co/" in answer["warnings"][0]
    (problem,) = bench.run(action="validate", workflow=workflow)["problems"]
    assert problem["sources"] == answer["warnings"]
    assert answer["missing_models"] == [problem["missing_model"]]
    assert problem["missing_model"]["source"].startswith("https://huggingface.co/")


@pytest.mark.parametrize(
    ("node_id", "name", "value", "said"),
    [
        ("1", "width", 0, "width must be at least 1, not 0"),
        ("1", "width", 99999, "width must be at most 16384, not 99999"),
        ("1", "width", "wide", "width"),
        ("3", "upscale_method", "magic", "must be one of 'nearest-exact'"),
        ("4", "images", ["1"], "must be a value or a link"),
        ("4", "images", ["1", 7], "node"),
    ],
)
def test_a_bad_value_is_named_with_node_input_and_what_is_allowed(
    bench: Bench, node_id: str, name: str, value: Any, said: str
) -> None:
    workflow = workflows.still()
    workflow[node_id]["inputs"][name] = value
    assert said in refused(bench, workflow)["error"]


def test_a_missing_input_is_named(bench: Bench) -> None:
    workflow = workflows.still()
    del workflow["3"]["inputs"]["width"]
    assert "node 3 (ImageScale): input width is missing" in refused(bench, workflow)["error"]


def test_a_link_of_the_wrong_type_is_named(bench: Bench) -> None:
    workflow = workflows.still()
    workflow["5"] = node("SolidMask", value=1.0, width=64, height=64)
    workflow["4"]["inputs"]["images"] = ["5", 0]
    assert "node 4 (SaveImage)" in refused(bench, workflow)["error"]


def test_a_missing_input_file_is_named(bench: Bench) -> None:
    workflow = {
        "1": node("LoadImage", image="nofile.png"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    assert "nofile.png" in refused(bench, workflow)["error"]


def test_one_bad_output_among_good_ones_is_an_error_and_not_a_silent_loss(bench: Bench) -> None:
    workflow = workflows.still()
    workflow["5"] = node("SaveImage", images=["6", 0], filename_prefix="other")
    workflow["6"] = node("EmptyImage", width=0, height=64, batch_size=1, color=0)
    assert "node 6 (EmptyImage): width must be at least 1" in refused(bench, workflow)["error"]
    assert images(bench.run(workflow=workflows.still()))


def test_a_node_that_raises_is_named_with_its_message(bench: Bench) -> None:
    answer = bench.run(workflow={**workflows.still(), "3": workflows.raising(bench.name)})
    assert (answer["error_type"], answer["error_code"]) == ("internal", "node_execution_error")
    assert answer["node_id"] == "3"
    assert "NOPE" in answer["error"]
    assert images(bench.run(workflow=workflows.still()))


def test_a_blend_mode_that_there_is_not_is_named_whoever_finds_it(bench: Bench) -> None:
    """ComfyUI 0.3.64 finds it when the node runs, newer versions and the draft engine before."""
    workflow = workflows.still()
    workflow["3"] = node("ImageBlend", image1=["1", 0], image2=["2", 0], blend_factor=0.5, blend_mode="NOPE")
    answer = bench.run(workflow=workflow)
    expected = "node_execution_error" if bench.engine.version == "0.3.64" else "invalid_workflow"
    assert answer["error_code"] == expected
    assert "node 3 (ImageBlend)" in answer["error"]
    assert "NOPE" in answer["error"]
    assert images(bench.run(workflow=workflows.still()))


ZOMBIE_MAKERS = {
    "an unreachable node without inputs": {"77": {"class_type": "EmptyImage"}},
    "a link to nowhere in an undeclared input": {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=0, x=["99", 0])
    },
    "a link to nowhere in a declared input": {"2": node("ImageInvert", image=["99", 0])},
    "a self link": {"2": node("ImageInvert", image=["2", 0])},
    "a cycle": {"2": node("ImageInvert", image=["3", 0])},
}


@pytest.mark.parametrize("nodes", ZOMBIE_MAKERS.values(), ids=ZOMBIE_MAKERS.keys())
def test_what_would_end_comfyuis_worker_thread_never_reaches_it(bench: Bench, nodes: dict[str, Any]) -> None:
    refused(bench, {**workflows.still(), **nodes})
    assert images(bench.run(workflow=workflows.still()))


# --- Workflows as the editor saves them ---------------------------------------------------------------------

PICTURES = (
    editor_files.with_inputs_for_widgets,
    editor_files.with_primitive,
    editor_files.with_reroutes,
    editor_files.with_link_objects,
    editor_files.with_subgraph,
    editor_files.with_nested_subgraphs,
    editor_files.with_linked_promoted_widget,
)
EDITOR_EXPORTS = json.loads((Path(__file__).parent.parent / "editor_exports.json").read_text())["0.33.0"]


@pytest.mark.parametrize("make", PICTURES)
def test_a_file_of_the_editor_gives_the_picture_that_its_export_gives(
    bench: Bench, make: Callable[[], dict[str, Any]]
) -> None:
    saved = bench.run(workflow=make(), output={"metadata": False})
    exported = bench.run(workflow=EDITOR_EXPORTS[make.__name__], output={"metadata": False})
    assert images(saved)
    assert saved["images"] == exported["images"]
    assert (saved["converted"], exported.get("converted")) == (True, None)


def test_overrides_find_their_nodes_in_a_file_of_the_editor(bench: Bench) -> None:
    fields: dict[str, Any] = {"prompt": "a dog", "seed": 5, "width": 96, "height": 64, "steps": 3}
    fields["output"] = {"metadata": False}
    saved = bench.run(workflow=editor_files.tiny_generative(), **fields)
    exported = bench.run(workflow=workflows.generative(), **fields)
    assert (saved["images"], saved["seed"]) == (exported["images"], 5)
    by_id = {"6:8": {"inputs": {"cfg": 1.0}}}
    assert bench.run(workflow=editor_files.tiny_generative(), overrides=by_id)["status"] == "success"


def test_a_file_of_the_editor_is_kept_in_the_pictures_that_it_makes(bench: Bench) -> None:
    file = editor_files.with_subgraph()
    (picture,) = images(bench.run(workflow=file, output={"metadata": True}))
    assert json.loads(picture.info["workflow"]) == file
    assert json.loads(picture.info["prompt"]).keys() == {"1", "2:11", "2:12", "3:11", "3:12", "4"}


def test_a_file_that_cannot_be_converted_says_why_and_where(bench: Bench) -> None:
    file = editor_files.with_subgraph()
    file["nodes"].append(editor_files.saved_node(7, "NoSuchNode", [], title="Mine"))
    for action in ("run", "validate"):
        answer = bench.run(workflow=file, action=action)
        assert (answer["error_code"], answer["node_id"], answer["title"]) == ("workflow_format_ui", "7", "Mine")
        assert "no such node class" in answer["error"]
        assert "install its node pack" in answer["error"]
    assert bench.run(workflow=editor_files.with_subgraph(), action="validate")["converted"] is True
