"""Bytecode kept from one boot is used by the next, wherever Python would find the same module, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from src.comfy.engine import ComfyEngine
from src.job.handler import Worker
from src.job.run import JobRunner

from .. import workflows
from ..conftest import Bench, installation, settings_for
from ..worker_process import ROOT
from .test_comfy_launcher import LAUNCHER, run

KEEPER = ROOT / "src" / "launch" / "comfy_bytecode.py"

PROGRAM = """
import importlib, sys
from pathlib import Path
sys.path.insert(0, str(Path("first").absolute()))
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    kept = type(module.__spec__.loader).__name__ == "PackLoader"
    print(name, module.VALUE, "kept" if kept else "found", sep=":")
"""
FACTS = """
import sys, package.inner, _json, json
for module in (package, package.inner, _json, json.decoder):
    spec = module.__spec__
    locations = spec.submodule_search_locations
    print(module.__name__, module.__file__, module.__package__, getattr(module, "__cached__", None), spec.name,
          spec.origin, spec.cached, spec.has_location, locations and list(locations), getattr(module, "__path__", None),
          module.__loader__ is spec.loader, spec.loader.is_package(spec.name), spec.loader.get_filename(spec.name))
print(package.inner.where.__code__.co_filename, package.inner.__loader__.get_source("package.inner"))
from importlib import resources
print(resources.files(package).joinpath("data.txt").read_text())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A program that imports a module and a package beside it."""
    (tmp_path / "main.py").write_text(PROGRAM)
    (tmp_path / "single.py").write_text("VALUE = 'one'\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("VALUE = 'whole'\n")
    (tmp_path / "package" / "inner.py").write_text("VALUE = 'part'\n\n\ndef where(): pass\n")
    (tmp_path / "package" / "data.txt").write_text("some data")
    (tmp_path / "first").mkdir()
    return tmp_path


NAMES = ("single", "package", "package.inner")
KEPT = ["single:one:kept", "package:whole:kept", "package.inner:part:kept"]


def open_files(pid: int | None) -> set[str]:
    """The files that a process has open; it may open and close some meanwhile."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(link.readlink()))
    return found


