"""An override reaches the node a person would have named, by links and never by titles, or says who could be meant."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from src.draft.schema import object_info
from src.errors import AmbiguousOverrideTarget, NoOverrideTarget
from src.overrides import Overrides, apply_overrides

from .. import workflows
from ..workflows import Workflow, node


def changed(workflow: Workflow, **fields: Any) -> dict[str, Any]:
    """`node.input` to new value, for every input that the overrides changed; the argument stays as it is."""
    before = copy.deepcopy(workflow)
    node_ids = {name: fields.pop(name) for name in list(fields) if name.endswith("_node_id")}
    after = apply_overrides(workflow, Overrides(**fields, node_ids=node_ids)).workflow
    assert workflow == before
    return {
        f"{node_id}.{name}": value
        for node_id, part in after.items()
        for name, value in part["inputs"].items()
        if before[node_id]["inputs"][name] != value
    }


SIZE = {"width": 512, "height": 768}


def sampler(**inputs: Any) -> dict[str, Any]:
    """A KSampler."""
    usual = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "seed": 1}
    return node("KSampler", **{**usual, **inputs})


def plain(**nodes: Any) -> Workflow:
    """Checkpoint, positive 2, negative 3, size 4, sampler 5, decoder 90, saver 91; none has a usual id."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="a"),
        "2": node("CLIPTextEncode", text="good", clip=["1", 1]),
        "3": node("CLIPTextEncode", text="bad", clip=["1", 1]),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": sampler(),
        "90": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "91": node("SaveImage", images=["90", 0], filename_prefix="x"),
        **{name.removeprefix("n"): part for name, part in nodes.items()},
    }


def test_usual_ids_of_flux_are_changed_and_the_shift_follows_the_size() -> None:
    assert changed(workflows.flux(), prompt="p", seed=9, **SIZE) == {
        "6.text": "p",
        "25.noise_seed": 9,
        "27.width": 512,
        "27.height": 768,
        "30.width": 512,
        "30.height": 768,
    }


def test_without_usual_ids_the_links_of_flux_lead_to_the_same_nodes() -> None:
    renamed = json.loads(
        json.dumps(workflows.flux()).replace('"6"', '"x6"').replace('"25"', '"x25"').replace('"27"', '"x27"')
    )
    assert changed(renamed, prompt="p", seed=9, **SIZE).keys() == {
        *("x6.text", "x25.noise_seed", "x27.width", "x27.height", "30.width", "30.height")
    }


def test_equal_titles_do_not_confuse_positive_and_negative() -> None:
    workflow = plain()
    for node_id in ("2", "3"):
        workflow[node_id]["_meta"] = {"title": "CLIP Text Encode (Prompt)"}
    assert changed(workflow, prompt="p", seed=9, **SIZE) == {
        "2.text": "p",
        "5.seed": 9,
        "4.width": 512,
        "4.height": 768,
    }


def test_a_usual_id_on_the_negative_side_is_only_a_hint() -> None:
    workflow = plain(n6=node("CLIPTextEncode", text="bad", clip=["1", 1]))
    workflow["5"]["inputs"]["negative"] = ["6", 0]
    assert changed(workflow, prompt="p") == {"2.text": "p"}


def test_a_usual_id_that_does_not_fit_is_only_a_hint() -> None:
    workflow = plain(
        n6=node("VAELoader", vae_name="v"), n25=node("VAELoader", vae_name="v"), n27=node("VAELoader", vae_name="v")
    )
    assert changed(workflow, prompt="p", seed=9, **SIZE).keys() == {"2.text", "5.seed", "4.width", "4.height"}


def test_conditioning_nodes_between_sampler_and_encoder_are_followed() -> None:
    workflow = plain(
        n10=node("FluxGuidance", conditioning=["2", 0], guidance=3.5),
        n11=node(
            "ControlNetApplyAdvanced", positive=["10", 0], negative=["3", 0], control_net=["12", 0], image=["13", 0]
        ),
        n12=node("ControlNetLoader", control_net_name="c"),
        n13=node("LoadImage", image="a.png"),
    )
    workflow["5"]["inputs"].update(positive=["11", 0], negative=["11", 1])
    assert changed(workflow, prompt="p") == {"2.text": "p"}


