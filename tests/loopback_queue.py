"""RunPod's job queue on loopback, with the routes that a worker uses: the real SDK takes jobs and posts results."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_HANG_SECONDS = 600.0
_HOLD_SECONDS = 0.2  # how long a poll is held open while there is no job


@dataclass
class LoopbackQueue:
    """Jobs to hand out, and what was posted for them. A worker finds the queue by the variables of `environment`."""

    url: str = ""
    waiting: list[dict[str, Any]] = field(default_factory=list)
    """Jobs that no worker has taken."""
    taken: list[str] = field(default_factory=list)
    """Ids of the jobs that were taken."""
    posted: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Job id to the results that were posted for it."""
    progress: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Job id to the progress updates that were posted for it."""
    to_stop: list[str] = field(default_factory=list)
    """Ids of the jobs that the worker shall stop."""
    refuse_results: list[int] = field(default_factory=list)
    """HTTP statuses with which the next results are refused; 0: no answer comes at all."""
    refuse_over: int = 1 << 62
    """Results of more bytes are refused with 413."""
    done_seconds: float = 0.0
    """How long it takes until a result is accepted."""
    raw_answers: list[str] = field(default_factory=list)
    """Bodies with which the next requests for jobs are answered, as they stand."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that RunPod sets for a worker; the SDK's own fitness checks, which use the network, are off."""
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.url}/v2/local/job-take/$ID?gpu=LOCAL",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.url}/v2/local/job-done/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self.url}/v2/local/job-stream/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
            "RUNPOD_WEBHOOK_PING": f"{self.url}/v2/local/ping/$RUNPOD_POD_ID?gpu=LOCAL",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_AI_API_KEY": "loopback-key",
            "RUNPOD_POD_ID": "worker-1",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    def put(self, job_id: str, job_input: Any) -> None:
        """Queue a job."""
        self.waiting.append({"id": job_id, "input": job_input})

    def wait_for(self, count: int, seconds: float) -> None:
        """Wait until that many jobs were answered."""
        end = time.monotonic() + seconds
        while len(self.posted) < count:
            assert time.monotonic() < end, f"{len(self.posted)} of {count} jobs answered"
            time.sleep(0.05)

    def application(self) -> web.Application:
        """The routes that a worker uses."""
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_get("/v2/local/job-take/{worker}", self._take)
        application.router.add_get("/v2/local/job-take-batch/{worker}", self._take_batch)
        application.router.add_post("/v2/local/job-done/{worker}/{job}", self._done)
        application.router.add_get("/v2/local/job-stop/{worker}", self._stop)
        application.router.add_get("/v2/local/ping/{worker}", self._ping)
        return application

    async def _take(self, request: web.Request) -> web.Response:
        if self.raw_answers:
            return web.Response(text=self.raw_answers.pop(0), content_type="application/json")
        if not self.waiting:
            await asyncio.sleep(_HOLD_SECONDS)
        if not self.waiting:
            return web.Response(status=204)
        job = self.waiting.pop(0)
        self.taken.append(job["id"])
        return web.json_response(job)

    async def _take_batch(self, request: web.Request) -> web.Response:
        if self.raw_answers:
            return web.Response(text=self.raw_answers.pop(0), content_type="application/json")
        if not self.waiting:
            await asyncio.sleep(_HOLD_SECONDS)
        size = int(request.query["batch_size"])
        jobs, self.waiting = self.waiting[:size], self.waiting[size:]
        self.taken.extend(job["id"] for job in jobs)
        return web.json_response(jobs) if jobs else web.Response(status=204)

    async def _done(self, request: web.Request) -> web.Response:
        content = await request.read()
        await asyncio.sleep(self.done_seconds)
        if self.refuse_results:
            status = self.refuse_results.pop(0)
            if not status:
                await asyncio.sleep(_HANG_SECONDS)
            return web.Response(status=status or 500, headers={"Location": "/nowhere"})
        if len(content) > self.refuse_over:
            return web.Response(status=413)
        body = json.loads(content)
        posts = self.progress if body.get("status") == "IN_PROGRESS" else self.posted
        posts.setdefault(request.match_info["job"], []).append(body)
        return web.Response()

    async def _stop(self, request: web.Request) -> web.Response:
        await asyncio.sleep(_HOLD_SECONDS)
        stopped, self.to_stop = self.to_stop, []
        return web.json_response({"jobsToStop": stopped}) if stopped else web.Response(status=204)

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response()


@contextmanager
def serving() -> Iterator[LoopbackQueue]:
    """A queue, served from its own thread."""
    queue, loop = LoopbackQueue(), asyncio.new_event_loop()
    runner = web.AppRunner(queue.application(), access_log=None, shutdown_timeout=1)

    async def start() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    queue.url = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
