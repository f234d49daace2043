"""Uploads of files and masks, and what /view shows of images, as ComfyUI does it."""

from __future__ import annotations

import asyncio
import filecmp
import io
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from PIL import Image, PngImagePlugin

from ..protocol.executor import Folders
from ..protocol.server import Route
from .safe_files import headers_of, inside

_ANNOTATED = re.compile(r"^(.+?) \[(input|output|temp)\]$")
_TYPES = ("input", "output", "temp")
_PREVIEW_FORMATS = ("webp", "jpeg")
_MAX_PIXELS = 150_000_000


@dataclass(frozen=True)
class Images:
    """The routes, over the gateway's folders."""

    folders: Folders

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
        form = await request.post()
        return web.json_response(await asyncio.to_thread(self._save_upload, form, None))

    async def upload_mask(self, request: web.Request) -> web.Response:
        """POST /upload/mask: the alpha of the image in the form becomes that of the one in `original_ref`."""
        form = await request.post()
        try:
            reference = json.loads(str(form.get("original_ref", "")))
            original = self._file(
                reference.get("type", "output"), reference.get("subfolder", ""), reference["filename"]
            )
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise web.HTTPBadRequest(text="original_ref must be an object with a filename") from error
        if not original.is_file():
            raise web.HTTPNotFound(text="the original image does not exist")
        return web.json_response(await asyncio.to_thread(self._save_upload, form, original))

    async def view(self, request: web.Request) -> web.StreamResponse:
        """GET /view: a file, or with `preview=webp;75` or `channel=rgb|a` what it says of an image."""
        query = request.query
        annotated = _ANNOTATED.match(query.get("filename", ""))
        filename, kind = annotated.groups() if annotated else (query.get("filename", ""), query.get("type", "output"))
        name = Path(filename).name
        if not name:
            raise web.HTTPNotFound(text="no filename")
        file = self._file(kind, query.get("subfolder", ""), name)
        if not file.is_file():
            raise web.HTTPNotFound
        channel = query.get("channel", "rgba")
        if "preview" not in query and channel not in ("rgb", "a"):
            return web.FileResponse(file, headers=headers_of(name, request))
        try:
            body, kind = await asyncio.to_thread(_rendered, file, query.get("preview"), channel)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise web.HTTPUnsupportedMediaType(text="the file is not an image") from error
        return web.Response(body=body, content_type=f"image/{kind}")

    def _file(self, kind: Any, subfolder: Any, name: Any) -> Path:
        if kind not in _TYPES:
            raise web.HTTPBadRequest(text=f"type must be one of {', '.join(_TYPES)}")
        root: Path = getattr(self.folders, kind)
        return inside(root, f"{subfolder}/{name}".lstrip("/"))

    def _save_upload(self, form: Any, masked: Path | None) -> dict[str, str]:
        """Save the file in a form; what the response says of it. `masked` is the image that gets its alpha."""
        upload, kind, subfolder = form.get("image"), str(form.get("type") or "input"), str(form.get("subfolder") or "")
        if not isinstance(upload, web.FileField) or not Path(upload.filename).name:
            raise web.HTTPBadRequest(text="the form has no file `image`")
        target = self._file(kind, subfolder, upload.filename)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".upload-") as new:
            if masked is None:
                shutil.copyfileobj(upload.file, new)
            else:
                _put_mask(upload.file, masked, new)
            new.flush()
            overwrites = str(form.get("overwrite")) in ("true", "1")
            target = target if overwrites else _free(target, Path(new.name))
            shutil.copyfile(new.name, target)
        name = Path(upload.filename).with_name(target.name).as_posix()
        return {"name": name, "subfolder": subfolder, "type": kind}


def _free(target: Path, new: Path) -> Path:
    """`target`, or that name with a number if another file has it."""
    path, count = target, 1
    while path.exists() and not filecmp.cmp(path, new, shallow=False):
        path, count = target.with_name(f"{target.stem} ({count}){target.suffix}"), count + 1
    return path


def _put_mask(mask: Any, original: Path, new: Any) -> None:
    """Write the original as PNG with the alpha of the mask. Its metadata stay."""
    try:
        with Image.open(original) as opened, Image.open(mask) as alpha:
            _check_size(opened)
            _check_size(alpha)
            notes = PngImagePlugin.PngInfo()
            for key, text in getattr(opened, "text", {}).items():
                notes.add_text(key, text)
            image = opened.convert("RGBA")
            image.putalpha(alpha.convert("RGBA").resize(image.size).getchannel("A"))
            image.save(new, "PNG", compress_level=4, pnginfo=notes)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise web.HTTPBadRequest(text="the mask or the original is not an image") from error


def _rendered(file: Path, preview: str | None, channel: str) -> tuple[bytes, str]:
    """An image as `preview` (`format;quality`) or `channel` say, and its format."""
    encoded = io.BytesIO()
    with Image.open(file) as opened:
        _check_size(opened)
        if preview is not None:
            wanted, _, quality = preview.partition(";")
            kind = wanted if wanted in _PREVIEW_FORMATS and channel != "a" else "webp"
            image = opened.convert("RGB") if kind == "jpeg" or channel == "rgb" else opened.convert("RGBA")
            image.save(encoded, kind, quality=int(quality) if quality.isdigit() else 90)
            return encoded.getvalue(), kind
        if channel == "rgb":
            image = opened.convert("RGBA").convert("RGB") if opened.mode != "RGB" else opened
        else:
            alpha = opened.getchannel("A") if opened.mode == "RGBA" else Image.new("L", opened.size, 255)
            image = Image.new("RGBA", opened.size)
            image.putalpha(alpha)
        image.save(encoded, "PNG")
        return encoded.getvalue(), "png"


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise ValueError("too large")
