"""A picture in another format or size; it keeps its colour profile, and the workflow if requested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from ..settings import ImageFormat
from .metadata import METADATA_KEYWORDS, as_exif, rewrite_png

_EXTENSIONS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif"}
_FORMATS: dict[str, ImageFormat] = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp", "AVIF": "avif"}
_MAX_SIDES = {"png": 2**31 - 1, "jpeg": 65535, "webp": 16383, "avif": 65535}  # in pixels
_PNG_COMPRESS_LEVEL = 4  # the same as in ComfyUI's SaveImage
_MAX_EXIF_BYTES = 60_000  # the limit of a JPEG segment is 65,535 bytes


@dataclass(frozen=True)
class Encoding:
    """How pictures are to be encoded. `format` None keeps each picture's format; `max_side` is in pixels.

    `quality` None means `default_quality`, for pictures that are re-encoded. `texts` is the metadata that each picture
    is to have; None leaves its metadata unchanged.
    """

    format: ImageFormat | None = None
    quality: int | None = None
    max_side: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    texts: Mapping[str, str] | None = None
    default_quality: int = 90

    @property
    def changes_nothing(self) -> bool:
        """Whether every file stays unchanged."""
        return self.format is None and self.max_side is None and self.quality is None and self.texts is None


@dataclass(frozen=True)
class EncodedPicture:
    """What became of a picture: its name now, whether there is a new file, and hints for the caller."""

    name: str
    is_new: bool
    hints: tuple[str, ...] = ()


def metadata_hint(name: str) -> str:
    """The hint about a file whose metadata cannot be changed."""
    return f"{name}: metadata of this file type follows SAVE_METADATA, not the job"


def encode_picture(source: Path, target: Path, name: str, encoding: Encoding) -> EncodedPicture:
    """Write a picture to `target` as `encoding` says, if that changes anything. Raises what Pillow raises."""
    Image.MAX_IMAGE_PIXELS = None  # these pictures are our own; those of a job are checked for size before decoding
    with Image.open(source) as picture:
        encoder = _Encoder(encoding, source, target, name)
        new_name = encoder.encode(picture)
        return EncodedPicture(new_name or name, new_name is not None, tuple(encoder.hints))


@dataclass(frozen=True)
class _Encoder:
    encoding: Encoding
    source: Path
    target: Path
    name: str
    hints: list[str] = field(default_factory=list)

    def encode(self, picture: Image.Image) -> str | None:
        """The name of the new file, None if the picture stays as it is."""
        encoding, source_format = self.encoding, _FORMATS.get(picture.format or "")
        target_format = encoding.format or source_format
        is_large = encoding.max_side is not None and max(picture.size) > encoding.max_side
        is_same = target_format == source_format and not is_large
        if target_format is None or (getattr(picture, "n_frames", 1) > 1 and not is_same):
            self.hints.append(f"{self.name} was not changed: it is animated, or of a format that is not re-encoded")
            return None
        if is_same and (encoding.quality is None or source_format == "png"):
            return self._with_texts(target_format)
        if not self._save(picture, target_format, self.target):
            return self._with_texts(source_format) if source_format else None
        if target_format == source_format:
            return self.name
        return str(PurePosixPath(self.name).with_suffix(_EXTENSIONS[target_format]))

    def _with_texts(self, source_format: str) -> str | None:
        """The same picture with the requested metadata, otherwise byte for byte the same."""
        if self.encoding.texts is None:
            return None
        if source_format != "png":
            self.hints.append(metadata_hint(self.name))
            return None
        rewrite_png(self.source, self.target, self.encoding.texts)
        return self.name

    def _save(self, picture: Image.Image, target_format: ImageFormat, target: Path) -> bool:
        """Re-encode the picture. Returns False if it is too large for the format."""
        encoding = self.encoding
        profile = picture.info.get("icc_profile") if picture.mode != "CMYK" else None
        kept = {key: str(value) for key, value in picture.info.items() if key in METADATA_KEYWORDS}
        texts = kept if encoding.texts is None else encoding.texts
        converted = _convert_mode(ImageOps.exif_transpose(picture), target_format, encoding.background)
        if encoding.max_side is not None:
            converted.thumbnail((encoding.max_side, encoding.max_side), Image.Resampling.LANCZOS)
        if max(converted.size) > _MAX_SIDES[target_format]:
            (width, height), maximum = converted.size, _MAX_SIDES[target_format]
            self.hints.append(
                f"an image of {width} x {height} was not re-encoded: {target_format} allows at most {maximum}"
            )
            return False
        if target_format == "png":
            converted.save(target, "PNG", compress_level=_PNG_COMPRESS_LEVEL, icc_profile=profile)
            rewrite_png(target, target, texts)
            return True
        exif = as_exif(texts)
        if len(exif.tobytes()) > _MAX_EXIF_BYTES:
            self.hints.append("the workflow is too long for the metadata of an image other than PNG and was left out")
            exif = Image.Exif()
        quality = encoding.quality or encoding.default_quality
        converted.save(target, target_format.upper(), quality=quality, icc_profile=profile, exif=exif)
        return True


def _convert_mode(picture: Image.Image, target_format: ImageFormat, background: tuple[int, int, int]) -> Image.Image:
    """The picture in a mode that the format supports; JPEG has no alpha, so the background replaces transparency."""
    if picture.mode.startswith("I"):  # 16 bits per pixel; of these formats only PNG supports more than 8
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    has_alpha = "A" in picture.getbands() or "transparency" in picture.info
    if not has_alpha:
        return picture.copy() if picture.mode in ("RGB", "L") else picture.convert("RGB")
    rgba = picture.convert("RGBA")
    if target_format != "jpeg":
        return rgba
    flattened = Image.new("RGB", picture.size, background)
    flattened.paste(rgba, mask=rgba.getchannel("A"))
    return flattened
