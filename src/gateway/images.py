"""Uploads of files and masks, and what /view shows of images, as ComfyUI does it."""

from __future__ import annotations

import asyncio
import filecmp
import io
import shutil
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from PIL import Image, PngImagePlugin

from ..protocol.bodies import json_of
from ..protocol.executor import Folders
from ..protocol.server import Route
from .safe_files import disposition, headers_of, inside, name_and_folder, new_file

_TYPES = ("input", "output", "temp")
_PREVIEW_FORMATS = ("webp", "jpeg")
_MAX_QUALITY = 100
_PROGRAMS = ("EPS", "WMF")  # formats for which Pillow starts another program
# What Pillow raises for files that are no images, or broken ones.
_NO_IMAGE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
# What aiohttp raises for bodies that are no forms.
_NO_FORM = (ValueError, LookupError, RuntimeError, AssertionError, zlib.error, HttpProcessingError)
_MAX_PIXELS = 150_000_000


@dataclass(frozen=True)
class Images:
    """The routes, over the gateway's folders."""

    folders: Folders
    _naming: threading.Lock = field(default_factory=threading.Lock)

    def routes(self) -> list[Route]:
        """Method, path and handler of each."""
        return [
            ("POST", "/upload/image", self.upload),
            ("POST", "/upload/mask", self.upload_mask),
            ("GET", "/view", self.view),
        ]

    async def upload(self, request: web.Request) -> web.Response:
        """POST /upload/image: a file of any kind, in the form's `image`; `subfolder`, `type` and `overwrite` besides.

        Without `overwrite` an existing file of that name stays: the new one gets a number, if it is not the same.
        """
        form = await _form(request)
        return web.json_response(await asyncio.to_thread(self._save_upload, form, None))

    async def upload_mask(self, request: web.Request) -> web.Response:
        """POST /upload/mask: the alpha of the image in the form becomes that of the one in `original_ref`."""
        form = await _form(request)
        try:
            reference = json_of(str(form.get("original_ref", "")).encode())
            filename, kind = name_and_folder(reference["filename"], reference.get("type", "output"))
            original = self._file(kind, str(reference.get("subfolder") or ""), filename)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise web.HTTPBadRequest(text="original_ref must be an object with a filename") from error
        if not original.is_file():
            raise web.HTTPNotFound(text="the original image does not exist")
        return web.json_response(await asyncio.to_thread(self._save_upload, form, original))

    async def view(self, request: web.Request) -> web.StreamResponse:
        """GET /view: a file, or with `preview=webp;75` or `channel=rgb|a` what it says of an image."""
        query = request.query
        filename, kind = name_and_folder(query.get("filename", ""), query.get("type", "output"))
        if filename.startswith("/") or ".." in PurePosixPath(filename).parts:
            raise web.HTTPBadRequest(text="a filename must not lead out of its folder")
        name = Path(filename).name
        if not name:
            raise web.HTTPNotFound(text="no filename")
        file = self._file(kind, query.get("subfolder", ""), name)
        if not file.is_file():
            raise web.HTTPNotFound
        channel = query.get("channel", "")
        if "preview" not in query and channel not in ("rgb", "a"):
            return web.FileResponse(file, headers=headers_of(name, request))
        try:
            body, kind = await asyncio.to_thread(_rendered, file, query.get("preview"), channel)
        except _NO_IMAGE as error:
            raise web.HTTPUnsupportedMediaType(text="the file is not an image") from error
        headers = {"Content-Disposition": disposition(name), "X-Content-Type-Options": "nosniff"}
        return web.Response(body=body, content_type=f"image/{kind}", headers=headers)

    def _file(self, kind: Any, subfolder: str, name: str) -> Path:
        if kind not in _TYPES:
            raise web.HTTPBadRequest(text=f"type must be one of {', '.join(_TYPES)}")
        root: Path = getattr(self.folders, kind)
        return inside(root, Path(subfolder, name))

    def _save_upload(self, form: Any, masked: Path | None) -> dict[str, str]:
        """Save the file in a form; what the response says of it. `masked` is the image that gets its alpha."""
        upload, kind, subfolder = form.get("image"), str(form.get("type") or "input"), str(form.get("subfolder") or "")
        if not isinstance(upload, web.FileField) or not Path(upload.filename).name:
            raise web.HTTPBadRequest(text="the form has no file `image`")
        target = self._file(kind, subfolder, upload.filename)
        with new_file(target) as new:
            with new.open("xb") as file:
                if masked is None:
                    shutil.copyfileobj(upload.file, file)
                else:
                    _put_mask(upload.file, masked, file)
            with self._naming:
                if str(form.get("overwrite")) not in ("true", "1"):
                    target = _free(target, new)
                if not target.is_file() or not filecmp.cmp(target, new, shallow=False):
                    new.replace(target)
        name = Path(upload.filename).with_name(target.name).as_posix()
        return {"name": name, "subfolder": subfolder, "type": kind}


async def _form(request: web.Request) -> Any:
    try:
        return await request.post()
    except _NO_FORM as error:
        raise web.HTTPBadRequest(text="the body must be a form") from error


def _free(target: Path, new: Path) -> Path:
    """`target`, or that name with a number if another file has it."""
    path, count = target, 1
    while path.exists() and not filecmp.cmp(path, new, shallow=False):
        path, count = target.with_name(f"{target.stem} ({count}){target.suffix}"), count + 1
    return path


@contextmanager
def _image(file: Path | IO[bytes]) -> Iterator[Image.Image]:
    """An image. Raises one of _NO_IMAGE."""
    with Image.open(file) as opened:
        if opened.format in _PROGRAMS or opened.width * opened.height > _MAX_PIXELS:
            raise ValueError("not shown")
        yield opened


def _put_mask(mask: IO[bytes], original: Path, new: IO[bytes]) -> None:
    """Write the original as PNG with the alpha of the mask. Its metadata stay."""
    try:
        with _image(original) as opened, _image(mask) as alpha:
            notes = PngImagePlugin.PngInfo()
            for key, text in getattr(opened, "text", {}).items():
                notes.add_text(key, text)
            image = opened.convert("RGBA")
            image.putalpha(alpha.convert("RGBA").resize(image.size).getchannel("A"))
            image.save(new, "PNG", compress_level=4, pnginfo=notes)
    except _NO_IMAGE as error:
        raise web.HTTPBadRequest(text="the mask or the original is not an image") from error


def _rendered(file: Path, preview: str | None, channel: str) -> tuple[bytes, str]:
    """An image as `preview` (`format;quality`) or `channel` say, and its format."""
    encoded = io.BytesIO()
    with _image(file) as opened:
        if preview is not None:
            wanted, quality = preview.split(";")[0], preview.split(";")[-1]
            kind = wanted if wanted in _PREVIEW_FORMATS and "a" not in channel else "webp"
            image = opened.convert("RGB") if kind == "jpeg" or channel == "rgb" else opened.convert("RGBA")
            image.save(encoded, kind, quality=_quality(quality))
            return encoded.getvalue(), kind
        if channel == "rgb":
            image = opened.convert("RGBA").convert("RGB") if opened.mode != "RGB" else opened
        else:
            alpha = opened.getchannel("A") if opened.mode == "RGBA" else Image.new("L", opened.size, 255)
            image = Image.new("RGBA", opened.size)
            image.putalpha(alpha)
        image.save(encoded, "PNG")
        return encoded.getvalue(), "png"


def _quality(text: str) -> int:
    return min(int(text), _MAX_QUALITY) if text.isdecimal() and len(text) <= 3 else 90
