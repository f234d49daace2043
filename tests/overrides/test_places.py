"""Where a value goes is seen by types: in workflows of all families, of packs that are not known, and of former times."""

from __future__ import annotations

from typing import Any

import pytest

from src.errors import AmbiguousOverrideTarget, NoOverrideTarget
from src.overrides import Lora, Overrides, apply_overrides, overridable_fields
from src.workflow.core_classes import core_schemas
from src.workflow.schemas import NodeSchema, read_schema

from ..workflows import Workflow, node
from .test_overrides import changed


def hints(workflow: Workflow, **fields: Any) -> str:
    """What the caller is told about overrides."""
    return " / ".join(apply_overrides(workflow, Overrides(**fields)).hints)


def diffusion(**changes: dict[str, Any]) -> Workflow:
    """Model 1, text encoder 2, texts 4 and 5, latent 6, sampler 3, decoder 8, saver 9; with nodes added or replaced."""
    return {
        "1": node("UNETLoader", unet_name="a.safetensors", weight_dtype="default"),
        "2": node("CLIPLoader", clip_name="c.safetensors", type="wan"),
        "7": node("VAELoader", vae_name="v.safetensors"),
        "4": node("CLIPTextEncode", clip=["2", 0], text="a fox"),
        "5": node("CLIPTextEncode", clip=["2", 0], text="bad"),
        "6": node("EmptyLatentImage", width=512, height=512, batch_size=1),
        "3": sampler(),
        "8": node("VAEDecode", samples=["3", 0], vae=["7", 0]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="o"),
        **{name.removeprefix("n"): part for name, part in changes.items()},
    }


