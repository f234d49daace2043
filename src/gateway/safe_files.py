"""Files of the gateway's folders for a browser: which may be read, and with which headers; new files."""

from __future__ import annotations

import errno
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from ..outputs.content_types import content_type

_ANNOTATED = re.compile(r"^(?P<name>.+?)\s*\[(?P<folder>input|output|temp)\]\s*$", re.DOTALL)

# Types that a browser would run in the name of this server, besides all that are XML.
_ACTIVE = ("text/html", "text/html-sandboxed", "text/css", "message/rfc822", "multipart/related")
_SCRIPTS = ("javascript", "ecmascript")
_SVG = "image/svg+xml"
_BAD_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ, errno.ELOOP)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def name_and_folder(text: str, folder: Any) -> tuple[str, Any]:
    """The name and the folder of a file: `x.png [output]` has its folder in its name, as ComfyUI's nodes write it."""
    annotated = _ANNOTATED.match(text)
    return (annotated["name"], annotated["folder"]) if annotated else (text, folder)


def inside(folder: Path, name: str | Path) -> Path:
    """Where something in the folder is. Raises HTTPBadRequest for no name, HTTPForbidden for a place outside."""
    if not str(name) or "\0" in str(name):
        raise web.HTTPBadRequest(text="no file name")
    root = folder.resolve()
    try:
        path = (root / name).resolve()
    except (ValueError, RuntimeError) as error:  # names that no file has; links in a circle
        raise web.HTTPBadRequest(text="not a file name") from error
    if path == root or not path.is_relative_to(root):
        raise web.HTTPForbidden(text="outside of the folder")
    return path


def headers_of(name: str, request: web.Request, is_download: bool = False) -> dict[str, str]:
    """The headers of a file: of an active type it is a download, except for an SVG in an <img>, where it is inert."""
    kind = content_type(name)
    is_active = kind in _ACTIVE or kind.endswith("xml") or any(word in kind for word in _SCRIPTS)
    caching = {"Cache-Control": "no-store"} if is_active else {}
    if kind == _SVG and request.headers.get("Sec-Fetch-Dest") == "image":
        is_active = False
    return {
        "Content-Type": "application/octet-stream" if is_active else kind,
        "Content-Disposition": disposition(name, is_active or is_download),
        "X-Content-Type-Options": "nosniff",
        "Vary": "Sec-Fetch-Dest",
        **caching,
    }


def disposition(name: str, is_download: bool = False) -> str:
    """The header that says what a file is called."""
    shown = "".join(character if character.isprintable() else "_" for character in name)
    quoted = shown.replace("\\", "\\\\").replace('"', '\\"')
    return f'{"attachment; " if is_download else ""}filename="{quoted}"'


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Where to write a file that is then moved to `path`, as a whole or not at all; deleted if it was not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{uuid.uuid4().hex}.new")
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


@web.middleware
async def telling_file_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers with what is wrong where the file system refuses: names that no file can have, a full disk."""
    try:
        return await handler(request)
    except OSError as error:
        if isinstance(error, ConnectionError) or error.errno is None:
            raise
        status = 400 if error.errno in _BAD_NAMES else 507 if error.errno in _FULL else 500
        return web.json_response({"error": error.strerror}, status=status)
