"""Workflows that lie beside the worker, called by name: in a folder of the operator's, on a volume, in the image."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

from .. import REPOSITORY
from ..errors import InvalidWorkflow, StoredWorkflowNotFound
from ..settings import Settings

_EXAMPLES = REPOSITORY / "examples"
_VOLUMES = ("/runpod-volume/workflows", "/workspace/workflows")
_NAME = re.compile(r"[^\x00-\x1f\x7f\\]+")
_LONGEST_NAME = 200  # bytes
_MOST_BYTES = 20_000_000


def stored_workflow(name: str, settings: Settings) -> object:
    """What the file of that name holds: a workflow, or a request or an input with one in it.

    Raises StoredWorkflowNotFound, listing the names there are; InvalidWorkflow for a file that is no JSON.
    """
    wanted = name.strip().removesuffix(".json")
    is_name = _NAME.fullmatch(wanted) and len(wanted.encode("utf-8", "replace")) <= _LONGEST_NAME
    if is_name and not {"", ".", ".."} & set(wanted.split("/")):
        for folder in _folders(settings):
            file = folder / f"{wanted}.json"
            if file.is_file() and file.resolve().is_relative_to(folder.resolve()):
                return _read(file, wanted)
    names = list_stored_workflows(settings)
    near = difflib.get_close_matches(wanted[:_LONGEST_NAME], names, n=3, cutoff=0.4) or names[:20]
    raise StoredWorkflowNotFound(
        f"there is no stored workflow {ascii(wanted)[:80]}; there is {', '.join(near) or 'none'} "
        "(WORKFLOWS_DIR, or workflows/ on the network volume)",
        names=names[:100],
    )


def list_stored_workflows(settings: Settings) -> list[str]:
    """The names of all stored workflows."""
    names = {
        file.relative_to(folder).with_suffix("").as_posix()
        for folder in _folders(settings)
        if folder.is_dir()
        for file in folder.rglob("*.json")
    }
    return sorted(names)


def _folders(settings: Settings) -> list[Path]:
    own = [Path(settings.workflows_dir).expanduser()] if settings.workflows_dir else []
    return [*own, *map(Path, _VOLUMES), _EXAMPLES]


def _read(file: Path, name: str) -> object:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InvalidWorkflow(f"the stored workflow {name!r} is larger than {_MOST_BYTES // 10**6} MB")
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidWorkflow(f"the stored workflow {name!r} cannot be read as JSON") from error
