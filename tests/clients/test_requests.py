"""What people send who have clients for other workers, and what it means here."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.clients import FOREIGN_FIELDS, as_own_input
from src.comfy.folders import Folders
from src.errors import NoOverrideTarget
from src.inputs.inline import with_files_apart
from src.inputs.input_file import InputFile
from src.job.fields import InputFields
from src.job.request import read_job
from src.overrides import Overrides, apply_overrides

from ..conftest import Bench
from ..workflows import flux, generative, node, png

GRAPH = generative()
EDITOR = {"nodes": [], "links": [], "version": 0.4}
PNGINFO = {"workflow": EDITOR}

SHAPES: dict[str, tuple[Any, Any]] = {
    "its own": ({"workflow": GRAPH, "seed": 1}, {"workflow": GRAPH, "seed": 1}),
    "a JSON text": (json.dumps({"workflow": GRAPH}), {"workflow": GRAPH}),
    "a JSON text of a graph": (json.dumps(GRAPH), {"workflow": GRAPH}),
    "a bare graph": (GRAPH, {"workflow": GRAPH}),
    "a bare graph with a node called prompt": (
        {**GRAPH, "prompt": node("PrimitiveString", value="x")},
        {"workflow": {**GRAPH, "prompt": node("PrimitiveString", value="x")}},
    ),
    "a bare file of the editor": (EDITOR, {"workflow": EDITOR}),
    "a whole body": ({"input": {"workflow": GRAPH}}, {"workflow": GRAPH}),
    "ComfyUI's /prompt": (
        {"prompt": GRAPH, "client_id": "c", "extra_data": {"extra_pnginfo": PNGINFO, "api_key_comfy_org": "k"}},
        {"workflow": GRAPH, "client_id": "c", "extra_pnginfo": PNGINFO, "comfy_org_api_key": "k"},
    ),
    "ComfyUI's /prompt as a workflow": (
        {"workflow": {"prompt": GRAPH, "client_id": "c"}, "prompt": "a cat"},
        {"workflow": GRAPH, "client_id": "c", "prompt": "a cat"},
    ),
    "Salad's": (
        {"prompt": GRAPH, "id": "order-1", "convert_output": {"format": "jpeg", "options": {"quality": 80}}},
        {"workflow": GRAPH, "id": "order-1", "output": {"format": "jpeg", "quality": 80}},
    ),
    "Salad's with more than a quality": (
        {"prompt": GRAPH, "convert_output": {"format": "webp", "options": {"effort": 6}}},
        {
            "workflow": GRAPH,
            "convert_output": {"format": "webp", "options": {"effort": 6}},
            "output": {"format": "webp"},
        },
    ),
    "ashleykleynhans' custom": ({"workflow": "custom", "payload": GRAPH}, {"workflow": GRAPH}),
    "ashleykleynhans' by name": (
        {"workflow": "txt2img", "payload": {"prompt": "a cat", "cfg_scale": 7, "steps": 20}},
        {"workflow": "txt2img", "prompt": "a cat", "cfg": 7, "steps": 20},
    ),
    "an older name of the key": (
        {"workflow": GRAPH, "api_key_comfy_org": "k"},
        {"workflow": GRAPH, "comfy_org_api_key": "k"},
    ),
    "both names": ({"workflow": GRAPH, "cfg": 1, "cfg_scale": 7}, {"workflow": GRAPH, "cfg": 1, "cfg_scale": 7}),
    "a text in a text": (json.dumps({"input": json.dumps({"workflow": json.dumps(GRAPH)})}), {"workflow": GRAPH}),
    "a workflow in a workflow": (
        {"workflow": {"workflow": GRAPH, "seed": 7}, "seed": None},
        {"workflow": GRAPH, "seed": 7},
    ),
    "a prompt as payload": ({"workflow": "custom", "payload": {"prompt": GRAPH}}, {"workflow": GRAPH}),
    "a payload that is a text": ({"workflow": "custom", "payload": json.dumps(GRAPH)}, {"workflow": GRAPH}),
    "a body with more than its input": (
        {"input": {"workflow": GRAPH, "seed": 7}, "id": "a"},
        {"workflow": GRAPH, "seed": 7, "id": "a"},
    ),
    "a body without a workflow": ({"input": {"prompt": "a cat"}}, {"prompt": "a cat"}),
    "both texts of a picture's metadata": (
        {"prompt": GRAPH, "workflow": EDITOR},
        {"workflow": GRAPH, "extra_pnginfo": {"workflow": EDITOR}},
    ),
    "a bare graph with fields": ({**GRAPH, "seed": 5, "version": 1}, {"workflow": {**GRAPH, "version": 1}, "seed": 5}),
    "a bare file with fields": ({**EDITOR, "images": [], "seed": 5}, {"workflow": EDITOR, "images": [], "seed": 5}),
    "inputs that look like a node": (
        {"workflow": GRAPH, "inputs": {"class_type": "cat"}},
        {"workflow": GRAPH, "inputs": {"class_type": "cat"}},
    ),
    "what is absent outside is taken from inside": (
        {
            "prompt": GRAPH,
            "comfy_org_api_key": "",
            "extra_data": {"api_key_comfy_org": "k", "more": 1},
            "output": None,
        },
        {"workflow": GRAPH, "comfy_org_api_key": "k", "extra_data": {"more": 1}},
    ),
    "outputs of two levels": (
        {"workflow": {"prompt": GRAPH, "output": {"format": "webp", "quality": 5}}, "output": {"quality": 80}},
        {"workflow": GRAPH, "output": {"format": "webp", "quality": 80}},
    ),
    "no workflow at all": ({"workflow": {"a": 1}}, {"workflow": {"a": 1}}),
    "an empty one": ({"workflow": {}}, {"workflow": {}}),
    "a prompt that is a text": ({"prompt": "a cat"}, {"prompt": "a cat"}),
    "no object": ([1], [1]),
}


@pytest.mark.parametrize(("given", "own"), SHAPES.values(), ids=SHAPES)
def test_a_shape_of_another_client_is_read_as_our_own(given: Any, own: Any) -> None:
    before = json.dumps(given)
    assert as_own_input(given, InputFields.model_fields) == own
    assert json.dumps(given) == before, "its argument was edited"


@pytest.mark.parametrize(
    "given",
    [
        given
        for given, own in SHAPES.values()
        if "workflow" in own and own["workflow"] == GRAPH and "inputs" not in own
    ],
)
def test_such_a_job_runs(bench: Bench, given: Any) -> None:
    answer = bench.handle({"id": "x", "input": given})
    assert answer["status"] == "success", answer
    assert len(answer["images"]) == 1


def test_what_is_not_done_of_it_is_named(draft_bench: Bench) -> None:
    answer = draft_bench.handle({"input": {"prompt": GRAPH, "webhook_v2": "https://h/x", "front": True}})
    assert answer["warnings"] == [
        f"input field {name!r} is not known and was ignored: {FOREIGN_FIELDS[name]}"
        for name in ("webhook_v2", "front")
    ]


# --- Values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "overrides"),
    [
        ({"seed": "42"}, {"seed": 42}),
        ({"seed": 42.0}, {"seed": 42}),
        ({"seed": str(2**64 - 1)}, {"seed": 2**64 - 1}),
        (
            {"width": "96", "height": 64.0, "steps": "3", "cfg": "1.5"},
            {"width": 96, "height": 64, "steps": 3, "cfg": 1.5},
        ),
        ({"sampler_name": "", "steps": "", "images": "", "output": ""}, {"sampler_name": None, "steps": None}),
        ({"denoise": " 1 "}, {"denoise": 1}),
    ],
)
def test_values_are_read_as_clients_write_them(fields: dict[str, Any], overrides: dict[str, Any]) -> None:
    request = read_job({"input": {"workflow": generative(), **fields}})
    assert {name: getattr(request.overrides, name) for name in overrides} == overrides


@pytest.mark.parametrize("seed", [-1, "-1", "random", "Randomize"])
def test_a_seed_that_means_another_each_time_is_drawn_and_told(bench: Bench, seed: Any) -> None:
    answers = [bench.run(workflow=generative(), seed=seed) for _ in range(2)]
    assert answers[0]["seed"] != answers[1]["seed"]
    again = bench.run(workflow=generative(), seed=answers[0]["seed"])
    assert again["images"] == answers[0]["images"]


def test_a_seed_of_minus_one_in_the_workflow_is_drawn_and_told_too(bench: Bench) -> None:
    workflow = generative()
    (sampler,) = (part for part in workflow.values() if "seed" in part["inputs"])
    sampler["inputs"]["seed"] = -1
    answer = bench.run(workflow=workflow)
    assert answer["status"] == "success", answer
    assert bench.run(workflow=generative(), seed=answer["seed"])["images"] == answer["images"]


def test_an_empty_prompt_is_nothing_where_there_is_no_place_for_it(draft_bench: Bench) -> None:
    guided = flux()
    assert apply_overrides(guided, Overrides(negative_prompt="")).workflow == guided
    assert apply_overrides(GRAPH, Overrides(negative_prompt="")).changed
    with pytest.raises(NoOverrideTarget):
        apply_overrides(guided, Overrides(negative_prompt="bad"))


def test_a_seed_of_minus_one_is_drawn_for_seeds_alone() -> None:
    shared = {
        **GRAPH, "30": node("PrimitiveInt", value=-1), "31": node("CLIPSetLastLayer", clip=["2", 0], stop_at_clip_layer=["30", 0])
    }  # fmt: skip
    (sampler_id,) = (node_id for node_id, part in GRAPH.items() if part["class_type"] == "KSampler")
    for node_id, part in shared.items():
        if "clip" in part["inputs"] and node_id != "31":
            shared[node_id] = {**part, "inputs": {**part["inputs"], "clip": ["31", 0]}}
    shared[sampler_id] = {**shared[sampler_id], "inputs": {**shared[sampler_id]["inputs"], "seed": ["30", 0]}}
    applied = apply_overrides(shared, Overrides(drawn_seed=777))
    assert applied.workflow["30"]["inputs"]["value"] == -1
    assert applied.workflow[sampler_id]["inputs"]["seed"] == 777
    assert applied.seeds == (777,)


def test_a_seed_of_minus_one_is_drawn_where_no_other_seed_goes() -> None:
    (latent,) = (node_id for node_id, part in GRAPH.items() if "Latent" in part["class_type"])
    silent = node("KSamplerAdvanced", add_noise="disable", noise_seed=-1, steps=2, latent_image=[latent, 0])
    two = {**GRAPH, "40": silent, "41": node("SaveLatent", samples=["40", 0], filename_prefix="x")}
    applied = apply_overrides(two, Overrides(seed=5, drawn_seed=777))
    assert applied.workflow["40"]["inputs"]["noise_seed"] == 777


def test_flags_in_quotes(draft_bench: Bench) -> None:
    answer = draft_bench.run(
        workflow=GRAPH, output={"previews": "true", "metadata": "False", "quality": "80", "format": "webp"}
    )
    assert answer["files"][0]["content_type"] == "image/webp"


# --- Files that stand in the workflow ------------------------------------------------------------------


def picture() -> str:
    """A small picture as base64, with more than a file name's length."""
    buffer = io.BytesIO()
    Image.effect_noise((32, 32), 90).convert("RGB").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def loading(content: str) -> dict[str, Any]:
    """A workflow whose loader has this in place of a file's name."""
    return {"1": node("LoadImage", image=content), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}


