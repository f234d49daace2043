"""What each node reported to the client, as the answer tells it: with the names of the answer's files, without paths.

A file is known by where its node said that it is, since it may have another name in the answer: without the job's
folder, in another format, or with a number that makes the name unique.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..comfy.folders import Folders
from ..comfy.record import Run
from ..redaction import redacted
from ..workflow.graph import Graph
from .gathering import LocalFile
from .listing import OutputFile, Place, outputs_in_order, reported_file
from .serialisable import serialisable

_MAX_NODE_CHARACTERS = 100_000  # of JSON
_MAX_CHARACTERS = 500_000  # of all nodes
_MAX_SHARE = 10  # of an answer: all nodes have at most a tenth of it
_MAX_DEPTH = 40
_MAX_SHOWN = 10
_MAX_PATH = 3000
_PLACE = ("filename", "subfolder", "type")
_NOT_DELIVERED = object()


@dataclass(frozen=True)
class FileNames:
    """The names that an answer has for the files of a job, by where ComfyUI had them.

    `by_path` has None for files that are not in the answer. `comfyui` is the folder of ComfyUI itself.
    """

    comfyui: Path
    folders: Folders
    job_folder: str
    by_place: Mapping[Place, str]
    by_path: Mapping[str, str | None]

    @staticmethod
    def make(
        comfyui: Path,
        folders: Folders,
        job_folder: str,
        saved: Iterable[OutputFile],
        delivered: Iterable[LocalFile],
    ) -> FileNames:
        """Those of a job that saved these files, of which the answer has some."""
        named = {file.origin: file.name for file in delivered if file.origin is not None}
        paths: dict[str, str | None] = {_normal(folders, file): None for file in saved}
        paths.update({_normal(folders, file): name for file, name in named.items()})
        return FileNames(comfyui, folders, job_folder, {file.place: name for file, name in named.items()}, paths)

    def mentioned(self, text: str) -> tuple[bool, str | None]:
        """Whether a text is the path of a file that the job saved, and the file's name in the answer."""
        roots = (self.folders.output, self.folders.temp, self.folders.root) if len(text) <= _MAX_PATH else ()
        for root in roots:
            path = os.path.normpath(root / text)
            if path in self.by_path:
                return True, self.by_path[path]
        return False, None

    def without_folders(self, text: str) -> str:
        """A text without any folder, and without credentials in URLs."""
        return self.without_own_folders(redacted(text))

    def without_own_folders(self, text: str) -> str:
        """A text without the folders of ComfyUI and of the job."""
        cleaned = text.replace(str(self.folders.root), "…").replace(str(self.comfyui), "…")
        return cleaned.replace(f"{self.job_folder}/", "").replace(self.job_folder, "")


def _normal(folders: Folders, file: OutputFile) -> str:
    return os.path.normpath(file.path(folders))


def node_outputs(run: Run, names: FileNames, answer_limit: int) -> tuple[dict[str, Any], list[str]]:
    """What each node reported, by its id, and a warning for the caller if something of it is left out.

    `answer_limit` is that of the whole answer, in bytes.
    """
    told: dict[str, Any] = {}
    left_out: list[str] = []
    room = min(_MAX_CHARACTERS, answer_limit // _MAX_SHARE)
    for node_id, output in outputs_in_order(run):
        try:
            cleaned = _Cleaner(names).output(output)
        except _TooLarge:
            left_out.append(node_id)
            continue
        size = len(json.dumps(cleaned))
        if size > min(_MAX_NODE_CHARACTERS, room):
            left_out.append(node_id)
        elif cleaned:
            told[names.without_folders(node_id)] = cleaned
            room -= size
    return told, _warnings(left_out, run)


def _warnings(left_out: list[str], run: Run) -> list[str]:
    if not left_out:
        return []
    graph = Graph(run.workflow)
    nodes = [graph.describe(node_id) if node_id in graph else node_id[:100] for node_id in left_out[:_MAX_SHOWN]]
    more = [f"{len(left_out) - _MAX_SHOWN} more"] if len(left_out) > _MAX_SHOWN else []
    return [f"outputs does not have what these nodes reported, since it is too large: {', '.join([*nodes, *more])}"]


class _TooLarge(Exception):
    """A node reported too much."""


class _Cleaner:
    """Makes what one node reported fit for the answer."""

    def __init__(self, names: FileNames) -> None:
        self._names = names
        self._room = _MAX_NODE_CHARACTERS

    def output(self, output: Mapping[str, Any]) -> dict[str, Any]:
        """Under `text` are texts that people read: these are no files, and only lack the worker's own folders."""
        return self._parts(output, 0, no_files=("text",))

    def _parts(self, given: Mapping[str, Any], depth: int, no_files: tuple[str, ...] = ()) -> dict[str, Any]:
        parts = {self._text(key): self._value(part, depth + 1, key not in no_files) for key, part in given.items()}
        return {key: part for key, part in parts.items() if part is not _NOT_DELIVERED}

    def _value(self, value: object, depth: int, may_be_file: bool) -> Any:
        self._spend(1)
        if isinstance(value, str):
            if not may_be_file:
                self._spend(len(value))
                return serialisable(self._names.without_own_folders(value))
            is_file, name = self._names.mentioned(value)
            return name if is_file else self._text(value)
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            return self._file(value, depth) if _is_file(value) else self._parts(value, depth)
        if isinstance(value, list) and depth < _MAX_DEPTH:
            parts = [self._value(part, depth + 1, may_be_file) for part in value]
            kept = [part for part in parts if part is not _NOT_DELIVERED]
            return kept if kept or not value else _NOT_DELIVERED
        return f"({type(value).__name__})" if isinstance(value, (Mapping, list)) else serialisable(value)

    def _file(self, item: Mapping[str, Any], depth: int) -> Any:
        """A file under its name in the answer, with what else the node said of it."""
        file = reported_file("", item)
        name = self._names.by_place.get(file.place) if file else None
        if file is None or name is None:
            return _NOT_DELIVERED
        folder, _, filename = name.rpartition("/")
        more = {key: part for key, part in item.items() if key not in (*_PLACE, "fullpath") and not _is_path(part)}
        return {"filename": filename, "subfolder": folder, "type": file.type, **self._parts(more, depth)}

    def _text(self, text: str) -> str:
        self._spend(len(text))
        return self._names.without_folders(text)

    def _spend(self, characters: int) -> None:
        self._room -= characters
        if self._room < 0:
            raise _TooLarge


def _is_file(value: Mapping[str, Any]) -> bool:
    """Whether a node speaks of a file, be it in a folder from which files are delivered or in another one."""
    return isinstance(value.get("filename"), str) and ("subfolder" in value or "type" in value)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("/", "\\", "~", "file:"))
