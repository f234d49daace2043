"""What a library does in one long call ends with its caller's time, and takes no more memory than it may."""

from __future__ import annotations

import base64
import io
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.errors import InputFileRefused, JobTimeout
from src.inputs.checks import check_content
from src.inputs.input_file import InputFile
from src.pictures import helper
from src.pictures.checking import check_picture
from src.pictures.encoding import Encoding
from src.pictures.helper import HelperFailed, Helpers

from .. import workflows
from ..conftest import booted, settings_for
from ..workflows import node

LONG = 60.0  # a hang limit, no measure


@pytest.fixture
def helpers() -> Iterator[Helpers]:
    own = Helpers()
    yield own
    own.close()


def children() -> set[int]:
    """The helper processes of this one."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            is_helper = b"src.pictures.child" in (process / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == os.getpid() and is_helper:
            found.add(int(process.name))
    return found


def picture(folder: Path, side: int, mode: str = "RGB") -> Path:
    file = folder / f"{side}.png"
    Image.new(mode, (side, side)).save(file, compress_level=1)
    return file


def over_after(seconds: float) -> Callable[[], None]:
    """A check that ends a job then."""
    end = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > end:
            raise JobTimeout("its time is over")

    return check


def nothing() -> None:
    """A check of a job that has time."""


def test_calls_one_after_the_other_share_a_process(helpers: Helpers, tmp_path: Path) -> None:
    file = picture(tmp_path, 8)
    before = children()
    for _ in range(5):
        assert helpers.call("check", nothing, file, "a.png", True, 1000) == ""
    assert len(children() - before) == 1


def test_a_call_whose_time_is_over_ends_with_its_process(helpers: Helpers, tmp_path: Path) -> None:
    before = children()
    noise = tmp_path / "noise.png"
    Image.frombytes("RGB", (3000, 3000), os.urandom(27_000_000)).save(noise, compress_level=1)
    with pytest.raises(JobTimeout):
        helpers.call("encode", over_after(1.0), noise, tmp_path / "out", "a.png", Encoding("avif", quality=100))
    assert not children() - before
    assert helpers.call("check", nothing, picture(tmp_path, 8), "a.png", True, 1000) == ""


def test_a_picture_that_takes_more_memory_than_it_may_fails_alone(
    helpers: Helpers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_MAX_MEGABYTES", 500)
    with pytest.raises(HelperFailed):
        helpers.call("check", nothing, picture(tmp_path, 12_000, "RGBA"), "a.png", True, 200_000_000)
    assert helpers.call("check", nothing, picture(tmp_path, 8), "a.png", True, 1000) == ""


def test_a_helper_that_dies_is_an_error_and_the_next_call_has_another(helpers: Helpers, tmp_path: Path) -> None:
    before = children()
    file = picture(tmp_path, 8)
    helpers.call("check", nothing, file, "a.png", True, 1000)
    for process_id in children() - before:
        os.kill(process_id, 9)
    assert helpers.call("check", nothing, file, "a.png", True, 1000) == ""


def test_a_helper_sees_no_secret(helpers: Helpers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hidden-from-helpers")
    before = children()
    helpers.call("check", nothing, picture(tmp_path, 8), "a.png", True, 1000)
    (child,) = children() - before
    assert b"hidden-from-helpers" not in Path(f"/proc/{child}/environ").read_bytes()


def test_many_calls_at_a_time_each_get_their_own_result(helpers: Helpers, tmp_path: Path) -> None:
    found: dict[int, str] = {}

    def check(number: int) -> None:
        file = tmp_path / f"{number}.png"
        Image.new("L", (number, 1)).save(file)
        found[number] = helpers.call("check", nothing, file, f"{number}.png", True, 1_000_000 if number % 2 else 0)

    threads = [threading.Thread(target=check, args=(number,)) for number in range(1, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert {number for number, problem in found.items() if not problem} == set(range(1, 30, 2))
    assert all(f"'{number}.png' has {number} x 1" in problem for number, problem in found.items() if problem)


# --- Pictures that keep a library busy ----------------------------------------------------------------------


def many_pages(count: int) -> bytes:
    """A TIFF with that many pages of one grey pixel."""
    entries = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1)]
    length = 2 + 12 * len(entries) + 4
    content = bytearray(struct.pack("<2sHI", b"II", 42, 16) + b"\x80" + bytes(7))
    for page in range(count):
        following = 0 if page == count - 1 else 16 + (page + 1) * length
        content += struct.pack("<H", len(entries))
        for tag, value in entries:
            content += struct.pack("<HHII", tag, 4, 1, value)
        content += struct.pack("<I", following)
    return bytes(content)


def test_counting_pages_ends_where_there_are_too_many(tmp_path: Path) -> None:
    file = tmp_path / "pages.tiff"
    file.write_bytes(many_pages(3))
    assert check_picture(file, "pages.tiff", True, 1_000_000) == ""
    file.write_bytes(many_pages(60_000))
    assert check_picture(file, "pages.tiff", True, 150_000_000) == "'pages.tiff' has more than 10000 frames"
    assert "in 11 frames" in check_picture(file, "pages.tiff", True, 10)


def test_a_file_whose_job_is_over_is_not_looked_at_any_longer(tmp_path: Path) -> None:
    file = tmp_path / "pages.tiff"
    file.write_bytes(many_pages(60_000))
    with pytest.raises(JobTimeout):
        check_content(InputFile("pages.tiff", "", "images[0]", True), file, 150_000_000, over_after(0.0))


def test_a_picture_that_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.inputs.checks._CHECK_SECONDS", 0.0)
    noise = tmp_path / "noise.png"
    Image.frombytes("RGB", (3000, 3000), os.urandom(27_000_000)).save(noise, compress_level=9)
    with pytest.raises(InputFileRefused, match="takes longer"):
        check_content(InputFile("noise.png", "", "images[0]", True), noise, 150_000_000)


# --- One deadline a job ----------------------------------------------------------------------------------


def encoded(side: int) -> str:
    content = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)).save(content, "PNG", compress_level=0)
    return base64.b64encode(content.getvalue()).decode()


def slow_to_encode() -> dict[str, Any]:
    """A large noisy picture."""
    return {
        "1": node("EmptyImage", width=4096, height=4096, batch_size=1, color=0),
        "2": node("ImageAddNoise", image=["1", 0], seed=1, strength=1.0),
        "4": node("SaveImage", images=["2", 0], filename_prefix="large"),
    }


def test_encoding_hears_the_deadline_of_the_job() -> None:
    with booted("draft", settings_for("draft", job_timeout=4.0, result_limit=1000.0)) as own:
        answer = own.run(workflow=slow_to_encode(), output={"format": "avif", "quality": 100})
        assert answer["error_code"] == "job_timeout"
        assert answer["execution_time_seconds"] < 4.0 + 5.0
        assert own.run(workflow=workflows.still())["status"] == "success"
