"""The workflow in the metadata of a picture: written and removed without re-encoding the picture.

ComfyUI and its editor store texts in PNG chunks of type `tEXt`, under the keywords `prompt` and `workflow`; in other
formats in EXIF, each as `keyword:text` in a tag of its own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

METADATA_KEYWORDS = ("prompt", "workflow")

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = (b"tEXt", b"iTXt", b"zTXt")
_MAX_TEXTS = 10
_FIRST_TAG = 0x0110  # EXIF `Model`; ComfyUI's own save nodes use this tag and the ones below it


def rewrite_png(source: Path, target: Path, texts: Mapping[str, str]) -> None:
    """Copy a PNG with its texts replaced by these; every other chunk is copied byte for byte.

    Raises ValueError if it is not a PNG, or truncated.
    """
    content = source.read_bytes()
    with target.open("wb") as file:
        file.write(_SIGNATURE)
        for kind, chunk in _chunks(content):
            if kind not in _TEXT_CHUNKS:
                file.write(chunk)
            if kind == b"IHDR":
                for keyword, text in texts.items():
                    file.write(_text_chunk(keyword, text))


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The type of each chunk, and the whole chunk: length, type, data, checksum."""
    if not content.startswith(_SIGNATURE):
        raise ValueError("no PNG")
    view, position = memoryview(content), len(_SIGNATURE)
    while position < len(content):
        if position + 12 > len(content):
            raise ValueError("a truncated PNG")
        (length,) = struct.unpack_from(">I", content, position)
        end = position + 12 + length
        if end > len(content):
            raise ValueError("a truncated PNG")
        yield bytes(view[position + 4 : position + 8]), view[position:end]
        position = end


def _text_chunk(keyword: str, text: str) -> bytes:
    """A `tEXt` chunk; if the text is not Latin-1, an `iTXt` chunk, as the PNG specification requires."""
    try:
        kind, data = b"tEXt", keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        kind, data = b"iTXt", keyword.encode("latin-1", "replace") + b"\0\0\0\0\0" + text.encode()
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def as_exif(texts: Mapping[str, str]) -> Image.Exif:
    """EXIF data with these texts."""
    exif = Image.Exif()
    for number, (keyword, text) in enumerate(list(texts.items())[:_MAX_TEXTS]):
        exif[_FIRST_TAG - number] = f"{keyword}:{text}"
    return exif
