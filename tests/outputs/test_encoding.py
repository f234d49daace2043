"""Pictures become another format with their pixels, colours and metadata in order, or stay byte for byte."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageStat
from PIL.PngImagePlugin import PngInfo

from src.errors import OutputRefused
from src.outputs.encoding import encode_files
from src.outputs.gathering import LocalFile
from src.pictures.encoding import Encoding
from src.pictures.metadata import rewrite_png

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def smooth(mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A picture of gentle slopes, which lossy formats keep well; in RGBA its right half is transparent."""
    picture = Image.linear_gradient("L").resize(size)
    colours = Image.merge("RGB", (picture, picture.rotate(180), Image.new("L", size, 90)))
    if mode == "RGBA":
        alpha = Image.new("L", size, 255)
        alpha.paste(0, (size[0] // 2, 0, size[0], size[1]))
        colours.putalpha(alpha)
    return colours.convert(mode)


def saved(tmp_path: Path, picture: Image.Image, name: str = "a/x_00001_.png", **options: Any) -> LocalFile:
    """The picture as a saving node would have left it."""
    path = tmp_path / "as-saved"
    picture.save(path, {"jpg": "JPEG"}.get(name[-3:], name.rpartition(".")[2].upper()), **options)
    return LocalFile("9", name, path)


def encode(tmp_path: Path, file: LocalFile, **wanted: Any) -> tuple[LocalFile, Image.Image, list[str]]:
    """The file that comes out, opened, and the hints."""
    (out,), hints = encode_files([file], Encoding(**wanted), tmp_path / "out")
    opened = Image.open(out.path)
    opened.load()
    return out, opened, hints


def distance(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, in levels of 255."""
    from PIL import ImageChops

    return max(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


ENDINGS = {
    "png": (".png", "image/png"),
    "jpeg": (".jpg", "image/jpeg"),
    "webp": (".webp", "image/webp"),
    "avif": (".avif", "image/avif"),
}


def in_mode(mode: str) -> Image.Image:
    """The picture in a mode of Pillow's."""
    special = {
        "LA": lambda: smooth("RGBA").convert("LA"),
        "P": lambda: smooth().quantize(64, dither=Image.Dither.NONE),
        "I;16": lambda: smooth("L").convert("I;16").point(lambda level: level * 256),
    }
    return special[mode]() if mode in special else smooth(mode)


@pytest.mark.parametrize("wanted", ENDINGS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "LA", "1", "I;16", "CMYK"])
def test_every_mode_becomes_every_format_and_looks_the_same(tmp_path: Path, wanted: str, mode: str) -> None:
    file = saved(tmp_path, in_mode(mode), "a/x.tiff" if mode == "CMYK" else "a/x.png")
    out, opened, _ = encode(tmp_path, file, format=wanted, max_side=95)
    ending, content_type = ENDINGS[wanted]
    assert (out.name, out.content_type, opened.format) == (f"a/x{ending}", content_type, wanted.upper())
    assert opened.size == (95, 63)
    source = smooth("L") if mode == "I;16" else in_mode(mode)
    expected = source.convert("RGBA" if mode == "LA" else "L" if mode == "1" else "RGB").resize(
        (95, 63), Image.Resampling.LANCZOS
    )
    assert distance(opened.crop((0, 0, 47, 63)), expected.crop((0, 0, 47, 63))) < 8


def test_a_png_that_is_wanted_as_png_passes_byte_for_byte(tmp_path: Path) -> None:
    file = saved(tmp_path, smooth())
    before = file.path.read_bytes()
    for wanted in ({}, {"format": "png"}, {"format": "png", "quality": 10}, {"max_side": 96}):
        out, _, _ = encode(tmp_path, file, **wanted)
        assert out.path.read_bytes() == before
        assert out.name == file.name


def test_transparency_stays_where_it_can_and_else_shows_the_background(tmp_path: Path) -> None:
    file = saved(tmp_path, smooth("RGBA"))
    for wanted in ("png", "webp", "avif"):
        _, opened, _ = encode(tmp_path, file, format=wanted, max_side=90)
        assert opened.mode == "RGBA"
        assert opened.getpixel((80, 30))[3] == 0  # type: ignore[index]
    for colour in ((255, 255, 255), (0, 128, 255)):
        _, opened, _ = encode(tmp_path, file, format="jpeg", background=colour, quality=95)
        red, green, blue = opened.getpixel((80, 30))  # type: ignore[misc]
        assert max(abs(red - colour[0]), abs(green - colour[1]), abs(blue - colour[2])) < 6


@pytest.mark.parametrize("wanted", ENDINGS)
def test_the_colour_profile_goes_along(tmp_path: Path, wanted: str) -> None:
    file = saved(tmp_path, smooth(), icc_profile=PROFILE)
    _, opened, _ = encode(tmp_path, file, format=wanted, max_side=90)
    assert opened.info["icc_profile"] == PROFILE


def test_quality_and_size_are_what_was_asked_for(tmp_path: Path) -> None:
    noise = Image.frombytes("RGB", (200, 100), random.Random(1).randbytes(200 * 100 * 3))
    file = saved(tmp_path, noise)
    sizes = [encode(tmp_path, file, format="webp", quality=quality)[0].size for quality in (20, 60, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] * 1.5 < sizes[2]
    _, opened, _ = encode(tmp_path, file, max_side=50)
    assert (opened.format, opened.size) == ("PNG", (50, 25))


def test_animations_are_left_alone_with_a_hint(tmp_path: Path) -> None:
    frames = [smooth(), smooth().rotate(180)]
    file = saved(tmp_path, frames[0], "a.webp", save_all=True, append_images=frames[1:])
    before = file.path.read_bytes()
    out, opened, hints = encode(tmp_path, file, format="jpeg", max_side=10)
    assert (out.path.read_bytes(), getattr(opened, "n_frames", 1)) == (before, 2)
    assert "was not changed" in hints[0]


def test_what_is_no_picture_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"video")
    (out,), hints = encode_files([LocalFile("1", "v.mp4", path)], Encoding(format="webp", texts={}), tmp_path / "out")
    assert out.path.read_bytes() == b"video"
    assert "metadata" in hints[0]


def test_a_damaged_picture_is_an_error_that_names_the_node(tmp_path: Path) -> None:
    file = saved(tmp_path, smooth())
    file.path.write_bytes(file.path.read_bytes()[:100])
    with pytest.raises(OutputRefused, match=r"node 9: its image 'a/x_00001_\.png' cannot be read"):
        encode(tmp_path, file, format="webp")


# --- Metadata ------------------------------------------------------------------------------------------

TEXTS = {
    "prompt": json.dumps({"6": {"inputs": {"text": "a cat"}}}),
    "workflow": json.dumps({"nodes": ["写真"]}, ensure_ascii=False),
}


def with_texts(tmp_path: Path) -> LocalFile:
    """A PNG as ComfyUI saves it with metadata."""
    info = PngInfo()
    info.add_text("prompt", "old")
    info.add_text("other", "kept by nobody", zip=True)
    return saved(tmp_path, smooth("RGBA"), pnginfo=info, icc_profile=PROFILE)


@pytest.mark.parametrize("texts", [{}, TEXTS])
def test_metadata_is_put_in_and_taken_out_without_touching_a_pixel(tmp_path: Path, texts: dict[str, str]) -> None:
    file = with_texts(tmp_path)
    _, opened, hints = encode(tmp_path, file, texts=texts)
    assert opened.text == texts  # type: ignore[attr-defined]
    assert opened.tobytes() == smooth("RGBA").tobytes()
    assert opened.info["icc_profile"] == PROFILE
    assert not hints
    original = Image.open(file.path)
    original.load()
    assert original.text["prompt"] == "old"  # type: ignore[attr-defined]  # the saved file is nobody's to change


@pytest.mark.parametrize("wanted", ["jpeg", "webp", "avif"])
def test_metadata_goes_along_into_other_formats(tmp_path: Path, wanted: str) -> None:
    _, opened, _ = encode(tmp_path, with_texts(tmp_path), format=wanted, texts=TEXTS)
    exif = opened.getexif()
    assert exif[0x0110] == f"prompt:{TEXTS['prompt']}"
    assert exif[0x010F].startswith("workflow:")
    _, opened, _ = encode(tmp_path, with_texts(tmp_path), format=wanted)
    assert opened.getexif()[0x0110] == "prompt:old"
    _, opened, _ = encode(tmp_path, with_texts(tmp_path), format=wanted, texts={})
    assert not opened.getexif()


def test_metadata_too_long_for_a_format_is_left_out_with_a_hint(tmp_path: Path) -> None:
    _, opened, hints = encode(tmp_path, with_texts(tmp_path), format="jpeg", texts={"prompt": "x" * 70_000})
    assert not opened.getexif()
    assert "too long" in hints[0]
    long = {"prompt": "x" * 70_000}
    assert encode(tmp_path, with_texts(tmp_path), texts=long)[1].text == long  # type: ignore[attr-defined]


@pytest.mark.parametrize("cut", [lambda c: c[:60], lambda c: b"no" + c, lambda c: c[:-5]])
def test_only_a_whole_png_is_rewritten(tmp_path: Path, cut: Callable[[bytes], bytes]) -> None:
    file = with_texts(tmp_path)
    file.path.write_bytes(cut(file.path.read_bytes()))
    with pytest.raises(ValueError, match="PNG"):
        rewrite_png(file.path, tmp_path / "new", {})


def test_pillow_reads_back_what_was_written(tmp_path: Path) -> None:
    stream = io.BytesIO()
    smooth().save(stream, "PNG")
    (tmp_path / "a").write_bytes(stream.getvalue())
    rewrite_png(tmp_path / "a", tmp_path / "b", {"prompt": "latin ä", "workflow": "写真"})
    opened = Image.open(tmp_path / "b")
    opened.load()
    assert opened.text == {"prompt": "latin ä", "workflow": "写真"}  # type: ignore[attr-defined]
