"""A confined program cannot change or read what is guarded, and is otherwise as free as before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from src.launch import LAUNCHER, comfy_confinement
from src.launch.comfy_confinement import beside

TRY = """
import json, os, pathlib, subprocess, sys, threading

def tried(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return error.strerror
    return "done"

here = pathlib.Path(sys.argv[1])
code, beside, secret = here / "worker" / "code.py", here / "beside", here / "worker" / ".secrets"
tries = {
    "append": lambda: open(code, "a"),
    "truncate": lambda: os.truncate(code, 0),
    "replace": lambda: os.replace(beside / "new", code),
    "remove": lambda: code.unlink(),
    "make": lambda: (code.parent / "shadow.py").touch(),
    "make a folder": lambda: (code.parent / "folder").mkdir(),
    "through a link": lambda: open(here / "link" / "code.py", "a"),
    "read the secret": secret.read_text,
    "link the secret": lambda: os.link(secret, beside / "link"),
    "trace the parent": lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
    "read the code": code.read_text,
    "run it": lambda: subprocess.run([sys.executable, str(code)], check=True),
    "write beside": lambda: (beside / "new").write_text("x"),
    "move beside": lambda: os.replace(beside / "new", here / "moved" / "new"),
    "write in /dev/shm": lambda: open("/dev/null", "w").write("x"),
}
if "in a thread" in sys.argv:
    found = {}
    thread = threading.Thread(target=lambda: found.update({name: tried(action) for name, action in tries.items()}))
    thread.start(); thread.join()
else:
    found = {name: tried(action) for name, action in tries.items()}
print(json.dumps(found))
"""


def kernel_can() -> bool:
    """Whether this kernel confines at all: tried in a process of its own, since it cannot be undone."""
    program = f"import sys; sys.path.insert(0, {str(LAUNCHER.parent)!r}); import comfy_confinement as c; "
    program += "sys.exit(not c.confine([], []))"
    return sys.platform == "linux" and subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


confining = pytest.mark.skipif(not kernel_can(), reason="wants a kernel with Landlock (Linux 5.19)")


def attempts(folder: Path, *guard: str, words: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a program that runs in the launcher can do."""
    for name in ("worker", "beside", "moved"):
        (folder / name).mkdir()
    (folder / "worker" / "code.py").write_text("print('fine')")
    (folder / "worker" / ".secrets").write_text("KEY=secret")
    (folder / "link").symlink_to(folder / "worker")
    (folder / "main.py").write_text(TRY)
    command = [sys.executable, str(LAUNCHER), str(os.getpid()), "-", *guard, str(folder / "main.py"), str(folder)]
    ended = subprocess.run([*command, *words], capture_output=True, text=True, check=False, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


REFUSED = (
    "append",
    "truncate",
    "remove",
    "make",
    "make a folder",
    "through a link",
    "read the secret",
)
ALLOWED = ("read the code", "run it", "write beside", "move beside", "write in /dev/shm")


@confining
@pytest.mark.parametrize("words", [(), ("in a thread",)])
def test_what_is_guarded_can_be_neither_changed_nor_read(tmp_path: Path, words: tuple[str, ...]) -> None:
    guard = ("--guard", str(tmp_path / "worker"), str(tmp_path / "worker" / ".secrets"))
    found = attempts(tmp_path, *guard, words=words)
    assert {name: found[name] for name in REFUSED} == dict.fromkeys(REFUSED, "Permission denied")
    assert {name: found[name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "done")
    assert "done" not in (found["replace"], found["link the secret"], found["trace the parent"])
    assert (tmp_path / "worker" / "code.py").read_text() == "print('fine')"
    assert sorted(path.name for path in (tmp_path / "worker").iterdir()) == [".secrets", "code.py"]


def test_without_a_guard_all_of_that_is_possible(tmp_path: Path) -> None:
    """The tries of the test above are real ones."""
    found = attempts(tmp_path)
    assert found["append"] == found["make"] == found["read the secret"] == found["through a link"] == "done"


@confining
def test_a_guard_that_names_what_is_not_there_guards_the_rest(tmp_path: Path) -> None:
    guard = ("--guard", f"{tmp_path / 'worker'}:/no/such/folder", str(tmp_path / "no secrets"))
    found = attempts(tmp_path, *guard)
    assert (found["append"], found["read the secret"]) == ("Permission denied", "done")


def test_a_kernel_that_cannot_confine_is_told_and_the_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy_confinement, "_CREATE_RULESET", 999_999)  # no such system call
    assert comfy_confinement.confine([str(tmp_path)], []) is False


def test_beside_is_everything_but_the_guarded_and_links(tmp_path: Path) -> None:
    for name in ("a/guarded/inner", "a/free", "b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    (tmp_path / "to a").symlink_to(tmp_path / "a" / "guarded")
    found = set(beside([tmp_path / "a" / "guarded"], tmp_path))
    assert found == {tmp_path / "b", tmp_path / "a" / "free", tmp_path / "a" / "file"}
