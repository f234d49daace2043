"""Checks whether ComfyUI may be given an input file: its name, its base64, its content."""

from __future__ import annotations

import binascii
import mimetypes
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote_to_bytes

import filetype
import pybase64

from ..errors import InputFileRefused
from ..pictures.helper import HELPERS, HelperFailed, TooSlow, time_limit
from .input_file import InputFile

_DATA_URI = re.compile(r"data:(?P<about>[^,]*),", re.IGNORECASE)
_WHITESPACE = re.compile(r"\s+")
_CHUNK_CHARACTERS = 4 * (1 << 18)  # characters of base64, a multiple of four

_FORBIDDEN_IN_NAME = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_ANNOTATION = re.compile(r"\[(input|output|temp)\]\s*$")  # ComfyUI reads it as the folder of the file
_CHECK_SECONDS = 30.0
# Playlists and programs that make a player open other files, whatever their file name.
_PLAYLIST_STARTS = (b"#extm3u", b"ffconcat", b"<mpd", b"v=0\n", b"v=0\r", b"[playlist]", b"%!ps", b"<smil", b"<asx")
_XML_PLAYLIST_TAGS = (b"<mpd", b"<smil", b"<asx")
_PLAYLIST_ENDINGS = (".m3u", ".m3u8", ".mpd", ".sdp", ".ffconcat", ".pls", ".asx", ".eps", ".ps")
_PICKLES = (".ckpt", ".pt", ".pt2", ".pth", ".pkl", ".pickle")  # which can run code when they are loaded
_MEDIA = ("image", "video", "audio")
_HEAD_BYTES = 8192


def check_name(name: str, where: str) -> None:
    """Raise InputFileRefused unless a name is allowed below ComfyUI's input folder, on any file system."""
    parts = name.split("/")
    problem = (
        "must not contain control characters, backslashes or any of :*?\"<>|" if _FORBIDDEN_IN_NAME.search(name)
        else "must be a relative name without empty parts, . or .." if set(parts) & {"", ".", ".."}
        else "must not be a device name" if any(_WINDOWS_DEVICE.fullmatch(part) for part in parts)
        else "must not end with [input], [output] or [temp]" if _ANNOTATION.search(name)
        else "must not have spaces at the start or end of a part" if any(part != part.strip() for part in parts)
        else "must not be a pickle, which can run code (list such models in the worker's manifest)"
        if name.lower().endswith(_PICKLES)
        else "must have parts of at most 200 bytes" if any(len(part.encode()) > 200 for part in parts)
        else ""
    )  # fmt: skip
    if problem:
        raise InputFileRefused(f"{where} {problem}, not {ascii(name)[:80]}")


def decode(source: str, where: str, write: Callable[[bytes], object]) -> None:
    """Pass the bytes of base64 text, or of a data URI of any type, to `write`. Raises InputFileRefused."""
    found = _DATA_URI.match(source)
    text = source[found.end() :] if found else source
    if found and not found["about"].lower().endswith(";base64"):
        write(unquote_to_bytes(text))
        return
    if "%" in text:  # the base64 of a data URI may be percent-encoded
        text = unquote_to_bytes(text).decode("latin-1")
    text = _WHITESPACE.sub("", text).replace("-", "+").replace("_", "/")
    text += "=" * (-len(text) % 4)
    try:
        for start in range(0, len(text), _CHUNK_CHARACTERS):
            write(pybase64.b64decode(text[start : start + _CHUNK_CHARACTERS], validate=True))
    except (binascii.Error, ValueError) as error:
        raise InputFileRefused(
            f"{where}: not base64, a data URI or a URL (https://…, s3://…): {source[:40]!a}"
        ) from error


def check_content(file: InputFile, path: Path, max_pixels: int, check: Callable[[], None] = lambda: None) -> None:
    """Raise InputFileRefused for images that cannot be decoded, and for media of another kind than their name.

    `check` raises if the job has to end.
    """
    with path.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:15].lower()
    is_xml_playlist = start.startswith(b"<?xml") and any(word in head.lower() for word in _XML_PLAYLIST_TAGS)
    if is_xml_playlist or start.startswith(_PLAYLIST_STARTS) or file.name.lower().endswith(_PLAYLIST_ENDINGS):
        raise InputFileRefused(
            f"{file.where}: {file.name[:80]!r} is a playlist or a program, which may open other files"
        )
    kind = filetype.guess_mime(head) or ""
    if file.is_image or kind.startswith("image/"):
        _check_image(file, path, max_pixels, check)
        return
    expected = (mimetypes.guess_type(file.name)[0] or "").partition("/")[0]
    looks_like_page = start.startswith((b"<!doctype html", b"<html"))
    found = kind.partition("/")[0]
    if expected in _MEDIA and (
        looks_like_page or (found and not {expected, found} <= {"video", "audio"} and found != expected)
    ):
        what = "a web page" if looks_like_page else kind
        raise InputFileRefused(f"{file.where}: {file.name[:80]!r} should be {expected}, but is {what}")


def _check_image(file: InputFile, path: Path, max_pixels: int, check: Callable[[], None]) -> None:
    """Have the image decoded once: ComfyUI would fail in the middle of a job on a damaged or truncated one."""
    name = file.name[:80]
    try:
        problem = HELPERS.call("check", time_limit(_CHECK_SECONDS, check), path, name, file.is_image, max_pixels)
    except TooSlow as error:
        raise InputFileRefused(
            f"{file.where}: decoding the image {name!r} takes longer than {_CHECK_SECONDS:g} s"
        ) from error
    except HelperFailed as error:
        raise InputFileRefused(f"{file.where}: decoding the image {name!r} takes too much memory") from error
    if problem:
        raise InputFileRefused(f"{file.where}: {problem}")
