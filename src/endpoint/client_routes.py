"""The routes that clients of a RunPod endpoint use, under /v2/{any endpoint id}/."""

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
"""The largest request or result in bytes, by the route that the job was submitted to."""
MIN_WAIT_MS, MAX_WAIT_MS = 1_000, 300_000
"""The bounds of `?wait=` of /runsync."""

_DEFAULT_WAIT_MS = 90_000
_STREAM_SECONDS = 10.0  # how long /stream waits for a chunk
_DEFAULT_EXECUTION_MS, _MIN_EXECUTION_MS = 600_000, 5_000
_DEFAULT_TTL_MS, _MIN_TTL_MS = 86_400_000, 10_000
_MAX_POLICY_MS = 7 * 86_400_000
_EXTRA_FIELDS = ("s3Config",)  # fields of a request besides `input` that reach the handler

Route = Callable[[web.Request], Awaitable[web.StreamResponse]]


def require_key(route: Route, key: str) -> Route:
    """The route, answering 401 unless the request carries the key; an empty `key` lets every request in."""

    async def checked(request: web.Request) -> web.StreamResponse:
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key and not hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), key.encode()):
            raise _error(web.HTTPUnauthorized, "send the header Authorization: Bearer KEY with this endpoint's key")
        return await route(request)

    return checked


class ClientRoutes:
    """The routes, over one queue. With a `key`, each requires `Authorization: Bearer KEY`."""

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
            application.router.add_route(method, f"/v2/{{endpoint}}/{path}", require_key(route, self._key))

    async def run(self, request: web.Request) -> web.Response:
        """POST run: queue a job and answer at once."""
        job = await self._submit(request, is_sync=False)
        return web.json_response({"id": job.id, "status": job.status.value})

    async def runsync(self, request: web.Request) -> web.Response:
        """POST runsync: queue a job and wait until it has ended, at most `?wait=` milliseconds."""
        requested = request.query.get("wait", str(_DEFAULT_WAIT_MS))
        wait = _parse_milliseconds(requested, "wait", MIN_WAIT_MS, MAX_WAIT_MS)
        job = await self._submit(request, is_sync=True)
        await self._wait_for(job, lambda: job.status.is_final, wait / 1000)
        return web.json_response(job.as_json())

    async def status(self, request: web.Request) -> web.Response:
        """GET status: the state of a job, and its output once there is one."""
        return web.json_response(self._job(request).as_json())

    async def cancel(self, request: web.Request) -> web.Response:
        """POST cancel: end a job, whether it is queued or running."""
        job = self._job(request)
        self._queue.cancel(job)
        return web.json_response(job.as_json())

    async def retry(self, request: web.Request) -> web.Response:
        """POST retry: queue a failed or timed-out job again."""
        job = self._job(request)
        if not self._queue.retry(job):
            raise _error(
                web.HTTPBadRequest, f"job is {job.status.value}; only a failed or timed-out job can be retried"
            )
        return web.json_response({"id": job.id, "status": job.status.value})

    async def stream(self, request: web.Request) -> web.Response:
        """GET stream: the chunks of output since the last call."""
        job = self._job(request)
        await self._wait_for(job, lambda: bool(job.chunks) or job.status.is_final, _STREAM_SECONDS)
        chunks, job.chunks = job.chunks, []
        return web.json_response({"status": job.status.value, "stream": [{"output": chunk} for chunk in chunks]})

    async def health(self, request: web.Request) -> web.Response:
        """GET health: the numbers of jobs and workers by state."""
        self._queue.expire()
        return web.json_response(
            {"jobs": self._queue.counts(), "workers": self._pool.counts(self._queue.busy_workers())}
        )

    async def purge(self, request: web.Request) -> web.Response:
        """POST purge-queue: drop all queued jobs."""
        return web.json_response({"removed": self._queue.purge(), "status": "completed"})

    def _job(self, request: web.Request) -> Job:
        job = self._queue.get(request.match_info["job"])
        if job is None:
            raise _error(web.HTTPNotFound, "no job with this id; results are kept 30 minutes (runsync: 1 minute)")
        return job

    async def _submit(self, request: web.Request, *, is_sync: bool) -> Job:
        limit = RUNSYNC_LIMIT if is_sync else RUN_LIMIT
        body = await request.read()
        if len(body) > limit:
            raise _error(
                web.HTTPBadRequest, f"the request is {len(body) / 1e6:.1f} MB; the limit is {limit // 10**6} MB"
            )
        try:
            sent = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _error(web.HTTPBadRequest, "the body must be JSON") from error
        if not isinstance(sent, dict) or not isinstance(sent.get("input"), (dict, str)):
            raise _error(
                web.HTTPBadRequest, 'the body must be an object with "input": an object, or a string of its JSON'
            )
        extra_fields = {name: sent[name] for name in _EXTRA_FIELDS if name in sent}
        policy, webhook = _parse_policy(sent.get("policy")), _parse_webhook(sent.get("webhook"))
        return self._queue.submit(sent["input"], policy, is_sync, extra_fields, webhook)

    async def _wait_for(self, job: Job, is_enough: Callable[[], bool], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not is_enough() and loop.time() < end:
            try:
                await asyncio.wait_for(job.changed.wait(), min(1.0, end - loop.time()))
            except asyncio.TimeoutError:
                self._queue.expire()


def _parse_webhook(sent: object) -> str:
    """The URL that is told of the job's end, "" for none."""
    if sent is None or sent == "":
        return ""
    if not isinstance(sent, str) or not sent.startswith(("http://", "https://")):
        raise _error(web.HTTPBadRequest, "webhook must be a URL that begins with http:// or https://")
    return sent


def _parse_policy(sent: object) -> Policy:
    policy = sent if isinstance(sent, dict) else {}
    execution = _parse_milliseconds(
        policy.get("executionTimeout", _DEFAULT_EXECUTION_MS), "executionTimeout", _MIN_EXECUTION_MS, _MAX_POLICY_MS
    )
    ttl = _parse_milliseconds(policy.get("ttl", _DEFAULT_TTL_MS), "ttl", _MIN_TTL_MS, _MAX_POLICY_MS)
    return Policy(execution / 1000, ttl / 1000)


def _parse_milliseconds(value: Any, name: str, minimum: int, maximum: int) -> int:
    try:
        number = int(value) if not isinstance(value, bool) and math.isfinite(float(value)) else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or not minimum <= number <= maximum:
        raise _error(web.HTTPBadRequest, f"{name} must be milliseconds from {minimum} to {maximum}")
    return number


def _error(kind: type[web.HTTPException], message: str) -> web.HTTPException:
    return kind(text=json.dumps({"error": message}), content_type="application/json")
