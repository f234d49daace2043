"""The node classes as the editor sees them: with the gateway's own files in their lists of input files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..outputs.content_types import kind_of
from ..protocol.executor import Folders

_3D_FOLDER = "3d"  # where ComfyUI's loaders of 3D files look, below the input folder
_MEDIA = {
    "image_upload": ("image",),
    "animated_image_upload": ("image",),
    "video_upload": ("video", "image"),
    "audio_upload": ("audio", "video"),
}
_ANY_FILE = "file_upload"


def with_local_files(object_info: Mapping[str, Any], folders: Folders) -> dict[str, Any]:
    """The classes, of which each list with an upload button has the gateway's files first."""
    return {name: with_files_of(entry, folders) for name, entry in object_info.items()}


def with_files_of(entry: Any, folders: Folders) -> Any:
    """The same for one class."""
    sections = entry.get("input") if isinstance(entry, Mapping) else None
    if not isinstance(sections, Mapping) or not any(True for _ in _upload_inputs(sections)):
        return entry
    changed: dict[str, Any] = {
        section: dict(inputs) if isinstance(inputs, Mapping) else inputs for section, inputs in sections.items()
    }
    for section, name, config in _upload_inputs(sections):
        changed[section][name] = _with_files(config, folders)
    return {**entry, "input": changed}


def _upload_inputs(sections: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    for section, inputs in sections.items():
        for name, config in inputs.items() if isinstance(inputs, Mapping) else ():
            if isinstance(config, list) and len(config) > 1 and _takes_uploads(config[1]):
                yield section, name, config


def _takes_uploads(parameters: object) -> bool:
    return isinstance(parameters, Mapping) and any(parameters.get(flag) for flag in (*_MEDIA, _ANY_FILE))


def _with_files(config: list[Any], folders: Folders) -> list[Any]:
    kind, parameters = config[0], config[1]
    listed = kind if isinstance(kind, list) else parameters.get("options")
    if not isinstance(listed, list):
        return config
    own = _files(parameters, folders)
    known = set(own)
    files = [*own, *(option for option in listed if not isinstance(option, str) or option not in known)]
    return [files, parameters] if isinstance(kind, list) else [kind, {**parameters, "options": files}]


def _files(parameters: Mapping[str, Any], folders: Folders) -> list[str]:
    folder = parameters.get("image_folder", "input")
    root: Path = getattr(folders, folder if folder in ("input", "output", "temp") else "input")
    wanted = {kind for flag, kinds in _MEDIA.items() if parameters.get(flag) for kind in kinds}
    if not wanted:
        found = (root / _3D_FOLDER).rglob("*")
        return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())
    files = root.iterdir() if root.is_dir() else iter(())
    return sorted(path.name for path in files if kind_of(path.name) in wanted and path.is_file())
