"""Files of the gateway's folders for a browser: which may be read, and with which headers."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from ..outputs.content_types import content_type

# Types that a browser would run in the name of this server.
_ACTIVE = ("text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml", "text/css")
_SCRIPTS = ("javascript", "ecmascript")


def inside(folder: Path, name: str) -> Path:
    """Where a file of the folder is. Raises HTTPBadRequest for no name, HTTPForbidden for a place outside."""
    if not name or "\0" in name:
        raise web.HTTPBadRequest(text="no file name")
    root = folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise web.HTTPForbidden(text="outside of the folder")
    return path


def headers_of(name: str, request: web.Request) -> dict[str, str]:
    """The headers of a file: of an active type it is a download, except for an SVG in an <img>, where it is inert."""
    kind = content_type(name)
    is_active = kind in _ACTIVE or any(word in kind for word in _SCRIPTS)
    if kind == "image/svg+xml" and request.headers.get("Sec-Fetch-Dest") == "image":
        is_active = False
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return {
        "Content-Type": "application/octet-stream" if is_active else kind,
        "Content-Disposition": f'{"attachment; " if is_active else ""}filename="{quoted}"',
        "X-Content-Type-Options": "nosniff",
        "Vary": "Sec-Fetch-Dest",
    }
