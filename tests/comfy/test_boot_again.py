"""A boot that a signal ended is tried once more; one that failed by itself is not."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from src.comfy.engine import ComfyEngine
from src.comfy.install import Installation
from src.errors import ComfyBootFailed

from ..conftest import settings_for
from ..worker_process import ROOT


def installation(folder: Path, deaths: int, how: str) -> Installation:
    """The draft engine, which dies while it boots that often."""
    program = folder / "engine.py"
    program.write_text(
        f"import os, pathlib, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"boots = pathlib.Path({str(folder / 'boots')!r})\n"
        "count = int(boots.read_text()) if boots.exists() else 0\n"
        "boots.write_text(str(count + 1))\n"
        f"if count < {deaths}: {how}\n"
        "from src.draft.__main__ import main\nmain()\n"
    )
    return Installation("an engine that dies", folder, (sys.executable, str(program)), frozenset())


@pytest.mark.parametrize(("deaths", "boots"), [(1, 2), (2, 2)])
def test_a_boot_that_a_signal_ended_is_tried_once_more(tmp_path: Path, deaths: int, boots: int) -> None:
    engine = installation(tmp_path, deaths, f"os.kill(os.getpid(), {int(signal.SIGKILL)})")
    with ComfyEngine(engine, settings_for("draft")) as booted:
        if deaths < 2:
            booted.ensure_ready()
        else:
            with pytest.raises(ComfyBootFailed, match="SIGKILL"):
                booted.ensure_ready()
        assert (tmp_path / "boots").read_text() == str(boots)


def test_a_boot_that_failed_by_itself_is_not_tried_again(tmp_path: Path) -> None:
    engine = installation(tmp_path, 1, "sys.exit(3)")
    with ComfyEngine(engine, settings_for("draft")) as booted, pytest.raises(ComfyBootFailed, match="exit code 3"):
        booted.ensure_ready()
    assert (tmp_path / "boots").read_text() == "1"
