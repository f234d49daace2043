"""RunPod's REST API v2 for endpoints, on loopback: stores them, validates requests, and answers with errors on demand.

The rules are those of RunPod's published OpenAPI document (api-reference-v2/openapi.json): `CreateEndpointRequest`,
`UpdateEndpointRequest`, `ErrorResponse`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "rpa_loopback"
_COMMON = {"image", "registry", "disk", "env", "args", "ports", "gpu", "workers", "scaling", "timeout", "flashboot"}
_COMMON |= {"networkVolumes", "dataCenterIds", "name", "templateId"}
_GPU = {"pools", "count", "excludedTypes", "allowedCudaVersions", "minCudaVersion"}


@dataclass
class Api:
    """The stored endpoints, the requests that changed something, and the error (status, body) to answer with, if any."""

    url: str = ""
    endpoints: list[dict[str, Any]] = field(default_factory=list)
    changes: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    fault: tuple[int, bytes] | None = None


def problems(method: str, body: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """The validation errors of a request."""
    allowed = _COMMON | ({"type"} if method == "POST" else set())
    found = [f"$: additional properties {name!r} not allowed" for name in body if name not in allowed]
    gpu, workers = body.get("gpu", {}), body.get("workers", {})
    found += [f"$.gpu: additional properties {name!r} not allowed" for name in gpu if name not in _GPU]
    if method == "POST":
        found += [f"$: missing {name}" for name in ("name", "type", "scaling", "image", "gpu") if name not in body]
        found += [] if gpu.get("pools") else ["$.gpu: missing pools"]
    if gpu.get("excludedTypes") and not gpu.get("pools"):
        found.append("$.gpu: excludedTypes requires pools")
    allowed_cuda = gpu.get("allowedCudaVersions", (current.get("gpu") or {}).get("allowedCudaVersions"))
    if gpu.get("minCudaVersion") and allowed_cuda:
        found.append("$.gpu: minCudaVersion and allowedCudaVersions are mutually exclusive")
    if not re.fullmatch(r"(\d+\.\d+)?", gpu.get("minCudaVersion", "")):
        found.append("$.gpu.minCudaVersion: does not match the pattern")
    scaling = body.get("scaling")
    if scaling is not None and not (isinstance(scaling, dict) and scaling.get("queueDelay", 0) >= 0.5):
        found.append("$.scaling.queueDelay: must be at least 0.5")
    numbers = {"disk": body.get("disk", 1), "timeout": body.get("timeout", 1), **workers}
    found += [f"$.{name}: must be a whole number" for name, value in numbers.items() if not isinstance(value, int)]
    if not 1 <= workers.get("idleTimeout", 1) <= 3600 or numbers["disk"] < 1 or workers.get("min", 0) < 0:
        found.append("$: out of range")
    if not all(isinstance(value, str) for value in body.get("env", {}).values()):
        found.append("$.env: values must be text")
    return found


@contextmanager
def serving() -> Iterator[Api]:
    """Run the API on a free port."""
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, status: int, body: object) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _handle(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            if self.headers["Authorization"] != f"Bearer {KEY}":
                return self._answer(401, {"title": "Unauthorized", "status": 401, "detail": "invalid bearer token"})
            if api.fault is not None:
                return self._answer(*api.fault)
            if self.path == "/graphql":
                return self._answer(200, self._save_endpoint(body))
            if self.command == "GET":
                return self._answer(200, {"endpoints": api.endpoints})
            current: dict[str, Any] = {}
            if self.command == "PATCH":
                current = next(known for known in api.endpoints if self.path == f"/v2/serverless/{known['id']}")
            if found := problems(self.command, body, current):
                invalid = {"title": "Unprocessable Entity", "status": 422, "detail": "Request validation failed."}
                return self._answer(422, {**invalid, "errors": found})
            api.changes.append((self.command, self.path, body))
            if self.command == "POST":
                current = {"id": f"ep{len(api.endpoints) + 1}"}
                api.endpoints.append(current)
            if "pools" in body.get(
                "gpu", {}
            ):  # RunPod replaces the selection as a whole: excludedTypes must be sent again
                (current.get("gpu") or {}).pop("excludedTypes", None)
            current.update({**body, "gpu": {**(current.get("gpu") or {}), **body["gpu"]}} if "gpu" in body else body)
            return self._answer(201 if self.command == "POST" else 200, current)

        def _save_endpoint(self, body: dict[str, Any]) -> dict[str, Any]:
            """The GraphQL mutation: as RunPod's SDK 2 sends it (runpod/api/mutations/apps.py)."""
            values = body["variables"]["input"]
            if refused := [model for model in values["modelReferences"] if "refused" in model]:
                return {"data": None, "errors": [{"message": f"model {refused[0]} is not accessible"}]}
            api.changes.append((self.command, self.path, body))
            return {"data": {"saveEndpoint": {"id": values.get("id", "ep1"), "name": values["name"]}}}

        do_GET = do_POST = do_PATCH = _handle

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
