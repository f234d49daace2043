"""`python -m src.workflow check` on a real ComfyUI: classes and values count, models and files to come do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import editor_files, workflows
from ..conftest import REAL_ARGS, installation
from ..worker_process import ROOT
from ..workflows import node


def check(*files: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COMFYUI_ARGS": REAL_ARGS, "COMFYUI_PATH": str(installation("real").directory)}
    command = [sys.executable, "-m", "src.workflow", "check", *map(str, files)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def written(folder: Path, name: str, content: Any) -> Path:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(content))
    return file


def test_what_this_comfyui_takes_and_what_not(tmp_path: Path) -> None:
    loading = {**workflows.still(), "1": node("LoadImage", image="face.png")}
    fine = [
        written(tmp_path, "models", {"input": {"workflow": workflows.generative()}}),
        written(tmp_path, "saved", editor_files.tiny_generative()),
        written(tmp_path, "loading", loading),
    ]  # fmt: skip
    done = check(*fine)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name}.json: would run" for name in ("models", "saved", "loading")]
    assert "models.json: to come: " in done.stderr
    assert "loading.json: to come: " in done.stderr
    broken = written(tmp_path, "broken", {**workflows.still(), "9": node("Gone", images=["2", 0]), "10": node(
        "SaveImage", images=["9", 0], filename_prefix="x")})  # fmt: skip
    done = check(fine[1], broken, written(tmp_path, "list", [1]))
    assert done.returncode == 1
    assert "broken.json: would not run" in done.stdout
    assert "Gone" in done.stderr
    assert "list.json: " in done.stderr


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{")
    done = check(tmp_path / "no.json", tmp_path / "nothing.json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
