"""What a job brings is fetched, checked and named before ComfyUI sees it, or the caller hears what is wrong."""

from __future__ import annotations

import base64
import io
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from src.comfy.folders import Folders
from src.comfy.run_limits import RunLimits
from src.deadline import Deadline
from src.errors import InputFileRefused, InputFileUnavailable, JobCancelled, WorkerError
from src.inputs.files import InputPlaces, StagedFile, fetch_files
from src.inputs.input_file import InputFile
from src.settings import Settings
from src.storage.bucket import Bucket

from ..s3 import Storage
from ..storage.test_web import site


def picture(kind: str = "PNG", size: tuple[int, int] = (32, 16)) -> bytes:
    """An orange picture."""
    stream = io.BytesIO()
    Image.new("RGB", size, (255, 128, 0)).save(stream, kind)
    return stream.getvalue()


PNG = picture()
ENCODED = base64.b64encode(PNG).decode()


def fetch(
    tmp_path: Path, *files: tuple[str, str] | InputFile, bucket: Bucket | None = None, **settings: Any
) -> dict[str, bytes]:
    """Name to content of images (name, source)."""
    listed = [
        file if isinstance(file, InputFile) else InputFile(*file, f"images[{number}]", True)
        for number, file in enumerate(files)
    ]
    staged = fetch_files(listed, tmp_path, Settings(**settings), bucket, lambda: None)
    return {name: file.path.read_bytes() for name, file in staged.items()}


SOURCES = {
    "base64": ENCODED,
    "base64 with line breaks": "\n".join(ENCODED[start : start + 76] for start in range(0, len(ENCODED), 76)),
    "base64 without padding": ENCODED.rstrip("="),
    "base64 for URLs": ENCODED.replace("+", "-").replace("/", "_"),
    "data URI": f"data:image/png;base64,{ENCODED}",
    "data URI of any type": f"data:;base64,{ENCODED}",
    "data URI with parameters": f"data:image/png;name=a.png;charset=utf-8;base64,{ENCODED}",
    "data URI in capitals": f"DATA:image/png;BASE64,{ENCODED}",
    "data URI, quoted base64": f"data:image/png;base64,{quote(ENCODED)}",
    "data URI without base64": f"data:image/png,{quote(PNG)}",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_picture_in_the_request_arrives_byte_for_byte(tmp_path: Path, source: str) -> None:
    assert fetch(tmp_path, ("in.png", source)) == {"in.png": PNG}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_every_usual_format_is_a_picture(tmp_path: Path, kind: str) -> None:
    content = picture(kind)
    assert fetch(tmp_path, ("in", base64.b64encode(content).decode())) == {"in": content}


def test_a_picture_comes_from_a_bucket_and_from_a_url(tmp_path: Path, storage: Storage) -> None:
    url = storage.put("in/a b.png", PNG)
    assert fetch(tmp_path, ("a.png", url), bucket=Bucket(storage.config)) == {"a.png": PNG}
    with site() as host:
        told = InputFile("t.bin", f"http://{host}/file", "files[0]", False)
        assert fetch(tmp_path, told, trusted_hosts=(host,)) == {"t.bin": b"content"}


BAD_NAMES = {
    "a pickle": "model.pth",
    "a pickle by another ending": "x/EMBEDDING.PT",
    "a way up": "../x.png",
    "a way up in the middle": "a/../x.png",
    "a way up, only": "..",
    "absolute": "/etc/passwd",
    "a backslash": "a\\x.png",
    "a drive": "C:x.png",
    "NUL": "a\0.png",
    "a line break": "a\n.png",
    "an empty part": "a//x.png",
    "a folder": "a/",
    "this folder": "./x.png",
    "a device": "NUL",
    "a device with an ending": "com1.png",
    "a device as a folder": "aux/x.png",
    "another folder's mark": "x.png [output]",
    "blanks around": " x.png",
    "a blank at the end of a folder": "a /x.png",
    "too long": "ä" * 101,
    "wildcards": "*.png",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_a_name_that_could_lead_astray_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputFileRefused, match=r"^images\[0\]\.name must"):
        fetch(tmp_path, (name, ENCODED))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "name", ["x.png", "sub/dir/x.png", "ünïcode 写真.png", "no ending", ".hidden", "a.tar.gz", "…"]
)
def test_other_names_are_fine(tmp_path: Path, name: str) -> None:
    assert fetch(tmp_path, (name, ENCODED)) == {name: PNG}


def huge() -> bytes:
    """A picture of 15,000 x 15,000 pixels in a few kilobytes."""
    stream = io.BytesIO()
    Image.new("1", (15_000, 15_000)).save(stream, "PNG")
    return stream.getvalue()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


