"""HTTP routes, websocket and queue of the draft engine."""

from __future__ import annotations

import asyncio
import heapq
import platform
import struct
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from .executor import Executor, Item
from .schema import served_object_info
from .validation import validate

VERSION = "0.3.64"
"""The version of ComfyUI whose protocol this is."""

_MAX_BODY = 100 * 1024 * 1024
_PNG_FRAME = struct.pack(">II", 1, 2)  # a picture, in PNG
_FOLDER_TYPES = ("input", "output", "temp")


@dataclass
class Server:
    """The state behind the routes. Everything but `prompt_worker` runs on the event loop."""

    executor: Executor
    argv: list[str]
    _pending: list[tuple[float, int, Item]] = field(default_factory=list)
    _running: Item | None = None
    _history: dict[str, Any] = field(default_factory=dict)
    _sockets: dict[str, web.WebSocketResponse] = field(default_factory=dict)
    _count: int = 0
    _wake: threading.Condition = field(default_factory=threading.Condition)

    def application(self) -> web.Application:
        """The routes, each also under /api, as ComfyUI has them."""
        application = web.Application(client_max_size=_MAX_BODY)
        routes: list[tuple[str, str, Callable[[web.Request], Any]]] = [
            ("GET", "/ws", self.socket),
            ("GET", "/prompt", self.remaining),
            ("POST", "/prompt", self.queue_prompt),
            ("GET", "/queue", self.show_queue),
            ("POST", "/queue", self.change_queue),
            ("GET", "/history", self.show_history),
            ("GET", "/history/{prompt_id}", self.show_entry),
            ("POST", "/history", self.change_history),
            ("POST", "/interrupt", self.interrupt),
            ("POST", "/free", self.free),
            ("GET", "/view", self.view),
            ("GET", "/object_info", self.all_classes),
            ("GET", "/object_info/{class_type}", self.one_class),
            ("GET", "/models", self.no_models),
            ("GET", "/models/{folder}", self.no_models),
            ("GET", "/system_stats", self.system_stats),
            ("GET", "/features", self.features),
        ]
        for method, path, route in routes:
            application.router.add_route(method, path, route)
            application.router.add_route(method, f"/api{path}", route)
        application.on_startup.append(self._start_worker)
        return application

    # --- Queue -------------------------------------------------------------------------------------

    async def queue_prompt(self, request: web.Request) -> web.Response:
        """POST /prompt."""
        body = await request.json()
        if "prompt" not in body:
            error = {
                "type": "no_prompt",
                "message": "No prompt provided",
                "details": "No prompt provided",
                "extra_info": {},
            }
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        self._count += 1
        verdict = validate(body["prompt"], self.executor.folders)
        if verdict.error:
            return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        extra = dict(body.get("extra_data") or {})
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        number = (
            float(body["number"]) if "number" in body else float(-self._count if body.get("front") else self._count)
        )
        item = Item(number, str(body.get("prompt_id") or uuid.uuid4()), body["prompt"], extra, verdict.outputs)
        with self._wake:
            heapq.heappush(self._pending, (number, self._count, item))
            self._wake.notify()
        await self._broadcast_status()
        return web.json_response({"prompt_id": item.prompt_id, "number": number, "node_errors": verdict.node_errors})

    async def remaining(self, request: web.Request) -> web.Response:
        """GET /prompt."""
        return web.json_response(self._status())

    async def show_queue(self, request: web.Request) -> web.Response:
        """GET /queue."""
        running = [self._running.as_json()] if self._running else []
        return web.json_response(
            {"queue_running": running, "queue_pending": [item.as_json() for _, _, item in sorted(self._pending)]}
        )

    async def change_queue(self, request: web.Request) -> web.Response:
        """POST /queue: delete or clear what waits."""
        body = await request.json()
        with self._wake:
            dropped = (
                [] if body.get("clear") else [e for e in self._pending if e[2].prompt_id not in body.get("delete", [])]
            )
            self._pending[:] = dropped
            heapq.heapify(self._pending)
        await self._broadcast_status()
        return web.Response()

    async def interrupt(self, request: web.Request) -> web.Response:
        """POST /interrupt: what runs, or only the prompt that is named if it does."""
        body = await request.json() if request.can_read_body else {}
        wanted = body.get("prompt_id")
        if wanted is None or (self._running and self._running.prompt_id == wanted):
            self.executor.interrupt.set()
        return web.Response()

    async def free(self, request: web.Request) -> web.Response:
        """POST /free."""
        if (await request.json()).get("free_memory"):
            self.executor.forget()
        return web.Response()

    def _status(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": len(self._pending) + (1 if self._running else 0)}}

    # --- Worker thread -----------------------------------------------------------------------------

    async def _start_worker(self, application: web.Application) -> None:
        loop = asyncio.get_running_loop()
        threading.Thread(target=self.prompt_worker, args=(loop,), daemon=True).start()

    def prompt_worker(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run prompts one after the other, for ever."""

        def on_loop(coroutine: Any) -> None:
            asyncio.run_coroutine_threadsafe(coroutine, loop).result()

        while True:
            with self._wake:
                while not self._pending:
                    self._wake.wait()
                self._running = item = heapq.heappop(self._pending)[2]
            client = item.extra_data.get("client_id")
            on_loop(self._broadcast_status())
            entry = self.executor.run(item, lambda kind, data: on_loop(self._send(client, kind, data)))  # noqa: B023
            self._history[item.prompt_id] = entry
            self._running = None
            on_loop(self._broadcast_status())
            on_loop(self._send(client, "executing", {"node": None, "prompt_id": item.prompt_id}))

    # --- Events ------------------------------------------------------------------------------------

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """GET /ws?clientId=…"""
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        client = request.query.get("clientId") or uuid.uuid4().hex
        self._sockets[client] = connection
        await connection.send_json({"type": "status", "data": {"status": self._status(), "sid": client}})
        try:
            async for message in connection:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            self._sockets.pop(client, None)
        return connection

    async def _send(self, client: str | None, kind: str, data: dict[str, Any] | bytes) -> None:
        connection = self._sockets.get(client or "")
        if connection is None or connection.closed:
            return
        if isinstance(data, bytes):
            await connection.send_bytes(_PNG_FRAME + data)
        else:
            await connection.send_json({"type": kind, "data": data})

    async def _broadcast_status(self) -> None:
        for client in list(self._sockets):
            await self._send(client, "status", {"status": self._status()})

    # --- History and files -------------------------------------------------------------------------

    async def show_history(self, request: web.Request) -> web.Response:
        """GET /history."""
        return web.json_response(self._history)

    async def show_entry(self, request: web.Request) -> web.Response:
        """GET /history/{id}: empty until the prompt ended."""
        prompt_id = request.match_info["prompt_id"]
        return web.json_response({prompt_id: self._history[prompt_id]} if prompt_id in self._history else {})

    async def change_history(self, request: web.Request) -> web.Response:
        """POST /history: delete or clear entries."""
        body = await request.json()
        for prompt_id in list(self._history) if body.get("clear") else body.get("delete", []):
            self._history.pop(prompt_id, None)
        return web.Response()

    async def view(self, request: web.Request) -> web.StreamResponse:
        """GET /view: a file."""
        kind, name = request.query.get("type", "output"), request.query.get("filename", "")
        if kind not in _FOLDER_TYPES or not name or name.startswith("/") or ".." in name:
            return web.Response(status=400)
        root: Path = getattr(self.executor.folders, kind)
        file = (root / request.query.get("subfolder", "") / Path(name).name).resolve()
        if not file.is_relative_to(root.resolve()):
            return web.Response(status=403)
        return web.FileResponse(file) if file.is_file() else web.Response(status=404)

    # --- About -------------------------------------------------------------------------------------

    async def all_classes(self, request: web.Request) -> web.Response:
        """GET /object_info."""
        return web.json_response(served_object_info())

    async def one_class(self, request: web.Request) -> web.Response:
        """GET /object_info/{class}: empty for an unknown one."""
        name, classes = request.match_info["class_type"], served_object_info()
        return web.json_response({name: classes[name]} if name in classes else {})

    async def no_models(self, request: web.Request) -> web.Response:
        """GET /models and /models/{folder}: there are none here."""
        return web.json_response([])

    async def system_stats(self, request: web.Request) -> web.Response:
        """GET /system_stats."""
        system = {
            "os": "posix",
            "comfyui_version": VERSION,
            "python_version": platform.python_version(),
            "argv": self.argv,
        }
        return web.json_response({"system": system, "devices": [{"name": "draft", "type": "cpu", "index": None}]})

    async def features(self, request: web.Request) -> web.Response:
        """GET /features."""
        return web.json_response({"supports_preview_metadata": False, "max_upload_size": _MAX_BODY})