def test_a_picture_in_the_place_of_its_name_is_taken_for_a_file(bench: Bench) -> None:
    content = picture()
    answers = [bench.run(workflow=loading(given)) for given in (content, f"data:image/png;base64,{content}")]
    sent = bench.run(workflow=loading("in.png"), images=[{"name": "in.png", "image": content}])
    assert [answer.get("images") for answer in answers] == [sent["images"]] * 2, answers
    by_override = bench.run(workflow=loading("in.png"), overrides={"1": {"inputs": {"image": content}}})
    assert by_override["images"] == sent["images"]


def test_a_name_may_have_comfyuis_own_suffix(bench: Bench) -> None:
    content = picture()
    plain = bench.run(workflow=loading("in.png"), images=[{"name": "in.png", "image": content}])
    for in_workflow, sent in (
        ("in.png [input]", "in.png"),
        ("in.png", "in.png [input]"),
        ("a.png [input]", "a.png [input]"),
    ):
        answer = bench.run(workflow=loading(in_workflow), images=[{"name": sent, "image": content}])
        assert answer["images"] == plain["images"]
        assert "warnings" not in answer


def test_only_the_file_inputs_of_comfyuis_own_loaders_are_looked_at() -> None:
    url = "https://example.com/a%20b.mp4?x=1"
    workflow = {
        "1": node("LoadVideo", file=url), "2": node("LoadVideo", file=url), "3": node("PackLoader", url=url),
        "4": node("PrimitiveString", value=url), "5": node("LoadImage", image="plain.png"),
    }  # fmt: skip
    changed, (file,) = with_files_apart(workflow)
    assert (file.source, file.where, file.is_image) == (url, "node 1 (LoadVideo): file", False)
    assert file.name.endswith(".mp4")
    assert changed == {
        **workflow, "1": node("LoadVideo", file=file.name), "2": node("LoadVideo", file=file.name)
    }  # fmt: skip
    assert workflow["1"]["inputs"]["file"] == url
    nothing = {"5": workflow["5"]}
    assert with_files_apart(nothing) == (nothing, list[InputFile]())


