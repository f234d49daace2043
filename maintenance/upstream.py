"""Try the worker on a version of ComfyUI, and write docs/compatibility.md.

    python -m maintenance.upstream COMFYUI_FOLDER [--against OLDER_FOLDER] [--quick]

Boots the ComfyUI in that folder on the CPU, checks everything that the worker relies on (upstream_checks.py), runs the
contract tests on it (not with `--quick`), and compares its flags, routes and classes with those of the version in the
image (or in OLDER_FOLDER). The page shows failed checks in red, with the file of the worker that has to change. The
results are stored in maintenance/versions.json, from which the page is generated, so versions that were tried earlier
stay on it. Exits with 1 if anything is broken.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from maintenance.upstream_checks import CHECKS, Broken, Subject
from src import REPOSITORY
from src.comfy.engine import ComfyEngine
from src.comfy.install import Installation, find_comfyui
from src.errors import WorkerError
from src.settings import read_settings

KEPT = Path(__file__).with_name("versions.json")
PAGE = REPOSITORY / "docs" / "compatibility.md"
TESTS = (
    *("tests/job/test_contract.py", "tests/job/test_actions.py", "tests/draft", "tests/outputs/test_kinds.py"),
    "tests/comfy/test_newer_comfyui.py",
)

_ARGUMENTS = "--cpu --disable-all-custom-nodes --whitelist-custom-nodes websocket_image_save.py"
_ROUTE = re.compile(r"routes\.(get|post|put|patch|delete)\(\s*f?[\"']([^\"']+)[\"']", re.IGNORECASE)
_NAMES = 25
_OTHERS = {"boot": "It boots.", "tests": "The contract tests pass."}


@dataclass
class Version:
    """The results for one version: a remark for each check that passes, and the reason for each that fails."""

    name: str
    date: str
    worker: str
    holds: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    routes: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


def examine(folder: Path, with_tests: bool) -> Version:
    """Everything about the ComfyUI in a folder. Raises ComfyNotFound; any other failure is part of the result."""
    settings = replace(read_settings({}), comfyui_path=str(folder), comfyui_args=_ARGUMENTS)
    installation = find_comfyui(settings)
    commit = _said("git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD")
    version = Version(installation.name, datetime.date.today().isoformat(), commit)
    version.flags, version.routes = sorted(installation.accepted), sorted(_routes(installation))
    try:
        with ComfyEngine(installation, settings) as engine:
            engine.wait_ready()
            version.holds["boot"] = ""
            _check_all(version, Subject(installation, settings, engine))
            schemas = engine.client.all_schemas()
            version.classes = sorted(schemas)
            version.outputs = sorted(name for name, schema in schemas.items() if schema.is_output)
    except WorkerError as error:
        version.broken["boot" if "boot" not in version.holds else "node classes"] = error.message
    if with_tests and "boot" in version.holds:
        _run_tests(version, installation)
    return version


def _check_all(version: Version, subject: Subject) -> None:
    for name, check in CHECKS.items():
        print(f"{name} …", end=" ", flush=True)
        try:
            version.holds[name] = check(subject)
        except Broken as broken:
            version.broken[name] = str(broken)
        except Exception as error:  # noqa: BLE001  a future version may break anything, and each failure is reported
            version.broken[name] = f"{type(error).__name__}: {str(error)[:300]}"
        print(version.broken.get(name) or version.holds.get(name) or "passes")


def _run_tests(version: Version, installation: Installation) -> None:
    """The tests that run on a real ComfyUI."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", "real", *TESTS]
    environment = {**os.environ, "COMFYUI_PATH": str(installation.directory)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    summary = re.findall(r"^.*\d+ passed.*$", done.stdout, re.MULTILINE)
    if done.returncode == 0:
        version.holds["tests"] = summary[-1].strip("= ") if summary else ""
    else:
        version.broken["tests"] = ", ".join(failed[:_NAMES]) or done.stdout[-300:] + done.stderr[-300:]


def _routes(installation: Installation) -> set[str]:
    folders = (installation.directory / name for name in ("app", "api_server"))
    files = [installation.directory / "server.py", *(file for folder in folders for file in folder.rglob("*.py"))]
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())
    return {f"{method.upper()} {path}" for text in texts for method, path in _ROUTE.findall(text)}


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


# --- The page --------------------------------------------------------------------------------------------


