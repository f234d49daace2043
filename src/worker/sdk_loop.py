"""RunPod's own loop over jobs, patched where the SDK (1.12 and 2.0) loses jobs, results, slots and stop signals."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from .job_take import take_jobs
from .result_delivery import ResultDelivery

log = logging.getLogger("worker")

_RETIRED_SECONDS = 1.0  # between two turns of the loop of a worker that takes no more jobs
_MAX_UNDELIVERED = 4  # results on their way that hold no slot; more of them do


def patched_scaler(scaler: Any) -> Any:
    """A subclass of the SDK's class `JobScaler` with these faults fixed:

    * Jobs that are lost with an answer that json cannot read (`job_take`), and results that are given up
      (`result_delivery`). A result on its way holds no slot, unless there are many, and is waited for at SIGTERM.
    * A stop signal that comes before a job's task takes its first step. The SDK drops it while there is no task yet,
      and the job runs to its end. If it comes in the same turn of the event loop in which the task is created, the
      task ends before it has begun: its `finally` never runs, the job counts as in progress for ever, and the worker
      takes no job any more. Here such a job is stopped as soon as it has begun.
    * A job that arrives with the answer to a request that was open at SIGTERM. The SDK ends without having run it.
    * A worker that asked to be replaced (`refresh_worker`). The SDK takes more jobs until RunPod has ended it.
    """

    class PatchedJobScaler(scaler):  # type: ignore[misc]
        jobs_fetcher: Any

        def __init__(self, config: dict[str, Any]) -> None:
            super().__init__(config)
            self._handler = config["handler"]
            self._take_jobs = take_jobs
            self.jobs_fetcher, self.jobs_handler = self._fetch, self._answer
            self._begun: set[str] = set()
            self._stopped_early: set[str] = set()
            self._results = ResultDelivery()
            self._is_retired = False

        def current_occupancy(self) -> int:
            return int(super().current_occupancy()) - min(len(self._results), _MAX_UNDELIVERED)

        async def _fetch(self, session: Any, count: int) -> Any:
            if self._is_retired:
                await asyncio.sleep(_RETIRED_SECONDS)
                return []
            jobs = await self._take_jobs(session, count)
            return [job for job in jobs if self.job_progress.get(job["id"]) is None]

        async def _answer(self, session: Any, config: dict[str, Any], job: dict[str, Any]) -> None:
            answer = await self._handler(job)
            if answer.get("refresh_worker"):
                log.warning("this worker is to be replaced: it takes no more jobs")
                self._is_retired = True
            delivered = self._results.start(session, job, answer)
            delivered.add_done_callback(lambda _: self.job_progress.remove(job))

        async def get_jobs(self, session: Any) -> None:
            await super().get_jobs(session)
            if not self.jobs_queue.empty():
                await self.run_jobs(session)

        async def run_jobs(self, session: Any) -> None:
            await super().run_jobs(session)
            await self._results.drain()

        async def stop_job(self, job_id: str) -> bool:
            if job_id in self._results:
                self._results.cancel(job_id)
                return True
            if job_id in self._begun or self.job_progress.get(job_id) is None:
                return bool(await super().stop_job(job_id))
            self._stopped_early.add(job_id)
            return True

        async def handle_job(self, session: Any, job: dict[str, Any]) -> None:
            self._begun.add(job["id"])
            if job["id"] in self._stopped_early:
                self._stopped_early.remove(job["id"])
                asyncio.current_task().cancel()  # type: ignore[union-attr]  # as the SDK does; it ends where it waits
            try:
                await super().handle_job(session, job)
            finally:
                self._begun.discard(job["id"])
                if job["id"] in self._results:  # RunPod is to know that the worker still has it
                    self.job_progress.add(job)

    return PatchedJobScaler
