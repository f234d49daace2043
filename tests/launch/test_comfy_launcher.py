"""The launcher runs a program as Python itself would, but for the three things it is there for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.launch.comfy_launcher import WORKER_THREAD_ENDED

from ..worker_process import ROOT

LAUNCHER = ROOT / "src" / "launch" / "comfy_launcher.py"

TELLING = """
import __main__, json, os, sys, helper
told = [sys.argv, __file__, sys.path[0], __name__, __main__.__file__, helper.NAME, os.getcwd()]
print(json.dumps(told))
"""


def run(folder: Path, *program: str, launcher: bool = True) -> subprocess.CompletedProcess[str]:
    """The program, with or without the launcher."""
    front = [str(LAUNCHER), str(os.getpid()), "-"] if launcher else []
    return subprocess.run(
        [sys.executable, *front, *program], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_program_sees_what_it_would_see_without_the_launcher(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(TELLING)
    (tmp_path / "helper.py").write_text("NAME = __name__")
    with_it, without = (run(tmp_path, "main.py", "--flag", "x y", launcher=launcher) for launcher in (True, False))
    assert with_it.returncode == 0, with_it.stderr
    assert with_it.stdout == without.stdout


@pytest.mark.parametrize(
    ("text", "code"),
    [("raise SystemExit(7)", 7), ("1 / 0", 1), ("import os; os.kill(os.getpid(), 15)", -15), ("pass", 0)],
)
def test_exit_codes_and_signals_are_those_of_the_program(tmp_path: Path, text: str, code: int) -> None:
    (tmp_path / "main.py").write_text(text)
    done = run(tmp_path, "main.py")
    assert done.returncode == code
    assert ("ZeroDivisionError" in done.stderr) == (text == "1 / 0")


THREADS = """
import threading, time
def prompt_worker(): {worker}
def helper(): 1 / 0
threading.Thread(target=helper).start()
threading.Thread(target=prompt_worker, daemon=True).start()
time.sleep(1.5)
print("lived on")
"""


@pytest.mark.parametrize("worker", ["raise SystemExit(1)", "1 / 0", "raise KeyboardInterrupt"])
def test_a_worker_thread_that_ends_takes_the_process_with_it(tmp_path: Path, worker: str) -> None:
    (tmp_path / "main.py").write_text(THREADS.format(worker=worker))
    done = run(tmp_path, "main.py")
    assert done.returncode == WORKER_THREAD_ENDED
    assert "lived on" not in done.stdout


def test_other_threads_may_end_as_they_like(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(THREADS.format(worker="time.sleep(600)"))
    done = run(tmp_path, "main.py")
    assert (done.returncode, done.stdout) == (0, "lived on\n")
    assert "ZeroDivisionError" in done.stderr


COLLECTOR = """
import gc, os, sys, time
print(gc.isenabled(), gc.get_freeze_count() > 0, flush=True)
sys.stdin.readline()
while not gc.isenabled(): time.sleep(0.01)
print(gc.get_freeze_count() > 1000, flush=True)
def is_inherited(fd):
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False
print([fd for fd in range(3, 64) if is_inherited(fd)])
"""


@pytest.mark.parametrize(("told", "frozen"), [(b"r", "True"), (b"", "False")], ids=["ready", "given up"])
def test_the_garbage_collector_is_off_until_the_engine_is_ready(tmp_path: Path, told: bytes, frozen: str) -> None:
    (tmp_path / "main.py").write_text(COLLECTOR)
    waits, tell = os.pipe()
    command = [sys.executable, str(LAUNCHER), str(os.getpid()), str(waits), "main.py"]
    process = subprocess.Popen(
        command, cwd=tmp_path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(waits,)
    )
    os.close(waits)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "False False\n"
    os.write(tell, told)
    os.close(tell)
    out, _ = process.communicate("go on\n", timeout=60)
    assert out == f"{frozen}\n[]\n"
