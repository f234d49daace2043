"""A worker tells about itself, checks a workflow without running it, and knows workflows by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from src.settings import Settings
from src.workflow.stored import list_stored_workflows

from .. import workflows
from ..conftest import Bench, booted, settings_for
from ..workflows import Workflow, node


def test_a_worker_tells_what_it_is_and_has(bench: Bench) -> None:
    answer = bench.run(action="info")
    assert answer["status"] == "success"
    assert answer["versions"]["comfyui"] == bench.engine.version
    assert answer["devices"][0]["type"] == "cpu" or bench.name == "real"
    assert answer["settings"]["JOB_TIMEOUT"] == 600.0
    assert answer["disk"]["temporary"]["free_bytes"] > 0
    assert "workflow_api_format" in answer["workflows"]
    if bench.name == "real":
        assert answer["models"]["text_encoders"] == ["tiny_clip_l.safetensors"]
        assert answer["node_packs"]["worker_test_nodes"] >= 8
        assert answer["node_packs"]["nodes"] > 50
    assert len(json.dumps(answer)) < 100_000


def test_secrets_are_only_told_to_be_set(draft_bench: Bench) -> None:
    secrets: dict[str, Any] = {
        "serve_api_key": "aaSECRET",
        "comfy_org_api_key": "bbSECRET",
        "bucket_secret_access_key": "ccSECRET",
    }
    runner = draft_bench.worker.runner
    own = replace(runner, settings=replace(runner.settings, **secrets))
    answer = replace(draft_bench, worker=replace(draft_bench.worker, runner=own)).run(action="info")
    assert "SECRET" not in json.dumps(answer["settings"]).replace("_SECRET_ACCESS_KEY", "")
    assert answer["settings"]["COMFY_ORG_API_KEY"] == answer["settings"]["BUCKET_SECRET_ACCESS_KEY"] == "set"
    assert answer["settings"]["BUCKET_ACCESS_KEY_ID"] == ""
    assert "SECRET" not in repr(own.settings).replace("_secret_", "")


def problems(bench: Bench, workflow: Workflow, **fields: Any) -> dict[str, Any]:
    """`node.input` to reason, from `action: validate`."""
    answer = bench.run(action="validate", workflow=workflow, **fields)
    assert answer["status"] == "success", answer
    assert answer["valid"] == (not answer["problems"])
    return {f"{problem['node_id']}.{problem['input']}": problem["reason"] for problem in answer["problems"]}


def test_a_workflow_that_would_run_is_valid_and_is_not_run(bench: Bench) -> None:
    assert problems(bench, workflows.generative(), prompt="x", steps=3) == {}
    assert not bench.prompts_in_history()


def test_everything_that_is_wrong_is_told_at_once(bench: Bench) -> None:
    workflow = workflows.generative()
    workflow["8"]["inputs"].update(steps=0, sampler_name="eulr", cfg="much")
    del workflow["8"]["inputs"]["denoise"]
    workflow["11"] = node("NoSuchNode", image=["10", 0])
    workflow["12"] = node("LoadImage", image="photo.png")
    workflow["13"] = node("SaveImage", images=["12", 0], filename_prefix="x")
    workflow["14"] = node("ImageBlend", image1=["12", 0], image2=["12", 0], blend_factor=0.5, blend_mode="NOPE")
    workflow["15"] = node("SaveImage", images=["14", 0], filename_prefix="x")
    workflow["16"] = node("SaveImage", images=["2", 0], filename_prefix="x")
    found = problems(bench, workflow)
    assert found == {
        "8.steps": "value_smaller_than_min",
        "8.sampler_name": "value_not_in_list",
        "8.cfg": "invalid_input_type",
        "8.denoise": "required_input_missing",
        "11.": "missing_node_type",
        "12.image": "missing_input_file",
        "14.blend_mode": "value_not_in_list",
        "16.images": "return_type_mismatch",
    }
    with_file = problems(bench, workflow, images=[{"name": "photo.png", "data": "AAAA"}])
    assert found.keys() - with_file.keys() == {"12.image"}


def test_what_is_not_of_the_workflow_keeps_a_job_from_running_too(bench: Bench) -> None:
    def reasons(**fields: Any) -> list[str]:
        answer = bench.run(action="validate", workflow=workflows.still(), **fields)
        assert answer["valid"] is False
        return [problem["reason"] for problem in answer["problems"]]

    assert reasons(output={"delivery": "bucket"}) == ["no_bucket"]
    assert reasons(images=[{"name": "a.png", "url": "http://10.0.0.1/x"}]) == ["input_file"]
    assert reasons(images=[{"name": "a.png", "url": "file:///etc/passwd"}]) == ["input_file"]
    assert reasons(images=[{"name": "../a.png", "data": "AAAA"}]) == ["input_file"]
    assert reasons(overrides={"1": {"inputs": {"widht": 5}}}) == ["unknown_input"]
    answer = bench.run(action="validate", workflow={"1": workflows.still()["1"]})
    assert [problem["reason"] for problem in answer["problems"]] == ["prompt_no_outputs"]
    answer = bench.run(action="validate", workflow={**workflows.still(), "7": node("LoadImag", mask=["3", 0])})
    assert "LoadImage" in answer["problems"][0]["message"]


def test_a_missing_model_is_told_with_the_nearest_names(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("any model will do there")
    workflow = workflows.generative()
    workflow["1"]["inputs"]["unet_name"] = "tiny_sd3.safetensor"
    answer = bench.run(action="validate", workflow=workflow)
    (problem,) = answer["problems"]
    assert "'tiny_sd3.safetensors'" in problem["message"]
    assert problem["received"] == "tiny_sd3.safetensor"


def test_what_no_output_needs_is_only_looked_at_for_its_class(bench: Bench) -> None:
    workflow = {**workflows.still(), "20": node("EmptyImage", width=0, height=0, batch_size=1, color=0)}
    assert problems(bench, workflow) == {}
    assert bench.run(workflow=workflow)["status"] == "success"


def test_an_action_that_is_none_names_those_there_are(draft_bench: Bench) -> None:
    answer = draft_bench.run(action="reboot", workflow=workflows.still())
    assert answer["error"] == "action must be one of run, validate, info, not 'reboot'"


# --- Paid nodes --------------------------------------------------------------------------------------------


PAID = {"1": node("WorkerTestPartner"), "2": node("PreviewAny", source=["1", 0])}


@pytest.mark.slow
def test_paid_nodes_want_a_key_and_get_it(model_paths: Path) -> None:
    with booted("real", settings_for("real", model_paths, enable_api_nodes=True)) as own:
        answer = own.run(workflow=PAID)
        assert (answer["error_code"], answer["error_type"]) == ("partner_key_missing", "validation")
        assert "1 (WorkerTestPartner)" in answer["error"]
        assert own.run(workflow=PAID, comfy_org_api_key="k" * 7)["text"] == ["7"]
        schemas = own.engine.client.all_schemas()
        of_comfyui = next(name for name, schema in schemas.items() if schema.pack.startswith("comfy_api_nodes"))
        real = {"1": node(of_comfyui), "2": node("PreviewAny", source=["1", 0])}
        assert own.run(workflow=real)["error_code"] == "partner_key_missing"
        runner = replace(own.worker.runner, settings=replace(own.worker.runner.settings, comfy_org_api_key="k" * 9))
        keyed = replace(own, worker=replace(own.worker, runner=runner))
        assert keyed.run(workflow={**PAID, "1": node("WorkerTestPartner", again=1)})["text"] == ["9"]


# --- By name -----------------------------------------------------------------------------------------------


@pytest.fixture
def named(draft_bench: Bench, tmp_path: Path) -> Bench:
    """A bench with a folder of workflows."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "mine.json").write_text(json.dumps(workflows.still()))
    (tmp_path / "sub" / "wrapped.json").write_text(json.dumps({"input": {"workflow": workflows.still()}}))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "smoke_workflow.json").write_text(json.dumps(workflows.batch_of_four()))
    runner = draft_bench.worker.runner
    own = replace(runner, settings=replace(runner.settings, workflows_dir=str(tmp_path)))
    return replace(draft_bench, worker=replace(draft_bench.worker, runner=own))


