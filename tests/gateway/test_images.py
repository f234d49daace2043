"""Uploads, masks and /view, as ComfyUI has them."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin

from .here import Here, contents, gateway_here


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with gateway_here(tmp_path_factory.mktemp("images")) as here:
        yield here


@pytest.fixture
def here(running: Here) -> Here:
    """With empty folders."""
    for name in ("input", "output", "temp"):
        shutil.rmtree(running.folder / name)
        (running.folder / name).mkdir()
    return running


def png(mode: str = "RGB", color: Any = 0, size: tuple[int, int] = (8, 6), kind: str = "PNG", **more: Any) -> bytes:
    """A picture."""
    encoded = io.BytesIO()
    Image.new(mode, size, color).save(encoded, kind, **more)
    return encoded.getvalue()


def opened(content: bytes) -> Image.Image:
    """A picture that was received."""
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


# --- Uploads -------------------------------------------------------------------------------------------


def test_an_upload_is_an_input_file_that_view_gives_back(here: Here) -> None:
    content = png()
    assert here.upload(content, "My Ä photo.png").json == {"name": "My Ä photo.png", "subfolder": "", "type": "input"}
    assert (here.folder / "input/My Ä photo.png").read_bytes() == content
    viewed = here.get("/api/view", filename="My Ä photo.png", type="input", subfolder="", rand="0.5")
    assert (viewed.content, viewed.headers["content-type"]) == (content, "image/png")


def test_the_same_file_again_is_the_same_and_another_of_that_name_gets_a_number(here: Here) -> None:
    red, blue, green = png(color="red"), png(color="blue"), png(color="green")
    names = [here.upload(content, "a.b.png").json["name"] for content in (red, red, blue, blue, green, red)]
    assert names == ["a.b.png", "a.b.png", "a.b (1).png", "a.b (1).png", "a.b (2).png", "a.b.png"]
    assert sorted(contents(here.folder / "input").values()) == sorted([red, blue, green])


def test_the_same_file_again_is_not_written_again(here: Here) -> None:
    here.upload(png(), "a.png")
    before = (here.folder / "input/a.png").stat()
    here.upload(png(), "a.png")
    here.upload(png(), "a.png", overwrite="true")
    after = (here.folder / "input/a.png").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("value", ["true", "1"])
def test_an_upload_that_overwrites_keeps_the_name(here: Here, value: str) -> None:
    here.upload(png(color="red"), "a.png")
    assert here.upload(png(color="blue"), "a.png", overwrite=value).json["name"] == "a.png"
    assert contents(here.folder / "input") == {"a.png": png(color="blue")}


def test_different_files_of_one_name_that_come_at_the_same_time_are_all_kept(here: Here) -> None:
    pictures = [png(color=(number, 0, 0)) for number in range(60)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads alternate often
    with ThreadPoolExecutor(12) as pool:
        names = list(pool.map(lambda picture: here.upload(picture, "a.png").json["name"], pictures))
    sys.setswitchinterval(interval)
    assert len(set(names)) == len(pictures)
    assert [(here.folder / "input" / name).read_bytes() for name in names] == pictures


def test_an_upload_goes_into_the_folder_and_subfolder_that_the_form_names(here: Here) -> None:
    told = here.upload(png(), "a.png", type="temp", subfolder="deep/er").json
    assert told == {"name": "a.png", "subfolder": "deep/er", "type": "temp"}
    assert here.get("/view", filename="a.png", type="temp", subfolder="deep/er").status == 200
    assert here.upload(png(), "sub/b.png").json["name"] == "sub/b.png"
    assert (here.folder / "input/sub/b.png").is_file()


def test_any_kind_of_file_may_be_uploaded(here: Here) -> None:
    assert here.upload(b"RIFF sound", "a.wav").status == 200
    assert (here.folder / "input/a.wav").read_bytes() == b"RIFF sound"


@pytest.mark.parametrize("filename", ["../a.png", "/a.png", "x/../../a.png", "x/..", "..", ".", "", "sub/", "a\0.png"])
@pytest.mark.parametrize("overwrite", ["", "true"])
def test_no_upload_is_written_outside_of_its_folder(here: Here, filename: str, overwrite: str) -> None:
    (here.folder / "input/sub").mkdir()
    before = contents(here.folder.parent)
    answer = here.upload(png(), filename, overwrite=overwrite)
    written = {name for name, content in contents(here.folder.parent).items() if before.get(name) != content}
    assert answer.status in (400, 403) if ".." in filename else answer.status < 500
    assert written <= {"gateway/input/sub (1)", "gateway/input/a.png"}


@pytest.mark.parametrize("subfolder", ["..", "../output", "/", "/etc", "a/../../..", "\0"])
def test_no_subfolder_leads_out_of_the_folder(here: Here, subfolder: str) -> None:
    before = contents(here.folder.parent)
    assert here.upload(png(), "a.png", subfolder=subfolder).status in (400, 403)
    assert contents(here.folder.parent) == before


def test_an_upload_follows_no_link_out_of_the_folder(here: Here, tmp_path: Path) -> None:
    (here.folder / "input/out").symlink_to(tmp_path)
    (here.folder / "input/a.png").symlink_to(tmp_path / "a.png")
    (here.folder / "input/b.png").write_bytes(png())
    (here.folder / "input/b (1).png").symlink_to(tmp_path / "b.png")
    assert here.upload(png(), "a.png", overwrite="1").status == 403
    assert here.upload(png(), "x.png", subfolder="out").status == 403
    assert here.upload(png(color="red"), "b.png").status == 200
    assert list(tmp_path.iterdir()) == []


def test_a_form_without_a_file_or_with_another_type_is_refused(here: Here) -> None:
    assert here.upload(png(), "a.png", type="models").status == 400
    for body, kind in (
        (b"", "multipart/form-data; boundary=x"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nno file\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: text/plain; charset=none\r\n\r\n1\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Encoding: none\r\n\r\n1\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
        (b"x", "multipart/form-data"),
        (b"image=x", "application/x-www-form-urlencoded; charset=none"),
        (b"image=x", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
    ):
        for route in ("/upload/image", "/upload/mask"):
            assert here.ask("POST", route, body, Content_Type=kind).status == 400, (body, kind)
    assert contents(here.folder / "input") == {}


def test_nothing_is_left_of_an_upload_that_fails(here: Here) -> None:
    (here.folder / "input/taken").mkdir()
    assert here.upload(png(), "taken", overwrite="true").status == 400
    assert here.upload(b"no picture", "m.png", "/upload/mask", original_ref='{"filename": "x"}').status == 404
    assert [path.name for path in (here.folder / "input").iterdir()] == ["taken"]


# --- Masks ---------------------------------------------------------------------------------------------


def masked(here: Here, reference: Any, mask: bytes, name: str = "mask.png") -> Any:
    return here.upload(mask, name, "/api/upload/mask", original_ref=json.dumps(reference), type="input")


@pytest.mark.parametrize(
    "reference",
    [
        {"filename": "photo.png", "subfolder": "s", "type": "input"},
        {"filename": "photo.png [input]", "subfolder": "s"},
        {"filename": "s/photo.png [input]", "type": "output", "subfolder": None},
    ],
)
def test_a_mask_becomes_the_alpha_of_the_original_whose_texts_stay(here: Here, reference: Any) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("workflow", "{}")
    (here.folder / "input/s").mkdir()
    (here.folder / "input/s/photo.png").write_bytes(png("RGB", (10, 20, 30), pnginfo=notes))
    told = masked(here, reference, png("RGBA", (255, 255, 255, 77))).json
    assert told == {"name": "mask.png", "subfolder": "", "type": "input"}
    saved = opened((here.folder / "input/mask.png").read_bytes())
    assert (saved.mode, saved.getpixel((0, 0))) == ("RGBA", (10, 20, 30, 77))
    assert saved.info["workflow"] == "{}"


def test_the_original_of_a_mask_is_an_output_unless_it_says_otherwise(here: Here) -> None:
    (here.folder / "output/o.png").write_bytes(png(color="red"))
    assert masked(here, {"filename": "o.png"}, png("RGBA", (0, 0, 0, 5), size=(16, 12))).status == 200
    assert opened((here.folder / "input/mask.png").read_bytes()).getpixel((0, 0)) == (255, 0, 0, 5)


@pytest.mark.parametrize(
    "reference",
    [
        None, 5, [], {}, {"filename": 5}, {"filename": ""}, {"filename": "../../x"}, {"filename": "\ud800"},
        {"filename": "o.png", "type": ["x"]}, {"filename": "o.png", "type": "models"}, {"filename": "/etc/passwd"},
        {"filename": "o.png", "subfolder": ".."}, {"filename": "o.png", "subfolder": {}}, {"filename": "x" * 5000},
    ],
)  # fmt: skip
def test_a_reference_to_no_original_is_refused(here: Here, reference: Any) -> None:
    assert masked(here, reference, png("RGBA")).status in (400, 403, 404)
    assert contents(here.folder / "input") == {}


def test_a_mask_that_is_no_image_is_refused(here: Here) -> None:
    (here.folder / "output/o.png").write_bytes(png())
    (here.folder / "output/broken.png").write_bytes(b"broken")
    assert masked(here, {"filename": "o.png"}, b"no picture").status == 400
    assert masked(here, {"filename": "broken.png"}, png("RGBA")).status == 400
    assert contents(here.folder / "input") == {}


# --- /view ---------------------------------------------------------------------------------------------


def test_a_file_is_an_output_unless_the_request_or_its_name_says_otherwise(here: Here) -> None:
    for kind, color in (("input", "red"), ("output", "green"), ("temp", "blue")):
        (here.folder / kind / "a.png").write_bytes(png(color=color))
    assert here.get("/view", filename="a.png").content == png(color="green")
    assert here.get("/view", filename="a.png", type="temp").content == png(color="blue")
    assert here.get("/view", filename="a.png [input]").content == png(color="red")
    assert here.get("/view", filename="a.png [input]", type="temp").content == png(color="red")


def test_a_file_comes_in_parts_and_only_if_it_has_changed(here: Here) -> None:
    (here.folder / "output/v.mp4").write_bytes(bytes(range(100)))
    part = here.ask("GET", "/view?filename=v.mp4", Range="bytes=10-19")
    assert (part.status, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-range"] == "bytes 10-19/100"
    assert here.ask("GET", "/view?filename=v.mp4", Range="bytes=500-").status == 416
    whole = here.get("/view", filename="v.mp4")
    assert (whole.status, whole.headers["content-type"]) == (200, "video/mp4")
    assert here.ask("GET", "/view?filename=v.mp4", If_None_Match=whole.headers["etag"]).status == 304
    head = here.ask("HEAD", "/view?filename=v.mp4")
    assert (head.status, head.headers["content-length"], head.content) == (200, "100", b"")


def test_a_preview_is_of_the_wanted_format(here: Here) -> None:
    (here.folder / "output/a.png").write_bytes(png("RGBA", (255, 0, 0, 128)))

    def preview(**query: str) -> tuple[Any, str, str]:
        answer = here.get("/view", filename="a.png", **query)
        return answer.status, answer.headers["content-type"], opened(answer.content).mode

    assert preview(preview="webp;50") == (200, "image/webp", "RGBA")
    assert preview(preview="jpeg") == (200, "image/jpeg", "RGB")
    assert preview(preview="jpeg;75", channel="rgba") == (200, "image/webp", "RGBA")
    assert preview(preview="webp", channel="rgb") == (200, "image/webp", "RGB")
    for odd in ("", "png;1000000", ";;;", "jpeg;²", "webp;-1", "webp;" + "9" * 5000):
        assert preview(preview=odd)[0] == 200


def test_the_quality_is_the_last_part_of_what_is_wanted(here: Here) -> None:
    Image.effect_noise((64, 64), 90).save(here.folder / "output/n.png")
    sizes = [
        len(here.get("/view", filename="n.png", preview=wanted).content)
        for wanted in ("jpeg;5", "jpeg;x;5", "jpeg;95")
    ]
    assert sizes[0] == sizes[1] < sizes[2]


def test_the_channels_for_the_mask_editor(here: Here) -> None:
    (here.folder / "output/a.png").write_bytes(png("RGBA", (9, 8, 7, 66)))
    (here.folder / "output/b.png").write_bytes(png("RGB", (9, 8, 7)))
    (here.folder / "output/p.png").write_bytes(png("P", 3))

    def pixel(name: str, channel: str) -> Any:
        answer = here.get("/view", filename=name, channel=channel)
        assert answer.headers["content-type"] == "image/png"
        return opened(answer.content).getpixel((0, 0))

    assert (pixel("a.png", "rgb"), pixel("a.png", "a")) == ((9, 8, 7), (0, 0, 0, 66))
    assert (pixel("b.png", "rgb"), pixel("b.png", "a")) == ((9, 8, 7), (0, 0, 0, 255))
    assert len(pixel("p.png", "rgb")) == 3
    assert here.get("/view", filename="a.png", channel="other").content == png("RGBA", (9, 8, 7, 66))


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", png()[:40], png()[:-20], png().replace(b"IDAT", b"IDAX"), png().replace(b"IHDR", b"tEXt"),
     b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF", b"GIF89a" + b"\xff" * 50,
     b"RIFF\x00\x00\x00\x00WEBPVP8X" + b"\xff" * 30, b"II*\x00" + b"\xff" * 40, b"\xff\xd8\xff" + b"\x00" * 40],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")  # of Pillow
def test_what_is_no_image_has_no_preview_but_may_be_viewed_as_it_is(here: Here, content: bytes) -> None:
    (here.folder / "output/x.png").write_bytes(content)
    for query in ({"preview": "webp"}, {"channel": "rgb"}, {"channel": "a"}):
        assert here.get("/view", filename="x.png", **query).status in (200, 415)
    assert here.get("/view", filename="x.png").content == content


def test_no_other_program_is_started_for_a_preview(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, mark = tmp_path / "gs", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it is looked for again
    (here.folder / "output/x.png").write_bytes(png(size=(4, 4), kind="EPS"))
    assert here.get("/view", filename="x.png", preview="webp").status == 415
    assert not mark.exists()


@pytest.mark.parametrize(
    "kind", ["html", "htm", "js", "mjs", "css", "xml", "xhtml", "rss", "xsl", "mht", "svgz", "svg"]
)
def test_what_could_act_as_a_page_is_a_download(here: Here, kind: str) -> None:
    (here.folder / f"output/x.{kind}").write_bytes(b"<script>alert(1)</script>")
    answer = here.get("/view", filename=f"x.{kind}")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == f'attachment; filename="x.{kind}"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_an_svg_is_shown_in_a_picture_and_only_there(here: Here) -> None:
    (here.folder / "output/x.svg").write_bytes(b"<svg/>")
    for wanted, kind in (
        ("image", "image/svg+xml"),
        ("document", "application/octet-stream"),
        ("iframe", "application/octet-stream"),
    ):
        answer = here.ask("GET", "/view?filename=x.svg", Sec_Fetch_Dest=wanted)
        assert (answer.headers["content-type"], answer.headers["vary"]) == (kind, "Sec-Fetch-Dest")
        assert answer.headers["cache-control"] == "no-store"


def test_a_file_says_its_name(here: Here) -> None:
    for name, told in (
        ("a b.png", "a b.png"),
        ('q"uo\\te.png', 'q\\"uo\\\\te.png'),
        ("new\nline\r.png", "new_line_.png"),
    ):
        (here.folder / "output" / name).write_bytes(png())
        for query in ({}, {"preview": "webp"}):
            answer = here.get("/view", filename=name, **query)
            assert (answer.status, answer.headers["content-disposition"]) == (200, f'filename="{told}"')


def test_what_is_not_there_is_not_found(here: Here) -> None:
    (here.folder / "output/folder").mkdir()
    for query in ({}, {"filename": ""}, {"filename": "x.png"}, {"filename": "folder"}, {"filename": "x" * 5000}):
        assert here.get("/view", **query).status in (400, 404), query
    assert here.get("/view", filename="x.png", type="models").status == 400
