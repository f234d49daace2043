"""Where node packs come from, on loopback: a registry by its published API, its archives, and git over HTTP."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NODES = """
class {name}:
    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{"image": ("IMAGE",)}}}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, image):
        return (1.0 - image,)


NODE_CLASS_MAPPINGS = {{"{name}": {name}}}
"""


@dataclass
class PackServer:
    """Serves `versions` (id, version -> files) as the registry does, and `repositories` below `/git/`."""

    folder: Path
    versions: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """Path to what is answered there in place of the usual."""
    archives: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """Archives in place of those made of the files."""
    classes: dict[str, str] = field(default_factory=dict)
    """Node class to the id that the registry's look-up tells."""
    moved: dict[str, str] = field(default_factory=dict)
    """Repositories that have another name now."""
    delay: float = 0.0
    """Seconds before the registry answers."""
    requests: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def host(self) -> str:
        """`host:port`."""
        return self.url.removeprefix("http://")

    def publish(self, pack_id: str, version: str, files: Mapping[str, str]) -> None:
        """Put a version into the registry."""
        project = f'[project]\nname = "{pack_id}"\nversion = "{version}"\n'
        self.versions[pack_id, version] = {"pyproject.toml": project, **files}

    def commit(self, name: str, files: Mapping[str, str]) -> str:
        """Commit files to a repository, which is made if there is none; the commit."""
        work, bare = self.folder / f"{name}-work", self.folder / "git" / f"{name}.git"
        if not bare.exists():
            bare.parent.mkdir(parents=True, exist_ok=True)
            _git(self.folder, "init", "--quiet", "--bare", str(bare))
            _git(bare, "config", "uploadpack.allowAnySHA1InWant", "true")
            _git(self.folder, "clone", "--quiet", str(bare), str(work))
        for file, text in files.items():
            (work / file).parent.mkdir(parents=True, exist_ok=True)
            (work / file).write_text(text)
        _git(work, "add", "--all")
        _git(work, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "a pack")
        _git(work, "push", "--quiet", "origin", "HEAD")
        return _git(work, "rev-parse", "HEAD")

    def repository(self, name: str) -> str:
        """The URL of a repository."""
        return f"{self.url}/git/{name}"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    """A zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # of no time, so that it is the same each time
    return content.getvalue()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        state, parts = self.server.state, urlsplit(self.path)
        path = unquote(parts.path)
        state.requests.append(f"{self.command} {self.path}")
        time.sleep(0.0 if path.startswith("/git") else state.delay)
        name = path.split("/")[2] if path.startswith("/git/") else ""
        if name in state.moved:
            self.send_response(301)
            self.send_header("Location", self.path.replace(f"/{name}", f"/{state.moved[name]}", 1))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if path in state.answers:
            status, told = state.answers[path]
            return self._json(status, told)
        words = path.strip("/").split("/")
        if words[0] == "git":
            return self._git(parts.path.removeprefix("/git"), parts.query)
        if words[0] == "nodes" and words[2:] == ["install"]:
            return self._install(words[1], parse_qs(parts.query).get("version", [""])[0])
        if words[0] == "comfy-nodes" and words[2:] == ["node"] and words[1] in state.classes:
            return self._json(200, {"id": state.classes[words[1]], "name": "a pack", "repository": ""})
        if words[0] == "archives" and (words[1], words[2]) in state.versions:
            key = words[1], words[2]
            return self._send(200, state.archives.get(key) or zipped(state.versions[key]), "application/zip")
        return self._json(404, {"error": "not found", "message": "not found"})

    do_POST = do_GET

    def _install(self, pack_id: str, version: str) -> None:
        state = self.server.state
        known = [number for known_id, number in state.versions if known_id == pack_id]
        version = version or max(known, default="")
        if version not in known:
            return self._json(404, {"error": "not found", "message": "Node version not found"})
        url = f"{state.url}/archives/{pack_id}/{version}"
        told = {"id": "1", "node_id": pack_id, "version": version, "downloadUrl": url, "dependencies": []}
        return self._json(200, {**told, "status": "NodeVersionStatusActive", "deprecated": False})

    def _git(self, path: str, query: str) -> None:
        """Git's own server program, as a web server runs it."""
        names = {part for part in path.split("/") if part}
        name = next((n for n in names if (self.server.state.folder / "git" / f"{n}.git").exists()), None)
        if name is None:
            return self._json(404, {})
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environment = {
            **os.environ, "GIT_PROJECT_ROOT": str(self.server.state.folder / "git"), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path.replace(f"/{name}/", f"/{name}.git/", 1), "QUERY_STRING": query,
            "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        status = int(headers.pop("Status", "200").split()[0])
        return self._send(status, content, headers.get("Content-Type", ""))

    def _json(self, status: int, told: Any) -> None:
        self._send(status, told if isinstance(told, bytes) else json.dumps(told).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, state: PackServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state


@contextmanager
def pack_server(folder: Path) -> Iterator[PackServer]:
    """Run one; its repositories lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = PackServer(folder)
    server = _Server(state)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
