"""Each job of a worker, from when it was taken until its answer has been delivered, and which of them hold a slot.

A job holds a slot until its files are safe: ComfyUI is free then, and the next job may be taken. Its encoding, its
upload and the answer's way to RunPod go on beside that job. Not without bound: where more jobs are leaving than the
line or the CPU can take, those hold slots, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .result_delivery import deliver

log = logging.getLogger("worker")

_MAX_LEAVING = 8  # jobs on their way out that hold no slot

Handler = Callable[[dict[str, Any], Callable[[], object]], Awaitable[Mapping[str, Any]]]
"""(job, on_safe) -> the answer. It calls `on_safe`, from any thread, when the job no longer needs ComfyUI."""


class JobsInHand:
    """Used from the event loop only. `progress` is the SDK's set of jobs that it tells RunPod the worker has."""

    def __init__(self, handler: Handler, progress: Any) -> None:
        self.is_retired = False
        """Whether an answer has asked for the worker to be replaced."""
        self._handler = handler
        self._progress = progress
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[str] = set()
        self._changed = asyncio.Event()

    @property
    def slots(self) -> int:
        """How many slots are held."""
        return len(self._tasks) - min(len(self._leaving), _MAX_LEAVING)

    async def wait_for_slot(self, slots: int) -> None:
        """Wait until fewer than that many are held."""
        while self.slots >= slots:
            self._changed.clear()
            await self._changed.wait()

    def begin(self, session: Any, job: dict[str, Any]) -> None:
        """Run a job and deliver its answer; one that is here already goes on as it is."""
        job_id = job["id"]
        if job_id in self._tasks:
            return
        self._progress.add(job)
        self._tasks[job_id] = asyncio.create_task(self._run(session, job))
        # Not in a `finally`: a task that is cancelled before its first step never comes to it.
        self._tasks[job_id].add_done_callback(lambda task: self._end(job, task))

    def stop(self, job_id: str) -> bool:
        """Stop a job that RunPod wants no more; whether it is here."""
        task = self._tasks.get(job_id)
        if task is not None:
            log.info("stopping job %s", job_id)
            task.cancel()
        return task is not None

    async def drain(self) -> None:
        """Wait until all have ended."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _run(self, session: Any, job: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        answer = await self._handler(job, lambda: loop.call_soon_threadsafe(self._leave, job["id"]))
        if answer.get("refresh_worker"):
            log.warning("this worker will be replaced and takes no more jobs")
            self.is_retired = True
        self._leave(job["id"])
        await deliver(session, str(job["id"]), answer)

    def _leave(self, job_id: str) -> None:
        if job_id in self._tasks:  # it may have ended before the event loop comes to this
            self._leaving.add(job_id)
            self._changed.set()

    def _end(self, job: dict[str, Any], task: asyncio.Task[None]) -> None:
        del self._tasks[job["id"]]
        self._leaving.discard(job["id"])
        self._progress.remove(job)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("job %s did not get a response", job["id"], exc_info=error)
