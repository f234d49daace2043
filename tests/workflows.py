"""Workflows that both engines run, in API format."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

Workflow = dict[str, Any]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node in API format."""
    return {"class_type": class_type, "inputs": inputs}


def still(color: int = 8421504, prefix: str = "still", size: int = 64) -> Workflow:
    """A grey picture, inverted and scaled to 128 x 96."""
    return {
        "1": node("EmptyImage", width=size, height=size, batch_size=1, color=color),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("ImageScale", image=["2", 0], upscale_method="nearest-exact", width=128, height=96, crop="disabled"),
        "4": node("SaveImage", images=["3", 0], filename_prefix=prefix),
    }


def raising(engine: str) -> dict[str, Any]:
    """A node that takes the image of node 2 and raises `NOPE` when it runs, on any ComfyUI and on the draft engine."""
    if engine == "real":
        return node("WorkerTestFail", image=["2", 0], how="NOPE", times=10**6)
    return node("SaveImage", images=["2", 0], filename_prefix="NOPE" * 80)  # no file name is so long


def batch_of_four(prefix: str = "batch") -> Workflow:
    """Four noisy red pictures."""
    return {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=16711680),
        "2": node("RepeatImageBatch", image=["1", 0], amount=4),
        "3": node("ImageAddNoise", image=["2", 0], seed=7, strength=0.5),
        "4": node("SaveImage", images=["3", 0], filename_prefix=prefix),
    }


def text_only() -> Workflow:
    """Makes the text HELLO WORLD, and no picture."""
    return {
        "1": node("PrimitiveString", value="hello"),
        "2": node("StringConcatenate", string_a=["1", 0], string_b="world", delimiter=" "),
        "3": node("CaseConverter", string=["2", 0], mode="UPPERCASE"),
        "4": node("PreviewAny", source=["3", 0]),
    }


def animated_webp() -> Workflow:
    """An animation of eight frames, red and blue in turn."""
    return {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=16711680),
        "2": node("EmptyImage", width=64, height=64, batch_size=1, color=255),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": node("RepeatImageBatch", image=["3", 0], amount=4),
        "5": node(
            "SaveAnimatedWEBP",
            images=["4", 0],
            filename_prefix="anim",
            fps=8.0,
            lossless=False,
            quality=80,
            method="default",
        ),
    }


def generative() -> Workflow:
    """Text to image with the tiny models. Positive and negative prompt have the same title, and the ids are unusual."""
    return {
        "1": node("UNETLoader", unet_name="tiny_sd3.safetensors", weight_dtype="default"),
        "2": node("CLIPLoader", clip_name="tiny_clip_l.safetensors", type="sd3"),
        "30": {**node("CLIPTextEncode", text="blurry", clip=["2", 0]), "_meta": {"title": "Prompt"}},
        "31": {**node("CLIPTextEncode", text="a cat", clip=["2", 0]), "_meta": {"title": "Prompt"}},
        "5": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        "8": node(
            "KSampler", seed=1, steps=2, cfg=1.5, sampler_name="euler", scheduler="simple", denoise=1.0,
            model=["1", 0], positive=["31", 0], negative=["30", 0], latent_image=["5", 0],
        ),
        "7": node("VAELoader", vae_name="tiny_taesd.safetensors"),
        "10": node("VAEDecode", samples=["8", 0], vae=["7", 0]),
        "9": node("SaveImage", images=["10", 0], filename_prefix="gen"),
    }  # fmt: skip


def flux() -> Workflow:
    """The usual Flux.1-dev text-to-image workflow, with its usual node ids."""
    return {
        "6": node("CLIPTextEncode", text="a cat", clip=["11", 0]),
        "8": node("VAEDecode", samples=["13", 0], vae=["10", 0]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="flux"),
        "10": node("VAELoader", vae_name="ae.safetensors"),
        "11": node("DualCLIPLoader", clip_name1="t5xxl_fp16.safetensors", clip_name2="clip_l.safetensors", type="flux"),
        "12": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "13": node(
            "SamplerCustomAdvanced", noise=["25", 0], guider=["22", 0], sampler=["16", 0], sigmas=["17", 0],
            latent_image=["27", 0],
        ),
        "16": node("KSamplerSelect", sampler_name="euler"),
        "17": node("BasicScheduler", scheduler="simple", steps=4, denoise=1.0, model=["30", 0]),
        "22": node("BasicGuider", model=["30", 0], conditioning=["26", 0]),
        "25": node("RandomNoise", noise_seed=1),
        "26": node("FluxGuidance", guidance=3.5, conditioning=["6", 0]),
        "27": node("EmptySD3LatentImage", width=1024, height=1024, batch_size=1),
        "30": node("ModelSamplingFlux", max_shift=1.15, base_shift=0.5, width=1024, height=1024, model=["12", 0]),
    }  # fmt: skip


def png(side: int) -> bytes:
    """A grey picture of that many pixels a side."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "grey").save(buffer, "PNG")
    return buffer.getvalue()
