"""The command `python -m src.workflow needs`: what files need, without fetching or starting anything."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ..comfy.install import find_comfyui
from ..errors import ComfyNotFound, WorkerError
from ..models.catalog import known_manifest
from ..models.manifest import Manifest
from ..models.places import find_places
from ..needs import (
    Needs,
    as_json,
    as_table,
    is_list_of_needs,
    needs_of_workflow,
    packs_in,
    read_installation,
    read_list,
    with_presence,
)
from ..packs.libraries import environment_of
from ..settings import Settings, read_settings
from .files import read_content, read_workflow
from .lock import lock

_ENDINGS = (".json", ".yaml", ".yml")


def run(options: argparse.Namespace) -> int:
    """Print what the files need; the exit status: 0 nothing is open, 1 a file cannot be read, 2 something is open."""
    try:
        settings = read_settings()
        manifest = known_manifest(settings)
    except WorkerError as error:
        print(f"{error.error_code}: {error.message}", file=sys.stderr)
        return 1
    there = _there(settings)
    found, failed = list[Needs](), False
    libraries = list[str]()
    if options.comfyui is not None:
        try:
            installation = find_comfyui(replace(settings, comfyui_path=str(options.comfyui)))
            libraries = environment_of(installation.start[0])
        except WorkerError as error:
            print(f"{error.error_code}: {error.message}", file=sys.stderr)
            return 1
        found.append(read_installation(installation.directory, libraries))
    for file in _files(options.files):
        try:
            found.append(there(_needs(file, manifest)))
        except WorkerError as error:
            print(f"{file}: {error.message}", file=sys.stderr)
            failed = True
        except OSError as error:
            print(f"{file}: {error.strerror}", file=sys.stderr)
            failed = True
    if options.lock and not failed:
        return lock(found, settings, options.write, options.write_models, libraries)
    if found:
        print(json.dumps(as_json(found), indent=2, ensure_ascii=False) if options.json else as_table(found))
    return 1 if failed else 2 if any(needs.open for needs in found) else 0


def _there(settings: Settings) -> Callable[[Needs], Needs]:
    """Looks for what is there, in the ComfyUI of this machine and on its volumes, if there is one."""
    try:
        comfyui = find_comfyui(settings).directory
    except ComfyNotFound:
        return lambda needs: needs
    places, has_pack = find_places(settings, comfyui), packs_in(comfyui / "custom_nodes")
    return lambda needs: with_presence(needs, places, has_pack)


def _files(given: list[Path]) -> Iterator[Path]:
    """The files, and those in folders."""
    for path in given:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix in _ENDINGS and file.is_file())
        else:
            yield path


def _needs(file: Path, manifest: Manifest) -> Needs:
    content = read_content(file)
    if isinstance(content, dict) and is_list_of_needs(content):
        return read_list(file.name, content)
    return needs_of_workflow(file.name, read_workflow(file), manifest)
