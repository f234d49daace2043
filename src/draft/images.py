"""Nodes that need no model: they really run, with Pillow, and give what ComfyUI's nodes of that name give."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import sqrt

from PIL import Image, ImageChops, ImageOps

from .values import Context, Images, Output, input_file

_RESAMPLING = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bislerp": Image.Resampling.BICUBIC,
}


# --- Making and loading --------------------------------------------------------------------------------


def empty_image(context: Context, width: int, height: int, batch_size: int, color: int) -> Output:
    """`batch_size` pictures of one colour, 0xRRGGBB."""
    rgb = (color >> 16 & 255, color >> 8 & 255, color & 255)
    return Output(([Image.new("RGB", (width, height), rgb)] * batch_size,))


def load_image(context: Context, image: str) -> Output:
    """A file of the input folder: its colours, and a mask that is white where the file is transparent."""
    with Image.open(input_file(context.folders, image)) as opened:
        picture = ImageOps.exif_transpose(opened)
        has_alpha = "A" in picture.getbands() or "transparency" in picture.info
        alpha = picture.convert("RGBA").getchannel("A") if has_alpha else None
        mask = ImageOps.invert(alpha) if alpha else Image.new("L", (64, 64), 0)
        return Output(([picture.convert("RGB")], [mask]))


def load_image_mask(context: Context, image: str, channel: str) -> Output:
    """One channel of a file; of alpha, white where the file is transparent."""
    with Image.open(input_file(context.folders, image)) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGBA")
    band = picture.getchannel("RGBA"[["red", "green", "blue", "alpha"].index(channel)])
    return Output(([ImageOps.invert(band) if channel == "alpha" else band],))


def solid_mask(context: Context, value: float, width: int, height: int) -> Output:
    """A mask of one grey, 0.0 to 1.0."""
    return Output(([Image.new("L", (width, height), round(value * 255))],))


# --- Size and place ------------------------------------------------------------------------------------


def image_scale(context: Context, image: Images, upscale_method: str, width: int, height: int, crop: str) -> Output:
    """To a size; a side of 0 follows the other one."""
    old_width, old_height = image[0].size
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    if crop == "center":
        return Output(([ImageOps.fit(picture, (width, height), _RESAMPLING[upscale_method]) for picture in image],))
    return Output((_resized(image, (width, height), upscale_method),))


def image_scale_by(context: Context, image: Images, upscale_method: str, scale_by: float) -> Output:
    """By a factor."""
    width, height = image[0].size
    return Output((_resized(image, (round(width * scale_by), round(height * scale_by)), upscale_method),))


def image_scale_to_total_pixels(context: Context, image: Images, upscale_method: str, megapixels: float) -> Output:
    """To a number of pixels, in units of 1024 x 1024."""
    width, height = image[0].size
    factor = sqrt(megapixels * 1024 * 1024 / (width * height))
    return Output((_resized(image, (round(width * factor), round(height * factor)), upscale_method),))


def _resized(images: Images, size: tuple[int, int], method: str) -> Images:
    return [picture.resize(size, _RESAMPLING[method]) for picture in images]


def image_crop(context: Context, image: Images, width: int, height: int, x: int, y: int) -> Output:
    """A part, kept inside the picture."""
    full_width, full_height = image[0].size
    x, y = min(x, full_width - 1), min(y, full_height - 1)
    box = (x, y, min(x + width, full_width), min(y + height, full_height))
    return Output(([picture.crop(box) for picture in image],))


def image_flip(context: Context, image: Images, flip_method: str) -> Output:
    """Upside down ("x-axis: …") or left to right ("y-axis: …")."""
    flip = ImageOps.flip if flip_method.startswith("x") else ImageOps.mirror
    return Output(([flip(picture) for picture in image],))


def image_rotate(context: Context, image: Images, rotation: str) -> Output:
    """By "none", "90 degrees", "180 degrees" or "270 degrees", clockwise."""
    degrees = int(rotation.split(maxsplit=1)[0]) if rotation[0].isdigit() else 0
    return Output(([picture.rotate(-degrees, expand=True) for picture in image],))


# --- Batches -------------------------------------------------------------------------------------------


def image_batch(context: Context, image1: Images, image2: Images) -> Output:
    """Both batches, the second scaled to the size of the first."""
    size = image1[0].size
    return Output((image1 + [ImageOps.fit(picture, size, Image.Resampling.BILINEAR) for picture in image2],))


def repeat_image_batch(context: Context, image: Images, amount: int) -> Output:
    """The batch `amount` times."""
    return Output((image * amount,))


def image_from_batch(context: Context, image: Images, batch_index: int, length: int) -> Output:
    """`length` pictures from `batch_index` on, at least one."""
    start = min(batch_index, len(image) - 1)
    return Output((image[start : start + length],))


# --- Colour --------------------------------------------------------------------------------------------


def image_invert(context: Context, image: Images) -> Output:
    """The negative."""
    return Output(([ImageOps.invert(picture) for picture in image],))


_BLENDS: dict[str, Callable[[Image.Image, Image.Image], Image.Image]] = {
    "normal": lambda below, above: above,
    "multiply": ImageChops.multiply,
    "screen": ImageChops.screen,
    "overlay": ImageChops.overlay,
    "soft_light": ImageChops.soft_light,
    "difference": ImageChops.difference,
}


def image_blend(context: Context, image1: Images, image2: Images, blend_factor: float, blend_mode: str) -> Output:
    """The second over the first. An unknown mode fails when it runs, as on ComfyUI 0.3.64."""
    if blend_mode not in _BLENDS:
        raise ValueError(f"Unsupported blend mode: {blend_mode}")
    blended = []
    for below, other in zip(image1, image2, strict=False):
        above = ImageOps.fit(other, below.size, Image.Resampling.BICUBIC)
        blended.append(Image.blend(below, _BLENDS[blend_mode](below, above), blend_factor))
    return Output((blended,))


def image_add_noise(context: Context, image: Images, seed: int, strength: float) -> Output:
    """Seeded noise; equal seeds give equal pictures (not the same ones as ComfyUI's)."""
    source = random.Random(seed)  # noqa: S311  a picture, not a secret
    noisy = []
    for picture in image:
        width, height = picture.size
        noise = Image.frombytes("RGB", picture.size, source.randbytes(width * height * 3))
        noisy.append(Image.blend(picture, ImageChops.add_modulo(picture, noise), strength))
    return Output((noisy,))


def invert_mask(context: Context, mask: Images) -> Output:
    """Black for white."""
    return image_invert(context, mask)


def mask_to_image(context: Context, mask: Images) -> Output:
    """A grey picture."""
    return Output(([picture.convert("RGB") for picture in mask],))


def image_to_mask(context: Context, image: Images, channel: str) -> Output:
    """One channel; alpha is white, there being none."""
    position = ["red", "green", "blue", "alpha"].index(channel)
    return Output(([picture.convert("RGBA").getchannel(position) for picture in image],))


def get_image_size(context: Context, image: Images) -> Output:
    """Width, height and number of pictures."""
    return Output((*image[0].size, len(image)))


NODES: dict[str, Callable[..., Output]] = {
    "EmptyImage": empty_image,
    "LoadImage": load_image,
    "LoadImageMask": load_image_mask,
    "SolidMask": solid_mask,
    "ImageScale": image_scale,
    "ImageScaleBy": image_scale_by,
    "ImageScaleToTotalPixels": image_scale_to_total_pixels,
    "ImageCrop": image_crop,
    "ImageFlip": image_flip,
    "ImageRotate": image_rotate,
    "ImageBatch": image_batch,
    "RepeatImageBatch": repeat_image_batch,
    "ImageFromBatch": image_from_batch,
    "ImageInvert": image_invert,
    "ImageBlend": image_blend,
    "ImageAddNoise": image_add_noise,
    "InvertMask": invert_mask,
    "MaskToImage": mask_to_image,
    "ImageToMask": image_to_mask,
    "GetImageSize": get_image_size,
}
