"""Servers of models on loopback: plain files with ranges, a Hugging Face hub, and what goes wrong with both."""

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
_PIECE = 1 << 16
_CHUNK, _XORB = 1 << 16, 1 << 23


@dataclass
class ModelServer:
    """Serves `files` at `/files/NAME` and, as a hub does, at `/ORG/REPO/resolve/REVISION/NAME`, by a redirect."""

    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    requests: list[str] = field(default_factory=list)
    """`METHOD path range`, in the order in which they came."""
    tokens: list[tuple[str, str]] = field(default_factory=list)
    """Path and token of the requests that had one."""
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """The next answers about files are these."""
    has_ranges: bool = True
    cut: list[float] = field(default_factory=list)
    """The next answers end after that share of them."""
    stall: list[float] = field(default_factory=list)
    """The next answers send nothing for that many seconds after their half."""
    pace: float = 0.0
    """Seconds before each 64 KB."""
    is_silent: bool = False
    """Whether files are not answered at all."""
    closes: bool = False
    """Whether each answer ends its connection."""
    shift: int = 0
    """Ranges are answered that many bytes further on."""
    has_length: bool = True
    """Whether answers say how long they are."""
    page: bool = False
    """Whether files are answered with a web page."""
    gated: set[str] = field(default_factory=set)
    """Repositories that want a token."""
    signatures: int = 0
    """Redirects so far; only links of the last `valid` of them work."""
    valid: int = 10**9
    has_xet: bool = False
    """Whether the hub's files are in Xet storage too, which this server then is as well."""
    xet_hangs: bool = False
    """Whether that storage takes requests and does not answer."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Path to JSON for other routes."""
    xorbs: dict[str, bytes] = field(default_factory=dict)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        """Host and port."""
        return self.url.removeprefix("http://")

    def sha256(self, name: str) -> str:
        """Of a file."""
        return hashlib.sha256(self.files[name]).hexdigest()

    def data_requests(self) -> list[str]:
        """Those that were about the content of a file, the first look left out."""
        return [line for line in self.requests if line.startswith("GET") and not line.endswith("bytes=0-0")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Quiet."""

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
            self.server.ended.wait(60)
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

    # Xet storage, by its API (https://huggingface.co/docs/xet/api): a file is terms, each a run of chunks in a xorb.

    def _reconstruction(self, digest: str) -> None:
        state = self.server.state
        content = next(content for name, content in state.files.items() if state.sha256(name) == digest)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(wanted[1]), int(wanted[2] or len(content) - 1) + 1) if wanted else (0, len(content))
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
            place = {"start": 0, "end": len(_packed(data)) - 1}
            fetch_info[name] = [{"range": chunks, "url": f"{state.url}/xorb/{name}", "url_range": place}]
        told = {"offset_into_first_range": start % _XORB, "terms": terms, "fetch_info": fetch_info}
        return self._reply(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _xorb(self, name: str) -> None:
        packed = _packed(self.server.state.xorbs[name])
        headers = {"Content-Range": f"bytes 0-{len(packed) - 1}/{len(packed)}"}
        self._reply(206, packed, headers)

    def _file(self, name: str, with_body: bool) -> None:
        state = self.server.state
        with state.lock:
            status = state.statuses.pop(0) if state.statuses else None
        if status:
            return self._reply(status[0], b"not now", status[1])
        if state.is_silent:
            self.server.ended.wait(60)
        signature = re.search(r"signature=(\d+)", self.path)
        if signature and int(signature[1]) <= state.signatures - state.valid:
            return self._reply(403, b"expired", {})
        if name not in state.files:
            return self._reply(404, b"", {})
        if state.page:
            return self._reply(200, b"<!DOCTYPE html><html>please log in</html>", {"Content-Type": "text/html"})
        content = state.files[name]
        headers = {"ETag": f'"{state.sha256(name)}"', "Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted or not state.has_ranges:
            return self._send(200, content, headers, with_body)
        start, end = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
        start, end = start + state.shift, min(end + state.shift, len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self._send(206, content[start : end + 1], headers, with_body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], with_body: bool) -> None:
        state = self.server.state
        is_look = len(content) <= 1
        with state.lock:
            cut = state.cut.pop(0) if state.cut and not is_look else None
            stall = state.stall.pop(0) if state.stall and not is_look else None
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
        for position in range(0, end, _PIECE):
            if stall is not None and position >= len(content) // 2:
                self.server.ended.wait(stall)
                stall = None
            if state.pace and not is_look:
                time.sleep(state.pace)
            self.wfile.write(content[position : min(position + _PIECE, end)])
            state.sent += min(position + _PIECE, end) - position
        if cut is not None:
            self.connection.shutdown(socket.SHUT_RDWR)

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _packed(data: bytes) -> bytes:
    """Chunks as a xorb holds them, not compressed: version, length (3 bytes), scheme, length again, the bytes."""
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
        self.ended = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Clients end connections."""


@contextmanager
def model_server(**files: bytes) -> Iterator[ModelServer]:
    """A server of these files, called `name.safetensors` for `name`."""
    state = ModelServer({f"{name}.safetensors": content for name, content in files.items()})
    server = _Server(state)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()


def weights(size: int, seed: int = 1) -> bytes:
    """A safetensors file of about that many bytes, the same each time."""
    head = {"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    encoded = json.dumps(head).encode()
    block = b"".join(hashlib.sha256(f"{seed}-{number}".encode()).digest() for number in range(4096))
    data = (block * (size // len(block) + 1))[:size]
    return len(encoded).to_bytes(8, "little") + encoded + data


def entry(name: str, content: bytes, source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A manifest's entry for a file of that content."""
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