def test_a_zeroed_negative_of_the_same_encoder_changes_once() -> None:
    workflow = plain(n10=node("ConditioningZeroOut", conditioning=["2", 0]))
    workflow["5"]["inputs"]["negative"] = ["10", 0]
    assert changed(workflow, prompt="p") == {"2.text": "p"}


def test_encoders_with_several_texts_get_the_prompt_in_each() -> None:
    workflow = plain(
        n2=node("CLIPTextEncodeSDXL", text_g="good", text_l="good", clip=["1", 1], width=1024, height=1024)
    )
    assert changed(workflow, prompt="p") == {"2.text_g": "p", "2.text_l": "p"}


def test_a_linked_primitive_takes_the_value() -> None:
    workflow = plain(
        n10=node("PrimitiveStringMultiline", value="good"),
        n11=node("PrimitiveInt", value=1),
        n12=node("PrimitiveInt", value=64),
    )
    workflow["2"]["inputs"]["text"] = ["10", 0]
    workflow["5"]["inputs"]["seed"] = ["11", 0]
    workflow["4"]["inputs"]["width"] = ["12", 0]
    assert changed(workflow, prompt="p", seed=9, **SIZE) == {
        "10.value": "p",
        "11.value": 9,
        "12.value": 512,
        "4.height": 768,
    }


def test_of_a_text_that_is_joined_the_one_part_that_varies_is_meant_and_told() -> None:
    workflow = plain(
        n10=node("StringConcatenate", string_a=["11", 0], string_b="style", delimiter=", "),
        n11=node("PrimitiveString", value="good"),
    )
    workflow["2"]["inputs"]["text"] = ["10", 0]
    assert changed(workflow, prompt="p") == {"11.value": "p"}
    hint = apply_overrides(workflow, Overrides(prompt="p")).hints[0]
    assert hint.startswith(
        "prompt went into value of node 11 (PrimitiveString), from which node 10 (StringConcatenate)"
    )
    assert changed(workflow, prompt="p", prompt_node_id="11") == {"11.value": "p"}


def test_of_a_text_that_is_joined_of_several_that_vary_all_are_listed() -> None:
    workflow = plain(
        n10=node("StringConcatenate", string_a=["11", 0], string_b=["12", 0], delimiter=", "),
        n11=node("PrimitiveString", value="good"),
        n12=node("PrimitiveStringMultiline", value="in the style of a cat"),
    )
    workflow["2"]["inputs"]["text"] = ["10", 0]
    computed = r"computed by node 10 \(StringConcatenate\).*11 \(PrimitiveString\), 12 "
    with pytest.raises(NoOverrideTarget, match=computed) as raised:
        changed(workflow, prompt="p")
    assert [candidate["node_id"] for candidate in raised.value.details["candidates"]] == ["11", "12"]
    assert changed(workflow, prompt="p", prompt_node_id="12") == {"12.value": "p"}


def test_two_passes_with_noise_share_the_seed_and_one_without_keeps_its_own() -> None:
    upscaled = node(
        "LatentUpscale", samples=["5", 0], upscale_method="bilinear", width=1024, height=1024, crop="disabled"
    )
    second = node(
        "KSamplerAdvanced", model=["1", 0], positive=["2", 0], negative=["3", 0], latent_image=["5", 0],
        add_noise="disable", noise_seed=3,
    )  # fmt: skip
    workflow = plain(n10=upscaled, n11=sampler(latent_image=["10", 0], seed=2), n12=second)
    workflow["90"]["inputs"]["samples"] = ["11", 0]
    workflow["92"] = node("VAEDecode", samples=["12", 0], vae=["1", 2])
    assert changed(workflow, seed=9) == {"5.seed": 9, "11.seed": 9}
    assert changed(workflow, width=128, height=32) == {
        "4.width": 128,
        "4.height": 32,
        "10.width": 2048,
        "10.height": 512,  # a second pass enlarges as much as before
    }


