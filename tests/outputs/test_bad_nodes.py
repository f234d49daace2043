"""What a node leaves in the output folder, or names as its output, costs at most its own job, and no time."""

from __future__ import annotations

import base64
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from src.comfy.folders import Folders
from src.errors import JobTimeout, OutputMissing, OutputRefused, WorkerError
from src.outputs import OutputFile, gather_files

from .. import workflows
from ..conftest import Bench, booted, settings_for
from ..workflows import node

LONG = 60.0  # a hang limit, no measure


class NoClient:
    """A ComfyUI that has no such file, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def view(self, *place: str) -> None:
        self.asked += 1


NO_CLIENT = NoClient()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    for name in ("output/job", "temp", "own"):
        (tmp_path / name).mkdir(parents=True)
    return Folders(tmp_path)


def gather(folders: Folders, *names: str, kind: str = "output", client: Any = NO_CLIENT, **more: Any) -> list[Any]:
    """What comes of files that node 9 names."""
    files = [OutputFile("9", name, "job" if kind == "output" else "", kind) for name in names]
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(gather_files(files, folders, client, "job", folders.root / "own", **more))
        except WorkerError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LONG)
    assert found, "it hangs"
    return found


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # its name may have 107 bytes only
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def make_device(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root makes devices")
    os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero


def make_foreign_link(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    other = path.parent.parent.parent / "of somebody else"
    other.write_text("secret")
    os.chown(other, 12345, 12345)
    os.link(other, path)


@pytest.mark.parametrize("kind", ["output", "temp"])
@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device, make_foreign_link])
def test_what_is_no_regular_file_of_ours_is_refused_and_not_waited_for(folders: Folders, make: Any, kind: str) -> None:
    make(folders.root / kind / ("job" if kind == "output" else "") / "odd.png")
    (found,) = gather(folders, "odd.png", kind=kind)
    assert isinstance(found, OutputRefused)
    assert "not a regular file" in found.message


@pytest.mark.parametrize("name", ["a" * 5000, "\ud800.png", "b/" * 2000 + "c.png"], ids=["long", "surrogate", "deep"])
def test_a_name_that_no_file_can_have_is_a_missing_output(folders: Folders, name: str) -> None:
    (found,) = gather(folders, name)
    assert isinstance(found, OutputMissing)
    assert found.details["node_ids"] == ["9"]


def test_a_name_that_is_not_utf_8_is_delivered_under_one_that_is(folders: Folders) -> None:
    (folders.output / "job" / os.fsdecode(b"odd-\xff.png")).write_bytes(b"content")
    ((file,),) = gather(folders, "odd-\udcff.png")
    assert (file.name, file.path.read_bytes()) == ("odd-?.png", b"content")


def test_missing_files_are_asked_for_a_few_times_only(folders: Folders) -> None:
    client = NoClient()
    (found,) = gather(folders, *(f"missing-{number}.png" for number in range(10_000)), client=client)
    assert isinstance(found, OutputMissing)
    assert client.asked <= 10


def test_gathering_hears_the_deadline(folders: Folders) -> None:
    (folders.output / "job" / "a.png").write_bytes(b"content")

    def check() -> None:
        raise JobTimeout("over")

    (found,) = gather(folders, "a.png", check=check)
    assert isinstance(found, JobTimeout)


def misbehaving(how: str) -> dict[str, Any]:
    """A workflow whose last node does something odd."""
    return {**workflows.still(), "9": node("WorkerTestMisbehave", images=["3", 0], how=how)}


@pytest.mark.parametrize(
    ("how", "error_code"),
    [
        ("fifo", "output_refused"),
        ("socket", "output_refused"),
        ("surrogate", "output_missing"),
        ("long name", "output_missing"),
        ("many missing", "output_missing"),
    ],
)
def test_a_node_that_misbehaves_costs_its_own_job_only(bench: Bench, how: str, error_code: str) -> None:
    if bench.name == "draft":
        pytest.skip("its nodes behave")
    answer = bench.run(workflow=misbehaving(how))
    assert answer["error_code"] == error_code
    assert bench.run(workflow=workflows.still(color=7))["status"] == "success"
    assert not bench.leftovers()


def test_a_file_of_a_node_whose_name_is_not_utf_8_is_delivered(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("its nodes behave")
    answer = bench.run(workflow=misbehaving("bytes"))
    assert [base64.b64decode(image)[:7] for image in answer["images"]][1:] == [b"content"]
    assert answer["filenames"][1] == "odd-?.png"


def test_a_folder_that_a_node_has_replaced_is_made_anew_and_what_it_leads_to_is_left_alone(
    bench: Bench, model_paths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("not ours")
    monkeypatch.setenv("WORKER_TEST_FOLDER", str(tmp_path))
    with booted(bench.name, settings_for(bench.name, model_paths)) as own:
        first = own.engine.process.folders
        assert own.run(workflow=workflows.still())["status"] == "success"
        own.leftovers()
        if bench.name == "draft":
            first.output.rmdir()
            first.output.symlink_to(tmp_path)
        else:
            own.run(workflow=misbehaving("replace folder"))
        own.leftovers()
        assert (tmp_path / "precious" / "file").read_text() == "not ours"
        assert own.run(workflow=workflows.still(color=5))["status"] == "success"
        assert own.engine.process.folders is not first


def test_what_a_node_left_behind_ends_with_comfyui(bench: Bench, model_paths: Path) -> None:
    if bench.name == "draft":
        pytest.skip("its nodes behave")

    def left(root: Path) -> list[Path]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command, environment = ((process / name).read_bytes() for name in ("cmdline", "environ"))
            except OSError:
                continue
            if command.startswith(b"sleep\x00600") and str(root).encode() in environment:
                found.append(process)
        return found

    with booted(bench.name, settings_for(bench.name, model_paths)) as own:
        root = own.engine.process.folders.root
        own.run(workflow=misbehaving("leave behind"))
        end = time.monotonic() + LONG
        while not left(root):  # it may not have begun to sleep
            assert time.monotonic() < end
            time.sleep(0.05)
        own.engine.restart(own.engine.generation)
        end = time.monotonic() + LONG
        while left(root):
            assert time.monotonic() < end
            time.sleep(0.05)
