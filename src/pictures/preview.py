"""A sampler's preview, small enough for the progress of a job."""

from __future__ import annotations

import io

from PIL import Image

MAX_SIDE = 512
"""In pixels."""
MAX_BYTES = 32_000

_MAX_PIXELS = 4096 * 4096  # of the preview as it comes; ComfyUI's own has at most 512 x 512
_QUALITIES = (85, 70, 50, 30)


def small_jpeg(content: bytes) -> bytes:
    """A JPEG as another of at most MAX_SIDE and MAX_BYTES. Raises what Pillow raises, or ValueError if it is huge."""
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit; ours is checked below
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as picture:
        if picture.width * picture.height > _MAX_PIXELS:
            raise ValueError(f"a preview of {picture.width} x {picture.height} pixels")
        picture.draft("RGB", (MAX_SIDE, MAX_SIDE))  # decodes a large one at a fraction of its size
        shrunk = picture.convert("RGB")
    side = MAX_SIDE
    while True:
        shrunk.thumbnail((side, side))
        for quality in _QUALITIES:
            encoded = io.BytesIO()
            shrunk.save(encoded, "JPEG", quality=quality)
            if encoded.tell() <= MAX_BYTES:
                return encoded.getvalue()
        side //= 2