def page(versions: Mapping[str, Version], pinned: str) -> str:
    """docs/compatibility.md, the newest version first."""
    newest_first = sorted(versions.values(), key=lambda version: _order(version.name), reverse=True)
    lines = [
        "# Compatibility with ComfyUI",
        "",
        "Generated by `python -m maintenance.upstream COMFYUI_FOLDER`, which boots a ComfyUI on the CPU, checks what",
        f"the worker relies on, and runs the contract tests on it. The image has {pinned}. Do not edit this page.",
        "",
        "| version | tested on | worker commit | result |",
        "|---|---|---|---|",
    ]
    for version in newest_first:
        result = (
            f"🔴 {len(version.broken)} broken: {', '.join(version.broken)}" if version.broken else "🟢 all checks pass"
        )
        lines.append(f"| {version.name} | {version.date} | `{version.worker}` | {result} |")
    lines += ["", "## What is checked", ""]
    lines += [f"| check | {' | '.join(version.name for version in newest_first)} |"]
    lines += ["|---|" + "---|" * len(newest_first)]
    for name in ("boot", *CHECKS, "tests"):
        cells = [_cell(version, name) for version in newest_first]
        what = (CHECKS[name].__doc__ or "").strip() if name in CHECKS else _OTHERS[name]
        lines.append(f"| **{name}**: {what} | {' | '.join(cells)} |")
    for newer, older in itertools.pairwise(newest_first):
        lines += ["", f"## What changed from {older.name} to {newer.name}", ""]
        lines += difference(newer, older) or ["No changes."]
    return "\n".join(lines) + "\n"


def _cell(version: Version, name: str) -> str:
    if name in version.broken:
        return "🔴 " + version.broken[name].replace("|", "\\|").replace("\n", " ")
    if name in version.holds:
        remark = version.holds[name].replace("|", "\\|")
        return f"🟢 {remark}".strip()
    return "not tested"


def difference(newer: Version, older: Version) -> list[str]:
    """What was added and removed between two versions."""
    lines = []
    for what, one, other in (
        ("flags", newer.flags, older.flags),
        ("routes", newer.routes, older.routes),
        ("output nodes", newer.outputs, older.outputs),
        ("node classes", newer.classes, older.classes),
    ):
        for sign, names in (("new", sorted(set(one) - set(other))), ("removed", sorted(set(other) - set(one)))):
            if names and one and other:
                more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
                lines.append(
                    f"* {sign} {what} ({len(names)}): {', '.join(f'`{name}`' for name in names[:_NAMES])}{more}"
                )
    return lines


def _order(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))


def read_kept() -> dict[str, Version]:
    """The versions that were tested earlier, by name."""
    if not KEPT.is_file():
        return {}
    return {name: Version(**entry) for name, entry in json.loads(KEPT.read_text(encoding="utf-8")).items()}


def keep(versions: Mapping[str, Version]) -> None:
    """Write them, each list on one line."""
    entries: dict[str, Any] = {name: vars(version) for name, version in sorted(versions.items())}
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+([^\[\]]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    KEPT.write_text(text + "\n", encoding="utf-8")


def pinned_version() -> str:
    """The version that the Dockerfile builds."""
    text = (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG COMFYUI_VERSION=v(.+)$", text, re.MULTILINE)
    return f"ComfyUI {found[1]}" if found else "another"


def main(arguments: list[str] | None = None) -> int:
    """Examine, write, and print the differences; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a ComfyUI with a .venv (or set COMFYUI_PYTHON)")
    parser.add_argument("--against", type=Path, help="another ComfyUI, which is checked too")
    parser.add_argument("--quick", action="store_true", help="do not run the contract tests")
    options = parser.parse_args(arguments)
    versions, found = read_kept(), []
    for folder in (options.folder, options.against):
        if folder is None:
            continue
        try:
            version = examine(folder, not options.quick)
        except WorkerError as error:
            print(error.message, file=sys.stderr)
            return 2
        found.append(version)
        versions[version.name] = version
    keep(versions)
    PAGE.write_text(page(versions, pinned_version()), encoding="utf-8")
    newest, older = found[0], found[1] if len(found) > 1 else versions.get(pinned_version())
    if older and older.name != newest.name:
        print(f"\n{newest.name} compared with {older.name}:", *difference(newest, older), sep="\n")
    for name, what in newest.broken.items():
        print(f"BROKEN {name}: {what}")
    print(
        f"{PAGE.relative_to(REPOSITORY)}: {newest.name}, {len(newest.holds)} checks pass, {len(newest.broken)} broken"
    )
    return int(bool(newest.broken))


if __name__ == "__main__":
    sys.exit(main())
