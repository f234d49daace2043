"""Nodes that stand in for a model: each adds to what is told along the links, and VAEDecode draws it.

The picture shows the prompt, seed, steps and size that reached the sampler, so a person sees at a glance whether the
overrides arrived. It is drawn from these alone: equal input gives equal bytes.
"""

from __future__ import annotations

import hashlib
import random
import textwrap
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .values import Context, Facts, Images, Latent, Output

_SHAPES = 14


# --- Loaders and conditioning --------------------------------------------------------------------------


def load_checkpoint(context: Context, ckpt_name: str) -> Output:
    """MODEL, CLIP, VAE."""
    return Output((Facts({"model": ckpt_name}), Facts(), Facts()))


def load_model(context: Context, **names: Any) -> Output:
    """MODEL."""
    return Output((Facts({"model": names.get("unet_name", "")}),))


def load_facts(context: Context, **names: Any) -> Output:
    """CLIP, VAE, CONTROL_NET, UPSCALE_MODEL: nothing of them is told."""
    return Output((Facts(),))


def load_lora(context: Context, model: Facts, lora_name: str, **others: Any) -> Output:
    """MODEL with a LoRA, and the CLIP if one is given."""
    model = model.with_(loras=(*model.told.get("loras", ()), lora_name))
    return Output((model, others["clip"]) if "clip" in others else (model,))


def encode_text(context: Context, clip: Facts, **inputs: Any) -> Output:
    """CONDITIONING: the texts of all text inputs, each once."""
    texts = dict.fromkeys(value for value in inputs.values() if isinstance(value, str) and value)
    told = {"guidance": inputs["guidance"]} if "guidance" in inputs else {}
    return Output((Facts({"prompt": " | ".join(texts), **told}),))


def set_guidance(context: Context, conditioning: Facts, guidance: float) -> Output:
    """CONDITIONING with a guidance."""
    return Output((conditioning.with_(guidance=guidance),))


def zero_out(context: Context, conditioning: Facts) -> Output:
    """CONDITIONING without its text."""
    return Output((conditioning.with_(prompt=""),))


def combine(context: Context, **inputs: Any) -> Output:
    """CONDITIONING of several."""
    parts = [value for value in inputs.values() if isinstance(value, Facts)]
    texts = dict.fromkeys(part.told.get("prompt", "") for part in parts)
    return Output((parts[0].with_(prompt=" + ".join(filter(None, texts))),))


def apply_control(context: Context, positive: Facts, negative: Facts, **inputs: Any) -> Output:
    """Positive and negative CONDITIONING, as they come."""
    return Output((positive, negative))


def pass_on(context: Context, **inputs: Any) -> Output:
    """The first MODEL, CLIP, CONTROL_NET or CONDITIONING as it comes."""
    return Output((next(value for value in inputs.values() if isinstance(value, Facts)),))


# --- Sampling ------------------------------------------------------------------------------------------


def guide(context: Context, model: Facts, **inputs: Any) -> Output:
    """GUIDER."""
    positive = inputs.get("conditioning") or inputs["positive"]
    negative = inputs.get("negative", Facts()).told.get("prompt", "")
    extra = {"cfg": inputs["cfg"]} if "cfg" in inputs else {}
    return Output((model.with_(**positive.told, negative=negative, **extra),))


def schedule(context: Context, model: Facts, scheduler: str, steps: int, denoise: float) -> Output:
    """SIGMAS."""
    return Output((Facts({"steps": steps, "scheduler": scheduler, "denoise": denoise}),))


def select_sampler(context: Context, sampler_name: str) -> Output:
    """SAMPLER."""
    return Output((Facts({"sampler": sampler_name}),))


def random_noise(context: Context, noise_seed: int) -> Output:
    """NOISE."""
    return Output((Facts({"seed": noise_seed}),))


def no_noise(context: Context) -> Output:
    """NOISE that is none."""
    return Output((Facts({"seed": 0}),))


def sample_guided(
    context: Context, noise: Facts, guider: Facts, sampler: Facts, sigmas: Facts, latent_image: Latent
) -> Output:
    """LATENT, twice: as sampled and denoised."""
    latent = _sampled(context, latent_image, {**guider.told, **noise.told, **sampler.told, **sigmas.told})
    return Output((latent, latent))


def sample_custom(context: Context, positive: Facts, negative: Facts, latent_image: Latent, **inputs: Any) -> Output:
    """LATENT, twice: as sampled and denoised."""
    told = {**inputs["model"].told, **positive.told, "negative": negative.told.get("prompt", "")}
    told.update(inputs["sampler"].told)
    told.update(inputs["sigmas"].told)
    latent = _sampled(context, latent_image, {**told, "seed": inputs["noise_seed"], "cfg": inputs["cfg"]})
    return Output((latent, latent))


def sample(context: Context, positive: Facts, negative: Facts, latent_image: Latent, **inputs: Any) -> Output:
    """LATENT, for KSampler and KSamplerAdvanced."""
    told = {**inputs["model"].told, **positive.told, "negative": negative.told.get("prompt", "")}
    told.update({name: inputs[name] for name in ("steps", "cfg", "scheduler")}, sampler=inputs["sampler_name"])
    told["seed"] = inputs["noise_seed"] if "noise_seed" in inputs else inputs["seed"]
    return Output((_sampled(context, latent_image, told),))


