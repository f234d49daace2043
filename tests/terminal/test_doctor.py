"""What `--doctor` finds on a machine, and what it says is to be done."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from src.settings import BucketConfig, Settings
from src.terminal import doctor
from src.terminal.doctor import State, examine

from ..conftest import REAL
from ..s3 import Storage
from ..worker_process import ROOT


def found(settings: Settings) -> dict[str, tuple[State, str]]:
    """Name of a check to what it found."""
    return {finding.what: (finding.state, finding.message) for finding in examine(settings)}


def comfyui(folder: Path, python: str = sys.executable) -> Settings:
    """Settings of a ComfyUI that has its files but no torch."""
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text('__version__ = "9.9.9"')
    return Settings(comfyui_path=str(folder), comfyui_python=python)


def test_without_comfyui_it_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    told = found(Settings(comfyui_path=str(tmp_path)))
    assert told["ComfyUI"][0] is State.BAD
    assert str(tmp_path) in told["ComfyUI"][1]
    assert "git clone" in told["ComfyUI"][1]
    assert told["Python"][0] is State.GOOD
    assert "torch" not in told


def test_torch_is_asked_in_comfyuis_own_python(tmp_path: Path) -> None:
    told = found(comfyui(tmp_path / "without"))
    assert told["ComfyUI"] == (State.GOOD, f"ComfyUI 9.9.9 in {tmp_path / 'without'}")
    assert told["torch"][0] is State.BAD
    assert "requirements.txt" in told["torch"][1]
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho \'["2.9", "12.8", null]\'\n')
    fake.chmod(0o755)
    settings = comfyui(tmp_path / "with", str(fake))
    assert found(settings)["torch"] == (
        State.BAD,
        "2.9, built for CUDA 12.8, finds no GPU: on a machine without a GPU set COMFYUI_ARGS=--cpu",
    )
    assert found(replace(settings, comfyui_args="--cpu"))["torch"] == (State.GOOD, "2.9, on the CPU (COMFYUI_ARGS)")


def test_models_that_are_named_and_not_here_are_told_with_the_way_to_get_them(tmp_path: Path) -> None:
    settings = replace(comfyui(tmp_path), models=("flux1-dev",))
    state, told = found(settings)["models"]
    assert state is State.BAD
    assert "are missing: " in told
    assert "DOWNLOAD_MODELS=true" in told
    state, told = found(replace(settings, download_models=True))["models"]
    assert (state, "downloaded at startup" in told) == (State.NOTE, True)
    state, told = found(replace(settings, models=("flux1-dv",)))["models"]
    assert (state, "flux1-dv" in told) == (State.BAD, True)


def test_a_bucket_is_looked_into(storage: Storage) -> None:
    config: BucketConfig = storage.config
    good = doctor._bucket("results", config, "")
    assert (good.state, good.message) == (State.GOOD, f"{config.name} is accessible")
    bad = doctor._bucket("results", replace(config, name="no-such-bucket"), "")
    assert (bad.state, "no-such-bucket" in bad.message) == (State.BAD, True)


@pytest.mark.skipif(isinstance(REAL, str), reason=str(REAL))
def test_a_real_comfyui_can_work() -> None:
    assert not isinstance(REAL, str)
    told = found(Settings(comfyui_path=str(REAL.directory), comfyui_args="--cpu"))
    assert {what: told[what][0] for what in ("ComfyUI", "torch", "disk")} == dict.fromkeys(
        ("ComfyUI", "torch", "disk"), State.GOOD
    )


def test_the_command_ends_with_1_where_something_has_to_be_mended_and_tells_no_secret(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "COMFYUI_PATH": str(tmp_path), "HF_TOKEN": "hf_secret"}
    line = [sys.executable, "serverless_worker.py", "--doctor"]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "FAILED  ComfyUI: no ComfyUI at" in done.stdout
    assert "ok  HF_TOKEN: set" in done.stdout
    assert [line.split("  ")[1:2] and line.split()[0] for line in done.stdout.splitlines()[-3:]] == ["yes", "no", "no"]
    assert done.stdout.splitlines()[-1].endswith("RunPod's jobs: fix ComfyUI")
    assert "secret" not in done.stdout + done.stderr
