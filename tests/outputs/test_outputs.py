"""From history entry to answer: every file once, in order, from inside the folder only."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from src.comfy.client import ComfyClient
from src.comfy.folders import Folders
from src.comfy.record import Run
from src.errors import ComfyBootFailed, InvalidInput, OutputMissing, OutputRefused
from src.outputs import (
    Result,
    failure_answer,
    gather_files,
    list_files,
    list_texts,
    remove_files,
    remove_files_outside,
    success_answer,
)
from src.outputs.answer import json_size
from src.outputs.delivery import Delivered
from src.outputs.gathering import LocalFile
from src.outputs.listing import OutputFile
from src.redaction import public_text

from ..conftest import Bench

JOB = "job-0123456789ab"


def item(name: str, subfolder: str = JOB, **more: Any) -> dict[str, Any]:
    """A file as a node reports it."""
    return {"filename": name, "subfolder": subfolder, "type": "output", **more}


def run_of(outputs: dict[str, Any]) -> Run:
    """A run whose nodes 1 to 9 reported these outputs."""
    return Run("id", {str(number): {} for number in range(1, 10)}, {"outputs": outputs})


def folders_at(root: Path) -> Folders:
    """Folders of an engine with one of the job."""
    made = Folders(root)
    for folder in (made.input, made.output / JOB, made.temp):
        folder.mkdir(parents=True)
    return made


def test_what_newer_versions_report_beside_a_file_does_no_harm() -> None:
    """`metadata` beside the file, and with assets on `id` and `preview_id`; also beside the list of files."""
    more: dict[str, Any] = {"id": "0190", "preview_id": None, "metadata": {"files": [{"filename": "no.png"}]}}
    reported = {**item("a.png"), **more}
    run = run_of({"1": {"images": [reported], "metadata": [{"filename": 5}], "asset_ids": ["0190"]}})
    assert [(file.filename, file.subfolder) for file in list_files(run)] == [("a.png", JOB)]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Empty folders."""
    return folders_at(tmp_path / "work")


def test_files_under_any_key_are_found_once_and_in_the_order_of_the_workflow() -> None:
    outputs = {
        "9": {"gifs": [item("v.mp4", format="video/h264-mp4", fullpath="/x")], "unfinished_batch": [True]},
        "2": {"audio": [item("a.flac")], "text": ["hello", 5], "result": ["path", {"x": 1}]},
        "4": {"images": [item("i.png"), item("i.png"), item("w.webp")], "animated": [True]},
        "5": {"images": [item("i.png")], "3d": None},
        "6": None,
    }
    assert [file.filename for file in list_files(run_of(outputs))] == ["a.flac", "i.png", "w.webp", "v.mp4"]
    assert list_texts(run_of(outputs)) == ["hello"]


def test_names_are_as_the_workflow_has_them(folders: Folders) -> None:
    def name(subfolder: str) -> str:
        file = OutputFile("1", "x.png", subfolder, "output")
        return file.name(file.path(folders).resolve(), folders, JOB)

    assert name(f"{JOB}/sub/dir") == "sub/dir/x.png"
    assert name(JOB) == name("") == "x.png"
    assert name(str(folders.output / JOB / "a")) == "a/x.png", "some packs report whole paths"
    assert name("/elsewhere") == name("../..") == "x.png"


def read(file: OutputFile, folders: Folders, bench: Bench) -> bytes:
    """The bytes of one file."""
    (found,) = gather_files([file], folders, bench.engine.client, JOB, folders.root)
    return found.path.read_bytes()


def test_a_file_is_read_from_disk(folders: Folders, draft_bench: Bench) -> None:
    (folders.output / JOB / "x.png").write_bytes(b"png")
    assert read(OutputFile("1", "x.png", JOB, "output"), folders, draft_bench) == b"png"


@pytest.mark.parametrize("subfolder", ["../..", "job-0123456789ab/../../..", "/etc"])
def test_a_name_that_leads_outside_is_refused(folders: Folders, draft_bench: Bench, subfolder: str) -> None:
    (folders.root.parent / "secret").write_bytes(b"secret")
    name = "secret" if subfolder != "/etc" else "hostname"
    with pytest.raises(OutputRefused):
        read(OutputFile("1", name, subfolder, "output"), folders, draft_bench)


