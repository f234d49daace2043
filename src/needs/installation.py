"""What a ComfyUI on this machine has: its version, its node packs at their commits or versions, its libraries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .facts import Needs, PackNeed
from .project import read_project

_CORE_VERSION = re.compile(r'__version__\s*=\s*"([^"]+)"')
_REMOTE = re.compile(r'\[remote "origin"\][^\[]*?url\s*=\s*(\S+)')
_SSH = re.compile(r"(?:ssh://)?git@([\w.-]+)[:/](.+)")
_HEX = re.compile(r"[0-9a-f]{40}")
_OF_REGISTRY = ".tracking"  # ComfyUI-Manager puts it into packs that came as an archive of the registry


def read_installation(comfyui: Path, libraries: Sequence[str]) -> Needs:
    """What the ComfyUI in that folder has. `libraries` are those of its Python, `name==version` each.

    A pack of which nothing says where it is from is a question.
    """
    version_file = comfyui / "comfyui_version.py"
    version = _CORE_VERSION.search(version_file.read_text(encoding="utf-8")) if version_file.is_file() else None
    packs, questions = list[PackNeed](), list[str]()
    for folder in _packs(comfyui / "custom_nodes"):
        pack = _read_pack(folder)
        if pack is not None:
            packs.append(pack)
        else:
            questions.append(f"no source known for the node pack {folder.name}")
    return Needs(
        str(comfyui),
        version[1] if version else "",
        packs=tuple(packs),
        libraries=tuple(libraries),
        questions=tuple(questions),
    )


def _packs(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        is_on = not path.name.endswith(".disabled") and path.name not in ("__pycache__", "example_node.py.example")
        if is_on and not path.name.startswith(".") and (path / "__init__.py").is_file():
            yield path


def _read_pack(folder: Path) -> PackNeed | None:
    project = read_project(folder)
    if (folder / _OF_REGISTRY).is_file() and project.name and project.version:
        return PackNeed(project.name, versions=(project.version,))
    repository, commit = _git_state(folder / ".git")
    if repository and commit:
        return PackNeed(repository=repository, versions=(commit,))
    return None


def _git_state(git: Path) -> tuple[str, str]:
    """The https URL of a repository's origin and the commit that is checked out; "" for what it does not say."""
    try:
        remote = _REMOTE.search((git / "config").read_text(encoding="utf-8"))
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        name = head.removeprefix("ref: ")
        if name != head:
            loose, packed = git / name, git / "packed-refs"
            lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
            listed = next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")
            head = loose.read_text(encoding="utf-8").strip() if loose.is_file() else listed
    except (OSError, UnicodeDecodeError):
        return "", ""
    url = remote[1] if remote else ""
    ssh = _SSH.fullmatch(url)
    url = f"https://{ssh[1]}/{ssh[2]}" if ssh else url
    is_url = url.startswith(("https://", "http://")) and "@" not in url
    return (url.removesuffix(".git"), head) if is_url and _HEX.fullmatch(head) else ("", "")