def sampler(**inputs: Any) -> dict[str, Any]:
    """A KSampler of the nodes above."""
    links = {"model": ["1", 0], "positive": ["4", 0], "negative": ["5", 0], "latent_image": ["6", 0]}
    numbers = {"seed": 1, "steps": 8, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return node("KSampler", **{**numbers, **links, **inputs})


# --- Nodes that no output needs --------------------------------------------------------------------------


def test_a_branch_without_an_output_is_never_meant() -> None:
    workflow = diffusion(
        n16=node("CLIPTextEncode", clip=["2", 0], text="old idea"),
        n13=sampler(positive=["16", 0], latent_image=["14", 0], seed=9, steps=30),
        n14=node("EmptyLatentImage", width=256, height=256, batch_size=1),
        n15=node("VAEDecode", samples=["13", 0], vae=["7", 0]),
    )
    workflow["6"], workflow["16"] = workflow["16"], workflow["6"]  # the leftover has the usual id
    workflow["3"]["inputs"]["latent_image"], workflow["13"]["inputs"]["positive"] = ["16", 0], ["6", 0]
    assert changed(workflow, prompt="p") == {"4.text": "p"}
    assert changed(workflow, steps=4, seed=7, width=128, height=64) == {
        "3.steps": 4, "3.seed": 7, "16.width": 128, "16.height": 64,
    }  # fmt: skip


def test_a_leftover_latent_takes_no_size_when_the_size_comes_from_a_picture() -> None:
    workflow = diffusion(
        n6=node("VAEEncode", pixels=["37", 0], vae=["7", 0]),
        n37=node("LoadImage", image="in.png"),
        n27=node("EmptySD3LatentImage", width=1024, height=1024, batch_size=1),
    )
    with pytest.raises(NoOverrideTarget, match=r"the size comes from 37 \(LoadImage\)") as raised:
        changed(workflow, width=512, height=768)
    assert raised.value.details["candidates"] == []
    assert changed(workflow, width=512, height=768, size_node_id="27") == {"27.width": 512, "27.height": 768}


def test_a_picture_that_is_brought_to_a_size_first_takes_it_there() -> None:
    scaled = node("ImageScale", image=["37", 0], width=1024, height=1024, upscale_method="area", crop="center")
    workflow = diffusion(
        n6=node("VAEEncode", pixels=["38", 0], vae=["7", 0]), n38=scaled, n37=node("LoadImage", image="in.png")
    )
    assert changed(workflow, width=512, height=768) == {"38.width": 512, "38.height": 768}


def test_of_a_switch_with_a_constant_condition_only_the_chosen_branch_counts() -> None:
    workflow = diffusion(
        n20=node("PrimitiveBoolean", value=True),
        n21=node("PrimitiveInt", value=4),
        n22=node("PrimitiveInt", value=20),
        n23=node("ComfySwitchNode", switch=["20", 0], on_true=["21", 0], on_false=["22", 0]),
        n3=sampler(steps=["23", 0]),
    )
    assert changed(workflow, steps=6) == {"21.value": 6}
    workflow["20"]["inputs"]["value"] = False
    assert changed(workflow, steps=6) == {"22.value": 6}


def test_a_literal_in_the_chosen_branch_of_a_switch_is_meant() -> None:
    refined = node("TextGenerate", clip=["2", 0], prompt="a fox", max_length=256)
    workflow = diffusion(
        n20=node("ComfySwitchNode", switch=False, on_false="a fox", on_true=["21", 0]),
        n21=refined,
        n4=node("CLIPTextEncode", clip=["2", 0], text=["20", 0]),
    )
    assert changed(workflow, prompt="p") == {"20.on_false": "p"}


# --- Samplers that are meant, and those on the way -----------------------------------------------------------


def with_depth(**depth: Any) -> Workflow:
    """A picture whose conditioning has a depth map that another model makes of a photo."""
    return diffusion(
        n31=node("UNETLoader", unet_name="depth.safetensors", weight_dtype="default"),
        n32=node("LoadImage", image="photo.png"),
        n33=node("VAEEncode", pixels=["32", 0], vae=["7", 0]),
        n34=node("CLIPTextEncode", clip=["2", 0], text="depth"),
        n35=sampler(model=["31", 0], positive=["34", 0], latent_image=["33", 0], **depth),
        n36=node("VAEDecode", samples=["35", 0], vae=["7", 0]),
        n37=node("PreviewImage", images=["36", 0]),
        n10=node("ControlNetLoader", control_net_name="c"),
        n11=node(
            "ControlNetApplyAdvanced", positive=["4", 0], negative=["5", 0], control_net=["10", 0], image=["36", 0],
            strength=1.0, start_percent=0.0, end_percent=1.0,
        ),
        n3=sampler(positive=["11", 0], negative=["11", 1]),
    )  # fmt: skip


def test_another_models_pass_on_the_way_is_left_alone() -> None:
    workflow = with_depth(steps=1, cfg=3.0)
    assert changed(workflow, prompt="p", steps=30, cfg=4.0, width=128, height=64) == {
        "4.text": "p", "3.steps": 30, "3.cfg": 4.0, "6.width": 128, "6.height": 64,
    }  # fmt: skip
    after = apply_overrides(workflow, Overrides(loras=(Lora("a"),))).workflow
    assert after["3"]["inputs"]["model"] == ["1.lora1", 0]
    assert after["35"]["inputs"]["model"] == ["31", 0]


def test_a_value_that_another_models_pass_shares_by_chance_is_told() -> None:
    workflow = with_depth()
    assert changed(workflow, steps=30) == {"3.steps": 30}
    assert hints(workflow, steps=30) == "steps was left as it is in 35 (KSampler)"


def test_every_random_number_that_the_output_depends_on_gets_the_seed() -> None:
    assert changed(with_depth(), seed=9) == {"3.seed": 9, "35.seed": 9}


def test_a_second_pass_of_the_same_model_takes_its_values_too() -> None:
    again = {
        "41": node("UNETLoader", unet_name="a.safetensors", weight_dtype="default"),  # the same file
        "42": node("ImageScaleBy", image=["8", 0], upscale_method="area", scale_by=2.0),
        "43": node("VAEEncode", pixels=["42", 0], vae=["7", 0]),
        "44": sampler(model=["41", 0], latent_image=["43", 0]),
        "45": node("VAEDecode", samples=["44", 0], vae=["7", 0]),
        "9": node("SaveImage", images=["45", 0], filename_prefix="o"),
    }
    workflow = {**diffusion(), **again}
    assert changed(workflow, steps=30, width=128, height=64) == {
        "3.steps": 30, "44.steps": 30, "6.width": 128, "6.height": 64,
    }  # fmt: skip


def test_a_first_picture_has_the_prompt_where_the_video_model_takes_none() -> None:
    workflow = diffusion(
        n10=node("ImageOnlyCheckpointLoader", ckpt_name="svd.safetensors"),
        n11=node(
            "SVD_img2vid_Conditioning", clip_vision=["10", 1], init_image=["8", 0], vae=["10", 2], width=1024,
            height=576, video_frames=14, motion_bucket_id=127, fps=6, augmentation_level=0.0,
        ),
        n12=sampler(model=["10", 0], positive=["11", 0], negative=["11", 1], latent_image=["11", 2], cfg=2.5),
        n13=node("VAEDecode", samples=["12", 0], vae=["10", 2]),
        n9=node("SaveImage", images=["13", 0], filename_prefix="o"),
    )  # fmt: skip
    assert changed(workflow, prompt="p", negative_prompt="n", cfg=3.0) == {"4.text": "p", "5.text": "n", "12.cfg": 3.0}


def test_a_distilled_pass_without_guidance_does_not_make_cfg_ambiguous() -> None:
    workflow = diffusion(n3=sampler(cfg=4.0), n13=sampler(latent_image=["3", 0], cfg=1.0))
    workflow["8"]["inputs"]["samples"] = ["13", 0]
    assert changed(workflow, cfg=5.0) == {"3.cfg": 5.0}
    workflow["13"]["inputs"]["cfg"] = 2.0
    with pytest.raises(AmbiguousOverrideTarget, match=r"cfg_node_id: 3 \(KSampler\), 13 "):
        changed(workflow, cfg=5.0)


def test_each_branch_of_conditioning_keeps_its_own_guidance() -> None:
    workflow = diffusion(
        n20=node("FluxGuidance", conditioning=["4", 0], guidance=3.5),
        n21=node("FluxGuidance", conditioning=["5", 0], guidance=1.0),
        n3=sampler(positive=["20", 0], negative=["21", 0]),
    )
    assert changed(workflow, guidance=2.0) == {"20.guidance": 2.0}


# --- Prompts ------------------------------------------------------------------------------------------------


def test_an_encoder_of_any_family_takes_the_prompt() -> None:
    workflow = diffusion(
        n4=node("TextEncodeAceStepAudio1.5", clip=["2", 0], tags="funk", lyrics="[verse] la", seed=3, bpm=120),
        n5=node("ConditioningZeroOut", conditioning=["4", 0]),
        n6=node("EmptyAceStep1.5LatentAudio", seconds=60.0, batch_size=1),
    )
    assert changed(workflow, prompt="p", seed=9) == {"4.tags": "p", "3.seed": 9, "4.seed": 9}


def test_both_prompts_in_one_node_are_kept_apart() -> None:
    both = node("TextEncodeBooguEdit", clip=["2", 0], prompt="a fox", negative_prompt="bad", vae=["7", 0])
    workflow = diffusion(n4=both, n3=sampler(positive=["4", 0], negative=["4", 1]))
    assert changed(workflow, prompt="p", negative_prompt="n") == {"4.prompt": "p", "4.negative_prompt": "n"}


def test_a_loader_of_a_pack_with_both_prompts_takes_them() -> None:
    workflow = {
        "110": node(
            "Efficient Loader", ckpt_name="a", vae_name="Baked VAE", clip_skip=-2, lora_name="None", positive="a barn",
            negative="blurry", token_normalization="none", empty_latent_width=768, empty_latent_height=768, batch_size=1,
        ),
        "55": node(
            "KSampler (Efficient)", seed=11, steps=20, cfg=7.5, sampler_name="euler", scheduler="karras", denoise=1,
            model=["110", 0], positive=["110", 1], negative=["110", 2], latent_image=["110", 3], optional_vae=["110", 4],
        ),
        "9": node("SaveImage", filename_prefix="x", images=["55", 5]),
    }  # fmt: skip
    assert changed(workflow, prompt="p", negative_prompt="n") == {"110.positive": "p", "110.negative": "n"}
    fields = {field.name: (field.value, field.node_id) for field in overridable_fields(workflow)}
    assert fields["negative_prompt"] == ("blurry", "110")
    assert fields["width"] == (768, "110")


def test_a_text_that_is_only_shown_or_joined_on_the_way_is_changed_where_it_stands() -> None:
    encoder = node("CLIPTextEncode", clip=["2", 0], text=["21", 0])
    shown = diffusion(
        n4=encoder, n20=node("Text Multiline", text="a fox"), n21=node("ShowText|pysssss", text=["20", 0])
    )
    assert changed(shown, prompt="p") == {"20.text": "p"}
    assert hints(shown, prompt="p") == ""
    joined = {**shown, "21": node("StringConcatenate", string_a=["20", 0], string_b="masterpiece", delimiter=", ")}
    assert changed(joined, prompt="p") == {"20.text": "p"}
    assert "from which node 21 (StringConcatenate) makes text of node 4" in hints(joined, prompt="p")


def test_of_two_joined_texts_the_one_that_is_used_without_refining_is_the_prompt() -> None:
    workflow = diffusion(
        n20=node("PrimitiveStringMultiline", value="You write prompts."),
        n21=node("PrimitiveStringMultiline", value="a fox"),
        n22=node("StringConcatenate", string_a=["20", 0], string_b=["21", 0], delimiter=""),
        n23=node("TextGenerate", clip=["2", 0], prompt=["22", 0], max_length=256),
        n24=node("ComfySwitchNode", switch=True, on_false=["21", 0], on_true=["23", 0]),
        n4=node("CLIPTextEncode", clip=["2", 0], text=["24", 0]),
    )
    assert changed(workflow, prompt="p") == {"21.value": "p"}


def test_every_user_of_the_same_text_follows() -> None:
    workflow = with_depth()
    workflow["34"]["inputs"]["text"] = "a fox"
    assert changed(workflow, prompt="p") == {"4.text": "p", "34.text": "p"}


@pytest.mark.parametrize("name", ["prompt", "text_prompt", "prompt_text", "model.prompt"])
def test_a_generator_of_its_own_takes_prompt_seed_and_size_by_any_name(name: str) -> None:
    prefix = "model." if name.startswith("model.") else ""
    inputs = {name: "a fox", f"{prefix}seed": 1, f"{prefix}width": 64, f"{prefix}height": 64}
    workflow = {
        "1": node("SomeNewGenerator", model="best", **inputs),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    assert changed(workflow, prompt="p", seed=9, width=128, height=32) == {
        f"1.{name}": "p", f"1.{prefix}seed": 9, f"1.{prefix}width": 128, f"1.{prefix}height": 32,
    }  # fmt: skip


def test_a_speech_node_takes_its_text_and_a_node_that_writes_on_a_picture_does_not() -> None:
    speech = {
        "1": node("ElevenLabsTextToSpeech", voice=["2", 0], text="hello", seed=1),
        "2": node("ElevenLabsVoiceSelector", voice="Roger"),
        "3": node("SaveAudioMP3", audio=["1", 0], filename_prefix="x", quality="V0"),
    }
    assert changed(speech, prompt="p") == {"1.text": "p"}
    caption = {"20": node("SomeTextOverlay", image=["8", 0], text="caption"), "9": node("SaveImage", images=["20", 0], filename_prefix="o")}  # fmt: skip
    assert changed({**diffusion(), **caption}, prompt="p") == {"4.text": "p"}


# --- Sizes --------------------------------------------------------------------------------------------------


def test_every_width_and_height_that_is_the_old_size_follows() -> None:
    workflow = diffusion(
        n5=node("BasicGuider", model=["20", 0], conditioning=["4", 0]),
        n20=node("ModelSamplingFlux", model=["1", 0], max_shift=1.15, base_shift=0.5, width=1024, height=1024),
        n6=node("EmptyFlux2LatentImage", width=512, height=512, batch_size=1),
        n10=node("KSamplerSelect", sampler_name="euler"),
        n11=node("Flux2Scheduler", steps=20, width=512, height=512),
        n12=node("RandomNoise", noise_seed=5),
        n3=node(
            "SamplerCustomAdvanced", noise=["12", 0], guider=["5", 0], sampler=["10", 0], sigmas=["11", 0],
            latent_image=["6", 0],
        ),
        n13=node("ConditioningSetArea", conditioning=["4", 0], width=512, height=512, x=0, y=0, strength=1.0),
    )  # fmt: skip
    assert changed(workflow, width=640, height=384) == {
        "6.width": 640, "6.height": 384, "11.width": 640, "11.height": 384, "20.width": 640, "20.height": 384,
    }  # fmt: skip


def test_a_computed_size_is_given_to_all_that_take_it_and_told() -> None:
    workflow = diffusion(
        n30=node("ResolutionSelector", aspect_ratio="1:1", megapixels=1.0, multiple=16),
        n31=node("ComfyMathExpression", expression="a/2", **{"values.a": ["30", 0]}),
        n32=node("ComfyMathExpression", expression="a/2", **{"values.a": ["30", 1]}),
        n6=node("EmptyLatentImage", width=["31", 1], height=["32", 1], batch_size=1),
        n33=node(
            "ModelSamplingFlux", model=["1", 0], max_shift=1.15, base_shift=0.5, width=["30", 0], height=["30", 1]
        ),
        n3=sampler(model=["33", 0]),
    )
    assert changed(workflow, width=640, height=384) == {
        "31.values.a": 640, "32.values.a": 384, "33.width": 640, "33.height": 384,
    }  # fmt: skip
    assert "no longer from node 30 (ResolutionSelector)" in hints(workflow, width=640, height=384)


def test_a_size_that_is_computed_from_two_numbers_is_set_where_these_stand() -> None:
    workflow = diffusion(
        n30=node("PrimitiveInt", value=1280),
        n32=node("PrimitiveInt", value=720),
        n31=node("ComfyMathExpression", expression="a/2", **{"values.a": ["30", 0]}),
        n33=node("ComfyMathExpression", expression="a/2", **{"values.a": ["32", 0]}),
        n6=node("EmptyLatentImage", width=["31", 1], height=["33", 1], batch_size=1),
    )
    assert changed(workflow, width=640, height=384) == {"30.value": 640, "32.value": 384}


def test_a_size_that_is_that_of_a_drawn_picture_is_set_there() -> None:
    workflow = diffusion(
        n30=node("EmptyImage", width=1280, height=720, batch_size=1, color=0),
        n31=node("ImageScaleBy", image=["30", 0], upscale_method="lanczos", scale_by=0.5),
        n32=node("GetImageSize", image=["31", 0]),
        n6=node("EmptyLatentImage", width=["32", 0], height=["32", 1], batch_size=1),
    )
    assert changed(workflow, width=640, height=384) == {"30.width": 640, "30.height": 384}


def test_a_list_of_sizes_is_set_to_its_entry_for_a_size_of_ones_own() -> None:
    workflow = {
        "1": node("ByteDanceSeedreamNode", model="seedream-4-5", prompt="a fox", size_preset="2048x2048 (1:1)", width=2048, height=2048, seed=1),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }  # fmt: skip
    assert changed(workflow, width=1024, height=1024) == {"1.size_preset": "Custom", "1.width": 1024, "1.height": 1024}
    assert "size_preset of node 1 (ByteDanceSeedreamNode) is 'Custom' now" in hints(workflow, width=1024, height=1024)


# --- Steps --------------------------------------------------------------------------------------------------


def two_models(steps: Any, split: Any, end: Any = 10000, **more: dict[str, Any]) -> Workflow:
    """Two models one after the other, which share the steps."""
    common: dict[str, Any] = {
        "steps": steps,
        "cfg": 3.5,
        "sampler_name": "euler",
        "scheduler": "simple",
        "noise_seed": 5,
    }
    links: dict[str, Any] = {"positive": ["4", 0], "negative": ["5", 0]}
    second = node(
        "KSamplerAdvanced", add_noise="disable", start_at_step=split, end_at_step=end, model=["12", 0],
        latent_image=["3", 0], return_with_leftover_noise="disable", **common, **links,
    )  # fmt: skip
    first = node(
        "KSamplerAdvanced", add_noise="enable", start_at_step=0, end_at_step=split, model=["1", 0],
        latent_image=["6", 0], return_with_leftover_noise="enable", **common, **links,
    )  # fmt: skip
    low = node("UNETLoader", unet_name="low.safetensors", weight_dtype="default")
    decoder = node("VAEDecode", samples=["13", 0], vae=["7", 0])
    return {**diffusion(), "3": first, "12": low, "13": second, "8": decoder, **more}


def test_cuts_of_the_steps_keep_their_share_however_they_are_given() -> None:
    assert changed(two_models(20, 10), steps=8) == {
        "3.steps": 8, "13.steps": 8, "3.end_at_step": 4, "13.start_at_step": 4,
    }  # fmt: skip
    linked = two_models(
        ["20", 0], ["21", 0], **{"20": node("PrimitiveInt", value=20), "21": node("PrimitiveInt", value=10)}
    )
    assert changed(linked, steps=8) == {"20.value": 8, "21.value": 4}
    assert changed(two_models(4, 2, 4), steps=8) == {
        "3.steps": 8, "13.steps": 8, "3.end_at_step": 4, "13.start_at_step": 4, "13.end_at_step": 8,
    }  # fmt: skip


def test_a_cut_that_is_computed_from_the_steps_follows_by_itself_and_another_is_told() -> None:
    half = node("ComfyMathExpression", expression="a/2", **{"values.a": ["20", 0]})
    own = {"20": node("PrimitiveInt", value=20), "21": half}
    assert changed(two_models(["20", 0], ["21", 1], **own), steps=8) == {"20.value": 8}
    assert hints(two_models(["20", 0], ["21", 1], **own), steps=8) == ""
    measured = {"20": node("PrimitiveInt", value=20), "21": node("GetImageSize", image=["22", 0]), "22": node("LoadImage", image="a.png")}  # fmt: skip
    told = hints(two_models(["20", 0], ["21", 0], **measured), steps=8)
    assert "end_at_step of node 3 (KSamplerAdvanced) is computed by another node and does not follow the steps" in told


def test_samplers_of_a_pack_cut_their_steps_under_other_names() -> None:
    workflow = wan_video()
    assert changed(workflow, steps=8) == {"6.steps": 8, "16.steps": 8, "6.end_step": 4, "16.start_step": 4}


def wan_video() -> Workflow:
    """A pack with models, latents and embeddings of its own, none of whose classes is known."""
    common = {"model": ["1", 0], "text_embeds": ["3", 0], "image_embeds": ["5", 0], "steps": 20, "cfg": 6, "seed": 3}
    return {
        "1": node("WanVideoModelLoader", model="w.safetensors", base_precision="bf16"),
        "2": node("LoadWanVideoT5TextEncoder", model_name="t.safetensors", precision="bf16"),
        "3": node("WanVideoTextEncode", t5=["2", 0], positive_prompt="a fox", negative_prompt="bad"),
        "5": node("WanVideoEmptyEmbeds", width=832, height=480, num_frames=81),
        "6": node("WanVideoSampler", **common, scheduler="unipc", start_step=0, end_step=10),
        "16": node("WanVideoSampler", **common, samples=["6", 0], scheduler="unipc", start_step=10, end_step=-1),
        "7": node("WanVideoDecode", vae=["4", 0], samples=["16", 0]),
        "4": node("WanVideoVAELoader", model_name="v.safetensors", precision="bf16"),
        "8": node("VHS_VideoCombine", images=["7", 0], frame_rate=16, filename_prefix="w", format="video/h264-mp4"),
    }


# --- Packs --------------------------------------------------------------------------------------------------


def test_a_pack_with_types_of_its_own_is_understood() -> None:
    assert changed(wan_video(), prompt="p", negative_prompt="n", seed=4, width=640, height=360) == {
        "3.positive_prompt": "p", "3.negative_prompt": "n", "6.seed": 4, "16.seed": 4, "5.width": 640, "5.height": 360,
    }  # fmt: skip


def test_a_lora_for_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(NoOverrideTarget, match=r"node 1 \(WanVideoModelLoader\) outputs a model of an unknown type"):
        changed(wan_video(), loras=(Lora("a"),))


def contexts() -> Workflow:
    """Everything goes through two context nodes of a pack."""
    bundle = {"model": ["1", 0], "positive": ["4", 0], "negative": ["5", 0], "latent": ["6", 0]}
    links = {"model": ["21", 1], "positive": ["21", 4], "negative": ["21", 5], "latent_image": ["21", 3]}
    return diffusion(
        n20=node("Context (rgthree)", **bundle), n21=node("Context (rgthree)", base_ctx=["20", 0]), n3=sampler(**links)
    )


def test_context_nodes_of_a_pack_are_looked_through() -> None:
    assert changed(contexts(), prompt="p", negative_prompt="n", width=128, height=64) == {
        "4.text": "p", "5.text": "n", "6.width": 128, "6.height": 64,
    }  # fmt: skip
    after = apply_overrides(contexts(), Overrides(loras=(Lora("a"),))).workflow
    assert after["20"]["inputs"]["model"] == ["1.lora1", 0]


def test_a_sampler_with_two_models_under_other_names_is_a_sampler() -> None:
    twofold = node(
        "WanMoeKSampler", model_high_noise=["1", 0], model_low_noise=["1", 0], positive=["4", 0], negative=["5", 0],
        latent_image=["6", 0], boundary=0.875, seed=1, steps=20, cfg_high_noise=3.5, cfg_low_noise=3.5,
        sampler_name="euler", scheduler="simple", sigma_shift=8, denoise=1,
    )  # fmt: skip
    workflow = diffusion(n3=twofold)
    assert changed(workflow, negative_prompt="n", steps=4, cfg=2.0) == {
        "5.text": "n", "3.steps": 4, "3.cfg_high_noise": 2.0, "3.cfg_low_noise": 2.0,
    }  # fmt: skip


def test_a_node_that_draws_several_things_gets_the_seed_for_all() -> None:
    workflow = {
        "1": node("TripoTextToModelNode", prompt="a fox", image_seed=1, model_seed=2, texture_seed=3),
        "2": node("SaveGLB", mesh=["1", 0], filename_prefix="x"),
    }
    assert changed(workflow, seed=9) == {"1.image_seed": 9, "1.model_seed": 9, "1.texture_seed": 9}


def test_the_pipes_of_a_pack_are_looked_through() -> None:
    pipe = {"model": "MODEL", "clip": "CLIP", "vae": "VAE", "positive": "CONDITIONING", "negative": "CONDITIONING"}
    classes = {
        "ToBasicPipe": pack_class(pipe, ["BASIC_PIPE"]),
        "ImpactKSamplerBasicPipe": pack_class(
            {"basic_pipe": "BASIC_PIPE", "seed": "INT", "steps": "INT", "latent_image": "LATENT"},
            ["BASIC_PIPE", "LATENT", "VAE"],
        ),
    }
    workflow = diffusion(
        n20=node("ToBasicPipe", model=["1", 0], clip=["2", 0], vae=["7", 0], positive=["4", 0], negative=["5", 0]),
        n3=node("ImpactKSamplerBasicPipe", basic_pipe=["20", 0], seed=1, steps=8, latent_image=["6", 0]),
        n8=node("VAEDecode", samples=["3", 1], vae=["3", 2]),
    )
    schemas = {**core_schemas(), **classes}
    wanted = Overrides(prompt="p", negative_prompt="n", steps=9, width=128, height=64, loras=(Lora("a"),))
    after = apply_overrides(workflow, wanted, schemas).workflow
    assert (after["4"]["inputs"]["text"], after["5"]["inputs"]["text"]) == ("p", "n")
    assert (after["3"]["inputs"]["steps"], after["6"]["inputs"]["height"]) == (9, 64)
    assert after["20"]["inputs"]["model"] == ["1.lora1", 0]


def pack_class(inputs: dict[str, str], outputs: list[str]) -> NodeSchema:
    """The schema of a class of a pack."""
    return read_schema({"input": {"required": {name: [kind] for name, kind in inputs.items()}}, "output": outputs})


# --- Values that are not what they seem ---------------------------------------------------------------------------


def test_a_number_of_an_unknown_node_is_changed_there_and_never_through_its_other_inputs() -> None:
    parameters = node("Input Parameters", seed=["19", 0], steps=20, cfg=6.0)
    workflow = diffusion(
        n19=node("Seed (rgthree)", seed=7), n18=parameters, n3=sampler(seed=["18", 0], steps=["18", 1], cfg=["18", 2])
    )
    assert changed(workflow, cfg=2.5) == {"18.cfg": 2.5}
    assert changed(workflow, seed=9) == {"19.seed": 9}


def test_the_condition_of_a_switch_is_never_a_size() -> None:
    workflow = diffusion(
        n20=node("IsPortrait", image=["21", 0]),
        n21=node("LoadImage", image="a.png"),
        n22=node("ComfySwitchNode", switch=["20", 0], on_true=["23", 0], on_false=["24", 0]),
        n23=node("SomeSizes", preset="portrait"),
        n24=node("SomeSizes", preset="landscape"),
        n6=node("EmptyLatentImage", width=["22", 0], height=["22", 0], batch_size=1),
    )
    assert changed(workflow, width=128, height=64) == {"6.width": 128, "6.height": 64}


def test_a_choice_or_a_flag_with_a_telling_name_is_no_prompt() -> None:
    detailer = node(
        "FaceDetailer", image=["8", 0], model=["1", 0], positive=["4", 0], negative=["5", 0], seed=3, steps=4, cfg=1.0,
        sam_mask_hint_use_negative="False", restore_cfg=-1.0,
    )  # fmt: skip
    workflow = diffusion(
        n20=detailer, n9=node("SaveImage", images=["20", 0], filename_prefix="o"), n3=sampler(cfg=4.0)
    )
    assert changed(workflow, negative_prompt="n") == {"5.text": "n"}
    assert changed(workflow, cfg=5.0) == {"3.cfg": 5.0}


def test_a_text_that_an_unknown_node_may_be_part_of_is_asked_for() -> None:
    workflow = diffusion(
        n20=node("PrimitiveString", value="trigger"),
        n21=node("TranslateTextNode", source_language="zh", words="a fox"),
        n22=node("StringConcatenate", string_a=["20", 0], string_b=["21", 0], delimiter=", "),
        n4=node("CLIPTextEncode", clip=["2", 0], text=["22", 0]),
    )
    with pytest.raises(NoOverrideTarget, match=r"computed by node 22 \(StringConcatenate\).*20 \(PrimitiveString\)"):
        changed(workflow, prompt="p")


def test_both_texts_of_one_unknown_node_are_kept_apart() -> None:
    workflow = diffusion(
        n20=node("SDXLPromptStyler", text_positive="a fox", text_negative="bad", style="photo"),
        n4=node("CLIPTextEncode", clip=["2", 0], text=["20", 0]),
        n5=node("CLIPTextEncode", clip=["2", 0], text=["20", 1]),
    )
    assert changed(workflow, prompt="p", negative_prompt="n") == {"20.text_positive": "p", "20.text_negative": "n"}


def test_prompts_of_several_shots_in_one_node_are_not_one_prompt() -> None:
    workflow = {
        "1": node("VideoOfShots", shot_1_prompt="a fox", shot_2_prompt="a wolf", seed=1),
        "2": node("SaveVideo", video=["1", 0], filename_prefix="x"),
    }
    with pytest.raises(NoOverrideTarget, match="prompt: no node of the workflow accepts"):
        changed(workflow, prompt="p")


def test_the_usual_id_decides_between_text_encoders_only() -> None:
    workflow = {
        "4": node("FluxProUltraImageNode", prompt="a fox", seed=1),
        "6": node("FluxProUltraImageNode", prompt="a wolf", seed=1),
        "7": node("SaveImage", images=["4", 0], filename_prefix="x"),
        "8": node("SaveImage", images=["6", 0], filename_prefix="x"),
    }
    with pytest.raises(AmbiguousOverrideTarget, match=r"prompt_node_id: 4 .*, 6 "):
        changed(workflow, prompt="p")


def test_what_is_no_size_of_a_picture_takes_none() -> None:
    scaled = node("ScalePicture", image=["37", 0], scale_width=1.0, scale_height=1.0)
    workflow = diffusion(
        n6=node("VAEEncode", pixels=["38", 0], vae=["7", 0]), n38=scaled, n37=node("LoadImage", image="in.png")
    )
    model = {
        "1": node("Load3D", model_file="a.glb", image="", width=1024, height=1024),
        "2": node("TripoRefineNode", model=["1", 4], prompt="a fox"),
        "3": node("SaveGLB", mesh=["2", 0], filename_prefix="x"),
    }
    for graph in (workflow, model):
        with pytest.raises(NoOverrideTarget, match="width and height: no node of the workflow accepts"):
            changed(graph, width=512, height=512)


# --- What is told --------------------------------------------------------------------------------------------------


def test_a_stage_on_the_way_that_keeps_its_values_is_told() -> None:
    workflow = with_depth(steps=1, cfg=3.0)
    assert hints(workflow, prompt="p") == "prompt was left as it is in 34 (CLIPTextEncode)"
    assert hints(workflow, cfg=4.0) == "cfg was left as it is in 35 (KSampler)"


def test_two_stages_that_hand_on_a_latent_with_the_conditioning_are_asked_for() -> None:
    stage_b = node("StableCascade_StageB_Conditioning", conditioning=["20", 0], stage_c=["3", 0])
    workflow = diffusion(
        n20=node("ConditioningZeroOut", conditioning=["4", 0]),
        n21=stage_b,
        n22=node("UNETLoader", unet_name="stage_b.safetensors", weight_dtype="default"),
        n23=sampler(model=["22", 0], positive=["21", 0], negative=["20", 0], latent_image=["24", 0], steps=10),
        n24=node("EmptyLatentImage", width=64, height=64, batch_size=1),
        n8=node("VAEDecode", samples=["23", 0], vae=["7", 0]),
    )
    with pytest.raises(AmbiguousOverrideTarget, match=r"steps_node_id: 3 \(KSampler\), 23 "):
        changed(workflow, steps=30)


def test_areas_and_masks_that_keep_their_size_are_told() -> None:
    workflow = diffusion(
        n20=node("ConditioningSetArea", conditioning=["4", 0], width=256, height=512, x=0, y=0, strength=1.0),
        n3=sampler(positive=["20", 0]),
    )
    assert changed(workflow, width=1024, height=1024) == {"6.width": 1024, "6.height": 1024}
    assert hints(workflow, width=1024, height=1024) == "areas and masks keep their size: 20 (ConditioningSetArea)"


def test_the_same_negative_text_follows_in_all_stages() -> None:
    workflow = with_depth()
    workflow["40"] = node("CLIPTextEncode", clip=["2", 0], text="bad")
    workflow["35"]["inputs"]["negative"] = ["40", 0]
    assert changed(workflow, negative_prompt="n") == {"5.text": "n", "40.text": "n"}


def test_denoise_is_that_of_the_pass_that_begins_with_a_picture() -> None:
    workflow = diffusion(n13=sampler(latent_image=["3", 0], denoise=0.5))
    workflow["8"]["inputs"]["samples"] = ["13", 0]
    assert changed(workflow, denoise=0.3) == {"13.denoise": 0.3}


def test_without_a_sampler_there_is_no_place_for_a_lora() -> None:
    workflow = {
        "1": node("UNETLoader", unet_name="sam3.safetensors", weight_dtype="default"),
        "2": node("LoadImage", image="a.png"),
        "3": node("RTDETR_detect", model=["1", 0], image=["2", 0], threshold=0.5, class_name="all", max_detections=9),
        "4": node("PreviewAny", source=["3", 0]),
    }
    with pytest.raises(NoOverrideTarget, match="no sampler of the workflow uses a model"):
        changed(workflow, loras=(Lora("a"),))


def test_the_sound_beside_a_video_has_its_batch_size() -> None:
    workflow = diffusion(
        n6=node("LTXVConcatAVLatent", video_latent=["20", 0], audio_latent=["21", 0]),
        n20=node("EmptyLTXVLatentVideo", width=768, height=512, length=97, batch_size=1),
        n21=node("LTXVEmptyLatentAudio", frames_number=97, frame_rate=25, batch_size=1, audio_vae=["7", 0]),
    )
    assert changed(workflow, batch_size=2) == {"20.batch_size": 2, "21.batch_size": 2}
