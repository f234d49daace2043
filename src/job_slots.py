"""The slots for jobs in RunPod's SDK: freed where it forgets to, closed once the worker is to be replaced."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableSet
from typing import Any

log = logging.getLogger("worker")

# A job that the SDK took begins within 0.1 s, or at the next turn of an event loop that was held up.
_LOOKS, _SECONDS = 3, 2.0


class JobSlots:
    """How many jobs run at a time, and which have begun.

    A stop signal that arrives in the very turn of the event loop in which the SDK (1.12) creates a job's task ends
    that task before its first step. Its `finally` never runs, so the job counts as in progress for ever: the worker
    takes no job any more, and its pings say that it is busy. `in_progress` is the SDK's set of jobs, `JobsProgress`.

    An answer with `refresh_worker` asks RunPod to end the worker. Until it does, the SDK would go on taking jobs.
    """

    def __init__(
        self, concurrency: int, handler: Callable[[dict[str, Any]], Awaitable[Any]], in_progress: MutableSet[Any]
    ) -> None:
        self._concurrency = concurrency
        self._handler = handler
        self._in_progress = in_progress
        self._begun: dict[str, Any] = {}  # job id to the SDK's entry of it, which is another one if it comes again
        self._is_retired = False
        self._idle: dict[str, tuple[int, float]] = {}  # job id to how often and since when it was seen not begun

    async def handle(self, job: dict[str, Any]) -> Any:
        """The SDK's `handler`: the job begins, and the handler answers it."""
        self._begun[job["id"]] = self._entries().get(job["id"])
        answer = await self._handler(job)
        if isinstance(answer, dict) and answer.get("refresh_worker"):
            log.warning("this worker is to be replaced: it takes no more jobs")
            self._is_retired = True
        return answer

    def concurrency(self, current: int) -> int:
        """The SDK's `concurrency_modifier`, called before each look for jobs: frees what holds a slot in vain."""
        jobs, now = self._entries(), time.monotonic()
        # An entry stays there until the job's answer was posted.
        self._begun = {job_id: jobs[job_id] for job_id in jobs if self._begun.get(job_id) is jobs[job_id]}
        self._idle = {job_id: self._idle.get(job_id, (0, now)) for job_id in jobs.keys() - self._begun.keys()}
        for job_id, (looks, since) in list(self._idle.items()):
            self._idle[job_id] = (looks + 1, since)
            if looks + 1 >= _LOOKS and now - since >= _SECONDS:
                log.warning("job %s was stopped before it began: its slot is free again", job_id)
                self._in_progress.remove(jobs[job_id])
        return 0 if self._is_retired else self._concurrency

    def _entries(self) -> dict[str, Any]:
        return {entry.id: entry for entry in self._in_progress}
