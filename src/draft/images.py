"""Nodes that need no model: they really run, with Pillow, and return what ComfyUI's nodes of the same name do."""

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


# --- Creating and loading ------------------------------------------------------------------------------


def empty_image(context: Context, width: int, height: int, batch_size: int, color: int) -> Output:
    """`batch_size` pictures of one colour, 0xRRGGBB."""
    rgb = (color >> 16 & 255, color >> 8 & 255, color & 255)
    return Output(([Image.new("RGB", (width, height), rgb)] * batch_size,))


def load_image(context: Context, image: str) -> Output:
    """A file of the input folder as RGB, and a mask that is white where the file is transparent."""
    with Image.open(input_file(context.folders, image)) as opened:
        picture = ImageOps.exif_transpose(opened)
        has_alpha = "A" in picture.getbands() or "transparency" in picture.info
        alpha = picture.convert("RGBA").getchannel("A") if has_alpha else None
        mask = ImageOps.invert(alpha) if alpha else Image.new("L", (64, 64), 0)
        return Output(([picture.convert("RGB")], [mask]))


def load_image_mask(context: Context, image: str, channel: str) -> Output:
    """One channel of a file; the alpha channel is inverted: white where the file is transparent."""
    with Image.open(input_file(context.folders, image)) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGBA")
    band = picture.getchannel("RGBA"[["red", "green", "blue", "alpha"].index(channel)])
    return Output(([ImageOps.invert(band) if channel == "alpha" else band],))


def solid_mask(context: Context, value: float, width: int, height: int) -> Output:
    """A mask of one grey value, 0.0 to 1.0."""
    return Output(([Image.new("L", (width, height), round(value * 255))],))


# --- Size and position ---------------------------------------------------------------------------------


def image_scale(context: Context, image: Images, upscale_method: str, width: int, height: int, crop: str) -> Output:
    """Scale to a size; a side of 0 keeps the aspect ratio."""
    old_width, old_height = image[0].size
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    if crop == "center":
        return Output(([ImageOps.fit(picture, (width, height), _RESAMPLING[upscale_method]) for picture in image],))
    return Output((_resize(image, (width, height), upscale_method),))


def image_scale_by(context: Context, image: Images, upscale_method: str, scale_by: float) -> Output:
    """Scale by a factor."""
    width, height = image[0].size
    return Output((_resize(image, (round(width * scale_by), round(height * scale_by)), upscale_method),))


def image_scale_to_total_pixels(
    context: Context, image: Images, upscale_method: str, megapixels: float, resolution_steps: int
) -> Output:
    """Scale to a number of pixels, in units of 1024 x 1024; width and height are multiples of `resolution_steps`."""
    width, height = image[0].size
    factor = sqrt(megapixels * 1024 * 1024 / (width * height)) / resolution_steps
    size = round(width * factor) * resolution_steps, round(height * factor) * resolution_steps
    return Output((_resize(image, size, upscale_method),))


def _resize(images: Images, size: tuple[int, int], method: str) -> Images:
    return [picture.resize(size, _RESAMPLING[method]) for picture in images]


def image_crop(context: Context, image: Images, width: int, height: int, x: int, y: int) -> Output:
    """Crop to a box, which is limited to the picture."""
    full_width, full_height = image[0].size
    x, y = min(x, full_width - 1), min(y, full_height - 1)
    box = (x, y, min(x + width, full_width), min(y + height, full_height))
    return Output(([picture.crop(box) for picture in image],))


def image_flip(context: Context, image: Images, flip_method: str) -> Output:
    """Flip vertically ("x-axis: …") or horizontally ("y-axis: …")."""
    flip = ImageOps.flip if flip_method.startswith("x") else ImageOps.mirror
    return Output(([flip(picture) for picture in image],))


def image_rotate(context: Context, image: Images, rotation: str) -> Output:
    """Rotate clockwise by "none", "90 degrees", "180 degrees" or "270 degrees"."""
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
    """`length` pictures from `batch_index` on, which counts from the end if it is negative; at least one."""
    start = max(0, min(batch_index + (len(image) if batch_index < 0 else 0), len(image) - 1))
    return Output((image[start : start + length],))


# --- Colour --------------------------------------------------------------------------------------------


def image_invert(context: Context, image: Images) -> Output:
    """Invert the colours."""
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
    """Blend the second over the first. An unknown mode raises when the node runs, as in ComfyUI 0.33.0."""
    if blend_mode not in _BLENDS:
        raise ValueError(f"Unsupported blend mode: {blend_mode}")
    blended = []
    for below, other in zip(image1, image2, strict=False):
        above = ImageOps.fit(other, below.size, Image.Resampling.BICUBIC)
        blended.append(Image.blend(below, _BLENDS[blend_mode](below, above), blend_factor))
    return Output((blended,))


def image_add_noise(context: Context, image: Images, seed: int, strength: float) -> Output:
    """Add seeded noise; equal seeds give equal pictures (not the same ones as in ComfyUI)."""
    source = random.Random(seed)  # noqa: S311  a picture, not a secret
    noisy = []
    for picture in image:
        width, height = picture.size
        noise = Image.frombytes("RGB", picture.size, source.randbytes(width * height * 3))
        noisy.append(Image.blend(picture, ImageChops.add_modulo(picture, noise), strength))
    return Output((noisy,))


def invert_mask(context: Context, mask: Images) -> Output:
    """Invert a mask."""
    return image_invert(context, mask)


def mask_to_image(context: Context, mask: Images) -> Output:
    """The mask as a grey RGB picture."""
    return Output(([picture.convert("RGB") for picture in mask],))


def image_to_mask(context: Context, image: Images, channel: str) -> Output:
    """One channel as a mask; alpha is white, as pictures here have no alpha channel."""
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
