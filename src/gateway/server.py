"""The gateway: ComfyUI's own API and editor on this machine, over an endpoint that runs the prompts."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from ..endpoint.loopback import listen, quiet_log, refusing_other_pages
from ..protocol.clients import Clients
from ..protocol.executor import Folders
from ..protocol.server import Route, Server
from ..settings import BucketConfig
from ..storage.bucket import Bucket
from .endpoint import Endpoint
from .executor import JobExecutor
from .frontend import Frontend, listed_models
from .images import Images
from .input_files import Sender
from .input_lists import with_files_of, with_local_files
from .jobs import Jobs
from .node_classes import NodeClasses
from .results import ResultSaver
from .safe_files import telling_file_errors
from .store import StoredQueue
from .user_data import UserData

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_OTHER_PAGES = "pages of another origin may not use this gateway"
_NOT_KNOWN = "the node classes are not known yet: "
_UNLISTED_FOLDERS = ("configs", "custom_nodes")


@dataclass(frozen=True)
class GatewayOptions:
    """The endpoint's URL and key, where the gateway listens, and the folder in which it keeps everything."""

    url: str
    key: str
    port: int
    folder: Path
    bucket: BucketConfig | None = None


class Gateway(Server):
    """ComfyUI's server as far as the editor and API clients need it."""

    def __init__(self, options: GatewayOptions) -> None:
        folder = options.folder.absolute()
        self.folders = Folders(*(folder / name for name in ("input", "output", "temp")))
        self._user_folder = folder / "user"
        for needed in (self.folders.input, self.folders.output, self.folders.temp, self._user_folder):
            needed.mkdir(parents=True, exist_ok=True)
        endpoint = Endpoint(options.url, options.key)
        bucket = Bucket(options.bucket) if options.bucket else None
        self.classes = NodeClasses(endpoint, folder / "node_classes.json.gz")
        self._store = StoredQueue(folder / "prompts.db")
        clients = Clients()
        executor = JobExecutor(
            self.folders,
            endpoint,
            self.classes,
            self._store,
            Sender(bucket),
            ResultSaver(self.folders, endpoint, bucket),
            clients.takes_previews,
        )
        super().__init__(executor, sys.argv, self._store, clients)
        self._asking: asyncio.Task[None] | None = None
        self._frontend = Frontend(self.folders)
        self._parts = (
            UserData(self._user_folder),
            Images(self.folders),
            Jobs(self._store, self.cancel),
            self._frontend,
        )

    def application(self) -> web.Application:
        """See `Server`; with the guard of this machine, and the editor."""
        application = super().application()
        application.middlewares.extend((refusing_other_pages(_OTHER_PAGES), telling_file_errors))
        application.router.add_post("/gateway/refresh", self.refresh)
        application.router.add_post("/api/gateway/refresh", self.refresh)
        self._frontend.add_to(application)
        application.on_startup.append(self._ask_if_unknown)
        return application

    def routes(self) -> list[Route]:
        """See `Server`."""
        own = [
            ("GET", "/models", self.model_folders),
            ("GET", "/models/{folder}", self.models),
            ("GET", "/experiment/models", self.listed_model_folders),
            ("GET", "/experiment/models/{folder}", self.listed_models),
            ("GET", "/embeddings", self.embeddings),
            ("GET", "/node_replacements", self.node_replacements),
            *(route for part in self._parts for route in part.routes()),
        ]
        replaced = {(method, path) for method, path, _ in own}
        return [*own, *(route for route in super().routes() if route[:2] not in replaced)]

    async def cancel(self, prompt_ids: Iterable[str]) -> bool:
        """End prompts that wait or run; whether there were any."""
        wanted = set(prompt_ids)
        there = {queued.prompt_id for queued in [*self.queue.pending, *self.queue.running]} & wanted
        taken = [*self.queue.delete(there), *(queued.prompt_id for queued in self.queue.running)]
        for prompt_id in there & set(taken):
            self.executor.withdraw(prompt_id)
        await self.broadcast_status()
        return bool(there)

    # --- What the worker has ---------------------------------------------------------------------------

    async def all_classes(self, request: web.Request) -> web.Response:
        """GET /object_info: those that are kept; the first time those that the endpoint is asked for."""
        await self._classes_known()
        shown = await asyncio.to_thread(with_local_files, self.classes.kept.object_info, self.folders)
        response = web.json_response(shown)
        response.enable_compression()
        return response

    async def one_class(self, request: web.Request) -> web.Response:
        """GET /object_info/{class}: empty for an unknown one."""
        await self._classes_known()
        name = request.match_info["class_type"]
        entry = self.classes.kept.object_info.get(name)
        return web.json_response({} if entry is None else {name: with_files_of(entry, self.folders)})

    async def refresh(self, request: web.Request) -> web.Response:
        """POST /gateway/refresh: ask the endpoint for its classes and models; `error` says why that failed."""
        await self._ask()
        return web.json_response({"error": self.classes.failure})

    async def model_folders(self, request: web.Request) -> web.Response:
        """GET /models."""
        return web.json_response([name for name in self.classes.kept.models if name not in _UNLISTED_FOLDERS])

    async def models(self, request: web.Request) -> web.Response:
        """GET /models/{folder}: 404 for an unknown one."""
        return web.json_response(self._models_in(request))

    async def listed_model_folders(self, request: web.Request) -> web.Response:
        """GET /experiment/models."""
        models = {name: files for name, files in self.classes.kept.models.items() if name not in _UNLISTED_FOLDERS}
        return web.json_response(listed_models(models))

    async def listed_models(self, request: web.Request) -> web.Response:
        """GET /experiment/models/{folder}."""
        return web.json_response([{"name": name, "pathIndex": 0} for name in self._models_in(request)])

    async def embeddings(self, request: web.Request) -> web.Response:
        """GET /embeddings: their names without endings."""
        names = self.classes.kept.models.get("embeddings", [])
        return web.json_response([name.rpartition(".")[0] or name for name in names])

    async def node_replacements(self, request: web.Request) -> web.Response:
        """GET /node_replacements."""
        return web.json_response(self.classes.kept.node_replacements)

    async def system_stats(self, request: web.Request) -> web.Response:
        """GET /system_stats: of the worker that was asked last."""
        system = {
            "os": sys.platform,
            "comfyui_version": self.executor.version,
            "python_version": sys.version,
            "pytorch_version": self.classes.kept.versions.get("comfyui_torch", ""),
            "embedded_python": False,
            "argv": [],
            **self.classes.kept.memory,
        }
        return web.json_response({"system": system, "devices": list(self.executor.devices)})

    def features(self) -> dict[str, Any]:
        """See `Server`."""
        return {**super().features(), "node_replacements": True, "supports_model_type_tags": False, "assets": False}

    def _models_in(self, request: web.Request) -> list[str]:
        folder = request.match_info["folder"]
        if folder not in self.classes.kept.models:
            raise web.HTTPNotFound
        return self.classes.kept.models[folder]

    async def _classes_known(self) -> None:
        """Wait until the classes are known. Raises HTTPBadGateway if they cannot be had."""
        if not self.classes.are_known:
            await self._ask()
        if not self.classes.are_known:
            raise web.HTTPBadGateway(text=_NOT_KNOWN + self.classes.failure)

    async def _ask(self) -> None:
        """Ask for the classes, once for all who wait for them."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(asyncio.to_thread(self.classes.ask))
        await asyncio.shield(self._asking)

    async def _ask_if_unknown(self, _: web.Application) -> None:
        if not self.classes.are_known:
            self._first_asking = asyncio.create_task(self._ask())


def serve_gateway(options: GatewayOptions, on_ready: Callable[[], None]) -> int:
    """Serve until SIGINT or SIGTERM; the exit status. `on_ready` is called once it listens. Raises PortTaken."""
    return asyncio.run(_serve(options, on_ready))


async def _serve(options: GatewayOptions, on_ready: Callable[[], None]) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    gateway = Gateway(options)
    runner = web.AppRunner(gateway.application(), access_log=None, shutdown_timeout=1.0, logger=quiet_log())
    await runner.setup()
    try:
        await listen(runner, _HOST, options.port)
        on_ready()
        await stopped.wait()
    finally:
        await runner.cleanup()
    if gateway.queue.remaining:
        log.warning("%d prompts are not done: start the gateway again for their results", gateway.queue.remaining)
    return 0
