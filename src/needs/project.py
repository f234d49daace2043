"""What the pyproject.toml of a node pack says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Project(NamedTuple):
    """The pack's id in ComfyUI's registry and its version, "" for what is not said, and what it wants of Python."""

    name: str = ""
    version: str = ""
    dependencies: tuple[str, ...] = ()


def read_project(pack: Path) -> Project:
    """The project in a pack's folder; an empty one if there is none, or it cannot be read."""
    try:
        project = tomllib.loads((pack / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        name, version, wanted = (project.get(part) for part in ("name", "version", "dependencies"))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return Project()
    lines = tuple(line for line in wanted if isinstance(line, str)) if isinstance(wanted, list) else ()
    return Project(name if isinstance(name, str) else "", version if isinstance(version, str) else "", lines)
