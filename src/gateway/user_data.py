"""Users, settings and the files of users (saved workflows first), kept in a folder as ComfyUI keeps them.

There is one user.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from ..protocol.bodies import read_json
from ..protocol.server import Route
from .safe_files import headers_of, inside, new_file

_SETTINGS = "comfy.settings.json"
_STYLE = "user.css"
_FLAGS = ("recurse", "full_info", "split")


@dataclass(frozen=True)
class UserData:
    """The routes, over one folder."""

    folder: Path

    def routes(self) -> list[Route]:
        """Method, path and handler of each."""
        return [
            ("GET", "/users", self.users),
            ("GET", "/settings", self.all_settings),
            ("POST", "/settings", self.change_settings),
            ("GET", "/settings/{id}", self.setting),
            ("POST", "/settings/{id}", self.change_setting),
            ("GET", "/userdata", self.list_files),
            ("GET", "/v2/userdata", self.list_entries),
            ("GET", "/userdata/{file}", self.read),
            ("POST", "/userdata/{file}", self.write),
            ("DELETE", "/userdata/{file}", self.delete),
            ("POST", "/userdata/{file}/move/{dest}", self.move),
        ]

    async def users(self, _: web.Request) -> web.Response:
        """GET /users: there is one."""
        return web.json_response({"storage": "server", "migrated": True})

    # --- Settings --------------------------------------------------------------------------------------

    async def all_settings(self, _: web.Request) -> web.Response:
        """GET /settings: id to value."""
        return web.json_response(self._settings())

    async def setting(self, request: web.Request) -> web.Response:
        """GET /settings/{id}: null for one that is not set."""
        return web.json_response(self._settings().get(request.match_info["id"]))

    async def change_settings(self, request: web.Request) -> web.Response:
        """POST /settings: an object of some of them."""
        changed = await read_json(request)
        if not isinstance(changed, dict):
            raise web.HTTPBadRequest(text="the body must be an object of settings")
        self._save_settings({**self._settings(), **changed})
        return web.Response()

    async def change_setting(self, request: web.Request) -> web.Response:
        """POST /settings/{id}."""
        value = await read_json(request)  # before the others are read: there may be several such requests at a time
        self._save_settings({**self._settings(), request.match_info["id"]: value})
        return web.Response()

    def _settings(self) -> dict[str, Any]:
        try:
            settings = json.loads((self.folder / _SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return settings if isinstance(settings, dict) else {}

    def _save_settings(self, settings: dict[str, Any]) -> None:
        _write(self.folder / _SETTINGS, json.dumps(settings, indent=4).encode())

    # --- Files -----------------------------------------------------------------------------------------

    async def list_files(self, request: web.Request) -> web.Response:
        """GET /userdata?dir=…: the files there, as paths or, with `full_info`, with size and times in milliseconds.

        Without hidden ones: the editor keeps its own notes in such.
        """
        query = request.query
        if not query.get("dir"):
            raise web.HTTPBadRequest(text="Directory not provided")
        folder = self._folder(query["dir"])
        if not folder.is_dir():
            raise web.HTTPNotFound(text="Directory not found")
        is_deep, is_full, is_split = (query.get(name, "").lower() == "true" for name in _FLAGS)
        files = (path for path in (folder.rglob("*") if is_deep else folder.iterdir()) if path.is_file())
        paths = [(path, path.relative_to(folder).as_posix()) for path in sorted(files)]
        paths = [(path, name) for path, name in paths if not name.startswith(".") and "/." not in name]
        return web.json_response(
            [_info(path, name) if is_full else [name, *name.split("/")] if is_split else name for path, name in paths]
        )

    async def list_entries(self, request: web.Request) -> web.Response:
        """GET /v2/userdata?path=…: the folders and files below, folders first."""
        folder = self._folder(request.query.get("path") or ".")
        if folder.is_file():
            raise web.HTTPBadRequest(text="Requested path is not a directory")
        if not folder.is_dir():
            raise web.HTTPNotFound(text="Requested path not found")
        entries = sorted(folder.rglob("*"), key=lambda path: (not path.is_dir(), path.name.lower()))
        return web.json_response([self._entry(path) for path in entries])

    def _entry(self, path: Path) -> dict[str, Any]:
        place = {"name": path.name, "path": path.relative_to(self.folder.resolve()).as_posix()}
        if path.is_dir():
            return {**place, "type": "directory"}
        try:
            status = path.stat()
        except OSError:  # a link to nothing
            return {**place, "type": "file"}
        return {**place, "type": "file", "size": status.st_size, "modified": status.st_mtime}

    async def read(self, request: web.Request) -> web.StreamResponse:
        """GET /userdata/{file}. Never shown by a browser as a page of this server, but for the user's style sheet."""
        path = self._path(request.match_info["file"])
        if not path.is_file():
            raise web.HTTPNotFound
        headers = headers_of(path.name, request, is_download=True)
        if path == self.folder.resolve() / _STYLE:
            headers = {"Content-Type": "text/css", "X-Content-Type-Options": "nosniff"}
        return web.FileResponse(path, headers=headers)

    async def write(self, request: web.Request) -> web.Response:
        """POST /userdata/{file}: the body is its content; with `overwrite=false` 409 if it exists."""
        path = self._path(request.match_info["file"])
        if path.is_dir():
            raise web.HTTPBadRequest(text="this is a directory")
        if request.query.get("overwrite") == "false" and path.exists():
            raise web.HTTPConflict(text="File already exists")
        _write(path, await request.read())
        return self._told(path, request)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /userdata/{file}."""
        path = self._path(request.match_info["file"])
        if not path.is_file():
            raise web.HTTPNotFound
        path.unlink()
        return web.Response(status=204)

    async def move(self, request: web.Request) -> web.Response:
        """POST /userdata/{file}/move/{dest}: with `overwrite=false` 409 if there is a file."""
        source, target = self._path(request.match_info["file"]), self._path(request.match_info["dest"])
        if not source.is_file():
            raise web.HTTPNotFound
        if target.is_dir():
            raise web.HTTPBadRequest(text="this is a directory")
        if request.query.get("overwrite") == "false" and target.exists():
            raise web.HTTPConflict(text="File already exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
        return self._told(target, request)

    def _path(self, name: str) -> Path:
        """Where a file of the user is. Raises HTTPForbidden for one outside the folder."""
        return inside(self.folder, name)

    def _folder(self, name: str) -> Path:
        return self.folder.resolve() if name in (".", "./") else self._path(name)

    def _told(self, path: Path, request: web.Request) -> web.Response:
        name = path.relative_to(self.folder.resolve()).as_posix()
        return web.json_response(_info(path, name) if request.query.get("full_info") == "true" else name)


def _info(path: Path, name: str) -> dict[str, Any]:
    status = path.stat()
    times = {"modified": int(status.st_mtime * 1000), "created": int(status.st_ctime * 1000)}
    return {"path": name, "size": status.st_size, **times}


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    with new_file(path) as new:
        new.write_bytes(content)
        new.replace(path)
