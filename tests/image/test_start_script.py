"""src/start.sh: how a container begins. Python is a stub that tells what it was given."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ..scripts import REPOSITORY, Stubs

TELLS = 'echo "cwd=$PWD preload=${LD_PRELOAD:-none} mode=$MODE_TO_RUN pid=$$"; exit "${STUB_EXIT:-0}"'


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """A worker's folder with the start script in it, and nothing else."""
    folder = tmp_path / "worker"
    (folder / "src").mkdir(parents=True)
    shutil.copy(REPOSITORY / "src" / "start.sh", folder / "src")
    return folder


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    stubs = Stubs(tmp_path / "stubs")
    stubs.add("python3", TELLS)
    return stubs


def places(tmp_path: Path) -> dict[str, str]:
    return {"VOLUME_DIR": str(tmp_path / "volume"), "WORKSPACE_DIR": str(tmp_path / "workspace")}


def test_it_becomes_the_worker_in_its_folder_with_its_arguments(worker: Path, stubs: Stubs, tmp_path: Path) -> None:
    done = stubs.run(worker / "src" / "start.sh", "--test_input", "a b.json", **places(tmp_path), STUB_EXIT="7")
    assert done.returncode == 7
    assert stubs.calls == ["python3 -u serverless_worker.py --test_input a b.json"]
    assert f"cwd={worker} " in done.stdout


def test_the_worker_takes_the_place_of_the_script_so_that_signals_reach_it(
    worker: Path, stubs: Stubs, tmp_path: Path
) -> None:
    environment = stubs.environment(**places(tmp_path))
    process = subprocess.Popen([str(worker / "src" / "start.sh")], env=environment, stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=60)
    assert f"pid={process.pid}" in out.decode()


@pytest.mark.parametrize("mode", ["serverless", "test"])
def test_the_mode_is_the_workers_to_read(worker: Path, stubs: Stubs, tmp_path: Path, mode: str) -> None:
    done = stubs.run(worker / "src" / "start.sh", **places(tmp_path), MODE_TO_RUN=mode)
    assert (done.returncode, f"mode={mode}" in done.stdout) == (0, True)


def test_the_environment_of_the_worker_runs_it(worker: Path, stubs: Stubs, tmp_path: Path) -> None:
    python = stubs.add("other-python")
    stubs.run(worker / "src" / "start.sh", **places(tmp_path), WORKER_PYTHON=str(python))
    assert stubs.calls == ["other-python -u serverless_worker.py"]


def test_an_unknown_mode_is_refused(worker: Path, stubs: Stubs, tmp_path: Path) -> None:
    done = stubs.run(worker / "src" / "start.sh", **places(tmp_path), MODE_TO_RUN="serverles")
    assert done.returncode == 2
    assert done.stderr == "start.sh: MODE_TO_RUN must be serverless, pod or test, not 'serverles'\n"
    assert not stubs.calls


def test_the_pod_set_up_is_started_where_there_is_one(worker: Path, stubs: Stubs, tmp_path: Path) -> None:
    done = stubs.run(worker / "src" / "start.sh", **places(tmp_path), MODE_TO_RUN="pod")
    assert (done.returncode, "use the image of the target pod" in done.stderr) == (2, True)
    (worker / "legacy").mkdir()
    pod = worker / "legacy" / "start.sh"
    pod.write_text('#!/bin/bash\necho "pod $*"\n')
    pod.chmod(0o755)
    assert stubs.run(worker / "src" / "start.sh", "x", **places(tmp_path), MODE_TO_RUN="pod").stdout == "pod x\n"


def test_a_volume_is_found_under_the_name_that_it_has_on_a_pod(worker: Path, stubs: Stubs, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    stubs.run(worker / "src" / "start.sh", **places(tmp_path))
    assert (tmp_path / "workspace").readlink() == tmp_path / "volume"
    assert stubs.run(worker / "src" / "start.sh", **places(tmp_path)).returncode == 0, "again, with the link there"


def test_a_workspace_that_is_there_is_left_alone(worker: Path, stubs: Stubs, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "workspace").mkdir()
    stubs.run(worker / "src" / "start.sh", **places(tmp_path))
    assert not (tmp_path / "workspace").is_symlink()
    assert not list((tmp_path / "workspace").iterdir())


def test_without_a_volume_nothing_is_linked(worker: Path, stubs: Stubs, tmp_path: Path) -> None:
    stubs.run(worker / "src" / "start.sh", **places(tmp_path))
    assert not os.path.lexists(tmp_path / "workspace")


def test_a_link_that_cannot_be_made_is_told_and_costs_nothing(worker: Path, stubs: Stubs, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    workspace = str(tmp_path / "no" / "workspace")
    done = stubs.run(worker / "src" / "start.sh", **{**places(tmp_path), "WORKSPACE_DIR": workspace})
    assert done.returncode == 0
    assert f"{workspace} cannot be linked to {tmp_path / 'volume'}" in done.stderr


def test_tcmalloc_is_preloaded_if_it_is_there(worker: Path, stubs: Stubs, tmp_path: Path) -> None:
    library = next(Path("/lib/x86_64-linux-gnu").glob("libm.so.6"), None)
    if library is None:
        pytest.skip("no library to preload on this machine")
    done = stubs.run(worker / "src" / "start.sh", **places(tmp_path), TCMALLOC=str(library))
    assert f"preload={library}" in done.stdout
    done = stubs.run(worker / "src" / "start.sh", **places(tmp_path), TCMALLOC=str(library), LD_PRELOAD="")
    assert f"preload={library}" in done.stdout


def test_a_preload_that_was_set_is_kept(worker: Path, stubs: Stubs, tmp_path: Path) -> None:
    library = next(Path("/lib/x86_64-linux-gnu").glob("libm.so.6"), None)
    if library is None:
        pytest.skip("no library to preload on this machine")
    done = stubs.run(worker / "src" / "start.sh", **places(tmp_path), TCMALLOC="/nowhere", LD_PRELOAD=str(library))
    assert f"preload={library}" in done.stdout
