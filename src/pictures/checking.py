"""Is this a picture that can be decoded, and is it not too large? ComfyUI would fail in the middle of a job."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import Image, UnidentifiedImageError

_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
# What Pillow raises for a damaged picture, by format.
PILLOW_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
)
_TILE_TAGS, _STRIP_TAG = (322, 323), 278  # TIFF: width and height of a tile, rows of a strip
_MAX_FRAMES = 10_000


def check_picture(path: Path, name: str, is_image: bool, max_pixels: int) -> str:
    """What is wrong with a picture, "" for nothing; it is decoded once. `is_image`: its sender says that it is one."""
    Image.MAX_IMAGE_PIXELS = None  # Pillow would only warn from 89 million pixels on; max_pixels is checked below
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            width, height = picture.size
            frames = _count_frames(picture, max_pixels)
            if frames > _MAX_FRAMES:
                return f"{name!r} has more than {_MAX_FRAMES} frames"
            if max(width * height * frames, _pixels_at_once(picture)) > max_pixels:
                many = f" in {frames} frames" if frames > 1 else ""
                return (
                    f"{name!r} has {width} x {height} pixels{many}; at most {max_pixels // 1_000_000} million are "
                    "allowed (MAX_INPUT_MEGAPIXELS)"
                )
            picture.load()
    except UnidentifiedImageError:
        hint = "; send other media in files" if is_image else ""
        return f"{name!r} is not a readable image (PNG, JPEG, WebP, AVIF, GIF, BMP, TIFF){hint}"
    except PILLOW_ERRORS:
        return f"the image {name!r} is damaged or truncated"
    return ""


def _count_frames(picture: Image.Image, max_pixels: int) -> int:
    """How many frames there are; counting ends where they are too many. Some formats have to be read to the end."""
    if not getattr(picture, "is_animated", False):
        return 1
    if picture.format in ("WEBP", "AVIF", "PNG"):  # it stands in their headers
        return int(getattr(picture, "n_frames", 1))
    most = min(_MAX_FRAMES, max_pixels // max(1, picture.width * picture.height))
    frames = 1
    try:
        while frames <= most:
            picture.seek(frames)
            frames += 1
    except EOFError:
        pass
    picture.seek(0)
    return frames


def _pixels_at_once(picture: Image.Image) -> int:
    """The pixels that are decoded at once in a TIFF, which its size does not tell: a tile may exceed the picture."""
    tags = getattr(picture, "tag_v2", {})
    sides = [tags.get(tag, 0) for tag in _TILE_TAGS]
    rows = min(tags.get(_STRIP_TAG, 0) or 0, picture.height)
    return max(int(sides[0] or 0) * int(sides[1] or 0), int(rows) * picture.width)
