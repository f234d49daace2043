"""Files that nodes save without telling ComfyUI's history come back all the same."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest

from src.comfy.folders import Folders
from src.comfy.record import Run
from src.outputs import FolderWatch, list_files, list_unreported
from src.workflow import isolate_outputs

from ..conftest import Bench
from ..workflows import node
from .test_kinds import real_only

JOB = "job-0123456789ab"


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    for name in ("output", "temp", "input"):
        (tmp_path / name).mkdir()
    return Folders(tmp_path)


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def found(folders: Folders, watch: FolderWatch, outputs: dict[str, Any], **nodes: Any) -> list[tuple[str, str, bool]]:
    """Node, path and whether it is a preview, of the files that no node reported."""
    run = Run("id", {name.lstrip("n"): value for name, value in nodes.items()}, {"outputs": outputs})
    files = list_unreported(run, watch.saved(), list_files(run), folders, JOB)
    return [(file.node_id, str(file.path(folders).relative_to(folders.root)), file.is_preview) for file in files]


def test_what_is_new_or_written_again_is_found_and_what_was_there_is_not(folders: Folders) -> None:
    write(folders.output / "old.txt", folders.output / "again.txt")
    watch = FolderWatch.begin(folders, folders.root / "ComfyUI")
    assert watch.saved() == []
    (folders.output / "again.txt").write_text("longer")
    write(folders.output / "a" / "new.txt", folders.temp / "t.png", folders.temp / "api_logs" / "key.txt")
    write(folders.output / ".cache" / "x", folders.temp / "scratch.bin")
    (folders.output / "link.txt").symlink_to("/etc/passwd")
    assert sorted(found(folders, watch, {})) == [
        ("", "output/a/new.txt", False),
        ("", "output/again.txt", False),
        ("", "temp/t.png", True),
    ]


def test_what_a_node_reported_is_not_found_again(folders: Folders) -> None:
    watch = FolderWatch.begin(folders, folders.root)
    write(folders.output / JOB / "a_1.png", folders.output / JOB / "a_1.txt")
    outputs = {"9": {"images": [{"filename": "a_1.png", "subfolder": f"./{JOB}", "type": "output"}]}}
    assert found(folders, watch, outputs, n9=node("SaveX", filename_prefix=f"{JOB}/a")) == [
        ("9", f"output/{JOB}/a_1.txt", False)
    ]


@pytest.mark.parametrize(
    "outputs", [{"7": {"result": [f"{JOB}/a/m_00001.glb", None, []]}}, {"7": {"x": {"y": "m_00001.glb"}}}]
)
def test_a_node_that_tells_of_its_file_in_another_shape_is_known(folders: Folders, outputs: dict[str, Any]) -> None:
    """As Save3DAdvanced, SaveGaussianSplat, SavePointCloud do."""
    watch = FolderWatch.begin(folders, folders.root)
    write(folders.output / JOB / "a" / "m_00001.glb")
    assert found(folders, watch, outputs, n7=node("SaveX")) == [("7", f"output/{JOB}/a/m_00001.glb", False)]


def test_the_prefix_tells_the_node_and_the_longer_one_wins(folders: Folders) -> None:
    watch = FolderWatch.begin(folders, folders.root)
    write(folders.output / JOB / "a_long_1.png", folders.output / JOB / "a_1.png")
    nodes = {"n1": node("S", filename_prefix=f"{JOB}/a"), "n2": node("S", filename_prefix=f"{JOB}/a_long")}
    assert {Path(path).name: node_id for node_id, path, _ in found(folders, watch, {}, **nodes)} == {
        "a_long_1.png": "2",
        "a_1.png": "1",
    }


def test_what_video_nodes_leave_beside_a_video_are_previews(folders: Folders) -> None:
    """VHS_VideoCombine writes a first frame, and with a sound the video without it."""
    watch = FolderWatch.begin(folders, folders.root)
    write(*(folders.output / f"v_1{end}" for end in ("-audio.mp4", ".mp4", ".png")), folders.output / "v_2.png")
    outputs = {
        "5": {"gifs": [{"filename": "v_1-audio.mp4", "subfolder": "", "type": "output", "workflow": "v_1.png"}]}
    }
    assert sorted(found(folders, watch, outputs)) == [
        ("", "output/v_1.mp4", True),
        ("", "output/v_2.png", False),
        ("5", "output/v_1.png", True),
    ]


def test_a_folder_with_too_many_files_is_not_watched(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.outputs.unreported._MAX_FILES", 2)
    comfyui = folders.root / "ComfyUI"
    write(*(comfyui / "datasets" / f"{number}" for number in range(5)))
    watch = FolderWatch.begin(folders, comfyui)
    write(*(folders.output / f"{number}" for number in range(3)), comfyui / "datasets" / "new")
    (comfyui / "datasets" / "0").unlink()
    assert watch.saved() == []
    assert watch.saved_elsewhere() == {}


def test_what_is_saved_elsewhere_is_counted_by_its_place(folders: Folders, tmp_path_factory: Any) -> None:
    comfyui = tmp_path_factory.mktemp("ComfyUI")
    write(comfyui / "comfy" / "code.py", comfyui / "datasets" / "old.txt", comfyui / "models" / "m.safetensors")
    watch = FolderWatch.begin(folders, comfyui)
    write(comfyui / "datasets" / "a" / "new.txt", comfyui / "datasets" / "b.txt", comfyui / "2026" / "x.txt")
    write(comfyui / "comfy" / "cache.bin", comfyui / "models" / "new.safetensors", comfyui / "loose.txt")
    write(folders.input / "in.txt")
    assert watch.saved_elsewhere() == {"2026": 1, "datasets": 2, "input": 1, "the folder itself": 1}


@pytest.mark.parametrize("inputs", [{"folder_name": "dataset"}, {"output_path": "[time(%Y)]"}, {"save_dir": ["3", 0]}])
def test_a_prefix_that_is_a_bare_name_in_a_folder_stays_one_and_its_node_runs_again(inputs: dict[str, Any]) -> None:
    workflow = {"1": node("SaveX", filename_prefix="a", **inputs)}
    first, second = isolate_outputs(workflow, JOB), isolate_outputs(workflow, JOB)
    assert first["1"]["inputs"]["filename_prefix"] == "a"
    assert first != second
    assert isolate_outputs({"1": node("SaveX", filename_prefix="a", divider="d")}, JOB)["1"]["inputs"] == {
        "filename_prefix": f"{JOB}/a", "divider": "d"
    }  # fmt: skip


# --- On a real ComfyUI -----------------------------------------------------------------------------------


def silent(how: str, text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"1": node("WorkerTestSavesInSilence", text=text, how=how, **more)}


def contents(answer: dict[str, Any]) -> dict[str, str]:
    assert answer["status"] == "success", answer
    return {file["name"]: base64.b64decode(file["data"]).decode() for file in answer["files"]}


@pytest.mark.parametrize(
    ("how", "more", "name"),
    [
        ("prefix", {"filename_prefix": "deep"}, "deep_1.txt"),
        ("fixed name", {}, "fixed.txt"),
        ("bare name", {"filename_prefix": "mine"}, "texts/mine.txt"),
    ],
)
def test_a_file_that_a_node_saved_in_silence_comes_back_each_time(
    bench: Bench, how: str, more: dict[str, str], name: str
) -> None:
    real_only(bench)
    for text in ("first", "second", "second"):  # the last one has all its results in ComfyUI's cache
        answer = bench.run(workflow=silent(how, text, **more))
        assert contents(answer) == {name: text}
        assert "warnings" not in answer
    assert not bench.leftovers()


def test_a_file_that_another_node_mentions_is_saved_again_all_the_same(bench: Bench) -> None:
    real_only(bench)
    workflow = {**silent("fixed name", "mentioned"), "2": node("PreviewAny", source="fixed.txt")}
    for _ in range(2):
        assert contents(bench.run(workflow=workflow)) == {"fixed.txt": "mentioned"}


def test_a_picture_in_the_temp_folder_is_a_preview(bench: Bench) -> None:
    real_only(bench)
    answer = bench.run(workflow=silent("temp"))
    assert contents(answer) == {}
    assert "its previews (1) are left out" in answer["warnings"][0]


@pytest.mark.parametrize(("how", "place"), [("elsewhere", "1 in datasets"), ("input", "1 in input")])
def test_a_file_that_a_node_saved_elsewhere_is_told(bench: Bench, how: str, place: str) -> None:
    real_only(bench)
    try:
        answer = bench.run(workflow=silent(how, "once"))
        assert contents(answer) == {}
        assert any(place in warning for warning in answer["warnings"])
        assert not any("/tmp" in warning for warning in answer["warnings"])
    finally:
        shutil.rmtree(bench.engine.process.installation.directory / "datasets" / "worker test", ignore_errors=True)
        (bench.engine.process.folders.input / "cached.txt").unlink(missing_ok=True)


def test_both_files_of_a_node_that_reports_one_come_back(bench: Bench) -> None:
    real_only(bench)
    workflow = {**silent("fixed name"), "3": node("EmptyImage", width=64, height=64, batch_size=1, color=5)}
    workflow["9"] = node("SaveImage", images=["3", 0], filename_prefix="picture")
    answer = bench.run(workflow=workflow)
    assert [file["name"] for file in answer["files"]] == ["picture_00001_.png", "fixed.txt"]
