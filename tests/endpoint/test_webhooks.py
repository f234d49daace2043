"""Webhooks of the local endpoint: the body and the tries of RunPod's."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from src.endpoint.jobs import JobQueue, Policy
from src.endpoint.webhooks import Webhooks

from .. import workflows
from .test_endpoint import LONG, serving


@contextmanager
def receiver(*statuses: int) -> Iterator[tuple[str, list[Any]]]:
    """A URL that answers with these, then with the last one again, and what was posted to it."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's name
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(json.loads(body))
            self.send_response(statuses[min(len(received), len(statuses)) - 1])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/told?key=k", received
    finally:
        server.shutdown()
        server.server_close()


def wait_for(received: list[Any], count: int) -> None:
    end = time.monotonic() + LONG
    while len(received) < count:
        assert time.monotonic() < end, received
        time.sleep(0.02)


def test_the_end_of_a_job_is_told_as_status_shows_it(tmp_path: Path) -> None:
    with receiver(200) as (url, received), serving(tmp_path) as client:
        client.wait_for_workers(1)
        good: dict[str, Any] = {"workflow": workflows.still()}
        bad: dict[str, Any] = {"workflow": {}}
        for number, job_input in enumerate((good, bad), 1):
            job_id = client.run(job_input, webhook=url)
            status = client.ended(job_id)
            wait_for(received, number)
            assert received[-1] == {**status, "input": job_input, "webhook": url}
    assert [told["status"] for told in received] == ["COMPLETED", "FAILED"]


def ended_job(webhook: str, cancel: bool = False) -> None:
    """Have a queue end one job with this webhook, and wait for its calls."""

    async def run() -> None:
        webhooks = Webhooks(pause_seconds=0.01)
        queue = JobQueue(on_end=webhooks.tell)
        job = queue.submit({}, Policy(), False, webhook=webhook)
        await queue.take("worker", 1, 1.0, lambda: True)
        if cancel:
            queue.cancel(job)
        else:
            queue.finish("worker", job.id, {"output": 1})
        calls = list(webhooks._calls)
        await asyncio.gather(*calls)
        await webhooks.close()

    asyncio.run(run())


def test_anything_but_200_is_tried_three_times() -> None:
    for statuses, tries in (((500, 500, 200), 3), ((404,), 3), ((302, 200), 2), ((200,), 1)):
        with receiver(*statuses) as (url, received):
            ended_job(url)
            assert len(received) == tries, statuses
    ended_job("http://127.0.0.1:9/nobody")
    ended_job("http://[::broken/")


def test_a_cancelled_job_is_not_told() -> None:
    with receiver(200) as (url, received):
        ended_job(url, cancel=True)
        assert received == []
