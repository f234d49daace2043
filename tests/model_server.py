"""Model servers on loopback: plain files with range requests, a Hugging Face hub, and the faults of both."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

TOKEN = "hf_good"
COMMIT = "c" * 40
_WRITE_BYTES = 1 << 16
_CHUNK, _XORB = 1 << 16, 1 << 23  # bytes of content in a chunk and a xorb of Xet storage


@dataclass
class ModelServer:
    """Serves `files` at `/files/NAME` and, like the hub, at `/ORG/REPO/resolve/REVISION/NAME`, which redirects there."""

    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    requests: list[str] = field(default_factory=list)
    """`METHOD path range` of each request, in order."""
    tokens: list[tuple[str, str]] = field(default_factory=list)
    """Path and token of each request with a bearer token."""
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Statuses and headers of the next responses to requests for files, instead of the file."""
    has_ranges: bool = True
    """Whether range requests are supported."""
    cut: list[float] = field(default_factory=list)
    """The next responses are cut off after this share (0 to 1) of their bytes."""
    stall: list[float] = field(default_factory=list)
    """The next responses stall for this many seconds after half of their bytes."""
    pace: float = 0.0
    """Seconds before each 64 KB of a response."""
    is_silent: bool = False
    """Whether requests for files get no response at all."""
    closes: bool = False
    """Whether the connection is closed after each response."""
    shift: int = 0
    """Responses to range requests start this many bytes too late (a faulty server)."""
    has_length: bool = True
    """Whether responses have a Content-Length."""
    page: bool = False
    """Whether requests for files get a web page."""
    gated: set[str] = field(default_factory=set)
    """Repositories that require a token."""
    signatures: int = 0
    """Number of redirects so far. Each gives a new signed URL."""
    valid: int = 10**9
    """Only the last so many signed URLs are accepted; older ones have expired."""
    has_xet: bool = False
    """Whether the hub's files are also in Xet storage, which this server then serves too."""
    xet_hangs: bool = False
    """Whether Xet storage accepts requests but does not answer them."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Other routes: path to the JSON that is served there."""
    routes: dict[str, str] = field(default_factory=dict)
    """Other routes: path to the file that it redirects to."""
    xorbs: dict[str, bytes] = field(default_factory=dict)
    """Hash to content of the xorbs in Xet storage."""
    sent: int = 0
    """Bytes of files sent so far."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        """`host:port` of the server."""
        return self.url.removeprefix("http://")

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file's content."""
        return hashlib.sha256(self.files[name]).hexdigest()

    def data_requests(self) -> list[str]:
        """The GET requests, except the probes for the first byte."""
        return [line for line in self.requests if line.startswith("GET") and not line.endswith("bytes=0-0")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        state = self.server.state
        path = unquote(self.path.partition("?")[0])
        state.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token:
            state.tokens.append((self.path, token))
        if path in state.extra:
            return self._reply(200, json.dumps(state.extra[path]).encode(), {"Content-Type": "application/json"})
        if path in state.routes:
            elsewhere = state.url.replace("127.0.0.1", "localhost")
            return self._reply(307, b"", {"Location": f"{elsewhere}/files/{quote(state.routes[path])}"})
        hub = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path)
        if hub:
            return self._resolve(hub[1], hub[3], token)
        if "xet-read-token" in path:
            access = {"casUrl": state.url, "exp": int(time.time()) + 3600, "accessToken": "xet"}
            headers = {
                "X-Xet-Cas-Url": state.url,
                "X-Xet-Access-Token": "xet",
                "X-Xet-Token-Expiration": str(access["exp"]),
            }
            return self._reply(200, json.dumps(access).encode(), headers)
        if path.startswith(("/v1/reconstructions/", "/xorb/")) and state.xet_hangs:
            self.server.stopping.wait(60)
        if path.startswith("/v1/reconstructions/"):
            return self._reconstruction(path.rpartition("/")[2])
        if path.startswith("/xorb/"):
            return self._xorb(path.rpartition("/")[2])
        if path.startswith("/files/"):
            return self._file(path.removeprefix("/files/"), with_body)
        return self._reply(404, b"no such route", {})

    def _resolve(self, repository: str, name: str, token: str) -> None:
        state = self.server.state
        if repository in state.gated and token != TOKEN:
            code, message = ("GatedRepo", "restricted") if token else ("GatedRepo", "log in")
            headers = {"X-Error-Code": code, "X-Error-Message": message}
            return self._reply(403 if token else 401, message.encode(), headers)
        if name not in state.files:
            return self._reply(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
        state.signatures += 1
        headers = {
            "Location": f"{state.url.replace('127.0.0.1', 'localhost')}/files/{quote(name)}?signature={state.signatures}",
            "X-Linked-Size": str(len(state.files[name])),
            "X-Linked-Etag": f'"{state.sha256(name)}"',
            "X-Repo-Commit": COMMIT,
        }
        if state.has_xet:
            route = f"{state.url}/api/models/{repository}/xet-read-token/{COMMIT}"
            headers |= {"X-Xet-Hash": state.sha256(name), "Link": f'<{route}>; rel="xet-auth"'}
        return self._reply(302, b"", headers)

    # The API of Xet storage (https://huggingface.co/docs/xet/api): a file is a list of terms, each a range of chunks in a
    # xorb.

    def _reconstruction(self, digest: str) -> None:
        state = self.server.state
        content = next(content for name, content in state.files.items() if state.sha256(name) == digest)
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(requested[1]), int(requested[2] or len(content) - 1) + 1) if requested else (0, len(content))
        if start >= len(content):
            return self._reply(416, b"", {})
        numbers = range(start // _XORB, -(-min(end, len(content)) // _XORB))
        names = {number: hashlib.sha256(f"{digest}{number}".encode()).hexdigest() for number in numbers}
        state.xorbs |= {name: content[number * _XORB : (number + 1) * _XORB] for number, name in names.items()}
        terms, fetch_info = [], {}
        for name in names.values():
            data = state.xorbs[name]
            chunks = {"start": 0, "end": -(-len(data) // _CHUNK)}
            terms.append({"hash": name, "unpacked_length": len(data), "range": chunks})
            byte_range = {"start": 0, "end": len(_pack_xorb(data)) - 1}
            fetch_info[name] = [{"range": chunks, "url": f"{state.url}/xorb/{name}", "url_range": byte_range}]
        reconstruction = {"offset_into_first_range": start % _XORB, "terms": terms, "fetch_info": fetch_info}
        return self._reply(200, json.dumps(reconstruction).encode(), {"Content-Type": "application/json"})

    def _xorb(self, name: str) -> None:
        packed = _pack_xorb(self.server.state.xorbs[name])
        headers = {"Content-Range": f"bytes 0-{len(packed) - 1}/{len(packed)}"}
        self._reply(206, packed, headers)

    def _file(self, name: str, with_body: bool) -> None:
        state = self.server.state
        with state.lock:
            status = state.statuses.pop(0) if state.statuses else None
        if status:
            return self._reply(status[0], b"not now", status[1])
        if state.is_silent:
            self.server.stopping.wait(60)
        signature = re.search(r"signature=(\d+)", self.path)
        if signature and int(signature[1]) <= state.signatures - state.valid:
            return self._reply(403, b"expired", {})
        if name not in state.files:
            return self._reply(404, b"", {})
        if state.page:
            return self._reply(200, b"<!DOCTYPE html><html>please log in</html>", {"Content-Type": "text/html"})
        content = state.files[name]
        headers = {"ETag": f'"{state.sha256(name)}"', "Content-Type": "application/octet-stream"}
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not requested or not state.has_ranges:
            return self._send(200, content, headers, with_body)
        start, end = int(requested[1]), min(int(requested[2] or len(content) - 1), len(content) - 1)
        start, end = start + state.shift, min(end + state.shift, len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self._send(206, content[start : end + 1], headers, with_body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], with_body: bool) -> None:
        state = self.server.state
        is_probe = len(content) <= 1
        with state.lock:
            cut = state.cut.pop(0) if state.cut and not is_probe else None
            stall = state.stall.pop(0) if state.stall and not is_probe else None
        self.send_response(status)
        if state.closes or not state.has_length:
            headers["Connection"] = "close"
            self.close_connection = True
        if state.has_length:
            headers["Content-Length"] = str(len(content))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not with_body:
            return
        end = len(content) if cut is None else int(len(content) * cut)
        for position in range(0, end, _WRITE_BYTES):
            if stall is not None and position >= len(content) // 2:
                self.server.stopping.wait(stall)
                stall = None
            if state.pace and not is_probe:
                time.sleep(state.pace)
            self.wfile.write(content[position : min(position + _WRITE_BYTES, end)])
            state.sent += min(position + _WRITE_BYTES, end) - position
        if cut is not None:
            self.connection.shutdown(socket.SHUT_RDWR)

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _pack_xorb(data: bytes) -> bytes:
    """The chunks of a xorb, uncompressed: each is version, length (3 bytes), compression scheme, length again, bytes."""
    packed = []
    for start in range(0, len(data), _CHUNK):
        chunk = data[start : start + _CHUNK]
        length = len(chunk).to_bytes(3, "little")
        packed += [bytes([0]), length, bytes([0]), length, chunk]
    return b"".join(packed)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, state: ModelServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state
        self.stopping = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Ignore errors: clients close connections."""


@contextmanager
def model_server(**files: bytes) -> Iterator[ModelServer]:
    """Run a server with these files; the file for `name` is called `name.safetensors`."""
    state = ModelServer({f"{name}.safetensors": content for name, content in files.items()})
    server = _Server(state)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()


def weights(size: int, seed: int = 1) -> bytes:
    """A safetensors file with `size` bytes of data, the same for the same seed."""
    header = {"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    encoded = json.dumps(header).encode()
    block = b"".join(hashlib.sha256(f"{seed}-{number}".encode()).digest() for number in range(4096))
    data = (block * (size // len(block) + 1))[:size]
    return len(encoded).to_bytes(8, "little") + encoded + data


def entry(name: str, content: bytes, source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A manifest entry for a file with that content."""
    file = changes.pop("file", PurePosixPath(source.get("path") or source.get("url") or source["key"]).name)
    return {
        "name": name,
        "folder": "vae",
        "file": file,
        "source": source,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "licence": "MIT",
        "commercial_ok": True,
        **changes,
    }
