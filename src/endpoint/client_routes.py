"""What callers of a RunPod endpoint use, under /v2/{any endpoint id}/."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .jobs import Job, JobQueue, Policy
from .workers import WorkerPool

RUN_LIMIT, RUNSYNC_LIMIT = 10_000_000, 20_000_000
"""Bytes of a request or a result, by the route that the job came by."""

_WAIT_MS, _LEAST_WAIT_MS, _MOST_WAIT_MS = 90_000, 1_000, 300_000  # ?wait= of /runsync
_STREAM_SECONDS = 10.0  # that /stream waits for a chunk
_EXECUTION_MS, _LEAST_EXECUTION_MS = 600_000, 5_000
_TTL_MS, _LEAST_TTL_MS = 86_400_000, 10_000
_MOST_MS = 7 * 86_400_000
_BESIDE_INPUT = ("s3Config",)  # what else of a request reaches the handler

Route = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guarded(route: Route, key: str) -> Route:
    """The route for those who send the key, if there is one."""

    async def checked(request: web.Request) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key and not hmac.compare_digest(given.encode(), key.encode()):
            raise _error(web.HTTPUnauthorized, "send the header Authorization: Bearer KEY with this endpoint's key")
        return await route(request)

    return checked


class ClientRoutes:
    """The routes, over one queue. With a `key`, each wants `Authorization: Bearer KEY`."""

    def __init__(self, queue: JobQueue, pool: WorkerPool, key: str) -> None:
        self._queue = queue
        self._pool = pool
        self._key = key

    def add_to(self, application: web.Application) -> None:
        """Register them."""
        for method, path, route in (
            ("POST", "run", self.run),
            ("POST", "runsync", self.runsync),
            ("GET", "status/{job}", self.status),
            ("POST", "status/{job}", self.status),
            ("POST", "cancel/{job}", self.cancel),
            ("POST", "retry/{job}", self.retry),
            ("GET", "stream/{job}", self.stream),
            ("POST", "stream/{job}", self.stream),
            ("GET", "health", self.health),
            ("POST", "purge-queue", self.purge),
        ):
            application.router.add_route(method, f"/v2/{{endpoint}}/{path}", guarded(route, self._key))

    async def run(self, request: web.Request) -> web.Response:
        """POST run: queue a job and answer at once."""
        job = await self._submitted(request, is_sync=False)
        return web.json_response({"id": job.id, "status": job.status.value})

    async def runsync(self, request: web.Request) -> web.Response:
        """POST runsync: queue a job and wait for its end, at most `?wait=` milliseconds."""
        wait = _whole(request.query.get("wait", str(_WAIT_MS)), "wait", _LEAST_WAIT_MS, _MOST_WAIT_MS)
        job = await self._submitted(request, is_sync=True)
        await self._wait_for(job, lambda: job.status.is_final, wait / 1000)
        return web.json_response(job.as_json())

    async def status(self, request: web.Request) -> web.Response:
        """GET status: how far a job is."""
        return web.json_response(self._job(request).as_json())

    async def cancel(self, request: web.Request) -> web.Response:
        """POST cancel: end a job, whether it waits or runs."""
        job = self._job(request)
        self._queue.cancel(job)
        return web.json_response(job.as_json())

    async def retry(self, request: web.Request) -> web.Response:
        """POST retry: queue a job again that failed or timed out."""
        job = self._job(request)
        if not self._queue.retry(job):
            raise _error(
                web.HTTPBadRequest, f"job is {job.status.value}; only a failed or timed-out one can be retried"
            )
        return web.json_response({"id": job.id, "status": job.status.value})

    async def stream(self, request: web.Request) -> web.Response:
        """GET stream: the pieces of output since the last call."""
        job = self._job(request)
        await self._wait_for(job, lambda: bool(job.chunks) or job.status.is_final, _STREAM_SECONDS)
        chunks, job.chunks = job.chunks, []
        return web.json_response({"status": job.status.value, "stream": [{"output": chunk} for chunk in chunks]})

    async def health(self, request: web.Request) -> web.Response:
        """GET health: jobs and workers, counted."""
        self._queue.expire()
        return web.json_response(
            {"jobs": self._queue.counts(), "workers": self._pool.counts(self._queue.busy_workers())}
        )

    async def purge(self, request: web.Request) -> web.Response:
        """POST purge-queue: drop what waits."""
        return web.json_response({"removed": self._queue.purge(), "status": "completed"})

    def _job(self, request: web.Request) -> Job:
        job = self._queue.get(request.match_info["job"])
        if job is None:
            raise _error(web.HTTPNotFound, "no job with this id; results are kept 30 minutes (runsync: 1 minute)")
        return job

    async def _submitted(self, request: web.Request, *, is_sync: bool) -> Job:
        limit = RUNSYNC_LIMIT if is_sync else RUN_LIMIT
        body = await request.read()
        if len(body) > limit:
            raise _error(
                web.HTTPBadRequest, f"the request is {len(body) / 1e6:.1f} MB; the limit is {limit // 10**6} MB"
            )
        try:
            given = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _error(web.HTTPBadRequest, "the body must be JSON") from error
        if not isinstance(given, dict) or not isinstance(given.get("input"), dict):
            raise _error(web.HTTPBadRequest, 'the body must be an object with an object "input"')
        beside = {name: given[name] for name in _BESIDE_INPUT if name in given}
        return self._queue.submit(given["input"], _policy(given.get("policy")), is_sync, beside)

    async def _wait_for(self, job: Job, is_enough: Callable[[], bool], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not is_enough() and loop.time() < end:
            try:
                await asyncio.wait_for(job.changed.wait(), min(1.0, end - loop.time()))
            except asyncio.TimeoutError:
                self._queue.expire()


def _policy(given: object) -> Policy:
    given = given if isinstance(given, dict) else {}
    execution = _whole(given.get("executionTimeout", _EXECUTION_MS), "executionTimeout", _LEAST_EXECUTION_MS, _MOST_MS)
    ttl = _whole(given.get("ttl", _TTL_MS), "ttl", _LEAST_TTL_MS, _MOST_MS)
    return Policy(execution / 1000, ttl / 1000)


def _whole(value: Any, name: str, least: int, most: int) -> int:
    try:
        number = int(value) if not isinstance(value, bool) and math.isfinite(float(value)) else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or not least <= number <= most:
        raise _error(web.HTTPBadRequest, f"{name} must be milliseconds from {least} to {most}")
    return number


def _error(kind: type[web.HTTPException], message: str) -> web.HTTPException:
    return kind(text=json.dumps({"error": message}), content_type="application/json")