def test_a_link_that_leads_outside_is_refused_and_what_it_leads_to_stays(folders: Folders, draft_bench: Bench) -> None:
    secret = folders.root.parent / "secret"
    secret.write_bytes(b"secret")
    (folders.output / JOB / "x.png").symlink_to(secret)
    with pytest.raises(OutputRefused):
        read(OutputFile("1", "x.png", JOB, "output"), folders, draft_bench)
    run = run_of({"1": {"images": [item("x.png"), item("secret", "../..")]}})
    remove_files_outside(list_files(run), folders, JOB)
    for others in ({"job-other": time.time()}, dict[str, float]()):
        remove_files(folders, JOB, others)
    assert secret.exists()
    assert not (folders.output / JOB).exists()


def test_a_file_that_is_not_there_is_missing(folders: Folders, draft_bench: Bench) -> None:
    with pytest.raises(OutputMissing, match=r"'gone\.png'") as raised:
        read(OutputFile("7", "gone.png", JOB, "output"), folders, draft_bench)
    assert raised.value.details == {"node_ids": ["7"]}


def test_files_in_folders_that_are_not_ours_come_over_http(draft_bench: Bench, tmp_path: Path) -> None:
    elsewhere = folders_at(tmp_path / "not-its-folders")
    own = draft_bench.engine.process.folders.output / JOB
    own.mkdir()
    (own / "x y.png").write_bytes(b"png")
    client: ComfyClient = draft_bench.engine.client
    try:
        (found,) = gather_files([OutputFile("1", "x y.png", JOB, "output")], elsewhere, client, JOB, tmp_path)
        assert found.path.read_bytes() == b"png"
        assert found.name == "x y.png"
    finally:
        remove_files(draft_bench.engine.process.folders, JOB)


