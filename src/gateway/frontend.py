"""ComfyUI's editor, from its package on PyPI, and what it asks for at its start besides the queue and the classes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiohttp import web

from ..protocol.executor import Folders
from ..protocol.server import Route
from .safe_files import headers_of, inside

_EDITOR = "comfyui_frontend_package"
_TEMPLATE_PACKAGES = ("json", "media_image", "media_video", "media_api", "media_other", "media_assets_01")
_EXTENSION = "gateway.js"
_NO_CACHE = {"Cache-Control": "no-store, must-revalidate"}
_NO_EDITOR = (
    "This is ComfyUI's API in front of a RunPod endpoint. For the editor as well: pip install -r "
    "requirements-gateway.txt, then start the gateway again.\n"
)


def editor_version() -> str:
    """The version of the editor, "" if it is not installed."""
    if not _editor_folder():
        return ""
    try:
        return metadata.version("comfyui-frontend-package")
    except metadata.PackageNotFoundError:  # only its folder is on the path
        return "of an unknown version"


@dataclass(frozen=True)
class Frontend:
    """The editor's files and routes of little interest."""

    folders: Folders

    def routes(self) -> list[Route]:
        """Method, path and handler of each."""
        return [
            ("GET", "/extensions", self.extensions),
            ("GET", "/i18n", self.nothing),
            ("GET", "/workflow_templates", self.nothing),
            ("GET", "/global_subgraphs", self.nothing),
        ]

    def add_to(self, application: web.Application) -> None:
        """Add the routes that are not below /api, the editor's files last: they are at every other path."""
        router = application.router
        router.add_get("/internal/folder_paths", self.nothing)
        router.add_get("/internal/logs", self.log_text)
        router.add_get("/internal/logs/raw", self.logs)
        router.add_patch("/internal/logs/subscribe", self.nothing)
        router.add_get("/internal/files/{type}", self.files)
        router.add_get(f"/extensions/gateway/{_EXTENSION}", self.extension)
        router.add_get("/templates/{file:.+}", self.template)
        router.add_get("/", self.page)
        if editor := _editor_folder():
            router.add_static("/", editor)

    async def page(self, _: web.Request) -> web.StreamResponse:
        """GET /: the editor, or where it is to be had."""
        editor = _editor_folder()
        return web.FileResponse(editor / "index.html", headers=_NO_CACHE) if editor else web.Response(text=_NO_EDITOR)

    async def extensions(self, _: web.Request) -> web.Response:
        """GET /extensions: the scripts that the editor loads: its own, and the gateway's."""
        editor = _editor_folder()
        own = sorted((editor / "extensions").rglob("*.js")) if editor else []
        scripts = [f"/{path.relative_to(editor).as_posix()}" for path in own if editor]
        return web.json_response([*scripts, f"/extensions/gateway/{_EXTENSION}"])

    async def extension(self, _: web.Request) -> web.StreamResponse:
        """GET /extensions/gateway/gateway.js: it asks the endpoint for its classes when a person refreshes them."""
        headers = {"Content-Type": "text/javascript", **_NO_CACHE}
        return web.FileResponse(Path(__file__).with_name(_EXTENSION), headers=headers)

    async def template(self, request: web.Request) -> web.StreamResponse:
        """GET /templates/{file}: a stock template, or the list of them, of the packages that are installed."""
        name = request.match_info["file"]
        for folder in _template_folders():
            path = inside(folder, name)
            if path.is_file():
                return web.FileResponse(path, headers=headers_of(path.name, request))
        raise web.HTTPNotFound

    async def files(self, request: web.Request) -> web.Response:
        """GET /internal/files/{type}: the names in a folder, newest first, for nodes that load results."""
        kind = request.match_info["type"]
        if kind not in ("input", "output", "temp"):
            return web.json_response({"error": "Invalid directory type"}, status=400)
        folder: Path = getattr(self.folders, kind)
        files = [path for path in folder.iterdir() if _is_shown(path)] if folder.is_dir() else []
        files.sort(key=_modified, reverse=True)
        return web.json_response([f"{path.name} [{kind}]" for path in files])

    async def log_text(self, _: web.Request) -> web.Response:
        """GET /internal/logs: the same as one text."""
        return web.json_response("")

    async def logs(self, _: web.Request) -> web.Response:
        """GET /internal/logs/raw: the worker's log is in RunPod's console."""
        return web.json_response({"entries": [], "size": {"cols": 80, "rows": 24}})

    async def nothing(self, _: web.Request) -> web.Response:
        """An empty object, for what a gateway does not have."""
        return web.json_response({})


def _is_shown(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it is gone
        return 0.0


def _editor_folder() -> Path | None:
    return _package_folder(_EDITOR, "static")


def _template_folders() -> list[Path]:
    folders = (_package_folder(f"comfyui_workflow_templates_{name}", "templates") for name in _TEMPLATE_PACKAGES)
    return [folder for folder in folders if folder is not None]


def _package_folder(package: str, folder: str) -> Path | None:
    if find_spec(package) is None:
        return None
    found = Path(str(resources.files(package))) / folder
    return found if found.is_dir() else None


def listed_models(models: dict[str, Any]) -> list[dict[str, Any]]:
    """The model folders, as /experiment/models lists them."""
    return [{"name": folder, "folders": [folder], "extensions": []} for folder in models]
