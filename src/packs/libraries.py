"""The Python libraries that packs want, beside those of ComfyUI, none of which they may change.

Of a pack's requirements only plain lines are taken, no options of pip and no addresses: those could read files of the
worker, or change what other packs get.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import PackFailed
from ..needs.project import read_project
from ..settings import harmless_environment

_TIMEOUT_SECONDS = 900.0
_MAX_LINES = 500
_COMMENT = re.compile(r"(^|\s)#.*$")
_PLAIN = re.compile(r"[A-Za-z0-9][\w.-]*\s*(\[[\w\s,.-]*\])?\s*([=<>!~(][^:/\\@]*)?(;[^:/\\@]*)?")
# Prints what a Python has; its last line is JSON, whatever else is printed at its start.
_LIST = (
    "import json, sys; from importlib.metadata import distributions; "
    "print(json.dumps([f'python=={sys.version_info[0]}.{sys.version_info[1]}', "
    "*sorted({f\"{d.metadata['Name']}=={d.version}\" for d in distributions() if d.metadata['Name']})]))"
)


def wanted_by(pack: Path) -> list[str]:
    """What a pack wants: the lines of its requirements.txt, else the dependencies in its pyproject.toml.

    Raises PackFailed for a line that is more than a name and versions.
    """
    file = pack / "requirements.txt"
    if file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace").lstrip("\ufeff")
        lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    else:
        lines = [line.strip() for line in read_project(pack).dependencies]
    wanted = [line for line in lines if line]
    for line in wanted:
        if not _PLAIN.fullmatch(line):
            kind = "an option of pip" if line.startswith("-") else "not a name with versions"
            raise PackFailed(f"its requirements have a line that is {kind}; install this pack in the image instead")
    if len(wanted) > _MAX_LINES:
        raise PackFailed(f"its requirements have more than {_MAX_LINES} lines")
    return wanted


def environment_of(python: str) -> list[str]:
    """The version of a Python (`python==3.12`), and the libraries that it has. Raises PackFailed."""
    try:
        done = subprocess.run(
            [python, "-c", _LIST], env=_environment(), capture_output=True, text=True, timeout=60.0, check=True
        )
        listed = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise PackFailed("ComfyUI's Python cannot list its libraries") from error
    return [str(line) for line in listed]


def resolve(pip: Sequence[str], wanted: Sequence[str], known: Sequence[str], folder: Path, *more: str) -> list[str]:
    """What has to be installed for `wanted` beside `known`, neither of which changes: `name==version` each.

    `pip` is the command that runs it, `folder` is for temporary files, `more` are more options of pip. Raises
    PackFailed, with pip's own reason.
    """
    if not wanted:
        return []
    requirements, constraints, report = (folder / name for name in ("wanted.txt", "known.txt", "report.json"))
    requirements.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
    constraints.write_text("".join(f"{k}\n" for k in known if not k.startswith("python==")), encoding="utf-8")
    files = ("--report", str(report), "-r", str(requirements), "-c", str(constraints))
    _run(pip, "install", "--quiet", "--dry-run", *files, *more)
    installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [f"{item['metadata']['name']}=={item['metadata']['version']}" for item in installed]


def install_libraries(pip: Sequence[str], requirements: Sequence[str], target: Path) -> None:
    """Install exactly these into a folder. Raises PackFailed."""
    target.mkdir(parents=True, exist_ok=True)
    if requirements:
        options = ("--quiet", "--no-deps", "--no-compile", "--target", str(target))
        _run(pip, "install", *options, *requirements)


def _run(pip: Sequence[str], *arguments: str) -> None:
    """Run pip. Raises PackFailed with the reason that it gives."""
    command = [*pip, "--disable-pip-version-check", "--no-input", *arguments]
    try:
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackFailed("pip could not be run, or took too long") from error
    if done.returncode:
        lines = done.stderr.splitlines()
        errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
        reasons = [line for line in errors if not line.startswith("Ignored the following")] or lines[-1:]
        raise PackFailed(f"pip: {' '.join(reasons[:3])[:400] or 'no reason given'}")


def _environment() -> dict[str, str]:
    """The worker's own environment without secrets, but with what is set for pip."""
    of_pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return {**harmless_environment(()), **of_pip}