def delivered(name: str, data: str, node_id: str = "9", **more: Any) -> Delivered:
    """A file that comes as base64."""
    return Delivered(LocalFile(node_id, name, Path("nowhere"), **more), size=len(data) * 3 // 4, data=data)


def test_pictures_stand_in_images_and_every_file_in_files() -> None:
    files = [delivered("a.png", "AAEC"), delivered("v.mp4", "AAAA"), delivered("p.webp", "BBBB", is_preview=True)]
    answer = success_answer(Result("id", files, seed=7), (), 1.23456, 5000)
    assert answer == {
        "status": "success",
        "images": ["AAEC", "BBBB"],
        "filenames": ["a.png", "p.webp"],
        "files": [
            {"node_id": "9", "name": "a.png", "type": "image", "content_type": "image/png", "size_bytes": 3, "image_index": 0},
            {"node_id": "9", "name": "v.mp4", "type": "video", "content_type": "video/mp4", "size_bytes": 3, "data": "AAAA"},
            {
                "node_id": "9", "name": "p.webp", "type": "image", "content_type": "image/webp", "size_bytes": 3,
                "preview": True, "image_index": 1,
            },
        ],
        "execution_time_seconds": 1.235,
        "prompt_id": "id",
        "seed": 7,
        "timings": {"inputs": 0, "queue": 0, "execution": 0, "encode": 0, "upload": 0, "nodes": {}},
        "cached_nodes": [],
        "versions": {},
    }  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_size_of_an_answer_is_what_json_makes_of_it(count: int) -> None:
    files = [delivered(f"ä{number}.{'png' if number % 2 else 'flac'}", "A" * 4 * number) for number in range(count)]
    answer = success_answer(Result("id", files, ["text \u2028"]), ["w"], 1, 10_000)
    assert json_size(answer) == len(json.dumps(answer).encode())


def test_a_failure_keeps_its_own_fields_and_retires_the_worker_if_it_must() -> None:
    answer = failure_answer(InvalidInput("m", field="seed", status="never"), 0.5)
    assert answer == {
        "status": "error",
        "error_type": "validation",
        "error_code": "invalid_input",
        "error": "m",
        "field": "seed",
        "execution_time_seconds": 0.5,
    }
    assert failure_answer(ComfyBootFailed("m", ["secret log"]), 1)["refresh_worker"] is True
    assert "secret log" not in str(failure_answer(ComfyBootFailed("m", ["secret log"]), 1))


def test_an_error_with_endless_details_is_still_delivered() -> None:
    answer = failure_answer(InvalidInput("m", candidates=["x" * 200_000]), 1)
    assert "candidates" not in answer
    assert answer["error"] == "m"


def test_what_has_a_name_of_its_own_goes_at_once_and_never_later_when_it_may_be_another_jobs(folders: Folders) -> None:
    kept = (folders.output / JOB / "x.png", folders.temp / "preview.png")
    for place in (*kept, folders.output / "fixed.png"):
        place.touch()
    reported = [item("x.png"), item("fixed.png", ""), item("preview.png", "", type="temp"), item("", JOB)]
    remove_files_outside(list_files(run_of({"1": {"images": reported}})), folders, JOB)
    assert not (folders.output / "fixed.png").exists()
    assert all(place.exists() for place in kept)
    (folders.output / "fixed.png").touch()  # by the next job
    remove_files(folders, JOB, {"job-other": time.time()})
    assert (folders.output / "fixed.png").exists()


def test_what_is_old_goes_and_when_no_other_job_runs_nothing_at_all_is_left(folders: Folders) -> None:
    for place in (folders.output / "unreported.bin", folders.temp / "preview.png", folders.output / "job-other" / "x"):
        place.parent.mkdir(exist_ok=True)
        place.touch()
    long_ago = time.time() - 3600
    for name in ("unreported.bin", "job-other"):
        os.utime(folders.output / name, (long_ago, long_ago))
    remove_files(folders, JOB, {"job-other": long_ago - 1})
    assert (folders.output / "unreported.bin").exists(), "it may be of the job that began before"
    remove_files(folders, JOB, {"job-other": time.time()})
    assert (folders.output / "job-other" / "x").exists()
    assert (folders.temp / "preview.png").exists(), "it may be another job's"
    assert not (folders.output / "unreported.bin").exists()
    remove_files(folders, JOB)
    assert not [*folders.output.iterdir(), *folders.temp.iterdir()]


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("cannot open /root/comfy/ComfyUI/models/vae/ae.safetensors", "cannot open …/ae.safetensors"),
        ("see https://example.com/a/b and a/b", "see https://example.com/a/b and a/b"),
        ("1/2 of /tmp/x/ is '/home/me/y.png'", "1/2 of …/ is '…/y.png'"),
        ("open failed:/runpod-volume/models/x/y.bin", "open …/y.bin"),
        ("sqlite:////tmp/x/db.sqlite and file:///root/x.txt", "…/db.sqlite and …/x.txt"),
        ("GET https://user:pass@host.org/a/b?token=secret#x failed", "GET https://host.org/a/b?… failed"),
        ("half \ud800", "half ?"),
        ("x" * 600, "x" * 499 + "…"),
    ],
)
def test_text_from_inside_is_made_fit_for_a_caller(text: str, public: str) -> None:
    assert public_text(text) == public


def test_previews_do_not_pile_up_while_there_is_always_another_job(folders: Folders) -> None:
    for number in range(250):
        place = folders.temp / f"preview_{number}.png"
        place.touch()
        os.utime(place, (time.time() - 300 + number, time.time() - 300 + number))
    remove_files(folders, JOB, {"job-other": time.time()})
    left = {path.name for path in folders.temp.iterdir()}
    assert left == {f"preview_{number}.png" for number in range(150, 250)}
    remove_files(folders, JOB, {"job-other": time.time() - 310})
    assert len(list(folders.temp.iterdir())) == 100


def test_previews_of_a_job_that_runs_stay_however_many_they_are(folders: Folders) -> None:
    for number in range(250):
        (folders.temp / f"preview_{number}.png").touch()
    remove_files(folders, JOB, {"job-other": time.time() - 5})
    assert len(list(folders.temp.iterdir())) == 250