@pytest.mark.parametrize("url", ["http://[x/a.png", "https://ex\u2105mple.com/a.png"])
def test_an_odd_url_in_a_loader_is_the_callers_to_mend(draft_bench: Bench, url: str) -> None:
    for action in ("run", "validate"):
        answer = draft_bench.run(workflow=loading(url), action=action)
        told = json.dumps(answer)
        assert "internal" not in told and ("error" in answer or not answer["valid"])


def test_a_file_of_the_workflow_is_fetched_only_if_it_is_needed(bench: Bench) -> None:
    dead, content = "https://127.0.0.1/dead.png", picture()
    replaced = bench.run(workflow=loading(dead), overrides={"1": {"inputs": {"image": content}}})
    unneeded = {**loading(content), "8": node("LoadImage", image=dead)}
    same = bench.run(workflow=loading(content), overrides={"1": {"inputs": {"image": content}}})
    for answer in (replaced, bench.run(workflow=unneeded), same):
        assert answer["status"] == "success", answer
        assert "warnings" not in answer


@pytest.mark.parametrize(
    "make", [base64.encodebytes, base64.urlsafe_b64encode, lambda raw: b" " + base64.b64encode(raw)]
)
def test_base64_as_tools_write_it(bench: Bench, make: Any) -> None:
    raw = base64.b64decode(picture())
    small = png(8)
    for content in (raw, small):
        answer = bench.run(workflow=loading(make(content).decode()))
        assert answer["status"] == "success", answer


