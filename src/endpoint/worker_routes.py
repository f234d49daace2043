"""The routes that the RunPod SDK in a worker uses: to take jobs, to post their results, and to ask which to stop."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from aiohttp import web

from .client_routes import RUN_LIMIT, RUNSYNC_LIMIT, require_key
from .jobs import Job, JobQueue
from .workers import WorkerPool

log = logging.getLogger(__name__)

_TAKE_WAIT_SECONDS = 1.0  # how long job-take waits for a job: a worker can exit only between two requests
_STOP_WAIT_SECONDS = 0.5  # how long job-stop waits for a job to stop
_STOP_CHECK_INTERVAL_SECONDS = 0.05


class WorkerRoutes:
    """The routes, over one queue and the processes that use them. Each requires the workers' `token`."""

    def __init__(self, queue: JobQueue, pool: WorkerPool, token: str) -> None:
        self._queue = queue
        self._pool = pool
        self._token = token

    def add_to(self, application: web.Application) -> None:
        """Register them."""
        for method, path, route in (
            ("GET", "job-take/{worker}", self.take),
            ("GET", "job-take-batch/{worker}", self.take_batch),
            ("POST", "job-done/{worker}/{job}", self.done),
            ("POST", "job-stream/{worker}/{job}", self.stream),
            ("GET", "job-stop/{worker}", self.stop),
            ("GET", "ping/{worker}", self.ping),
        ):
            application.router.add_route(method, f"/v2/{{endpoint}}/{path}", require_key(route, self._token))

    async def take(self, request: web.Request) -> web.Response:
        """GET job-take: one job, or 204."""
        jobs = await self._take(request, 1)
        return web.json_response(_payload(jobs[0])) if jobs else web.Response(status=204)

    async def take_batch(self, request: web.Request) -> web.Response:
        """GET job-take-batch: up to `?batch_size=` jobs, or 204."""
        jobs = await self._take(request, int(request.query.get("batch_size", "1")))
        return web.json_response([_payload(job) for job in jobs]) if jobs else web.Response(status=204)

    async def done(self, request: web.Request) -> web.Response:
        """POST job-done: a result, or a progress update."""
        worker_id, job_id = request.match_info["worker"], request.match_info["job"]
        body = await request.read()
        limit = RUNSYNC_LIMIT if job_id.startswith("sync-") else RUN_LIMIT
        if len(body) > limit:  # as on RunPod, where the job is then COMPLETED without output
            log.warning(
                "the result of %s is %.1f MB, over RunPod's limit of %d MB: lost",
                job_id,
                len(body) / 1e6,
                limit // 10**6,
            )
            self._queue.finish(worker_id, job_id, None)
            return web.Response(status=400)
        answer = json.loads(body)
        if answer.get("status") == "IN_PROGRESS":
            self._queue.progress(worker_id, job_id, answer.get("output"))
        else:
            self._queue.finish(worker_id, job_id, answer)
            if answer.get("stopPod"):
                self._pool.replace(worker_id)
        return web.Response()

    async def stream(self, request: web.Request) -> web.Response:
        """POST job-stream: a chunk of output."""
        chunk = json.loads(await request.read())
        self._queue.stream(request.match_info["worker"], request.match_info["job"], chunk.get("output"))
        return web.Response()

    async def stop(self, request: web.Request) -> web.Response:
        """GET job-stop: the jobs to stop, or 204."""
        worker_id = request.match_info["worker"]
        for _ in range(int(_STOP_WAIT_SECONDS / _STOP_CHECK_INTERVAL_SECONDS)):
            self._queue.expire()
            if jobs := self._queue.jobs_to_stop(worker_id):
                return web.json_response({"jobsToStop": jobs})
            await asyncio.sleep(_STOP_CHECK_INTERVAL_SECONDS)
        return web.Response(status=204)

    async def ping(self, request: web.Request) -> web.Response:
        """GET ping: a worker is alive and names the jobs that it runs."""
        self._queue.note_running(request.match_info["worker"], request.query.get("job_id", "").split(","))
        return web.Response()

    async def _take(self, request: web.Request, count: int) -> list[Job]:
        worker_id = request.match_info["worker"]
        self._pool.note_ready(worker_id)
        if request.query.get("job_in_progress") == "0":
            self._queue.note_running(worker_id, ())
        if not self._pool.may_take(worker_id):
            await asyncio.sleep(_TAKE_WAIT_SECONDS)
            return []
        return await self._queue.take(worker_id, count, _TAKE_WAIT_SECONDS, lambda: self._pool.may_take(worker_id))


def _payload(job: Job) -> dict[str, Any]:
    return {**job.extra_fields, "id": job.id, "input": job.input}
