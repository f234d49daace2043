"""Pictures in the format or size that a job asks for; other files stay as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..errors import OutputRefused
from ..pictures.encoding import EncodedPicture, Encoding, metadata_hint
from ..pictures.helper import HELPERS, HelperFailed
from .gathering import LocalFile


def encode_files(
    files: Sequence[LocalFile], encoding: Encoding, folder: Path, check: Callable[[], None] = lambda: None
) -> tuple[list[LocalFile], list[str]]:
    """The files, with pictures encoded as `encoding` says, and hints about pictures that could not be.

    New files are written into `folder`. `check` raises if the job has to end, which ends the encoding too. Raises
    OutputRefused for a picture that cannot be read.
    """
    if encoding.changes_nothing:
        return list(files), []
    folder.mkdir(parents=True, exist_ok=True)

    def encode(number: int) -> tuple[LocalFile, Sequence[str]]:
        return _encode(files[number], encoding, folder / str(number), check)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        encoded = list(pool.map(encode, range(len(files))))
    return [file for file, _ in encoded], list(dict.fromkeys(hint for _, hints in encoded for hint in hints))


def _encode(
    file: LocalFile, encoding: Encoding, target: Path, check: Callable[[], None]
) -> tuple[LocalFile, Sequence[str]]:
    if file.kind != "image" or file.content_type == "image/svg+xml":
        return file, [] if encoding.texts is None else [metadata_hint(file.name)]
    try:
        picture = EncodedPicture(**HELPERS.call("encode", check, file.path, target, file.name, encoding))
    except HelperFailed as error:
        raise OutputRefused(f"node {file.node_id}: its image {file.name[:200]!r} cannot be read") from error
    return (replace(file, name=picture.name, path=target) if picture.is_new else file), picture.hints
