"""An endpoint that answers by a script: for what a real one does only when something is wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]
"""An HTTP status and the JSON of a body; a status of 0 breaks the connection off."""


@dataclass
class ScriptedEndpoint:
    """`statuses` are the answers to /status, one after the other; the last one for ever."""

    statuses: list[Answer] = field(default_factory=list)
    cancelled: Answer = (200, {"status": "CANCELLED"})
    submitted: Answer = (200, {"id": "job-1", "status": "IN_QUEUE"})
    jobs: list[Any] = field(default_factory=list)
    """The inputs of the jobs that were submitted."""
    cancels: int = 0
    asked: Callable[[int], object] = lambda count: None
    """Called with the number of requests for a status so far."""
    url: str = ""
    _count: int = 0

    def answer(self, path: str, body: bytes) -> Answer:
        """The answer to one request."""
        route = path.split("/")[1]
        if route == "run":
            self.jobs.append(json.loads(body)["input"])
            return self.submitted
        if route == "cancel":
            self.cancels += 1
            self.statuses = [self.cancelled]
            return 200, {}
        self._count += 1
        self.asked(self._count)
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


@contextmanager
def scripted_endpoint(**script: Any) -> Iterator[ScriptedEndpoint]:
    """One that listens on this machine."""
    endpoint = ScriptedEndpoint(**script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = endpoint.answer(self.path, body)
            if not status:
                self.close_connection = True
                return
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield endpoint
    server.shutdown()
    server.server_close()
    thread.join(5)
