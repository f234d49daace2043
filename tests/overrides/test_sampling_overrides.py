"""Overrides beyond prompt, seed and size: found by links, checked by the engine's own schema, before anything is queued."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from src.errors import AmbiguousOverrideTarget, InvalidInput, NoOverrideTarget
from src.overrides import Lora, Overrides, apply_overrides, set_inputs

from .. import workflows
from ..conftest import Bench
from ..workflows import Workflow, node
from .test_overrides import changed, plain, sampler


def full_sampler(**inputs: Any) -> dict[str, Any]:
    """A KSampler with all its values."""
    return sampler(
        **{"steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, **inputs}
    )


def whole(**nodes: Any) -> Workflow:
    """`plain` with a sampler that has all its values."""
    return plain(**{"n5": full_sampler(), **nodes})


ALL: dict[str, Any] = {
    "steps": 8,
    "cfg": 2.5,
    "denoise": 0.4,
    "sampler_name": "dpmpp_2m",
    "scheduler": "karras",
    "negative_prompt": "worse",
    "batch_size": 3,
}


def test_a_plain_sampler_takes_them_all() -> None:
    assert changed(whole(), **ALL) == {
        **{f"5.{name}": ALL[name] for name in ("steps", "cfg", "denoise", "sampler_name", "scheduler")},
        "3.text": "worse",
        "4.batch_size": 3,
    }


def test_in_flux_they_are_behind_the_sampler() -> None:
    wanted = {name: ALL[name] for name in ("steps", "denoise", "sampler_name", "scheduler", "batch_size")}
    assert changed(workflows.flux(), **wanted, guidance=2.0) == {
        "17.steps": 8,
        "17.denoise": 0.4,
        "17.scheduler": "karras",
        "16.sampler_name": "dpmpp_2m",
        "27.batch_size": 3,
        "26.guidance": 2.0,
    }


def test_what_a_workflow_has_not_got_is_an_error_that_says_so() -> None:
    for wanted, said in (
        ({"cfg": 2.0}, "accepts a cfg"),
        ({"negative_prompt": "x"}, "accepts a negative prompt text"),
    ):
        with pytest.raises(NoOverrideTarget, match=said):
            changed(workflows.flux(), **wanted)


def test_guiders_and_split_sigmas_are_passed_through() -> None:
    workflow = workflows.flux()
    workflow["22"] = node("CFGGuider", model=["30", 0], positive=["26", 0], negative=["40", 0], cfg=1.0)
    workflow["40"] = node("CLIPTextEncode", text="bad", clip=["11", 0])
    workflow["41"] = node("SplitSigmas", sigmas=["17", 0], step=2)
    workflow["13"]["inputs"]["sigmas"] = ["41", 1]
    assert changed(workflow, cfg=4.0, steps=9, negative_prompt="worse") == {
        "22.cfg": 4.0,
        "17.steps": 9,
        "41.step": 4,  # half of four before, half of nine now
        "40.text": "worse",
    }


def test_two_passes_that_differ_are_listed_and_one_can_be_named() -> None:
    second = full_sampler(latent_image=["5", 0], steps=10, denoise=0.5)
    workflow = whole(n11=second)
    workflow["90"]["inputs"]["samples"] = ["11", 0]
    with pytest.raises(AmbiguousOverrideTarget, match=r"steps_node_id: 5 \(KSampler\), 11 \(KSampler\)"):
        changed(workflow, steps=8)
    assert changed(workflow, steps=8, steps_node_id="11") == {"11.steps": 8}
    assert changed(workflow, cfg=3.0) == {"5.cfg": 3.0, "11.cfg": 3.0}


def test_a_sampler_that_does_a_part_of_the_steps_keeps_its_share() -> None:
    advanced: dict[str, Any] = {"class_type": "KSamplerAdvanced", "inputs": {
        **full_sampler()["inputs"], "noise_seed": 1, "add_noise": "enable", "start_at_step": 0, "end_at_step": 20, "steps": 25,
    }}  # fmt: skip
    refiner = copy.deepcopy(advanced)
    refiner["inputs"].update(latent_image=["5", 0], start_at_step=20, end_at_step=10000)
    workflow = whole(n5=advanced, n11=refiner)
    workflow["90"]["inputs"]["samples"] = ["11", 0]
    assert changed(workflow, steps=50) == {
        "5.steps": 50,
        "5.end_at_step": 40,
        "11.steps": 50,
        "11.start_at_step": 40,
    }


def test_a_value_in_a_primitive_node_is_changed_there() -> None:
    workflow = whole(n10=node("PrimitiveInt", value=20))
    workflow["5"]["inputs"]["steps"] = ["10", 0]
    assert changed(workflow, steps=4) == {"10.value": 4}
    workflow["5"]["inputs"]["seed"] = ["10", 0]  # a primitive for two purposes is left alone
    assert changed(workflow, steps=4) == {"5.steps": 4}


def test_a_shared_encoder_is_never_made_negative() -> None:
    workflow = whole()
    workflow["5"]["inputs"]["negative"] = ["2", 0]
    with pytest.raises(NoOverrideTarget, match="negative_prompt: no node of the workflow accepts"):
        changed(workflow, negative_prompt="x")


def test_the_usual_id_that_decides_between_different_nodes_is_told() -> None:
    workflow = whole(n6=node("CLIPTextEncode", text="refined", clip=["1", 1]), n11=full_sampler(positive=["6", 0], latent_image=["5", 0]))  # fmt: skip
    workflow["90"]["inputs"]["samples"] = ["11", 0]
    applied = apply_overrides(workflow, Overrides(prompt="p"))
    assert applied.workflow["6"]["inputs"]["text"] == "p"
    assert applied.hints[0].startswith("prompt went into node 6 (CLIPTextEncode), which has the usual id")
    assert "2 (CLIPTextEncode)" in applied.hints[0]


def test_a_picture_that_is_brought_to_a_size_of_its_own_is_told() -> None:
    workflow = whole(
        n10=node("ImageScale", image=["90", 0], upscale_method="area", width=512, height=512, crop="disabled")
    )
    workflow["91"]["inputs"]["images"] = ["10", 0]
    applied = apply_overrides(workflow, Overrides(width=1024, height=1024))
    assert "10 (ImageScale) still resizes images to its own size" in applied.hints[0]


# --- LoRAs -----------------------------------------------------------------------------------------------


def links(workflow: Workflow) -> dict[str, Any]:
    """`node.input` to link."""
    return {
        f"{node_id}.{name}": value
        for node_id, part in workflow.items()
        for name, value in part["inputs"].items()
        if isinstance(value, list)
    }


def with_loras(workflow: Workflow, *loras: Lora, **node_ids: str) -> Workflow:
    """The workflow with LoRAs; the argument stays as it is."""
    before = copy.deepcopy(workflow)
    after = dict(apply_overrides(workflow, Overrides(loras=loras, node_ids=node_ids)).workflow)
    assert workflow == before
    return after


def test_a_lora_of_a_checkpoint_acts_on_model_and_text_encoder() -> None:
    after = with_loras(whole(), Lora("a.safetensors", 0.8), Lora("b.safetensors", 0.5, 0.1))
    assert after["1.lora1"] == node(
        "LoraLoader", model=["1", 0], lora_name="a.safetensors", strength_model=0.8, clip=["1", 1], strength_clip=0.8
    )
    assert after["1.lora2"]["inputs"]["model"] == ["1.lora1", 0]
    assert after["1.lora2"]["inputs"]["clip"] == ["1.lora1", 1]
    assert after["1.lora2"]["inputs"]["strength_clip"] == 0.1
    assert links(after)["5.model"] == ["1.lora2", 0]
    assert links(after)["2.clip"] == links(after)["3.clip"] == ["1.lora2", 1]
    assert links(after)["90.vae"] == ["1", 2]


def test_a_lora_of_flux_acts_on_the_model_and_everything_behind_it() -> None:
    after = with_loras(workflows.flux(), Lora("style.safetensors"))
    assert after["12.lora1"]["class_type"] == "LoraLoaderModelOnly"
    assert links(after)["30.model"] == ["12.lora1", 0]
    assert links(after)["6.clip"] == ["11", 0]
    both = with_loras(workflows.flux(), Lora("style.safetensors", 1.0, 0.5))
    assert both["12.lora1"]["inputs"]["clip"] == ["11", 0]
    assert links(both)["6.clip"] == ["12.lora1", 1]


def test_a_lora_goes_before_those_of_the_workflow() -> None:
    workflow = whole(n20=node("LoraLoaderModelOnly", model=["1", 0], lora_name="own", strength_model=1.0))
    workflow["5"]["inputs"]["model"] = ["20", 0]
    after = with_loras(workflow, Lora("a"))
    assert links(after)["20.model"] == ["1.lora1", 0]
    assert links(after)["5.model"] == ["20", 0]


def test_several_models_are_listed_and_one_can_be_named() -> None:
    workflow = whole(n20=node("CheckpointLoaderSimple", ckpt_name="refiner"), n11=full_sampler(model=["20", 0], latent_image=["5", 0]))  # fmt: skip
    workflow["90"]["inputs"]["samples"] = ["11", 0]
    with pytest.raises(AmbiguousOverrideTarget, match=r"loras_node_id: 1 .*, 20 "):
        with_loras(workflow, Lora("a"))
    after = with_loras(workflow, Lora("a"), loras_node_id="20")
    assert links(after)["11.model"] == ["20.lora1", 0]
    assert links(after)["5.model"] == ["1", 0]
    with pytest.raises(NoOverrideTarget, match="no node uses a model of node '91'"):
        with_loras(workflow, Lora("a"), loras_node_id="91")


def test_without_a_model_or_a_text_encoder_a_lora_has_no_place() -> None:
    with pytest.raises(NoOverrideTarget, match="no sampler of the workflow uses a model"):
        with_loras(workflows.still(), Lora("a"))
    bare = {"1": node("UNETLoader"), "5": sampler(), "2": node("X"), "3": node("X"), "4": node("X")}
    with pytest.raises(NoOverrideTarget, match="exactly one text encoder"):
        with_loras(bare, Lora("a", 1.0, 1.0))


# --- Inputs by name ---------------------------------------------------------------------------------------


def test_inputs_are_set_by_name_in_a_copy() -> None:
    workflow = workflows.flux()
    after, slots = set_inputs(
        workflow, {"6": {"inputs": {"text": "x"}}, "17": {"inputs": {"steps": 3, "scheduler": "beta"}}}
    )
    assert (after["6"]["inputs"]["text"], after["17"]["inputs"]["steps"]) == ("x", 3)
    assert slots == (("6", "text"), ("17", "steps"), ("17", "scheduler"))
    assert workflow == workflows.flux()
    with pytest.raises(NoOverrideTarget, match="the workflow has no node '99'; it has 6 "):
        set_inputs(workflow, {"99": {"inputs": {}}})
    for shape in ({"text": "x"}, {"inputs": 5}, {"inputs": {}, "class_type": "Evil"}, "x"):
        with pytest.raises(InvalidInput, match="must be like"):
            set_inputs(workflow, {"6": shape})


# --- On an engine: checked by its schema ---------------------------------------------------------------------


BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "cfg over the schema's range": ({"overrides": {"8": {"inputs": {"cfg": 1000}}}}, "cfg must be at most 100.0, not 1000"),
    "steps of zero": ({"overrides": {"8": {"inputs": {"steps": 0}}}}, "steps must be at least 1, not 0"),
    "a sampler that is none": ({"sampler_name": "eulr"}, "sampler_name must be one of 'euler', "),
    "a scheduler that is none": ({"scheduler": "nope"}, "scheduler must be one of "),
    "a batch over the schema's range": ({"batch_size": 4097}, "batch_size must be a whole number from 1 to 4096"),
    "a text for a number": ({"overrides": {"8": {"inputs": {"steps": "many"}}}}, "steps must be of type INT, not 'many'"),
    "an input that is none": ({"overrides": {"31": {"inputs": {"txt": "x"}}}}, "has no input 'txt'; it has text, clip"),
    "a link to nowhere": ({"overrides": {"8": {"inputs": {"model": ["77", 0]}}}}, "'77', which the workflow does not have"),
    "a link of another type": ({"overrides": {"8": {"inputs": {"model": ["2", 0]}}}}, "model must be MODEL; node 2 (CLIPLoader) gives CLIP"),
    "a way out of the folder": ({"overrides": {"9": {"inputs": {"filename_prefix": "../x"}}}}, "filename_prefix must be"),
    "a cycle": ({"overrides": {"8": {"inputs": {"latent_image": ["8", 0]}}}}, "cycle"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "said"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_a_value_that_does_not_fit_is_refused_before_it_is_queued(bench: Bench, fields: Any, said: str) -> None:
    answer = bench.run(workflow=workflows.generative(), **fields)
    assert (answer["status"], answer["error_type"]) == ("error", "validation")
    assert said in answer["error"]
    assert "prompt_id" not in answer


def test_overrides_reach_the_picture(bench: Bench) -> None:
    def run(**fields: Any) -> list[str]:
        answer = bench.run(workflow=workflows.generative(), seed=5, **fields)
        assert answer["status"] == "success", answer
        return [str(image) for image in answer["images"]]

    base = run()
    for fields in ({"steps": 3}, {"cfg": 3.5}, {"denoise": 0.5}, {"scheduler": "karras"}, {"negative_prompt": "ugly"}):
        if bench.name == "real" or "denoise" not in fields:
            assert run(**fields) != base, fields
    assert len(run(batch_size=2)) == 2
    assert run(overrides={"8": {"inputs": {"steps": 3}}}) == run(steps=3)


def test_a_lora_that_is_not_there_is_a_missing_model(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("any model will do there")
    answer = bench.run(workflow=workflows.generative(), loras=[{"name": "nope.safetensors", "strength": 0.5}])
    assert answer["error_code"] == "missing_model"
    assert "lora_name 'nope.safetensors' was not found in the folder loras" in answer["error"]


def test_a_random_seed_is_another_each_time_and_told(bench: Bench) -> None:
    answers = [bench.run(workflow=workflows.generative(), seed="random") for _ in range(2)]
    seeds = [answer["seed"] for answer in answers]
    assert seeds[0] != seeds[1]
    again = bench.run(workflow=workflows.generative(), seed=seeds[0])
    assert again["images"] == answers[0]["images"]
    assert bench.run(workflow=workflows.generative())["seed"] == 1


def test_an_answer_for_browsers_holds_seeds_that_javascript_can_read(draft_bench: Bench) -> None:
    assert 0 <= draft_bench.run(workflow=workflows.generative(), seed="random")["seed"] < 2**53


def test_the_example_of_flux_takes_every_override(draft_bench: Bench) -> None:
    given = json.loads((Path(__file__).parents[2] / "examples" / "workflow_api_format.json").read_text())
    fields = {
        "steps": 3,
        "guidance": 2.0,
        "denoise": 0.9,
        "sampler_name": "euler",
        "scheduler": "simple",
        "batch_size": 2,
    }
    answer = draft_bench.run(workflow=given, loras=[{"name": "style.safetensors"}], **fields)
    assert len(answer["images"]) == 2, answer
