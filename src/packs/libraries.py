"""The Python libraries that packs want, beside those of ComfyUI, none of which they may change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import PackFailed
from ..settings import harmless_environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TIMEOUT_SECONDS = 900.0
_OWN_FILE = "requirements.txt"


def wanted_by(pack: Path) -> list[str]:
    """What a pack wants: the lines of its requirements.txt, else the dependencies in its pyproject.toml."""
    file = pack / _OWN_FILE
    if file.is_file():
        lines = file.read_text(encoding="utf-8", errors="replace").lstrip("\ufeff").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    try:
        project = tomllib.loads((pack / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        return [str(line) for line in project.get("dependencies", [])]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def installed_in(python: str) -> list[str]:
    """What a Python has: `name==version` each. Raises PackFailed."""
    listed = json.loads(_pip(python, "list", "--format=json"))
    return [f"{entry['name']}=={entry['version']}" for entry in listed]


def resolve(python: str, wanted: Sequence[str], known: Sequence[str], folder: Path, *more: str) -> list[str]:
    """What has to be installed for `wanted` beside `known`, neither of which changes: `name==version` or a URL each.

    `folder` is for temporary files, `more` more options of pip. Raises PackFailed, with pip's own reason.
    """
    if not wanted:
        return []
    requirements, constraints = folder / "requirements.txt", folder / "constraints.txt"
    requirements.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
    constraints.write_text("".join(f"{line}\n" for line in known), encoding="utf-8")
    options = ("--quiet", "--dry-run", "--report", "-", "-r", str(requirements), "-c", str(constraints))
    report = json.loads(_pip(python, "install", *options, *more))
    return [_as_requirement(item) for item in report["install"]]


def install_libraries(python: str, requirements: Sequence[str], target: Path) -> None:
    """Install exactly these into a folder. Raises PackFailed."""
    target.mkdir(parents=True, exist_ok=True)
    if requirements:
        _pip(python, "install", "--no-deps", "--no-compile", "--target", str(target), *requirements)


def _as_requirement(item: dict[str, Any]) -> str:
    if item.get("is_direct"):
        return str(item["download_info"]["url"])
    return f"{item['metadata']['name']}=={item['metadata']['version']}"


def _pip(python: str, *arguments: str) -> str:
    """pip's output. Raises PackFailed with the last line of its errors."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    try:
        done = subprocess.run(
            command,
            env={**harmless_environment(()), **{k: v for k, v in os.environ.items() if k.startswith("PIP_")}},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackFailed("pip could not be run, or took too long") from error
    if done.returncode:
        lines = [line.removeprefix("ERROR:").strip() for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        told = [line for line in lines if not line.startswith("Ignored the following")] or ["no reason given"]
        said = " ".join(told[:3])
        raise PackFailed(f"pip: {said[:400]}")
    return done.stdout
