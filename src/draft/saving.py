"""Nodes that save pictures, under the file names that ComfyUI would give them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import PngImagePlugin

from .values import Context, Images, Output


def save_image(context: Context, images: Images, filename_prefix: str) -> Output:
    """One PNG per picture in the output folder."""
    folder, subfolder, name, counter = save_path(context.folders.output, filename_prefix)
    return _save_pngs(context, images, "output", folder, subfolder, name, counter)


def preview_image(context: Context, images: Images) -> Output:
    """One PNG per picture in the temp folder, under a name that depends on the pictures."""
    digest = hashlib.sha256(b"".join(picture.tobytes() for picture in images)).hexdigest()[:5]
    folder, subfolder, name, counter = save_path(context.folders.temp, f"ComfyUI_temp_{digest}")
    return _save_pngs(context, images, "temp", folder, subfolder, name, counter)


def _save_pngs(
    context: Context, images: Images, kind: str, folder: Path, subfolder: str, name: str, counter: int
) -> Output:
    texts = PngImagePlugin.PngInfo()
    for key, text in (context.metadata or {}).items():
        texts.add_text(key, text)
    items = []
    for number, picture in enumerate(images, counter):
        filename = f"{name.replace('%batch_num%', str(number - counter))}_{number:05}_.png"
        picture.save(folder / filename, pnginfo=texts, compress_level=4)
        items.append({"filename": filename, "subfolder": subfolder, "type": kind})
    return Output((images,), {"images": items})


def save_image_websocket(context: Context, images: Images) -> Output:
    """One PNG per picture, sent over the websocket and not saved."""
    for number, picture in enumerate(images):
        png = io.BytesIO()
        picture.save(png, "PNG")
        context.progress(number, len(images))
        context.send_picture(png.getvalue())
    return Output((), {})


def save_animated_webp(
    context: Context, images: Images, filename_prefix: str, fps: float, lossless: bool, quality: int, method: str
) -> Output:
    """All pictures in one WebP."""
    effort = {"default": 4, "fastest": 0, "slowest": 6}[method]
    return _save_animation(
        context, images, filename_prefix, fps, "webp", lossless=lossless, quality=quality, method=effort
    )


def save_animated_png(
    context: Context, images: Images, filename_prefix: str, fps: float, compress_level: int
) -> Output:
    """All pictures in one PNG."""
    return _save_animation(context, images, filename_prefix, fps, "png", compress_level=compress_level)


def _save_animation(context: Context, images: Images, prefix: str, fps: float, suffix: str, **options: Any) -> Output:
    folder, subfolder, name, counter = save_path(context.folders.output, prefix)
    filename = f"{name}_{counter:05}_.{suffix}"
    images[0].save(folder / filename, save_all=True, append_images=images[1:], duration=int(1000 / fps), **options)
    item = {"filename": filename, "subfolder": subfolder, "type": "output"}
    return Output((images,), {"images": [item], "animated": [True]})


def save_path(root: Path, prefix: str) -> tuple[Path, str, str, int]:
    """Folder, subfolder, name and next counter for a filename prefix. Raises ValueError for one outside the root."""
    subfolder, _, name = prefix.rpartition("/")
    folder = (root / subfolder.lstrip("/")).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise ValueError("Saving image outside the output folder is not allowed.")
    folder.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(rf"{re.escape(name)}_(\d+)_")
    numbers = [int(found.group(1)) for file in folder.iterdir() if (found := pattern.match(file.name))]
    return folder, folder.relative_to(root.resolve()).as_posix().removeprefix("."), name, max(numbers, default=0) + 1


NODES: dict[str, Callable[..., Output]] = {
    "SaveImage": save_image,
    "PreviewImage": preview_image,
    "SaveImageWebsocket": save_image_websocket,
    "SaveAnimatedWEBP": save_animated_webp,
    "SaveAnimatedPNG": save_animated_png,
}
