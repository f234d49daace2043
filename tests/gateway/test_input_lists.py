"""The lists of input files in the node classes have the gateway's files, which a person has uploaded there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.gateway.input_lists import with_files_of, with_local_files
from src.protocol.executor import Folders

from .here import Here, gateway_here
from .test_images import png


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    for name in (
        "input/b.png",
        "input/a.jpg",
        "input/v.mp4",
        "input/s.wav",
        "input/t.txt",
        "input/3d/m.glb",
        "output/o.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folders


def entry(*config: Any, section: str = "required") -> dict[str, Any]:
    """A class with one input."""
    return {"input": {section: {"file": list(config), "other": ["INT", {}]}}, "output": []}


def listed(*config: Any, folders: Folders) -> Any:
    """The files in the list of that input."""
    file = with_files_of(entry(*config), folders)["input"]["required"]["file"]
    return file[0] if isinstance(file[0], list) else file[1].get("options")


def test_the_own_files_come_first_and_those_of_the_worker_after_them(folders: Folders) -> None:
    found = listed(["example.png", "b.png"], {"image_upload": True}, folders=folders)
    assert found == ["a.jpg", "b.png", "example.png"]


def test_the_newer_form_of_a_list_has_them_too(folders: Folders) -> None:
    found = listed("COMBO", {"options": ["example.png"], "image_upload": True}, folders=folders)
    assert found == ["a.jpg", "b.png", "example.png"]


def test_a_list_has_only_files_of_its_kind(folders: Folders) -> None:
    assert listed([], {"audio_upload": True}, folders=folders) == ["s.wav", "v.mp4"]
    assert listed([], {"video_upload": True}, folders=folders) == ["a.jpg", "b.png", "v.mp4"]
    assert listed([], {"file_upload": True}, folders=folders) == ["3d/m.glb"]
    assert listed([], {"image_upload": True, "image_folder": "output"}, folders=folders) == ["o.png"]


def test_lists_without_an_upload_button_stay_as_they_are(folders: Folders) -> None:
    for config in (
        (["a", "b"], {}),
        (["a"], {"image_upload": False}),
        (["a"],),
        ("INT", {"image_upload": True}),
        ("COMBO", {"image_upload": True}),
    ):
        assert with_files_of(entry(*config), folders) == entry(*config)


def test_the_classes_that_are_kept_stay_as_they_are(folders: Folders) -> None:
    kept = {"LoadImage": entry(["x.png"], {"image_upload": True}), "Other": entry("INT", {})}
    assert with_local_files(kept, folders)["LoadImage"]["input"]["required"]["file"][0] == ["a.jpg", "b.png", "x.png"]
    assert kept == {"LoadImage": entry(["x.png"], {"image_upload": True}), "Other": entry("INT", {})}


@pytest.mark.parametrize(
    "odd",
    [
        None, 5, [], {}, {"input": None}, {"input": []}, {"input": {"required": None}}, {"input": {"required": {"a": None}}},
        {"input": {"required": {"a": []}}}, {"input": {"required": {"a": [["x"], None]}}},
        {"input": {"required": {"a": [[{}, ["x"], None], {"image_upload": True}]}, "hidden": None, "optional": [1]}},
        {"input": {"required": {"a": [["x"], {"image_upload": True, "image_folder": ["x"]}]}}},
    ],
)  # fmt: skip
def test_a_class_of_an_odd_form_spoils_no_list(folders: Folders, odd: Any) -> None:
    shown = with_local_files({"Odd": odd, "Good": entry([], {"image_upload": True})}, folders)
    assert shown["Good"]["input"]["required"]["file"][0] == ["a.jpg", "b.png"]
    assert "Odd" in shown


def test_folders_that_are_gone_are_empty(tmp_path: Path) -> None:
    nothing = Folders(tmp_path / "1", tmp_path / "2", tmp_path / "3")
    for flag in ("image_upload", "file_upload"):
        assert listed(["x"], {flag: True}, folders=nothing) == ["x"]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with gateway_here(tmp_path) as running:
        yield running


def test_an_upload_is_in_the_list_at_once(here: Here) -> None:
    def files(path: str) -> list[str]:
        return list(here.get(path).json["LoadImage"]["input"]["required"]["image"][0])

    here.upload(png(), "mine.png")
    assert files("/api/object_info")[0] == "mine.png"
    assert files("/api/object_info/LoadImage")[0] == "mine.png"
    (here.folder / "input/mine.png").unlink()
    assert "mine.png" not in files("/object_info")
