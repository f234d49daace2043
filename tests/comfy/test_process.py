"""The engine's process: found, started with flags its version takes, watched, and never left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from src.comfy import process as comfy_process
from src.comfy.engine import ComfyEngine
from src.comfy.folders import Folders
from src.comfy.install import Installation, find_comfyui
from src.comfy.process import ComfyProcess
from src.draft.executor import DraftExecutor
from src.errors import BootTimeout, ComfyBootFailed, ComfyNotFound, ComfyStuck, InvalidSetting, PortTaken
from src.settings import Settings

from ..conftest import installation, settings_for

OLD_FLAGS = (
    '"--disable-metadata" "--disable-api-nodes" "--cache-classic" "--database-url" "--extra-model-paths-config"'
)
NEW_FLAGS = f'{OLD_FLAGS} "--disable-partner-nodes" "--disable-assets" "--cache-lru" "--cache-ram"'


def checkout(folder: Path, main: str = "", flags: str = OLD_FLAGS, version: str = "0.3.64") -> Path:
    """What looks like a ComfyUI whose main.py is `main`."""
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").write_text(main)
    (folder / "comfy" / "cli_args.py").write_text(flags)
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return folder


def found(folder: Path, **changes: object) -> Installation:
    """The installation in that folder, run by this Python."""
    return find_comfyui(replace(Settings(), comfyui_path=str(folder), comfyui_python=sys.executable, **changes))  # type: ignore[arg-type]


def test_flags_are_chosen_by_what_the_version_takes(tmp_path: Path) -> None:
    old = found(checkout(tmp_path / "old"))
    new = found(checkout(tmp_path / "new", flags=NEW_FLAGS, version="0.38.1"))
    folders = Folders(tmp_path / "work")
    old_command, new_command = (found_.command(Settings(), folders, 8188) for found_ in (old, new))
    assert (old.name, new.name) == ("ComfyUI 0.3.64", "ComfyUI 0.38.1")
    assert "--disable-api-nodes" in old_command
    assert "--disable-partner-nodes" not in old_command
    assert "--disable-partner-nodes" in new_command
    assert "--disable-api-nodes" not in new_command
    assert "--disable-assets" in new_command
    assert new_command[new_command.index("--cache-ram") + 1].startswith("--")
    assert not [word for word in old_command if word.startswith("--cache")]
    for command in (old_command, new_command):
        assert command[command.index("--listen") + 1] == "127.0.0.1"
        assert "--disable-metadata" in command
        assert command[command.index("--extra-model-paths-config") + 1] == str(folders.model_paths)


def test_settings_change_the_flags_and_arguments_are_appended(tmp_path: Path) -> None:
    engine = found(checkout(tmp_path / "c", flags=NEW_FLAGS))
    settings = Settings(
        save_metadata=True, enable_api_nodes=True, comfyui_cache="lru:4", comfyui_args="--cpu --extra 'a b'"
    )
    command = engine.command(settings, Folders(tmp_path), 1)
    assert not {"--disable-metadata", "--disable-partner-nodes", "--cache-ram"} & set(command)
    assert command[command.index("--cache-lru") + 1] == "4"
    assert command[-3:] == ["--cpu", "--extra", "a b"]
    command = engine.command(Settings(comfyui_cache="ram:2.5"), Folders(tmp_path), 1)
    assert command[command.index("--cache-ram") + 1] == "2.5"


def test_arguments_that_no_shell_could_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="COMFYUI_ARGS"):
        found(checkout(tmp_path / "c")).command(Settings(comfyui_args="'open"), Folders(tmp_path), 1)


def test_a_virtual_environment_in_the_checkout_is_used(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "c")
    assert find_comfyui(Settings(comfyui_path=str(folder))).start[0] == sys.executable
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert find_comfyui(Settings(comfyui_path=str(folder))).start[0] == str(python)


def test_no_comfyui_says_where_we_looked_how_to_get_one_and_that_there_is_a_draft(tmp_path: Path) -> None:
    with pytest.raises(ComfyNotFound) as raised:
        find_comfyui(Settings(comfyui_path=str(tmp_path / "none")))
    for part in (str(tmp_path / "none"), "COMFYUI_PATH", "git clone", "--draft"):
        assert part in raised.value.message


@pytest.mark.parametrize(
    ("main", "said"),
    [
        ("import no_such_module", "install ComfyUI's requirements"),
        ("import sys; sys.exit('main.py: error: unrecognized arguments: --x')", "check COMFYUI_ARGS"),
        ("raise RuntimeError('Found no NVIDIA driver on your system')", "COMFYUI_ARGS=--cpu"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("import os; os._exit(7)", "exit code 7"),
    ],
)
def test_an_engine_that_dies_at_boot_is_reported_at_once_with_a_hint(tmp_path: Path, main: str, said: str) -> None:
    engine = ComfyEngine(found(checkout(tmp_path / "c", main)), Settings(boot_timeout=60))
    started = time.monotonic()
    with pytest.raises(ComfyBootFailed, match=said), engine:
        engine.wait_ready()
    assert time.monotonic() - started < 30


def test_a_boot_that_fails_over_its_assets_says_which_setting_to_mend(tmp_path: Path) -> None:
    """As ComfyUI 0.38 and later do when another one holds the same database."""
    main = "import sys; print('\\x1b[31m[ERROR]\\x1b[0m ASSETS_STARTUP_FAILED: in_use', file=sys.stderr); sys.exit(1)"
    engine = ComfyEngine(found(checkout(tmp_path / "c", main)), Settings())
    with pytest.raises(ComfyBootFailed, match="remove --enable-assets and --database-url from COMFYUI_ARGS"), engine:
        engine.wait_ready()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [("--no-such-flag", "check COMFYUI_ARGS"), ("--cpu --cache-lru 3", "use COMFYUI_CACHE instead of a cache flag")],
)
def test_a_real_comfyui_that_dies_of_its_arguments_says_which_setting_to_mend(arguments: str, said: str) -> None:
    settings = replace(settings_for("real"), comfyui_args=arguments, comfyui_cache="classic")
    engine = ComfyEngine(installation("real"), settings)
    with pytest.raises(ComfyBootFailed, match=said), engine:
        engine.wait_ready()


@pytest.mark.slow
def test_a_real_comfyui_without_its_requirements_says_so(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    settings = replace(settings_for("real"), comfyui_path=str(installation("real").directory))
    settings = replace(settings, comfyui_python=str(bare / "bin" / "python"))
    engine = ComfyEngine(find_comfyui(settings), settings)
    with pytest.raises(ComfyBootFailed, match="install ComfyUI's requirements"), engine:
        engine.wait_ready()


def test_a_boot_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    engine = ComfyEngine(found(checkout(tmp_path / "c", "import time; time.sleep(600)")), Settings(boot_timeout=0.5))
    with pytest.raises(BootTimeout, match="COMFYUI_BOOT_TIMEOUT"), engine:
        engine.wait_ready()
    assert not engine.process.alive


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(comfyui_port=taken.getsockname()[1])
        with pytest.raises(PortTaken, match="COMFYUI_PORT"), ComfyEngine(installation("draft"), settings):
            pass


def test_a_stranger_on_our_port_is_not_taken_for_our_child(tmp_path: Path) -> None:
    with ComfyEngine(installation("draft"), settings_for("draft")) as stranger:
        stranger.wait_ready()
        ours = ComfyEngine(found(checkout(tmp_path / "c", "import time; time.sleep(600)")), Settings())
        with pytest.raises(PortTaken, match="another server"), ours:
            ours.process.port = stranger.process.port
            ours._client = stranger._client
            ours.wait_ready()


def test_the_log_survives_strange_bytes_and_endless_lines(tmp_path: Path) -> None:
    main = (
        "import sys, time\n"
        "out = sys.stdout.buffer\n"
        "out.write(b'\\xff\\xfe strange\\n' + b'x' * 1_000_000 + b'\\n' + b'10%\\r50%\\r100%\\nlast\\n')\n"
        "out.flush(); time.sleep(600)"
    )
    process = ComfyProcess(found(checkout(tmp_path / "c", main)), Settings())
    process.start()
    try:
        end = time.monotonic() + 30
        while "last" not in process.log_tail():
            assert time.monotonic() < end
            time.sleep(0.02)
        tail = process.log_tail()
        assert any("strange" in line for line in tail)
        assert tail[-2] == "100%"
        assert max(map(len, tail)) <= 1000
    finally:
        process.close()


def test_an_engine_that_cannot_be_killed_is_an_error_that_retires_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ComfyEngine(found(checkout(tmp_path / "c", "import time; time.sleep(600)")), Settings())
    engine.start()
    with monkeypatch.context() as stuck:  # as in state D, where no signal arrives
        stuck.setattr(comfy_process, "_KILL_SECONDS", 0.1)
        stuck.setattr(comfy_process.ComfyProcess, "_signal", lambda *_: None)
        with pytest.raises(ComfyStuck, match="has to be replaced") as raised:
            engine.process.stop()
    assert raised.value.retire_worker
    assert engine.process.alive
    engine.process.stop()
    assert not engine.process.alive


def test_stopping_ends_what_the_engine_started_and_removes_its_folders(tmp_path: Path) -> None:
    main = "import subprocess, time\nprint(subprocess.Popen(['sleep', '600']).pid, flush=True)\ntime.sleep(600)"
    process = ComfyProcess(found(checkout(tmp_path / "c", main)), Settings())
    process.start()
    end = time.monotonic() + 30
    while not process.log_tail():
        assert time.monotonic() < end
        time.sleep(0.02)
    grandchild, root = int(process.log_tail()[0]), process.folders.root
    process.close()
    assert not root.exists()
    while time.monotonic() < end and _is_running(grandchild):
        time.sleep(0.02)
    assert not _is_running(grandchild)


def _is_running(process_id: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return False


def _renewed(engine: ComfyEngine) -> None:
    engine.restart(engine.generation)
    engine.ensure_ready()


def test_an_engine_that_a_passing_thread_started_outlives_that_thread() -> None:
    with ComfyEngine(installation("draft"), settings_for("draft")) as engine:
        engine.wait_ready()
        thread = threading.Thread(target=_renewed, args=(engine,))
        thread.start()
        thread.join()
        time.sleep(0.1)
        assert engine.client.system_stats()["system"]["comfyui_version"] == DraftExecutor.version


def test_folders_of_dead_workers_are_removed_and_those_of_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    living = Folders.make()
    dead, young, stranger = (tmp_path / name for name in ("comfyui-worker-dead", "comfyui-worker-young", "other"))
    for folder in (dead, young, stranger):
        (folder / "output").mkdir(parents=True)
    hour_ago = time.time() - 3600
    for folder in (living.root, dead, stranger):
        os.utime(folder, (hour_ago, hour_ago))
    ours = Folders.make()
    assert {path.name for path in tmp_path.iterdir()} == {living.root.name, ours.root.name, young.name, stranger.name}
    ours.remove()
    living.remove()


def test_a_python_that_cannot_be_started_is_a_clear_error(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "c")
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("no program")
    engine = ComfyEngine(find_comfyui(Settings(comfyui_path=str(folder))), Settings())
    with pytest.raises(ComfyBootFailed, match="COMFYUI_PYTHON"), engine:
        pass
    assert not engine.process.folders.root.exists()


def test_two_engines_run_beside_each_other() -> None:
    settings = settings_for("draft")
    with ComfyEngine(installation("draft"), settings) as one, ComfyEngine(installation("draft"), settings) as two:
        one.wait_ready()
        two.wait_ready()
        assert one.process.port != two.process.port
        assert one.process.folders.root != two.process.folders.root


def test_the_engine_of_comfyui_does_not_see_our_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HARMLESS", "yes")
    main = (
        "import os, time\nprint(os.environ.get('HF_TOKEN'), os.environ.get('HARMLESS'), flush=True)\ntime.sleep(600)"
    )
    process = ComfyProcess(found(checkout(tmp_path / "c", main)), Settings())
    process.start()
    try:
        end = time.monotonic() + 30
        while not process.log_tail():
            assert time.monotonic() < end
            time.sleep(0.02)
        assert process.log_tail() == ["None yes"]
    finally:
        process.close()
    assert os.environ["HF_TOKEN"] == "hf_secret"


def test_a_traceback_of_comfyui_is_an_error_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = ["before", "Traceback (most recent call last):", '  File "x.py", line 1', "", "ValueError: no", "after"]
    program = f"import time\nprint({chr(10).join(lines)!r}, flush=True)\ntime.sleep(60)"
    (tmp_path / "main.py").write_text(program)
    caplog.set_level("INFO", logger="comfyui")
    with closing(ComfyProcess(Installation("x", tmp_path, (sys.executable, "main.py"), frozenset()), Settings())) as p:
        p.start()
        end = time.monotonic() + 30
        while "after" not in p.log_tail():
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.05)
    levels = {record.getMessage(): record.levelname for record in caplog.records if record.name == "comfyui"}
    assert (levels["before"], levels["after"]) == ("INFO", "INFO")
    assert {levels[lines[number]] for number in (1, 2, 4)} == {"ERROR"}