def test_positive_prompts_that_agree_all_change_and_those_that_differ_are_listed() -> None:
    workflow = plain(
        n10=node("CLIPTextEncode", text="good", clip=["1", 1]), n11=sampler(positive=["10", 0], latent_image=["5", 0])
    )
    workflow["90"]["inputs"]["samples"] = ["11", 0]
    assert changed(workflow, prompt="p") == {"2.text": "p", "10.text": "p"}
    workflow["10"]["inputs"]["text"] = "another"
    workflow["10"]["_meta"] = {"title": "Refine"}
    with pytest.raises(
        AmbiguousOverrideTarget, match=r'2 \(CLIPTextEncode\), 10 \(CLIPTextEncode "Refine"\)'
    ) as raised:
        changed(workflow, prompt="p")
    assert raised.value.details["candidates"] == [
        {"node_id": "2", "class_type": "CLIPTextEncode", "title": "CLIPTextEncode"},
        {"node_id": "10", "class_type": "CLIPTextEncode", "title": "Refine"},
    ]
    assert changed(workflow, prompt="p", prompt_node_id="10") == {"10.text": "p"}


def test_of_prompts_that_differ_the_usual_id_is_meant() -> None:
    workflow = plain(
        n6=node("CLIPTextEncode", text="scene", clip=["1", 1]),
        n10=node("ConditioningCombine", conditioning_1=["2", 0], conditioning_2=["6", 0]),
    )
    workflow["5"]["inputs"]["positive"] = ["10", 0]
    assert changed(workflow, prompt="p") == {"6.text": "p"}


def test_a_sampler_that_feeds_nobody_is_left_alone() -> None:
    workflow = plain(n10=sampler(seed=5))
    assert changed(workflow, seed=9) == {"5.seed": 9}


def test_an_image_to_image_workflow_has_no_size_to_set() -> None:
    workflow = plain(n4=node("VAEEncode", pixels=["10", 0], vae=["1", 2]), n10=node("LoadImage", image="a.png"))
    with pytest.raises(NoOverrideTarget, match="width and height: no node of the workflow accepts"):
        changed(workflow, **SIZE)


def test_a_video_model_that_takes_the_size_itself_is_found() -> None:
    workflow = plain(
        n4=node(
            "WanImageToVideo",
            positive=["2", 0],
            negative=["3", 0],
            vae=["1", 2],
            width=832,
            height=480,
            length=33,
            batch_size=1,
        )
    )
    workflow["5"]["inputs"].update(positive=["4", 0], negative=["4", 1], latent_image=["4", 2])
    assert changed(workflow, prompt="p", **SIZE) == {"2.text": "p", "4.width": 512, "4.height": 768}


def test_without_a_sampler_a_workflow_that_draws_takes_size_and_seed() -> None:
    assert changed(workflows.batch_of_four(), seed=9, **SIZE) == {"3.seed": 9, "1.width": 512, "1.height": 768}


