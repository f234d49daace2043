"""`python -m maintenance.upstream`: what is broken on a version to come is told, and breaks nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from maintenance import upstream
from maintenance.upstream import Version, difference, page
from maintenance.upstream_checks import CHECKS, Broken, Subject

from .comfy.test_process import checkout
from .conftest import installation

OLD = Version("ComfyUI 0.9.9", "2026-01-01", "abc", {"boot": "", "flags": ""}, {}, ["--a"], ["GET /x"], ["A"], ["A"])
NEW = Version(
    "ComfyUI 0.10.0",
    "2026-02-01",
    "def",
    {"boot": "", "events": "a | b"},
    {"flags": "gone: --a"},
    ["--b"],
    [],
    ["A", "B"],
)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command writes, in place of the repository."""
    monkeypatch.setattr(upstream, "PAGE", tmp_path / "docs" / "compatibility.md")
    monkeypatch.setattr(upstream, "KEPT", tmp_path / "versions.json")
    monkeypatch.setattr(upstream, "REPOSITORY", tmp_path)
    monkeypatch.setattr(upstream, "pinned_version", lambda: "ComfyUI 0.9.9")
    (tmp_path / "docs").mkdir()
    return tmp_path


def test_the_page_has_the_newest_version_first_and_says_what_is_broken() -> None:
    lines = page({version.name: version for version in (OLD, NEW)}, "ComfyUI 0.9.9").splitlines()
    rows = [line for line in lines if line.startswith("| ComfyUI")]
    assert rows == [
        "| ComfyUI 0.10.0 | 2026-02-01 | `def` | 🔴 1 broken: flags |",
        "| ComfyUI 0.9.9 | 2026-01-01 | `abc` | 🟢 all checks pass |",
    ]
    (flags,) = [line for line in lines if line.startswith("| **flags**")]
    assert flags.endswith("| 🔴 gone: --a | 🟢 |")
    (events,) = [line for line in lines if line.startswith("| **events**")]
    assert events.endswith("| 🟢 a \\| b | not tested |")


def test_what_differs_is_told_only_where_both_are_known() -> None:
    assert difference(NEW, OLD) == [
        "* new flags (1): `--b`",
        "* removed flags (1): `--a`",
        "* new node classes (1): `B`",
    ]


def test_a_version_that_does_not_boot_is_a_red_row(written: Path, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "next", "raise SystemExit('moved')", version="0.99.0")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    assert upstream.main([str(folder)]) == 1
    text = (written / "docs" / "compatibility.md").read_text()
    assert "| ComfyUI 0.99.0 |" in text and "🔴 1 broken: boot" in text
    assert json.loads((written / "versions.json").read_text())["ComfyUI 0.99.0"]["broken"].keys() == {"boot"}


def test_a_check_that_fails_however_it_does_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: Subject) -> str:
        raise Broken("it has another name")

    def crashes(subject: Subject) -> str:
        return dict[str, str]()["history"]

    def holds(subject: Subject) -> str:
        return "fine"

    monkeypatch.setattr(upstream, "CHECKS", {"one": broken, "two": crashes, "three": holds})
    version, nothing = Version("ComfyUI 1.0.0", "", ""), None
    upstream._check_all(version, nothing)  # type: ignore[arg-type]
    assert version.broken == {"one": "it has another name", "two": "KeyError: 'history'"}
    assert version.holds == {"three": "fine"}


def test_there_is_no_comfyui_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert upstream.main([str(tmp_path)]) == 2
    assert "no ComfyUI at" in capsys.readouterr().err


def test_every_check_says_what_it_is_about() -> None:
    for check in CHECKS.values():
        assert (check.__doc__ or "").strip().endswith(".")


def test_the_page_is_the_one_that_its_facts_make() -> None:
    kept = upstream.read_kept()
    assert upstream.PAGE.read_text() == page(kept, upstream.pinned_version())
    assert upstream.pinned_version() in kept


@pytest.mark.slow
def test_everything_holds_on_the_comfyui_that_is_here(written: Path) -> None:
    real = installation("real")
    said: dict[str, Any] = {}
    status = upstream.main([str(real.directory), "--quick"])
    said = json.loads((written / "versions.json").read_text())[real.name]
    assert (status, said["broken"]) == (0, {})
    assert said["holds"].keys() == {"boot", *CHECKS}
    assert len(said["classes"]) > 100 and len(said["routes"]) > 20 and len(said["flags"]) > 40
