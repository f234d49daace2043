"""Stand-ins for the nodes that use a model: each adds properties to a placeholder, and VAEDecode draws them.

The picture shows the prompt, seed, steps and size that reached the sampler, so it is visible at a glance whether the
overrides were applied. It depends on nothing else: the same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import random
import textwrap
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .values import Context, Images, Latent, Output, Placeholder

_MIN_SIDE = 16
_SHAPE_COUNT = 14
_PREVIEW_SIDE = 256


# --- Loaders and conditioning --------------------------------------------------------------------------


def load_checkpoint(context: Context, ckpt_name: str) -> Output:
    """MODEL, CLIP, VAE."""
    return Output((Placeholder({"model": ckpt_name}), Placeholder(), Placeholder()))


def load_model(context: Context, **names: Any) -> Output:
    """MODEL."""
    return Output((Placeholder({"model": names.get("unet_name", "")}),))


def load_placeholder(context: Context, **names: Any) -> Output:
    """CLIP, VAE, CONTROL_NET, UPSCALE_MODEL: no property of theirs is shown."""
    return Output((Placeholder(),))


def load_lora(context: Context, model: Placeholder, lora_name: str, **others: Any) -> Output:
    """MODEL with a LoRA, and the CLIP if one is given."""
    model = model.with_properties(loras=(*model.properties.get("loras", ()), lora_name))
    return Output((model, others["clip"]) if "clip" in others else (model,))


def encode_text(context: Context, clip: Placeholder, **inputs: Any) -> Output:
    """CONDITIONING with the strings of all text inputs, each once."""
    texts = dict.fromkeys(value for value in inputs.values() if isinstance(value, str) and value)
    guidance = {"guidance": inputs["guidance"]} if "guidance" in inputs else {}
    return Output((Placeholder({"prompt": " | ".join(texts), **guidance}),))


def set_guidance(context: Context, conditioning: Placeholder, guidance: float) -> Output:
    """CONDITIONING with a guidance scale."""
    return Output((conditioning.with_properties(guidance=guidance),))


def zero_out(context: Context, conditioning: Placeholder) -> Output:
    """CONDITIONING without its text."""
    return Output((conditioning.with_properties(prompt=""),))


def combine(context: Context, **inputs: Any) -> Output:
    """CONDITIONING with the texts of several."""
    parts = [value for value in inputs.values() if isinstance(value, Placeholder)]
    texts = dict.fromkeys(part.properties.get("prompt", "") for part in parts)
    return Output((parts[0].with_properties(prompt=" + ".join(filter(None, texts))),))


def apply_control(context: Context, positive: Placeholder, negative: Placeholder, **inputs: Any) -> Output:
    """Positive and negative CONDITIONING, unchanged."""
    return Output((positive, negative))


def pass_through(context: Context, **inputs: Any) -> Output:
    """The first MODEL, CLIP, CONTROL_NET or CONDITIONING, unchanged."""
    return Output((next(value for value in inputs.values() if isinstance(value, Placeholder)),))


# --- Sampling ------------------------------------------------------------------------------------------


def make_guider(context: Context, model: Placeholder, **inputs: Any) -> Output:
    """GUIDER."""
    positive = inputs.get("conditioning") or inputs["positive"]
    negative = inputs.get("negative", Placeholder()).properties.get("prompt", "")
    extra = {"cfg": inputs["cfg"]} if "cfg" in inputs else {}
    return Output((model.with_properties(**{**positive.properties, "negative": negative, **extra}),))


def make_sigmas(context: Context, model: Placeholder, scheduler: str, steps: int, denoise: float) -> Output:
    """SIGMAS."""
    return Output((Placeholder({"steps": steps, "scheduler": scheduler, "denoise": denoise}),))


def select_sampler(context: Context, sampler_name: str) -> Output:
    """SAMPLER."""
    return Output((Placeholder({"sampler": sampler_name}),))


def random_noise(context: Context, noise_seed: int) -> Output:
    """NOISE."""
    return Output((Placeholder({"seed": noise_seed}),))


def disable_noise(context: Context) -> Output:
    """NOISE with seed 0, for DisableNoise."""
    return Output((Placeholder({"seed": 0}),))


def sample_guided(
    context: Context,
    noise: Placeholder,
    guider: Placeholder,
    sampler: Placeholder,
    sigmas: Placeholder,
    latent_image: Latent,
) -> Output:
    """LATENT, twice: as sampled and denoised."""
    properties = {**guider.properties, **noise.properties, **sampler.properties, **sigmas.properties}
    latent = _run_sampler(context, latent_image, properties)
    return Output((latent, latent))


def sample_custom(
    context: Context, positive: Placeholder, negative: Placeholder, latent_image: Latent, **inputs: Any
) -> Output:
    """LATENT, twice: as sampled and denoised."""
    properties = _sampler_properties(inputs["model"], positive, negative)
    properties.update(inputs["sampler"].properties)
    properties.update(inputs["sigmas"].properties)
    properties.update(seed=inputs["noise_seed"], cfg=inputs["cfg"])
    latent = _run_sampler(context, latent_image, properties)
    return Output((latent, latent))


def sample(
    context: Context, positive: Placeholder, negative: Placeholder, latent_image: Latent, **inputs: Any
) -> Output:
    """LATENT, for KSampler and KSamplerAdvanced."""
    properties = _sampler_properties(inputs["model"], positive, negative)
    properties.update({name: inputs[name] for name in ("steps", "cfg", "scheduler")}, sampler=inputs["sampler_name"])
    properties["seed"] = inputs["noise_seed"] if "noise_seed" in inputs else inputs["seed"]
    return Output((_run_sampler(context, latent_image, properties),))


def _sampler_properties(model: Placeholder, positive: Placeholder, negative: Placeholder) -> dict[str, Any]:
    return {**model.properties, **positive.properties, "negative": negative.properties.get("prompt", "")}


def _run_sampler(context: Context, latent: Latent, properties: dict[str, Any]) -> Latent:
    steps = properties.get("steps", 1)
    sampled = Latent(latent.width, latent.height, latent.batch, properties, latent.picture)
    preview = _Preview(sampled) if context.send_preview else None
    for step in range(1, steps + 1):
        context.step(step, steps)
        if context.send_preview and preview:
            context.send_preview(preview.jpeg(step / steps))
    return sampled


class _Preview:
    """What a sampler would show of its work: the small picture comes out of noise."""

    def __init__(self, latent: Latent) -> None:
        scale = _PREVIEW_SIDE / max(latent.width, latent.height, 1)
        size = (max(1, round(latent.width * scale)), max(1, round(latent.height * scale)))
        self._picture = _draw(Latent(*size, 1, latent.properties, latent.picture), 0).resize(size)
        self._noise = Image.effect_noise(size, 100).convert("RGB")

    def jpeg(self, part: float) -> bytes:
        encoded = io.BytesIO()
        Image.blend(self._noise, self._picture, part).save(encoded, "JPEG")
        return encoded.getvalue()


# --- Latents and pictures ------------------------------------------------------------------------------


def empty_latent(context: Context, width: int, height: int, batch_size: int) -> Output:
    """LATENT without a picture."""
    return Output((Latent(width, height, batch_size),))


def repeat_latent(context: Context, samples: Latent, amount: int) -> Output:
    """LATENT `amount` times."""
    return Output(
        (Latent(samples.width, samples.height, samples.batch * amount, samples.properties, samples.picture),)
    )


def scale_latent(context: Context, samples: Latent, width: int, height: int, **inputs: Any) -> Output:
    """LATENT of another size."""
    width, height = width or samples.width, height or samples.height
    return Output((Latent(width, height, samples.batch, samples.properties, samples.picture),))


def scale_latent_by(context: Context, samples: Latent, scale_by: float, **inputs: Any) -> Output:
    """LATENT scaled by a factor, to a multiple of 8."""
    width, height = (max(8, round(side * scale_by / 8) * 8) for side in (samples.width, samples.height))
    return Output((Latent(width, height, samples.batch, samples.properties, samples.picture),))


def encode_image(context: Context, pixels: Images, vae: Placeholder) -> Output:
    """LATENT of a picture."""
    width, height = pixels[0].size
    return Output((Latent(width // 8 * 8, height // 8 * 8, len(pixels), picture=pixels[0]),))


def decode_latent(context: Context, samples: Latent, vae: Placeholder, **tiling: Any) -> Output:
    """IMAGE: a draft picture for each LATENT of the batch."""
    return Output(([_draw(samples, number) for number in range(samples.batch)],))


def upscale_image(context: Context, upscale_model: Placeholder, image: Images) -> Output:
    """IMAGE four times as wide and high."""
    return Output(
        ([picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.LANCZOS) for picture in image],)
    )


def _draw(latent: Latent, number: int) -> Image.Image:
    """Coloured shapes that depend on all properties, with the most important ones as text."""
    shown = latent.properties
    seed = int.from_bytes(hashlib.sha256(repr((sorted(shown.items()), number)).encode()).digest()[:8], "big")
    size = max(latent.width, _MIN_SIDE), max(latent.height, _MIN_SIDE)  # a stand-in may have computed a size of 0
    picture = _draw_shapes(size, random.Random(seed))  # noqa: S311  a picture, not a secret
    if latent.picture is not None:
        picture = Image.blend(latent.picture.convert("RGB").resize(picture.size), picture, 0.4)
    lines = [
        f"{shown.get('prompt') or '(no prompt)'}",
        f"seed {shown.get('seed', '-')}   steps {shown.get('steps', '-')}   {latent.width} x {latent.height}",
        f"{shown.get('model', '')}" + (f"   image {number + 1} of {latent.batch}" if latent.batch > 1 else ""),
    ]
    _write_lines(picture, lines)
    return picture


def _draw_shapes(size: tuple[int, int], source: random.Random) -> Image.Image:
    width, height = size
    picture = Image.new("RGB", size, tuple(source.randrange(30, 110) for _ in range(3)))
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(_SHAPE_COUNT):
        x, y, radius = (
            source.randrange(width),
            source.randrange(height),
            source.randrange(min(size) // 8, min(size) // 2 + 1),
        )
        colour = (*(source.randrange(60, 256) for _ in range(3)), 90)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(min(size) / 100))


def _write_lines(picture: Image.Image, lines: list[str]) -> None:
    draw = ImageDraw.Draw(picture, "RGBA")
    unit = max(8, picture.height // 24)
    small, large = ImageFont.load_default(unit), ImageFont.load_default(unit * 3)
    columns = max(8, int(picture.width * 1.7 / unit))
    wrapped = [part for line in lines if line for part in textwrap.wrap(line, columns)[:8]]
    top = picture.height - (len(wrapped) + 1) * unit * 5 // 4
    draw.rectangle((0, top - unit // 2, picture.width, picture.height), fill=(0, 0, 0, 150))
    for row, line in enumerate(wrapped):
        draw.text((unit, top + row * unit * 5 // 4), line, font=small, fill="white")
    draw.text(
        (unit, unit), "DRAFT", font=large, fill=(255, 255, 255, 220), stroke_width=unit // 8, stroke_fill="black"
    )


NODES: dict[str, Callable[..., Output]] = {
    "CheckpointLoaderSimple": load_checkpoint,
    "UNETLoader": load_model,
    "CLIPLoader": load_placeholder,
    "DualCLIPLoader": load_placeholder,
    "TripleCLIPLoader": load_placeholder,
    "VAELoader": load_placeholder,
    "ControlNetLoader": load_placeholder,
    "UpscaleModelLoader": load_placeholder,
    "LoraLoader": load_lora,
    "LoraLoaderModelOnly": load_lora,
    "CLIPTextEncode": encode_text,
    "CLIPTextEncodeFlux": encode_text,
    "CLIPTextEncodeSDXL": encode_text,
    "CLIPTextEncodeSD3": encode_text,
    "CLIPSetLastLayer": pass_through,
    "FluxGuidance": set_guidance,
    "ConditioningZeroOut": zero_out,
    "ConditioningCombine": combine,
    "ConditioningConcat": combine,
    "ConditioningAverage": combine,
    "ReferenceLatent": pass_through,
    "ControlNetApplyAdvanced": apply_control,
    "SetUnionControlNetType": pass_through,
    "ModelSamplingFlux": pass_through,
    "ModelSamplingSD3": pass_through,
    "ModelSamplingAuraFlow": pass_through,
    "BasicGuider": make_guider,
    "CFGGuider": make_guider,
    "BasicScheduler": make_sigmas,
    "KSamplerSelect": select_sampler,
    "RandomNoise": random_noise,
    "DisableNoise": disable_noise,
    "SamplerCustomAdvanced": sample_guided,
    "SamplerCustom": sample_custom,
    "KSampler": sample,
    "KSamplerAdvanced": sample,
    "EmptyLatentImage": empty_latent,
    "EmptySD3LatentImage": empty_latent,
    "RepeatLatentBatch": repeat_latent,
    "LatentUpscale": scale_latent,
    "LatentUpscaleBy": scale_latent_by,
    "VAEDecode": decode_latent,
    "VAEDecodeTiled": decode_latent,
    "VAEEncode": encode_image,
    "ImageUpscaleWithModel": upscale_image,
}