def keep(folder: Path, *names: str) -> Path:
    """Run the program once and keep what it imported; the file."""
    command = [sys.executable, str(KEEPER), "main.py", *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (pack,) = (folder / "__pycache__").glob("boot.*.pack")
    assert f"modules in {pack}" in done.stdout
    return pack


def lines(folder: Path, *names: str) -> list[str]:
    """What the program says when the launcher runs it."""
    done = run(folder, "main.py", *names)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_one_run_imported_the_next_has_from_the_pack(folder: Path) -> None:
    assert lines(folder, *NAMES) == [line.replace("kept", "found") for line in KEPT]
    keep(folder, *NAMES)
    assert lines(folder, *NAMES) == KEPT


def test_modules_know_of_themselves_what_they_would_know_without_it(folder: Path) -> None:
    (folder / "main.py").write_text(FACTS)
    without = run(folder, "main.py").stdout
    keep(folder)
    assert run(folder, "main.py").stdout == without
    assert len(without.splitlines()) > 5


def _edit(folder: Path) -> None:
    (folder / "single.py").write_text("VALUE = 'changed'\n")


def _touch(folder: Path) -> None:
    """Another text of the same size, some time later."""
    (folder / "single.py").write_text("VALUE = 'two'\n")
    os.utime(folder / "single.py", (2_000_000_000, 2_000_000_000))


def _put_first(folder: Path) -> None:
    (folder / "first" / "single.py").write_text("VALUE = 'first'\n")


def _put_package_first(folder: Path) -> None:
    (folder / "first" / "single").mkdir()
    (folder / "first" / "single" / "__init__.py").write_text("VALUE = 'package'\n")


@pytest.mark.parametrize(
    ("change", "value"),
    [(_edit, "changed"), (_touch, "two"), (_put_first, "first"), (_put_package_first, "package")],
    ids=["edited", "touched", "shadowed", "shadowed by a package"],
)
def test_a_module_that_has_changed_is_found_anew(folder: Path, change: Callable[[Path], None], value: str) -> None:
    keep(folder, *NAMES)
    change(folder)
    assert lines(folder, *NAMES) == [f"single:{value}:found", *KEPT[1:]]


def test_a_module_that_has_gone_is_not_there(folder: Path) -> None:
    keep(folder, *NAMES)
    (folder / "single.py").unlink()
    done = run(folder, "main.py", "single")
    assert "ModuleNotFoundError: No module named 'single'" in done.stderr


def test_an_archive_that_is_searched_first_is_left_to_python(folder: Path) -> None:
    keep(folder, *NAMES)
    text = (folder / "main.py").read_text().replace('Path("first")', 'Path("first.zip")')
    (folder / "main.py").write_text(text)
    command = [sys.executable, "-m", "zipfile", "-c", "first.zip", "single.py"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    (folder / "single.py").write_text("VALUE = 'beside'\n")
    assert lines(folder, "single") == ["single:one:found"]


@pytest.mark.parametrize("damage", ["empty", "of another Python", "cut short", "garbage inside", "garbage index"])
def test_a_damaged_pack_does_no_harm(folder: Path, damage: str) -> None:
    pack = keep(folder, *NAMES)
    whole = pack.read_bytes()
    # From inside one module's bytecode on all is garbage, which no code of these modules may come from.
    changed = {
        "empty": b"",
        "of another Python": b"\0\0" + whole[2:],
        "cut short": whole[: len(whole) // 2],
        "garbage inside": whole[: len(whole) // 2] + b"\xff" * (len(whole) - len(whole) // 2),
        "garbage index": whole[:60] + b"\xff" * (len(whole) - 60),
    }[damage]
    pack.write_bytes(changed)
    said = [line.rpartition(":")[0] for line in lines(folder, *NAMES)]
    assert said == ["single:one", "package:whole", "package.inner:part"]


def test_a_program_that_fails_leaves_no_pack(folder: Path) -> None:
    command = [sys.executable, str(KEEPER), "main.py", "no_such_module"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "No module named 'no_such_module'" in done.stderr
    assert not list((folder / "__pycache__").glob("boot.*"))


@pytest.mark.slow
def test_a_real_comfyui_boots_from_its_pack_and_makes_the_picture(tmp_path: Path) -> None:
    """In a folder of links, so that nothing is written into the ComfyUI that the tests were given."""
    real = installation("real")
    for entry in real.directory.iterdir():
        if entry.suffix == ".py":  # it finds its folder by them
            shutil.copy(entry, tmp_path)
        elif entry.name not in ("__pycache__", "user", "output", "temp", "input"):
            (tmp_path / entry.name).symlink_to(entry)

    def boot(*script: str) -> str:
        command = [real.start[0], "-X", "importtime", *script, "main.py", "--cpu", "--quick-test-for-ci"]
        command += ["--disable-all-custom-nodes", "--database-url", "sqlite:///:memory:"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stderr

    assert " scipy.stats\n" in boot(str(KEEPER))
    imported = boot(str(LAUNCHER), str(os.getpid()), "-")
    assert " comfy.samplers\n" in imported
    for library in ("kornia", "scipy", "scipy.stats", "torch._dynamo", "torchsde", "torchvision", "transformers"):
        assert f" {library}\n" not in imported

    linked = type(real)(real.name, tmp_path, real.start, real.accepted)
    settings = settings_for("real")
    with ComfyEngine(linked, settings) as engine:
        engine.wait_ready()
        pack = next((tmp_path / "__pycache__").glob("boot.*.pack"))
        descriptors = open_files(engine.process.pid)
        answer = Bench("real", Worker(JobRunner.make(engine, settings))).run(workflow=workflows.still())
        end = time.monotonic() + 60
        while "/scipy/" not in Path(f"/proc/{engine.process.pid}/maps").read_text():
            assert time.monotonic() < end, "what was put off was never imported"
            time.sleep(0.1)
        assert "Traceback" not in "\n".join(engine.process.log_tail(200))
    assert str(pack) in descriptors
    assert answer["status"] == "success" and answer["images"]
