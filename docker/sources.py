"""What the image is made from, at exact commits: ComfyUI and the custom nodes of `custom_nodes.lock`.

Runs while the image is built, with the base image's Python and its standard library only (3.10 and later).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CustomNode:
    """An entry of the lock file.

    `classes` are some node classes that it must provide. `requirements` are what pip installs for it, instead of its
    own requirements, which pin nothing. It is a `commit` of a `repository`, or the `archive` of a version in ComfyUI's
    registry (`registry`: id@version) with its `sha256`. `system_packages` are Debian packages that it needs,
    `build_packages` those that are needed only while pip installs.
    """

    name: str
    group: str = ""
    repository: str = ""
    commit: str = ""
    registry: str = ""
    archive: str = ""
    sha256: str = ""
    why: str = ""
    state: str = ""
    classes: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    build_packages: tuple[str, ...] = ()


def read_lock(file: Path) -> list[CustomNode]:
    """The entries of a lock file. Raises SystemExit if one has no full commit hash, or a requirement without `==`."""
    nodes = []
    for entry in json.loads(file.read_text(encoding="utf-8"))["custom_nodes"]:
        values: dict[str, Any] = dict(entry)
        for name in ("classes", "requirements", "system_packages", "build_packages"):
            values[name] = tuple(entry.get(name, ()))
        node = CustomNode(**values)
        if not node.archive and not (node.repository and _COMMIT.fullmatch(node.commit)):
            sys.exit(f"{file.name}: the commit of {node.name} must be 40 hex digits, not {node.commit!r}")
        if node.archive and not _DIGEST.fullmatch(node.sha256):
            sys.exit(f"{file.name}: the sha256 of {node.name} must be 64 hex digits, not {node.sha256!r}")
        if not re.fullmatch(r"[\w-][\w.-]*", node.name):
            sys.exit(f"{file.name}: {node.name!r} is not a valid folder name")
        if loose := [requirement for requirement in node.requirements if "==" not in requirement]:
            sys.exit(f"{file.name}: {node.name} needs exact versions (==), not {', '.join(loose)}")
        nodes.append(node)
    return nodes


def select(nodes: list[CustomNode], selection: str) -> list[CustomNode]:
    """The nodes whose name or group is in `selection` (comma-separated). Raises SystemExit for an unknown one."""
    words = {word.strip() for word in selection.split(",")} - {""}
    known = {node.name for node in nodes} | {node.group for node in nodes}
    if unknown := sorted(words - known):
        sys.exit(f"CUSTOM_NODES: unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return [node for node in nodes if node.name in words or node.group in words]


def clone(repository: str, reference: str, commit: str, folder: Path, hint: str) -> None:
    """Check out `reference` (a tag or commit) of a repository into a folder, without history.

    Raises SystemExit, with the `hint`, if it is not `commit`.
    """
    folder.mkdir(parents=True)
    git = ["git", "-C", str(folder)]
    _run([*git, "init", "--quiet"])
    _run([*git, "fetch", "--quiet", "--depth", "1", repository, reference])
    found = subprocess.run([*git, "rev-parse", "FETCH_HEAD^{commit}"], check=True, capture_output=True, text=True)
    if found.stdout.strip() != commit:
        sys.exit(f"{reference} of {repository} is commit {found.stdout.strip()}, not {commit}. {hint}")
    _run([*git, "checkout", "--quiet", "FETCH_HEAD"])
    shutil.rmtree(folder / ".git")
    _compile(folder)


def unpack(node: CustomNode, folder: Path) -> None:
    """Unpack a pack's archive into a folder. Raises SystemExit if it cannot be fetched, or is not what was locked."""
    archive = folder.with_suffix(".zip")
    try:
        with urllib.request.urlopen(node.archive, timeout=60) as response, archive.open("wb") as opened:  # noqa: S310  a maintainer wrote it
            shutil.copyfileobj(response, opened)
    except OSError as error:
        sys.exit(f"the archive of {node.registry or node.name} cannot be fetched: {error}")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != node.sha256:
        sys.exit(f"the archive of {node.registry or node.name} has the SHA-256 {digest}, not {node.sha256}")
    with zipfile.ZipFile(archive) as opened:
        if any(".." in Path(name).parts or Path(name).is_absolute() for name in opened.namelist()):
            sys.exit(f"the archive of {node.registry or node.name} has names that lead outside it")
        opened.extractall(folder)
    archive.unlink()
    _compile(folder)


def write_requirements(nodes: list[CustomNode], folder: Path) -> None:
    """Write what the image has to install for custom nodes, without duplicates: one file for pip, two for apt."""
    for name in ("requirements", "system_packages", "build_packages"):
        names = dict.fromkeys(requirement for node in nodes for requirement in getattr(node, name))
        (folder / f"{name}.txt").write_text("".join(f"{requirement}\n" for requirement in names))


def _compile(folder: Path) -> None:
    """Compile to bytecode. Files that do not compile are skipped: some `.py` files are templates, not Python."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-j", "0", str(folder)], check=False)


def _run(command: list[str]) -> None:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    if subprocess.run(command, check=False, env=environment).returncode:
        sys.exit(f"this failed: {' '.join(command)}")


def main() -> None:
    """The command line, as the Dockerfile uses it."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    comfyui = commands.add_parser("comfyui")
    for flag in ("--repository", "--version", "--commit"):
        comfyui.add_argument(flag, required=True)
    nodes = commands.add_parser("custom-nodes")
    nodes.add_argument("--lock", type=Path, required=True)
    nodes.add_argument("--wanted", required=True)
    for command in (comfyui, nodes):
        command.add_argument("folder", type=Path)
    options = parser.parse_args()

    if options.command == "comfyui":
        hint = "If that is intended, build with --build-arg COMFYUI_COMMIT=… of it."
        clone(options.repository, options.version, options.commit, options.folder, hint)
        return
    selected = select(read_lock(options.lock), options.wanted)
    options.folder.mkdir()
    for node in selected:
        if node.archive:
            unpack(node, options.folder / node.name)
        else:
            clone(node.repository, node.commit, node.commit, options.folder / node.name, "Look at its repository.")
    write_requirements(selected, options.folder)


if __name__ == "__main__":
    main()
