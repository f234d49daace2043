"""What the RunPod SDK in a worker uses: it asks for jobs, posts what became of them, and asks what to stop."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from aiohttp import web

from .client_routes import RUN_LIMIT, RUNSYNC_LIMIT, guarded
from .jobs import Job, JobQueue
from .workers import WorkerPool

log = logging.getLogger(__name__)

_TAKE_SECONDS = 1.0  # that a question for a job is held; a worker ends only between two questions
_STOP_SECONDS = 0.5
_STOP_CHECK = 0.05


class WorkerRoutes:
    """The routes, over one queue and the processes that use them. Each wants the workers' `token`."""

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
            application.router.add_route(method, f"/v2/{{endpoint}}/{path}", guarded(route, self._token))

    async def take(self, request: web.Request) -> web.Response:
        """GET job-take: one job, or 204."""
        jobs = await self._taken(request, 1)
        return web.json_response(_as_taken(jobs[0])) if jobs else web.Response(status=204)

    async def take_batch(self, request: web.Request) -> web.Response:
        """GET job-take-batch: up to `?batch_size=` jobs, or 204."""
        jobs = await self._taken(request, int(request.query.get("batch_size", "1")))
        return web.json_response([_as_taken(job) for job in jobs]) if jobs else web.Response(status=204)

    async def done(self, request: web.Request) -> web.Response:
        """POST job-done: a result, or progress on the way to it."""
        worker_id, job_id = request.match_info["worker"], request.match_info["job"]
        body = await request.read()
        limit = RUNSYNC_LIMIT if job_id.startswith("sync-") else RUN_LIMIT
        if len(body) > limit:  # as RunPod does, whose job is then COMPLETED without output
            log.warning(
                "the result of %s is %.1f MB, over RunPod's %d MB: lost", job_id, len(body) / 1e6, limit // 10**6
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
        """POST job-stream: a piece of output."""
        chunk = json.loads(await request.read())
        self._queue.stream(request.match_info["worker"], request.match_info["job"], chunk.get("output"))
        return web.Response()

    async def stop(self, request: web.Request) -> web.Response:
        """GET job-stop: the jobs to stop, or 204."""
        worker_id = request.match_info["worker"]
        for _ in range(int(_STOP_SECONDS / _STOP_CHECK)):
            self._queue.expire()
            if jobs := self._queue.to_stop(worker_id):
                return web.json_response({"jobsToStop": jobs})
            await asyncio.sleep(_STOP_CHECK)
        return web.Response(status=204)

    async def ping(self, request: web.Request) -> web.Response:
        """GET ping: a worker lives, and runs the jobs that it names."""
        self._queue.runs_only(request.match_info["worker"], request.query.get("job_id", "").split(","))
        return web.Response()

    async def _taken(self, request: web.Request, count: int) -> list[Job]:
        worker_id = request.match_info["worker"]
        self._pool.note_ready(worker_id)
        if request.query.get("job_in_progress") == "0":
            self._queue.runs_only(worker_id, ())
        if not self._pool.may_take(worker_id):
            await asyncio.sleep(_TAKE_SECONDS)
            return []
        return await self._queue.take(worker_id, count, _TAKE_SECONDS, lambda: self._pool.may_take(worker_id))


def _as_taken(job: Job) -> dict[str, Any]:
    return {**job.beside, "id": job.id, "input": job.input}
