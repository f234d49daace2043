"""Pictures as another format, or smaller; with their colour profile, and with the workflow or without."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from ..errors import OutputRefused
from ..inputs.checks import PILLOW_ERRORS
from ..settings import ImageFormat
from .gathering import LocalFile
from .metadata import METADATA_KEYWORDS, as_exif, rewrite_png

_ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif"}
_FORMATS: dict[str, ImageFormat] = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp", "AVIF": "avif"}
_LONGEST_SIDES = {"png": 2**31 - 1, "jpeg": 65535, "webp": 16383, "avif": 65535}  # in pixels
_PNG_EFFORT = 4  # as ComfyUI's SaveImage
_LONGEST_EXIF = 60_000  # a JPEG segment ends at 65,535 bytes


@dataclass(frozen=True)
class Encoding:
    """What pictures are to be. `format` None keeps each one's own, `max_side` is in pixels.

    `quality` None: the default, for those that are encoded anew. `texts` is the metadata that each is to carry; None
    leaves it as it is.
    """

    format: ImageFormat | None = None
    quality: int | None = None
    max_side: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    texts: Mapping[str, str] | None = None
    default_quality: int = 90

    @property
    def changes_nothing(self) -> bool:
        """Whether every file stays as it is."""
        return self.format is None and self.max_side is None and self.quality is None and self.texts is None


def encode_files(files: Sequence[LocalFile], encoding: Encoding, folder: Path) -> tuple[list[LocalFile], list[str]]:
    """The files, those that are pictures as `encoding` wants them, and hints about those that could not be.

    New ones are written into `folder`. Raises OutputRefused for a picture that cannot be read.
    """
    if encoding.changes_nothing:
        return list(files), []
    Image.MAX_IMAGE_PIXELS = None  # our own pictures; what callers bring is measured before it is decoded
    folder.mkdir(parents=True, exist_ok=True)
    encoder = _Encoder(encoding)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        places = [folder / str(number) for number in range(len(files))]
        return list(pool.map(encoder.encode, files, places)), list(dict.fromkeys(encoder.hints))


@dataclass(frozen=True)
class _Encoder:
    encoding: Encoding
    hints: list[str] = field(default_factory=list)

    def encode(self, file: LocalFile, place: Path) -> LocalFile:
        if file.kind != "image" or file.content_type == "image/svg+xml":
            if self.encoding.texts is not None:
                self._hint_metadata(file)
            return file
        try:
            with Image.open(file.path) as picture:
                return self._encode_picture(file, picture, place)
        except PILLOW_ERRORS as error:
            raise OutputRefused(f"node {file.node_id}: its picture {file.name[:200]!r} cannot be read") from error

    def _encode_picture(self, file: LocalFile, picture: Image.Image, place: Path) -> LocalFile:
        encoding, own = self.encoding, _FORMATS.get(picture.format or "")
        wanted = encoding.format or own
        is_large = encoding.max_side is not None and max(picture.size) > encoding.max_side
        is_same = wanted == own and not is_large
        if wanted is None or (getattr(picture, "n_frames", 1) > 1 and not is_same):
            self.hints.append(f"{file.name} was left as it is: animated, or of a format that is not re-encoded")
            return file
        if is_same and (encoding.quality is None or own == "png"):
            return self._with_texts(file, wanted, place)
        if not self._save(picture, wanted, place):
            return self._with_texts(file, own, place) if own else file
        name = file.name if wanted == own else str(PurePosixPath(file.name).with_suffix(_ENDINGS[wanted]))
        return replace(file, name=name, path=place)

    def _with_texts(self, file: LocalFile, own: str, place: Path) -> LocalFile:
        """The same picture, byte for byte but for its metadata."""
        if self.encoding.texts is None:
            return file
        if own != "png":
            self._hint_metadata(file)
            return file
        rewrite_png(file.path, place, self.encoding.texts)
        return replace(file, path=place)

    def _hint_metadata(self, file: LocalFile) -> None:
        self.hints.append(f"{file.name}: metadata of this kind of file is as SAVE_METADATA says, not as the job does")

    def _save(self, picture: Image.Image, wanted: ImageFormat, place: Path) -> bool:
        """Write it anew; False if the format cannot hold it."""
        encoding = self.encoding
        profile = picture.info.get("icc_profile") if picture.mode != "CMYK" else None
        kept = {key: str(value) for key, value in picture.info.items() if key in METADATA_KEYWORDS}
        texts = kept if encoding.texts is None else encoding.texts
        converted = _converted(ImageOps.exif_transpose(picture), wanted, encoding.background)
        if encoding.max_side is not None:
            converted.thumbnail((encoding.max_side, encoding.max_side), Image.Resampling.LANCZOS)
        if max(converted.size) > _LONGEST_SIDES[wanted]:
            (width, height), end = converted.size, _LONGEST_SIDES[wanted]
            self.hints.append(f"a picture of {width} x {height} was left as it is: {wanted} ends at {end}")
            return False
        if wanted == "png":
            converted.save(place, "PNG", compress_level=_PNG_EFFORT, icc_profile=profile)
            rewrite_png(place, place, texts)
            return True
        exif = as_exif(texts)
        if len(exif.tobytes()) > _LONGEST_EXIF:
            self.hints.append("the workflow is too long for the metadata of a picture that is no PNG: it was left out")
            exif = Image.Exif()
        quality = encoding.quality or encoding.default_quality
        converted.save(place, wanted.upper(), quality=quality, icc_profile=profile, exif=exif)
        return True


def _converted(picture: Image.Image, wanted: ImageFormat, background: tuple[int, int, int]) -> Image.Image:
    """The picture in a mode that the format has; what is transparent shows the background where there is no alpha."""
    if picture.mode.startswith("I"):  # 16 bits a pixel, of which none of these but PNG can keep more than 8
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    has_alpha = "A" in picture.getbands() or "transparency" in picture.info
    if not has_alpha:
        return picture.copy() if picture.mode in ("RGB", "L") else picture.convert("RGB")
    with_alpha = picture.convert("RGBA")
    if wanted != "jpeg":
        return with_alpha
    below = Image.new("RGB", picture.size, background)
    below.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return below