@pytest.mark.parametrize("name", ["mine", "mine.json", "sub/wrapped", " mine "])
def test_a_workflow_is_called_by_name(named: Bench, name: str) -> None:
    assert len(named.run(workflow=name)["images"]) == 1


def test_a_stored_request_holds_unless_the_job_has_its_own(named: Bench, tmp_path: Path) -> None:
    stored = {"input": {"workflow": workflows.generative(), "seed": 77, "steps": 3, "action": "info"}}
    (tmp_path / "portrait (1).json").write_text(json.dumps(stored))
    assert named.run(workflow="portrait (1)")["seed"] == 77
    assert named.run(workflow="portrait (1)", seed=5)["seed"] == 5
    assert "steps must be" in named.run(workflow="portrait (1)", steps=0)["error"]


def test_the_operators_folder_comes_before_the_examples(named: Bench) -> None:
    assert len(named.run(workflow="smoke_workflow")["images"]) == 4


def test_the_examples_ship(draft_bench: Bench) -> None:
    assert draft_bench.run(workflow="workflow_api_format", prompt="a cat", steps=2)["status"] == "success"


@pytest.mark.parametrize("name", ["nope", "../mine", "/etc/passwd", "sub/../mine", "a b", "x" * 5000, "..", "sub"])
def test_a_name_that_is_none_lists_those_there_are(named: Bench, name: str) -> None:
    answer = named.run(workflow=name)
    assert (answer["error_code"], answer["error_type"]) == ("workflow_not_found", "validation")
    assert "mine" in answer["names"]
    assert len(json.dumps(answer)) < 3000


def test_a_near_name_is_proposed_and_a_broken_file_is_told(named: Bench) -> None:
    assert "available: mine" in named.run(workflow="mnie")["error"]
    assert "'broken' cannot be read as JSON" in named.run(workflow="broken")["error"]


def test_a_link_that_leads_out_of_the_folder_is_not_followed(named: Bench, tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside.json"
    outside.write_text(json.dumps(workflows.still()))
    (tmp_path / "link.json").symlink_to(outside)
    assert named.run(workflow="link")["error_code"] == "workflow_not_found"


def test_a_workflow_may_come_as_a_text_of_json(draft_bench: Bench) -> None:
    assert draft_bench.run(workflow=json.dumps(workflows.still()))["status"] == "success"
    assert "neither JSON nor the name" in draft_bench.run(workflow='{"1": ')["error"]


def test_names_are_listed_once_and_sorted(tmp_path: Path) -> None:
    (tmp_path / "smoke_workflow.json").write_text("{}")
    names = list_stored_workflows(Settings(workflows_dir=str(tmp_path)))
    assert names == sorted(set(names))
    assert {"smoke_workflow", "workflow_api_format"} <= set(names)
