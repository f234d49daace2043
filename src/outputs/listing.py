"""What a run produced: the files that its nodes reported, the frames that they sent, and the texts that they show."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..comfy.folders import Folders
from ..comfy.record import FRAME_SENDER, Run
from ..errors import OutputMissing

Place = tuple[str, str, str]
"""Where a node says that a file is: the type of ComfyUI's folder, the subfolder, the name."""

_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 3000  # of Linux, with room for the folders above


@dataclass(frozen=True)
class OutputFile:
    """A file that a node saved, by its location in ComfyUI's folder of that type (output or temp).

    `is_by_product`: a preview although it is in the output folder. `is_reported`: its node told of it.
    """

    node_id: str
    filename: str
    subfolder: str
    type: str
    is_by_product: bool = False
    is_reported: bool = True

    @property
    def can_exist(self) -> bool:
        """Whether a file system could have a file of that name: not if it is too long, or no text of any encoding."""
        try:
            parts = [os.fsencode(part) for part in Path(self.subfolder, self.filename).parts]
        except UnicodeEncodeError:
            return False
        return max(map(len, parts)) <= _MAX_NAME_BYTES and sum(map(len, parts)) <= _MAX_PATH_BYTES

    @property
    def place(self) -> Place:
        """Where its node says that it is."""
        return self.type, self.subfolder, self.filename

    @property
    def is_preview(self) -> bool:
        """Whether the node only previews the file, and does not save it."""
        return self.type != "output" or self.is_by_product

    def path(self, folders: Folders) -> Path:
        """Where it is, if it is in the worker's folders."""
        return self._root(folders) / self.subfolder / self.filename

    def real_path(self, folders: Folders) -> Path | None:
        """Where it is, symlinks resolved; None outside the folder of its type.

        A node may report a path that the caller chose.
        """
        path, root = self.path(folders).resolve(), self._root(folders)
        return path if path != root and path.is_relative_to(root) else None

    def name(self, path: Path, folders: Folders, job_folder: str) -> str:
        """The name that the caller expects: with the workflow's filename prefix, without any folder of the worker.

        `path` is where it is, symlinks resolved.
        """
        roots = (folders.output / job_folder, folders.output)
        name = next((path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)), None)
        return (name or Path(self.filename).name).encode("utf-8", "replace").decode("utf-8")

    def _root(self, folders: Folders) -> Path:
        return folders.output if self.type == "output" else folders.temp


def list_files(run: Run) -> list[OutputFile]:
    """Every file that a node reported under any key, each once, in the order of the workflow's nodes."""
    unique: dict[Place, OutputFile] = {}
    for file in _reported_files(run):
        unique.setdefault(file.place, file)
    return list(unique.values())


def _reported_files(run: Run) -> Iterator[OutputFile]:
    return (
        file
        for node_id, output in outputs_in_order(run)
        for items in output.values()
        if isinstance(items, list)
        for item in items
        if isinstance(item, Mapping) and (file := reported_file(node_id, item))
    )


def reported_file(node_id: str, item: Mapping[str, Any]) -> OutputFile | None:
    """The file in the output or temp folder that a node reports with `filename`, `subfolder` and `type`."""
    if not _names_file(item):
        return None
    return OutputFile(node_id, item["filename"], str(item.get("subfolder") or ""), item.get("type") or "output")


def _names_file(item: Mapping[str, Any]) -> bool:
    name, folder = item.get("filename"), item.get("subfolder") or ""
    is_text = isinstance(name, str) and isinstance(folder, str) and "\0" not in f"{name}{folder}"
    return is_text and bool(name) and (item.get("type") or "output") in ("output", "temp")


def write_frames(run: Run, folders: Folders, job_folder: str) -> list[OutputFile]:
    """The pictures that nodes sent over the websocket instead of saving them (SaveImageWebsocket), now as files.

    Raises OutputMissing (with the `node_ids`) if some were not received.
    """
    senders = [node_id for node_id, node in run.workflow.items() if node.get("class_type") == FRAME_SENDER]
    if run.has_all_frames:  # a node that was left out, behind a branch that is switched off, had nothing to send
        senders = [node_id for node_id in senders if node_id in run.node_seconds]
    received = {frame.node_id for frame in run.frames}
    lost = [node_id for node_id in senders if not run.has_all_frames or node_id not in received]
    if lost:
        raise OutputMissing("images of SaveImageWebsocket were lost in transfer", node_ids=lost)
    folder = folders.output / job_folder
    files = []
    for number, frame in enumerate(run.frames, 1):
        folder.mkdir(parents=True, exist_ok=True)
        file = OutputFile(frame.node_id, f"websocket_{number:05}_.png", job_folder, "output")
        file.path(folders).write_bytes(frame.png)
        files.append(file)
    return files


def list_texts(run: Run) -> list[str]:
    """Every text that a node shows (PreviewAny and similar), in the order of the workflow's nodes."""
    return [
        text.encode("utf-8", "replace").decode("utf-8")
        for _, output in outputs_in_order(run)
        if isinstance(output.get("text"), list)
        for text in output["text"]
        if isinstance(text, str)
    ]


def hints(run: Run, files: Sequence[OutputFile], with_previews: bool) -> list[str]:
    """Hints for the caller about a run that succeeded: so far, that it saved no file."""
    if list_texts(run) or any(with_previews or not file.is_preview for file in files):
        return []
    previews = f"; its previews ({len(files)}) are left out: output.previews returns them" if files else ""
    return [f"the workflow ran, but none of its nodes saved a file{previews}"]


def outputs_in_order(run: Run) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The outputs of each node in the order of the workflow; ComfyUI reports them in no fixed order."""
    outputs = run.entry.get("outputs") or {}
    order = {node_id: position for position, node_id in enumerate(run.workflow)}
    for node_id in sorted(outputs, key=lambda node_id: order.get(node_id, len(order))):
        if isinstance(outputs[node_id], Mapping):
            yield node_id, outputs[node_id]
