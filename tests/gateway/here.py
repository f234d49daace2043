"""A gateway in this process, in front of an endpoint that answers by a script: for what needs no worker."""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.client
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from src.draft.schema import object_info
from src.endpoint.loopback import quiet_log
from src.gateway.server import Gateway, GatewayOptions
from src.settings import BucketConfig

from .scripted_endpoint import Answer, ScriptedEndpoint, scripted_endpoint

KEY = "rpa_THE-SECRET-KEY"
VERSIONS = {"worker": "0.6.0", "comfyui": "0.33.0"}
WAITS: Answer = (200, {"status": "IN_QUEUE"})


def packed(value: Any) -> str:
    """As a worker packs it."""
    return base64.b64encode(gzip.compress(json.dumps(value).encode())).decode()


def info(**changes: Any) -> Answer:
    """The status of a job of `action: info` that has ended well."""
    answer = {
        "status": "success",
        "object_info": packed(object_info()),
        "all_models": packed({"checkpoints": ["a.safetensors"], "embeddings": ["sub/b.pt", "c"], "configs": []}),
        "node_replacements": {},
        "versions": {**VERSIONS, "comfyui_torch": "2.11"},
        "devices": [{"name": "cuda:0", "type": "cuda"}],
        "memory": {"ram_total": 1, "ram_free": 1},
        **changes,
    }
    return 200, {"status": "COMPLETED", "output": answer}


@dataclass
class Reply:
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """As text."""
        return self.content.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        """As JSON, which JavaScript reads as well."""
        return json.loads(self.content, parse_constant=lambda name: 1 / 0)


@dataclass
class Here:
    """A running gateway, and requests to it that are sent as they stand."""

    url: str
    folder: Path
    gateway: Gateway
    endpoint: ScriptedEndpoint

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send a request; `Content_Type` is the header Content-Type."""
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Connection": "close", **named})
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, /, **query: str) -> Reply:
        """GET with a query."""
        return self.ask("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Any = None) -> Reply:
        """POST of JSON."""
        return self.ask("POST", path, json.dumps(body).encode())

    def upload(self, content: bytes, filename: str, route: str = "/upload/image", **fields: str) -> Reply:
        """POST of a form with the file `image`."""
        parts = [
            *(f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()),
            f'name="image"; filename="{filename}"\r\nContent-Type: image/png\r\n\r\n'.encode() + content,
        ]
        body = b"".join(b"--limit\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
        return self.ask("POST", route, body + b"--limit--\r\n", Content_Type="multipart/form-data; boundary=limit")

    def files(self) -> dict[str, bytes]:
        """The files in the gateway's folder with their contents."""
        return contents(self.folder)


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder with their contents."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@contextmanager
def gateway_here(
    folder: Path, is_asked: bool = False, bucket: BucketConfig | None = None, **script: Any
) -> Iterator[Here]:
    """A gateway that knows the draft engine's classes; with `is_asked` it has to ask the endpoint for them."""
    kept = folder / "gateway"
    if not is_asked:
        kept.mkdir(exist_ok=True)
        known = {"object_info": object_info(), "models": {}, "versions": VERSIONS}
        (kept / "node_classes.json.gz").write_bytes(gzip.compress(json.dumps(known).encode()))
    with scripted_endpoint(**{"statuses": [WAITS], **script}) as endpoint:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        gateway = Gateway(GatewayOptions(endpoint.url, KEY, 0, kept, bucket))
        runner = web.AppRunner(gateway.application(), access_log=None, shutdown_timeout=0.1, logger=quiet_log())

        async def listen() -> int:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return int(runner.addresses[0][1])

        port = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
        try:
            yield Here(f"http://127.0.0.1:{port}", kept, gateway, endpoint)
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)


def tracebacks(records: list[logging.LogRecord]) -> list[str]:
    """The log lines that have one."""
    return [record.getMessage() for record in records if record.exc_info]