def _sampled(context: Context, latent: Latent, told: dict[str, Any]) -> Latent:
    steps = told.get("steps", 1)
    for step in range(1, steps + 1):
        context.step(step, steps)
    return Latent(latent.width, latent.height, latent.batch, Facts(told), latent.picture)


# --- Latents and pictures ------------------------------------------------------------------------------


def empty_latent(context: Context, width: int, height: int, batch_size: int) -> Output:
    """LATENT of nothing."""
    return Output((Latent(width, height, batch_size),))


def repeat_latent(context: Context, samples: Latent, amount: int) -> Output:
    """LATENT `amount` times."""
    return Output((Latent(samples.width, samples.height, samples.batch * amount, samples.facts, samples.picture),))


def scale_latent(context: Context, samples: Latent, width: int, height: int, **inputs: Any) -> Output:
    """LATENT of another size."""
    width, height = width or samples.width, height or samples.height
    return Output((Latent(width, height, samples.batch, samples.facts, samples.picture),))


def scale_latent_by(context: Context, samples: Latent, scale_by: float, **inputs: Any) -> Output:
    """LATENT scaled by a factor, to a multiple of 8."""
    width, height = (max(8, round(side * scale_by / 8) * 8) for side in (samples.width, samples.height))
    return Output((Latent(width, height, samples.batch, samples.facts, samples.picture),))


def encode_image(context: Context, pixels: Images, vae: Facts) -> Output:
    """LATENT of a picture."""
    width, height = pixels[0].size
    return Output((Latent(width // 8 * 8, height // 8 * 8, len(pixels), picture=pixels[0]),))


def decode_latent(context: Context, samples: Latent, vae: Facts, **tiling: Any) -> Output:
    """IMAGE: the pictures that tell what was sampled."""
    return Output(([_draw(samples, number) for number in range(samples.batch)],))


def upscale_image(context: Context, upscale_model: Facts, image: Images) -> Output:
    """IMAGE four times as wide and high."""
    return Output(
        ([picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.LANCZOS) for picture in image],)
    )


def _draw(latent: Latent, number: int) -> Image.Image:
    """Coloured shapes that depend on all that was told, and the telling in words."""
    told = latent.facts.told
    seed = int.from_bytes(hashlib.sha256(repr((sorted(told.items()), number)).encode()).digest()[:8], "big")
    picture = _shapes((latent.width, latent.height), random.Random(seed))  # noqa: S311  a picture, not a secret
    if latent.picture is not None:
        picture = Image.blend(latent.picture.convert("RGB").resize(picture.size), picture, 0.4)
    lines = [
        f"{told.get('prompt') or '(no prompt)'}",
        f"seed {told.get('seed', '-')}   steps {told.get('steps', '-')}   {latent.width} x {latent.height}",
        f"{told.get('model', '')}" + (f"   image {number + 1} of {latent.batch}" if latent.batch > 1 else ""),
    ]
    _write(picture, lines)
    return picture


def _shapes(size: tuple[int, int], source: random.Random) -> Image.Image:
    width, height = size
    picture = Image.new("RGB", size, tuple(source.randrange(30, 110) for _ in range(3)))
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(_SHAPES):
        x, y, radius = (
            source.randrange(width),
            source.randrange(height),
            source.randrange(min(size) // 8, min(size) // 2 + 1),
        )
        colour = (*(source.randrange(60, 256) for _ in range(3)), 90)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(min(size) / 100))


def _write(picture: Image.Image, lines: list[str]) -> None:
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
    "CLIPLoader": load_facts,
    "DualCLIPLoader": load_facts,
    "TripleCLIPLoader": load_facts,
    "VAELoader": load_facts,
    "ControlNetLoader": load_facts,
    "UpscaleModelLoader": load_facts,
    "LoraLoader": load_lora,
    "LoraLoaderModelOnly": load_lora,
    "CLIPTextEncode": encode_text,
    "CLIPTextEncodeFlux": encode_text,
    "CLIPTextEncodeSDXL": encode_text,
    "CLIPTextEncodeSD3": encode_text,
    "CLIPSetLastLayer": pass_on,
    "FluxGuidance": set_guidance,
    "ConditioningZeroOut": zero_out,
    "ConditioningCombine": combine,
    "ConditioningConcat": combine,
    "ConditioningAverage": combine,
    "ReferenceLatent": pass_on,
    "ControlNetApplyAdvanced": apply_control,
    "SetUnionControlNetType": pass_on,
    "ModelSamplingFlux": pass_on,
    "ModelSamplingSD3": pass_on,
    "ModelSamplingAuraFlow": pass_on,
    "BasicGuider": guide,
    "CFGGuider": guide,
    "BasicScheduler": schedule,
    "KSamplerSelect": select_sampler,
    "RandomNoise": random_noise,
    "DisableNoise": no_noise,
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
