"""The files that a prompt names from the gateway's own folders, and how they travel with its job."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputFileRefused
from ..inputs.checks import check_name
from ..outputs.content_types import content_type
from ..protocol.executor import Folders
from ..storage.bucket import Bucket
from ..workflow.files import may_name_file
from .endpoint import EndpointFailed
from .safe_files import name_and_folder

_MAX_INLINE_BYTES = 6_500_000  # of all files together: base64 makes 8.7 MB of it, and RunPod accepts 10 MB
_MAX_NAME = 200
_PLAIN_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")
_URL_SECONDS = 1800.0  # that an upload to the bucket is used again


@dataclass(frozen=True)
class NamedFiles:
    """A prompt in which every file has a name that a job may give it, and the files by these names."""

    prompt: dict[str, Any]
    files: Mapping[str, Path]


def named_files(prompt: Mapping[str, Any], folders: Folders) -> NamedFiles:
    """The files of the folders that a prompt names: `photo.png`, `sub/photo.png [input]`, `x.png [output]`.

    A copy of the prompt names them as the job does. A text that is the name of no such file stays as it is, and so do
    prompts of text encoders and prefixes, which are no names of files.
    """
    found: dict[str, Path] = {}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(part) for key, part in value.items()}
        file = _file_of(value, folders) if isinstance(value, str) else None
        if file is None:
            return value
        name = _name_of(value, file)
        if found.setdefault(name, file) != file:
            name = _other_name(value, file)
            found[name] = file
        return name

    def inputs_of(node: Mapping[str, Any]) -> dict[str, Any]:
        inputs: Mapping[str, Any] = node.get("inputs") or {}
        return {name: renamed(value) if may_name_file(inputs, name) else value for name, value in inputs.items()}

    return NamedFiles({node_id: {**node, "inputs": inputs_of(node)} for node_id, node in prompt.items()}, found)


@dataclass(frozen=True)
class LocalFiles:
    """The names of files that a prompt may have, as far as they are in the folders."""

    folders: Folders

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _file_of(name, self.folders) is not None


def _file_of(text: str, folders: Folders) -> Path | None:
    """The file that a value names, None for none."""
    if not text or len(text) > 1000 or "\0" in text or "\n" in text:
        return None
    name, folder = name_and_folder(text, "input")
    root: Path = getattr(folders, folder).resolve()
    try:
        file = (root / name).resolve()
        return file if file.is_relative_to(root) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # no file has that name; links in a circle
        return None


def _name_of(value: str, file: Path) -> str:
    """The name of a file in the job: its own, if jobs may have such a name."""
    name, folder = name_and_folder(value, "input")
    if folder != "input":
        name = f"{folder}/{name}"
    try:
        check_name(name, "name")
        if len(name) <= _MAX_NAME:
            return name
    except InputFileRefused:
        pass
    return _other_name(value, file)


def _other_name(value: str, file: Path) -> str:
    suffix = file.suffix if _PLAIN_SUFFIX.fullmatch(file.suffix) else ""
    return f"{hashlib.sha256(value.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}{suffix}"


@dataclass(frozen=True)
class Sender:
    """Puts files into jobs: as base64, or where they are too large for RunPod in the `bucket`, if there is one."""

    bucket: Bucket | None
    _uploads: dict[str, tuple[float, str]] = field(default_factory=dict)
    _uploading: threading.Lock = field(default_factory=threading.Lock)

    def fields(self, files: Mapping[str, Path]) -> list[dict[str, str]]:
        """The entries of a job's `files`.

        Raises EndpointFailed for more than RunPod accepts and for files that cannot be read, BucketFailed.
        """
        try:
            return self._fields(files)
        except OSError as error:
            name = Path(error.filename).name if error.filename else "an input file"
            raise EndpointFailed(f"{name} cannot be read: {error.strerror}") from error

    def _fields(self, files: Mapping[str, Path]) -> list[dict[str, str]]:
        sizes = {name: file.stat().st_size for name, file in files.items()}
        inline, total = set[str](), 0
        for name in sorted(sizes, key=lambda name: sizes[name]):
            total += sizes[name]
            if total <= _MAX_INLINE_BYTES:
                inline.add(name)
        if self.bucket is None and inline != set(files):
            raise EndpointFailed(
                f"the input files of this prompt are {sum(sizes.values()) / 1e6:.1f} MB; without a bucket RunPod "
                f"accepts {_MAX_INLINE_BYTES / 1e6:.1f} MB: set BUCKET_ENDPOINT_URL and the other BUCKET_ settings "
                "for the gateway, or use smaller files"
            )
        return [
            {"name": name, "data": base64.b64encode(file.read_bytes()).decode()}
            if name in inline
            else {"name": name, "url": self._uploaded(self.bucket, file)}
            for name, file in files.items()
            if self.bucket is not None or name in inline
        ]

    def _uploaded(self, bucket: Bucket | None, file: Path) -> str:
        """The URL of a file in the bucket; one that was uploaded a while ago is not uploaded again.

        Its key is of its content: a job that waits may still need another file of that name.
        """
        assert bucket is not None
        digest = _digest(file)
        with self._uploading:
            uploaded_at, url = self._uploads.get(digest, (0.0, ""))
            if not url or time.monotonic() - uploaded_at > min(_URL_SECONDS, bucket.config.url_seconds / 2):
                stored = bucket.upload(file, file.name, content_type(file.name), f"gateway-{digest[:16]}")
                url = stored.url or f"s3://{bucket.config.name}/{stored.key}"
                self._uploads[digest] = time.monotonic(), url
            return url


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
