"""The one file that a job brings and the one that its workflow misses belong together, whatever they are called."""

from __future__ import annotations

import mimetypes
from collections.abc import Collection

from ..comfy.client import ComfyClient
from ..comfy.preflight import missing_files_of
from ..inputs.input_file import InputFile
from ..workflow.files import PlacedFile, place_files
from ..workflow.graph import Graph, Slot, Workflow, editable_copy
from ..workflow.schemas import InputSchema
from .request import Request

_KINDS = ("image", "video", "audio")


def with_the_one_file(
    client: ComfyClient, request: Request, workflow: Workflow, set_by_job: Collection[Slot]
) -> tuple[Workflow, list[str]]:
    """The workflow with the job's one file in place of the one that it misses, and a warning.

    As it is if a node names the file that was sent, if several are missing, if their kinds differ, or if the job has
    set the input itself (`set_by_job`).
    """
    if len(request.files) != 1:
        return workflow, []
    file = request.files[0]
    _, used = place_files(workflow, {file.name: PlacedFile("", "")})
    missing = {} if used else missing_files_of(client, workflow)
    graph = Graph(workflow)
    names = {str(graph.inputs(slot.node_id)[slot.name]) for slot in missing}
    fits = all(slot not in set_by_job and _is_of_its_kind(file, config) for slot, config in missing.items())
    if len(names) != 1 or not fits:
        return workflow, []
    changed = editable_copy(workflow)
    for slot in missing:
        changed[slot.node_id]["inputs"][slot.name] = file.name
    where = ", ".join(f"{slot.name} of node {graph.describe(slot.node_id)}" for slot in list(missing)[:5])
    return changed, [
        f"{where} uses {names.pop()[:80]!r}; the only file that was sent, {file.name[:80]!r}, was used for it"
    ]


def _is_of_its_kind(file: InputFile, config: InputSchema) -> bool:
    """Whether a file, by the list it came in or by its name, may be what an input takes; an unknown one may."""
    kind = "image" if file.is_image else (mimetypes.guess_type(file.name)[0] or "").partition("/")[0]
    flags = [known for known in _KINDS if config.parameters.get(f"{known}_upload")]
    return not flags or kind in flags or kind not in _KINDS
