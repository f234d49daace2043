"""The files of an answer, saved in the gateway's folders under the names that ComfyUI would give them there."""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ..protocol.executor import Folders
from ..protocol.report import NodeUi
from ..storage.bucket import Bucket
from .endpoint import Endpoint, EndpointFailed

# ComfyUI's savers number their files: `prefix_00001_.png`, `prefix_00001.glb`; batches may have a number behind it.
_NUMBERED = re.compile(r"^(?P<prefix>.+)_(?P<number>\d{5,})(?P<rest>_?(?:-\d+)?\.[^.]+)$")
_UI_KEYS = {"image": "images", "video": "images", "audio": "audio", "text": "files"}
"""Where ComfyUI's own nodes report a file of that type; all others as `3d`."""
FRAME_SENDER = "SaveImageWebsocket"


@dataclass(frozen=True)
class SavedFile:
    """A file of an answer where the gateway has it; `as_ui` is what a node reports of it."""

    path: Path
    node_id: str
    kind: str
    as_ui: Mapping[str, str]


@dataclass(frozen=True)
class ResultSaver:
    """Saves the files of answers. May be used from several threads."""

    folders: Folders
    endpoint: Endpoint
    bucket: Bucket | None
    _naming: threading.Lock = field(default_factory=threading.Lock)

    def save(self, answer: Mapping[str, Any]) -> dict[tuple[str, str], SavedFile]:
        """Save them all; by their type (output or temp) and their name in the answer. Raises EndpointFailed."""
        saved = {}
        for entry in answer.get("files") or []:
            kind = "temp" if entry.get("preview") else "output"
            with self._new_file(kind, str(entry["name"])) as (file, path):
                self._write(entry, answer, file.write)
            root: Path = getattr(self.folders, kind)
            place = PurePosixPath(path.relative_to(root).as_posix())
            subfolder = "" if place.parent == PurePosixPath() else str(place.parent)
            told = {"filename": place.name, "subfolder": subfolder, "type": kind}
            node_id = str(entry.get("node_id"))
            saved[kind, str(entry["name"])] = SavedFile(path, node_id, str(entry.get("type")), told)
        return saved

    def _write(self, entry: Mapping[str, Any], answer: Mapping[str, Any], write: Callable[[bytes], object]) -> None:
        if "image_index" in entry:
            write(_decoded(answer["images"][entry["image_index"]]))
        elif "data" in entry:
            write(_decoded(entry["data"]))
        elif "url" in entry:
            self.endpoint.download(entry["url"], write)
        elif self.bucket is not None and self.bucket.config.name == entry.get("bucket"):
            self.bucket.download(entry["key"], "the result", write)
        else:
            raise EndpointFailed(
                f"{entry['name']} is in the bucket {entry.get('bucket')!r}: give the gateway the BUCKET_ settings of "
                "that bucket"
            )

    @contextmanager
    def _new_file(self, kind: str, name: str) -> Iterator[tuple[BinaryIO, Path]]:
        """A new file for a result, deleted if it cannot be written. The name is that which ComfyUI would choose."""
        root: Path = getattr(self.folders, kind)
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or not place.name or "\\" in name or "\0" in name:
            raise EndpointFailed(f"the endpoint returned a file of the name {ascii(name)[:80]}")
        with self._naming:
            folder = root.joinpath(*place.parts[:-1])
            folder.mkdir(parents=True, exist_ok=True)
            path = _free_path(folder, place.name)
            file = path.open("xb")
        try:
            with file:
                yield file, path
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def node_outputs(
    answer: Mapping[str, Any], saved: Mapping[tuple[str, str], SavedFile], classes: Mapping[str, str]
) -> dict[str, NodeUi]:
    """What each node reports, as ComfyUI has it, with the files where the gateway has them.

    `classes` are the node classes by node id. A file that no node reported is reported by the node that made it.
    """
    reported = set[tuple[str, str]]()

    def local(value: Any, key: str = "") -> Any:
        if isinstance(value, list):
            return [local(part, key) for part in value]
        if key == "result" and isinstance(value, str) and ("output", value) in saved:  # savers of 3D files
            reported.add(("output", value))
            told = saved["output", value].as_ui
            return "/".join(part for part in (told["subfolder"], told["filename"]) if part)
        if not isinstance(value, dict):
            return value
        place = value.get("type", "output"), "/".join(filter(None, (value.get("subfolder"), value.get("filename"))))
        if place in saved:
            reported.add(place)
            return {**value, **saved[place].as_ui}
        return {key: local(part, key) for key, part in value.items()}

    outputs: dict[str, NodeUi] = {node_id: local(ui) for node_id, ui in (answer.get("outputs") or {}).items()}
    for place, file in saved.items():
        if place not in reported and classes.get(file.node_id) != FRAME_SENDER:
            ui = outputs.setdefault(file.node_id, {})
            ui.setdefault(_UI_KEYS.get(file.kind, "3d"), []).append(dict(file.as_ui))
    return outputs


def _free_path(folder: Path, name: str) -> Path:
    numbered = _NUMBERED.match(name)
    if numbered:
        taken = [int(found["number"]) for found in _matches(folder) if found["prefix"] == numbered["prefix"]]
        number = max(taken, default=0) + 1
        return folder / f"{numbered['prefix']}_{number:05}{numbered['rest']}"
    path, count = folder / name, 2
    while path.exists():
        path, count = folder / f"{Path(name).stem}-{count}{Path(name).suffix}", count + 1
    return path


def _matches(folder: Path) -> Iterator[re.Match[str]]:
    return (found for path in folder.iterdir() if (found := _NUMBERED.match(path.name)))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise EndpointFailed("the endpoint returned a file that is no base64") from error