BAD_CONTENT: dict[str, tuple[str, str]] = {
    "no base64": ("!!!", "not base64, a data URI or a URL"),
    "a path": ("/etc/passwd.png", "is not a readable image|not base64"),
    "a cut picture": (encoded(PNG[:-30]), "damaged or truncated"),
    "a cut JPEG": (encoded(picture("JPEG", (256, 256))[:-300]), "damaged or truncated"),
    "a text": (encoded(b"hello"), "is not a readable image .* send other media in files"),
    "a web page": (encoded(b"<!DOCTYPE html><html>"), "is not a readable image"),
    "an SVG": (encoded(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "is not a readable image"),
    "nothing": ("", "is empty"),
    "an empty data URI": ("data:image/png;base64,", "is empty"),
    "too many pixels": (encoded(huge()), r"15000 x 15000 pixels; at most 150 million"),
    "a private URL": ("https://127.0.0.1/x.png", "private address"),
    "a bucket that is not there": ("s3://pictures/x.png", "needs a bucket"),
}


@pytest.mark.parametrize(("source", "said"), BAD_CONTENT.values(), ids=BAD_CONTENT.keys())
def test_bad_content_is_refused_with_its_place(tmp_path: Path, source: str, said: str) -> None:
    with pytest.raises(InputFileRefused, match=said) as raised:
        fetch(tmp_path, ("good.png", ENCODED), ("bad.png", source))
    assert "images[1]" in str(raised.value)
    assert str(tmp_path) not in str(raised.value)


MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 300
MEDIA: dict[str, tuple[str, bytes, str]] = {
    "a video": ("v.mp4", MP4, ""),
    "a sound in a video's box": ("v.m4a", MP4, ""),
    "a video of an unknown brand": ("v.mp4", MP4.replace(b"mp42", b"zzzz"), ""),
    "a latent": ("x.latent", b"\x10\0\0\0\0\0\0\0{}", ""),
    "a text": ("x.txt", b"hello", ""),
    "a page in place of a video": ("v.mp4", b"\n<html><body>403</body>", "should be video, but is a web page"),
    "a zip in place of a sound": ("a.flac", b"PK\x03\x04" + b"\0" * 300, "should be audio, but is application/zip"),
    "a damaged picture among files": ("x.png", PNG[:-30], "damaged or truncated"),
}


@pytest.mark.parametrize(("name", "content", "said"), MEDIA.values(), ids=MEDIA.keys())
def test_other_media_are_known_by_their_first_bytes(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    file = InputFile(name, encoded(content), "files[0]", False)
    if not said:
        assert fetch(tmp_path, file) == {name: content}
        return
    with pytest.raises(InputFileRefused, match=rf"^files\[0\]: .*{said}"):
        fetch(tmp_path, file)


def test_limits_of_count_size_and_sum_are_kept(tmp_path: Path) -> None:
    large = picture("BMP", (600, 600))  # 1.08 MB
    with pytest.raises(InputFileRefused, match=r"has 2 files; at most 1 .*MAX_INPUT_FILES"):
        fetch(tmp_path, ("a", ENCODED), ("b", ENCODED), max_input_files=1)
    with pytest.raises(InputFileRefused, match=r"images\[0\]: the file is over 1 MB \(MAX_INPUT_FILE_MB\)"):
        fetch(tmp_path, ("a", encoded(large)), max_input_file=1.0)
    with pytest.raises(InputFileRefused, match=r"the total is over 2 MB \(MAX_INPUT_TOTAL_MB\)"):
        fetch(tmp_path, ("a", encoded(large)), ("b", encoded(large)), max_input_total=2.0)
    with pytest.raises(InputFileRefused, match=r"images\[1\]\.name: images\[0\] already has the name 'a'"):
        fetch(tmp_path, ("a", ENCODED), ("a", ENCODED))


def test_files_are_fetched_at_the_same_time_against_one_deadline(tmp_path: Path) -> None:
    with site() as host:
        files = [InputFile(f"{number}.bin", f"http://{host}/drip", f"files[{number}]", False) for number in range(8)]
        started = time.monotonic()
        with pytest.raises(InputFileUnavailable, match="INPUT_TIMEOUT"):
            fetch(tmp_path, *files, trusted_hosts=(host,), input_timeout=1.0)
        assert time.monotonic() - started < 8


def test_a_cancelled_job_waits_for_no_file(tmp_path: Path) -> None:
    limits = RunLimits(Deadline(60), 60, 1)
    threading.Timer(0.3, limits.stop.set).start()
    with site() as host:
        file = InputFile("a.bin", f"http://{host}/drip", "files[0]", False)
        with pytest.raises(JobCancelled):
            fetch_files([file], tmp_path, Settings(trusted_hosts=(host,)), None, limits.check)


def test_the_first_failure_ends_the_others(tmp_path: Path) -> None:
    with site() as host:
        files = [
            InputFile("slow.bin", f"http://{host}/drip", "files[0]", False),
            InputFile("gone.bin", f"http://{host}/missing", "files[1]", False),
        ]
        started = time.monotonic()
        with pytest.raises(WorkerError, match=r"files\[1\]: .*status 404"):
            fetch(tmp_path, *files, trusted_hosts=(host,))
        assert time.monotonic() - started < 10


def test_equal_files_share_a_place_for_as_long_as_one_job_needs_it(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "engine")
    folders.input.mkdir(parents=True)
    source = tmp_path / "staged"
    source.write_bytes(PNG)
    file, other = StagedFile(source, "digest"), StagedFile(source, "another")
    places = InputPlaces()
    with places.placed({"sub/a.png": file}, folders) as first:
        with places.placed({"sub/a.png": file, "b.png": other}, folders) as second:
            assert first["sub/a.png"] == second["sub/a.png"]
            folder = first["sub/a.png"].relative.removesuffix("/sub/a.png")
            assert folder.startswith("digest")
            assert Path(second["b.png"].absolute).read_bytes() == PNG
        assert Path(first["sub/a.png"].absolute).read_bytes() == PNG
        assert not (folders.input / "another").exists()
    assert not [*folders.input.iterdir()]
    assert source.exists()


def test_a_setting_of_the_limit_is_heard(tmp_path: Path) -> None:
    with pytest.raises(InputFileRefused, match="at most 1 million"):
        fetch(tmp_path, ("a", encoded(picture(size=(2000, 1000)))), max_input_megapixels=1)
    assert replace(Settings(), max_input_megapixels=2).max_input_megapixels == 2