def test_a_partner_node_with_a_prompt_of_its_own_takes_it() -> None:
    workflow = {
        "1": node("FluxProUltraImageNode", prompt="good", seed=1, aspect_ratio="16:9"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    assert changed(workflow, prompt="p", seed=9) == {"1.prompt": "p", "1.seed": 9}


def test_a_node_that_a_caller_names_is_taken_at_its_word() -> None:
    assert changed(plain(), prompt="p", prompt_node_id="3") == {"3.text": "p"}


@pytest.mark.parametrize("node_id", ["4", "nope"])
def test_a_named_node_that_does_not_fit_lists_those_that_do(node_id: str) -> None:
    with pytest.raises(NoOverrideTarget, match=r"prompt_node_id: .*name one with prompt_node_id: 2 .*3 "):
        changed(plain(), prompt="p", prompt_node_id=node_id)


@pytest.mark.parametrize(
    "class_type", sorted(name for name in object_info() if name.startswith("Empty") and name != "EmptyImage")
)
def test_every_latent_class_of_the_draft_engine_takes_a_size(class_type: str) -> None:
    workflow = plain(n4=node(class_type, width=64, height=64, batch_size=1))
    assert changed(workflow, **SIZE) == {"4.width": 512, "4.height": 768}


def test_the_example_workflow_takes_every_override() -> None:
    example = json.loads((Path(__file__).parents[2] / "examples" / "workflow_api_format.json").read_text())
    assert changed(example, prompt="p", seed=9, **SIZE).keys() >= {"6.text", "25.noise_seed", "27.height", "30.width"}


# --- Nodes of packs in the wild ----------------------------------------------------------------------------


def test_a_pack_node_that_hands_both_roles_on_in_other_slots_keeps_them_apart() -> None:
    both = node("ApplyInstantID", model=["1", 0], positive=["2", 0], negative=["3", 0], image=["11", 0])
    workflow = plain(n10=both, n11=node("LoadImage", image="a.png"))
    workflow["5"]["inputs"].update(model=["10", 0], positive=["10", 1], negative=["10", 2])
    assert changed(workflow, prompt="p") == {"2.text": "p"}


def test_a_positive_that_cannot_be_traced_is_no_reason_to_take_the_negative() -> None:
    workflow = plain(n2=node("SomePackConditioning", source="x"), n6=node("CLIPTextEncode", text="bad", clip=["1", 1]))
    workflow["5"]["inputs"]["negative"] = ["6", 0]
    workflow["7"] = node("OllamaGenerate", prompt="describe")
    workflow["8"] = node("PreviewAny", source=["7", 0])
    with pytest.raises(NoOverrideTarget, match="prompt: no node of the workflow accepts"):
        changed(workflow, prompt="p")


def test_a_primitive_that_holds_two_things_is_left_alone() -> None:
    workflow = plain(n10=node("PrimitiveInt", value=1024), n11=node("PrimitiveString", value="both"))
    workflow["4"]["inputs"].update(width=["10", 0], height=["10", 0])
    workflow["2"]["inputs"]["text"] = workflow["3"]["inputs"]["text"] = ["11", 0]
    workflow["5"]["inputs"].update(seed=["10", 0], steps=["10", 0])
    assert changed(workflow, prompt="p", seed=9, **SIZE) == {
        "2.text": "p",
        "5.seed": 9,
        "4.width": 512,
        "4.height": 768,
    }


def test_a_primitive_width_that_several_nodes_share_changes_for_all() -> None:
    workflow = plain(
        n10=node("PrimitiveInt", value=64), n11=node("ImageScale", image=["12", 0], width=["10", 0], height=64)
    )
    workflow["12"] = node("LoadImage", image="a.png")
    workflow["4"]["inputs"]["width"] = ["10", 0]
    assert changed(workflow, **SIZE) == {"10.value": 512, "4.height": 768}


@pytest.mark.parametrize("class_type", ["ImageCrop", "ConditioningSetArea"])
def test_a_usual_size_id_on_something_else_is_not_taken(class_type: str) -> None:
    workflow = plain(
        n4=node("VAEEncode", pixels=["10", 0], vae=["1", 2]),
        n10=node("LoadImage", image="a.png"),
        n27=node(class_type, image=["10", 0], width=64, height=64),
    )
    with pytest.raises(NoOverrideTarget, match="width and height: no node of the workflow accepts"):
        changed(workflow, **SIZE)


def test_a_computed_text_can_be_overwritten_in_a_node_that_is_named() -> None:
    workflow = plain(n10=node("RandomArtist", seed=5, style="s"))
    workflow["2"]["inputs"]["text"] = ["10", 0]
    with pytest.raises(NoOverrideTarget, match=r"computed by node 10 \(RandomArtist\)"):
        changed(workflow, prompt="p")
    assert changed(workflow, prompt="p", prompt_node_id="2") == {"2.text": "p"}


def test_a_node_that_makes_a_text_of_a_prompt_takes_the_prompt() -> None:
    workflow = plain(n10=node("SDXLPromptStyler", text_positive="x", style="s"))
    workflow["2"]["inputs"]["text"] = ["10", 0]
    assert changed(workflow, prompt="p") == {"10.text_positive": "p"}


def test_reroutes_and_switches_are_followed_for_the_size() -> None:
    workflow = plain(n10=node("Reroute", **{"": ["4", 0]}), n11=node("Any Switch (rgthree)", any_01=["10", 0]))
    workflow["5"]["inputs"]["latent_image"] = ["11", 0]
    assert changed(workflow, **SIZE) == {"4.width": 512, "4.height": 768}


def test_inputs_of_common_packs_are_known() -> None:
    loader = node("Efficient Loader", positive="good", negative="bad", empty_latent_width=64, empty_latent_height=64)
    assert changed(
        {"1": loader, "2": node("KSampler (Efficient)", model=["1", 0], positive=["1", 1], negative=["1", 2], latent_image=["1", 3], seed=1),
         "3": node("SaveImage", images=["2", 5], filename_prefix="x")},
        prompt="p", seed=9, **SIZE,
    ) == {"1.positive": "p", "2.seed": 9, "1.empty_latent_width": 512, "1.empty_latent_height": 768}  # fmt: skip
