"""The HTTP routes of ComfyUI, and the threads that run prompts on the executor."""

from __future__ import annotations

import asyncio
import platform
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from .bodies import ids_to_delete, is_canonical_uuid, json_of, problem_of, read_object, whole_number
from .clients import Clients
from .executor import Executor
from .queue import PromptQueue, QueuedPrompt
from .report import ENDINGS, Frame, RunReport

Route = tuple[str, str, Callable[[web.Request], Any]]

_MAX_BODY = 100 * 1024 * 1024
_FOLDER_TYPES = ("input", "output", "temp")
_BAD_PROMPT_ID = {
    "type": "invalid_prompt_id",
    "message": "prompt_id must be a valid UUID",
    "details": "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server "
    "generate one",
    "extra_info": {},
}
_NO_PROMPT = {
    "type": "no_prompt",
    "message": "No prompt provided",
    "details": "No prompt provided",
    "extra_info": {},
}


@dataclass
class Server:
    """ComfyUI's server over an executor. Everything except `prompt_worker` runs on the event loop."""

    executor: Executor
    argv: list[str]
    queue: PromptQueue = field(default_factory=PromptQueue)
    clients: Clients = field(default_factory=Clients)
    _ending: threading.Lock = field(default_factory=threading.Lock)
    """Prompts end one after the other: clients take a queue of zero for the end of all of theirs."""

    def application(self) -> web.Application:
        """The routes, each also under /api, as ComfyUI has them."""
        application = web.Application(client_max_size=_MAX_BODY)
        for method, path, route in self.routes():
            for served in (path, f"/api{path}"):
                if method == "GET":
                    application.router.add_get(served, route)  # which has HEAD as well
                else:
                    application.router.add_route(method, served, route)
        application.on_startup.append(self._start_workers)
        return application

    def routes(self) -> list[Route]:
        """Method, path and handler of each."""
        return [
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
            ("GET", "/features", self.show_features),
        ]

    # --- Queue -------------------------------------------------------------------------------------

    async def queue_prompt(self, request: web.Request) -> web.Response:
        """POST /prompt."""
        body = await read_object(request)
        if "prompt" not in body:
            return web.json_response({"error": _NO_PROMPT, "node_errors": {}}, status=400)
        prompt_id = body.get("prompt_id")
        if prompt_id is not None and not is_canonical_uuid(prompt_id):
            return web.json_response({"error": _BAD_PROMPT_ID, "node_errors": {}}, status=400)
        if problem := problem_of(body):
            error = {"type": "invalid_prompt", "message": problem, "details": "", "extra_info": {}}
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        number = self.queue.next_number(bool(body.get("front")))
        result = self.executor.validate(body["prompt"], body.get("partial_execution_targets"))
        if result.error:
            return web.json_response({"error": result.error, "node_errors": result.node_errors}, status=400)
        extra_data = dict(body.get("extra_data") or {})
        extra_data["create_time"] = int(time.time() * 1000)
        if body.get("client_id") is not None:
            extra_data["client_id"] = body["client_id"]
        if "number" in body:
            number = float(body["number"])
        prompt_id = prompt_id or str(uuid.uuid4())
        self.queue.put(QueuedPrompt(number, prompt_id, body["prompt"], extra_data, result.outputs))
        await self.broadcast_status()
        return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": result.node_errors})

    async def remaining(self, request: web.Request) -> web.Response:
        """GET /prompt."""
        return web.json_response(self._status())

    async def show_queue(self, request: web.Request) -> web.Response:
        """GET /queue."""
        running, pending, _ = self.queue.snapshot()
        names = {"queue_running": running, "queue_pending": pending}
        return web.json_response({name: [queued.as_json() for queued in prompts] for name, prompts in names.items()})

    async def change_queue(self, request: web.Request) -> web.Response:
        """POST /queue: delete some or all pending prompts."""
        body = await read_object(request)
        taken = self.queue.clear() if body.get("clear") else self.queue.delete(ids_to_delete(body))
        for prompt_id in taken:
            self.executor.withdraw(prompt_id)
        await self.broadcast_status()
        return web.Response()

    async def interrupt(self, request: web.Request) -> web.Response:
        """POST /interrupt: stop what runs; if `prompt_id` is given, only that. A body that is no object is as none.

        If nothing runs yet, what comes first is stopped: its client believes that it runs.
        """
        try:
            body = json_of(await request.read())
        except ValueError:
            body = None
        wanted = body.get("prompt_id") if isinstance(body, dict) else None
        for queued in self.queue.running if wanted else self.queue.current:
            if not wanted or wanted == queued.prompt_id:
                self.executor.interrupt(queued.prompt_id)
        return web.Response()

    async def free(self, request: web.Request) -> web.Response:
        """POST /free."""
        if (await read_object(request)).get("free_memory"):
            self.executor.free_memory()
        return web.Response()

    def _status(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.queue.remaining}}

    # --- Worker threads ----------------------------------------------------------------------------

    async def _start_workers(self, application: web.Application) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self.executor.concurrency):
            threading.Thread(target=self.prompt_worker, args=(loop,), daemon=True).start()

    def prompt_worker(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run prompts one after the other, for ever."""
        while True:
            self._run(self.queue.take(), loop)

    def _run(self, queued: QueuedPrompt, loop: asyncio.AbstractEventLoop) -> None:
        """Run a prompt. Its client hears of the end once the history has the entry, for which many then ask."""

        def on_loop(coroutine: Any) -> None:
            asyncio.run_coroutine_threadsafe(coroutine, loop).result()

        def send(kind: str, data: dict[str, Any] | Frame) -> None:
            on_loop(self.clients.send(queued.extra_data.get("client_id"), kind, data))

        def report_event(kind: str, data: dict[str, Any] | Frame) -> None:
            if kind == "execution_start":
                self.queue.begin(queued.prompt_id)
                on_loop(self.broadcast_status())
            if kind in ENDINGS:
                endings.append((kind, data))
            else:
                send(kind, data)

        endings: list[tuple[str, dict[str, Any] | Frame]] = []
        report = RunReport(queued.prompt_id, queued.prompt, report_event)
        self.executor.execute(queued, report)
        entry = report.entry(queued.as_json())
        with self._ending:
            self.queue.finish(queued.prompt_id, entry)
            for kind, data in endings:
                send(kind, data)
            on_loop(self.broadcast_status())
            if entry is not None:
                send("executing", {"node": None, "prompt_id": queued.prompt_id})

    # --- Events ------------------------------------------------------------------------------------

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """GET /ws?clientId=…"""
        return await self.clients.serve(request, self._status(), self.features())

    async def broadcast_status(self) -> None:
        """Tell every client how many prompts there are."""
        await self.clients.broadcast("status", {"status": self._status()})

    # --- History and files -------------------------------------------------------------------------

    async def show_history(self, request: web.Request) -> web.Response:
        """GET /history: the newest `max_items`, or as many from `offset` on."""
        entries = list(self.queue.history.items())
        count, offset = whole_number(request, "max_items", len(entries)), whole_number(request, "offset", -1)
        begin = max(0, len(entries) - count) if offset < 0 else offset
        return web.json_response(dict(entries[begin : begin + count]))

    async def show_entry(self, request: web.Request) -> web.Response:
        """GET /history/{id}: empty until the prompt has ended."""
        prompt_id, history = request.match_info["prompt_id"], self.queue.history
        return web.json_response({prompt_id: history[prompt_id]} if prompt_id in history else {})

    async def change_history(self, request: web.Request) -> web.Response:
        """POST /history: delete some or all entries."""
        body = await read_object(request)
        self.queue.delete_history(list(self.queue.history) if body.get("clear") else ids_to_delete(body))
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
        return web.json_response(self.executor.object_info())

    async def one_class(self, request: web.Request) -> web.Response:
        """GET /object_info/{class}: empty for an unknown one."""
        name = request.match_info["class_type"]
        entry = self.executor.node_class(name)
        return web.json_response({name: entry} if entry is not None else {})

    async def no_models(self, request: web.Request) -> web.Response:
        """GET /models and /models/{folder}: there are none here."""
        return web.json_response([])

    async def system_stats(self, request: web.Request) -> web.Response:
        """GET /system_stats."""
        system = {
            "os": "posix",
            "comfyui_version": self.executor.version,
            "python_version": platform.python_version(),
            "argv": self.argv,
        }
        return web.json_response({"system": system, "devices": list(self.executor.devices)})

    def features(self) -> dict[str, Any]:
        """What it can do, for clients that ask or that say by websocket what they can do."""
        return {"supports_preview_metadata": True, "max_upload_size": _MAX_BODY}

    async def show_features(self, request: web.Request) -> web.Response:
        """GET /features."""
        return web.json_response(self.features())
