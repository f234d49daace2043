"""`python serverless_worker.py …` as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.errors import InvalidInput
from src.settings import Settings, format_value, variable
from src.terminal import command_line, local_test

from .. import workflows
from ..worker_process import ROOT, WORKER

LONG = 120


def run(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in that folder, on no RunPod."""
    return subprocess.run(
        [sys.executable, str(WORKER), *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "COMFYUI_PATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


def answer_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The answer that was printed."""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_draft_test_saves_an_image_shows_progress_and_prints_a_short_answer(tmp_path: Path) -> None:
    done = run("--test", "--draft", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = answer_of(done)
    assert answer["status"] == "success"
    assert len(answer["images"][0]) < 100
    assert "characters)" in answer["images"][0]
    for part in ("starting draft engine", "node 13 Sample: step 20 of 20", "saved output/flux_00001_.png"):
        assert part in done.stderr
    wanted = json.loads((ROOT / "test_input.json").read_text())["input"]
    with Image.open(tmp_path / "output" / "flux_00001_.png") as picture:
        assert picture.size == (wanted["width"], wanted["height"])


def test_nobodys_image_is_overwritten(tmp_path: Path) -> None:
    workflow = json.dumps(workflows.still(prefix="a/b"))
    for _ in range(2):
        assert run("--test_input", workflow, "--draft", "--output", "out", folder=tmp_path).returncode == 0
    saved = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.png"))
    assert saved == ["out/a/b_00001_-2.png", "out/a/b_00001_.png"]


def test_files_that_are_no_pictures_are_saved_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        {"name": "p.png", "image_index": 0},
        {"name": "sub/v.mp4", "data": "AAAA" * 50},
        {"name": "far.glb", "url": "https://x"},
    ]
    answer = {"status": "success", "images": ["AAEC"], "filenames": ["p.png"], "files": files}
    assert local_test.show_answer(answer, tmp_path) == 0
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")} == {"p.png", "sub/v.mp4"}
    assert "AAAA" * 20 not in capsys.readouterr().out


def test_the_test_can_ask_what_a_worker_is(tmp_path: Path) -> None:
    done = run("--draft", "--test_input", '{"action": "info"}', folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engine"] == "draft engine"


def test_mode_to_run_test_does_what_the_flag_does(tmp_path: Path) -> None:
    done = run("--draft", folder=tmp_path, MODE_TO_RUN="test")
    assert done.returncode == 0, done.stderr
    assert answer_of(done)["status"] == "success"


def test_a_failed_job_is_printed_and_ends_with_1(tmp_path: Path) -> None:
    failing = json.dumps({**workflows.still(), "3": workflows.node("ImageInvert", image=["1", 7])})
    done = run("--test_input", failing, "--draft", folder=tmp_path)
    assert done.returncode == 1
    assert answer_of(done)["error_type"] == "validation"


def test_what_is_wrong_with_a_job_shows_before_anything_is_booted(tmp_path: Path) -> None:
    done = run("--test_input", '{"workflow": {}}', "--draft", folder=tmp_path)
    assert done.returncode == 1
    assert "invalid_workflow: workflow has no nodes" in done.stderr
    assert "starting" not in done.stderr


def test_what_only_comfyui_can_judge_is_left_to_it(tmp_path: Path) -> None:
    unneeded = json.dumps({**workflows.still(), "9": workflows.node("ImageInvert", image=["99", 0])})
    done = run("--test_input", unneeded, "--draft", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left out, as no output needs them" in answer_of(done)["warnings"][0]
    needed = json.dumps({**workflows.still(), "2": workflows.node("ImageInvert", image=["99", 0])})
    done = run("--test_input", needed, "--draft", folder=tmp_path)
    assert (done.returncode, answer_of(done)["error_code"]) == (1, "invalid_workflow")


def test_a_value_for_a_node_of_a_pack_is_left_to_comfyui(tmp_path: Path) -> None:
    of_a_pack = {**workflows.still(), "1": workflows.node("PackImage", width=64, height=64, my_seed=1)}
    done = run("--test_input", json.dumps(of_a_pack), "--draft", "--seed", "7", folder=tmp_path)
    assert "starting" in done.stderr
    assert done.returncode == 0, done.stderr
    assert "PackImage" in answer_of(done)["warnings"][0]


def test_an_output_that_cannot_be_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("--test", "--draft", "--output", "file", folder=tmp_path)
    assert done.returncode == 1
    assert "--output must be a folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--test", "--drafft"], "unknown argument --drafft; did you mean --draft?"),
        (["--draft", "test_input.json"], "unknown argument test_input.json"),
        (["--serve", "--port", "0"], "must be a port"),
    ],
)
def test_what_nobody_knows_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


def test_prompt_and_seed_can_be_given_to_the_test_job() -> None:
    job = local_test.test_job(command_line.parse(["--test", "--prompt", "a cat", "--seed", "7"]))
    assert (job["input"]["prompt"], job["input"]["seed"]) == ("a cat", 7)


def test_without_comfyui_the_test_says_where_it_looked_and_that_there_is_a_draft(tmp_path: Path) -> None:
    done = run("--test", folder=tmp_path, COMFYUI_PATH=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "comfyui_not_found" in done.stderr
    assert "--draft" in done.stderr
    assert "Traceback" not in done.stderr


def test_off_runpod_and_without_flags_it_says_what_can_be_done(tmp_path: Path) -> None:
    done = run(folder=tmp_path)
    assert done.returncode == 2
    assert "--test --draft" in done.stdout
    assert "RUNPOD_WEBHOOK_GET_JOB" in done.stdout


def test_a_bad_setting_is_named(tmp_path: Path) -> None:
    done = run("--test", "--draft", folder=tmp_path, JOB_TIMEOUT="never")
    assert done.returncode == 1
    assert "JOB_TIMEOUT must be a number of seconds" in done.stderr


def test_help_names_our_flags(tmp_path: Path) -> None:
    done = run("--help", folder=tmp_path)
    assert done.returncode == 0
    for flag in ("--test", "--test_input", "--draft", "--output"):
        assert flag in done.stdout


def test_what_is_not_ours_goes_to_the_sdk() -> None:
    options = command_line.parse(["--rp_serve_api", "--draft", "--rp_api_port", "8001"])
    assert options.for_sdk == ["--rp_serve_api", "--rp_api_port", "8001"]
    assert not options.testing


STILL = workflows.still()


@pytest.mark.parametrize("given", [{"input": {"workflow": STILL}}, {"workflow": STILL}, STILL])
def test_a_test_input_may_be_wrapped_bare_or_just_a_workflow(given: object, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(given))
    for form in (json.dumps(given), str(file), f"@{file}"):
        job = local_test.test_job(command_line.parse(["--test_input", form]))
        assert job["input"] == {"workflow": STILL}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{oops", "not valid JSON: .* in line 1, column 2"),
        ("nofile.json", "cannot read .*nofile.json"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=["garbage", "no file", "deep"],
)
def test_a_test_input_that_cannot_be_read_says_why(given: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        local_test.test_job(command_line.parse(["--test_input", given]))


def test_help_tells_every_setting_with_its_default(tmp_path: Path) -> None:
    told = run("--help", folder=tmp_path).stdout
    for setting in fields(Settings):
        default = format_value(setting.default)
        assert f"\n  {variable(setting)}{f' ({default})' if default else ''}\n" in told
    assert "check what this machine has and what is missing" in told