def test_the_one_file_goes_where_it_is_missed_and_nowhere_else(draft_bench: Bench) -> None:
    two = {
        "1": node("LoadImage", image="same.png"), "2": node("LoadImage", image="same.png"),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]), "4": node("SaveImage", images=["3", 0], filename_prefix="x"),
    }  # fmt: skip
    sent = [{"name": "other.png", "image": picture()}]
    taken = draft_bench.run(workflow=two, images=sent)
    assert taken["status"] == "success", taken
    for fields in (
        {"overrides": {"1": {"inputs": {"image": "sure.png"}}}},
        {"action": "validate", "workflow": loading("")},
    ):
        answer = draft_bench.run(**{"workflow": loading("in.png"), "images": sent, **fields})
        assert "was used for it" not in json.dumps(answer)


def test_a_url_in_a_loader_keeps_to_the_rules_of_files(draft_bench: Bench) -> None:
    answer = draft_bench.run(workflow=loading("https://169.254.169.254/latest"))
    assert answer["error_type"] == "validation"
    assert "node 1 (LoadImage): image" in answer["error"]
    assert "private address" in answer["error"]


# --- Stored and default workflows ----------------------------------------------------------------------


def test_a_job_without_a_workflow_has_the_default_one(draft_bench: Bench, tmp_path: Path) -> None:
    request = read_job({"input": {"prompt": "a cat"}}, lambda name: {"1": node(name)}, default_workflow="portrait")
    assert request.workflow == {"1": node("portrait")}
    own = read_job({"input": {"workflow": GRAPH}}, lambda name: {"1": node(name)}, default_workflow="portrait")
    assert own.workflow == GRAPH
    assert "input has no workflow" in draft_bench.run(prompt="a cat")["error"]


# --- Files of the image --------------------------------------------------------------------------------


def test_files_in_comfyuis_own_input_folder_are_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    baked, folders = tmp_path / "baked", Folders.make()
    (baked / "masks").mkdir(parents=True)
    for name in ("face.png", "masks/a b.png"):
        (baked / name).write_text(name)
    try:
        assert folders.bring_inputs(baked) == folders.bring_inputs(tmp_path / "nothing") == []
        assert {file.relative_to(folders.input).as_posix() for file in folders.input.rglob("*.png")} == {
            "face.png",
            "masks/a b.png",
        }
        (folders.input / "masks" / "a b.png").write_text("changed by a job")
        (baked / "a large one.png").write_text("large" * 10)
        monkeypatch.setattr("src.comfy.folders._MAX_BAKED_BYTES", 30)
        assert folders.bring_inputs(baked) == ["a large one.png"]
    finally:
        folders.remove()
    assert (baked / "masks" / "a b.png").read_text() == "masks/a b.png"


def test_a_job_names_a_file_of_the_image(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("the draft engine has no files of its own")
    workflow = {
        "1": node("LoadImage", image="example.png"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    for given in ({}, {"action": "validate"}):
        answer = bench.run(workflow=workflow, **given)
        assert answer["status"] == "success", answer
        assert answer.get("valid", True)
    sent = bench.run(workflow=workflow, images=[{"name": "example.png", "image": picture()}])
    assert sent["images"] != answer.get("images")
