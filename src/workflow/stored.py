"""Stored workflows, found by name: in a variable, a folder that the operator sets, on a volume, in the image."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

from .. import REPOSITORY
from ..errors import InvalidWorkflow, StoredWorkflowNotFound
from ..settings import Settings
from ..settings.stored_workflows import unpack

_EXAMPLES_FOLDER = REPOSITORY / "examples"
_VOLUME_FOLDERS = ("/runpod-volume/workflows", "/workspace/workflows")
_NAME = re.compile(r"[^\x00-\x1f\x7f\\]+")
_MAX_NAME_BYTES = 200
_MAX_FILE_BYTES = 20_000_000


def stored_workflow(name: str, settings: Settings) -> object:
    """The content of that name: a workflow, or a request or a job input that contains one.

    Raises StoredWorkflowNotFound, listing the available names; InvalidWorkflow for a file that is not JSON.
    """
    requested = name.strip().removesuffix(".json")
    in_variable = unpack(settings.stored_workflows)
    if requested in in_variable:
        return in_variable[requested]
    is_name = _NAME.fullmatch(requested) and len(requested.encode("utf-8", "replace")) <= _MAX_NAME_BYTES
    if is_name and not {"", ".", ".."} & set(requested.split("/")):
        for folder in _folders(settings):
            file = folder / f"{requested}.json"
            if file.is_file() and file.resolve().is_relative_to(folder.resolve()):
                return _read(file, requested)
    names = list_stored_workflows(settings)
    similar = difflib.get_close_matches(requested[:_MAX_NAME_BYTES], names, n=3, cutoff=0.4) or names[:20]
    raise StoredWorkflowNotFound(
        f"there is no stored workflow {ascii(requested)[:80]}; available: {', '.join(similar) or 'none'} "
        "(WORKFLOWS_DIR, or workflows/ on the network volume)",
        names=names[:100],
    )


def list_stored_workflows(settings: Settings) -> list[str]:
    """The names of all stored workflows."""
    names = {*unpack(settings.stored_workflows)} | {
        file.relative_to(folder).with_suffix("").as_posix()
        for folder in _folders(settings)
        if folder.is_dir()
        for file in folder.rglob("*.json")
    }
    return sorted(names)


def _folders(settings: Settings) -> list[Path]:
    own = [Path(settings.workflows_dir).expanduser()] if settings.workflows_dir else []
    return [*own, *map(Path, _VOLUME_FOLDERS), _EXAMPLES_FOLDER]


def _read(file: Path, name: str) -> object:
    try:
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise InvalidWorkflow(f"the stored workflow {name!r} is larger than {_MAX_FILE_BYTES // 10**6} MB")
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidWorkflow(f"the stored workflow {name!r} cannot be read as JSON") from error
