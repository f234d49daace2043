"""RunPod's own loop over jobs, patched where the SDK (1.12, 2.0) loses jobs, results, slots, stop signals or time."""

from __future__ import annotations

import asyncio
from typing import Any

from .job_take import take_jobs
from .jobs_in_hand import JobsInHand

_RETIRED_SECONDS = 1.0  # between two turns of the loop of a worker that takes no more jobs


def patched_scaler(scaler: Any) -> Any:
    """A subclass of the SDK's class `JobScaler` with these faults fixed:

    * Jobs that are lost with an answer that json cannot read (`job_take`), and results that are given up
      (`result_delivery`). A result on its way holds no slot, unless there are many, and is waited for at SIGTERM.
    * Time in which jobs wait and ComfyUI idles: the SDK sleeps a second whenever all slots are held, and up to 0.1 s
      before a job begins (1.12). Here the next job is taken as soon as a slot is free, and begins at once.
    * A stop signal that comes before a job's task takes its first step. The SDK drops it while there is no task yet,
      and the job runs to its end. If it comes in the same turn of the event loop in which the task is created, the
      task ends before it has begun: its `finally` never runs, the job counts as in progress for ever, and the worker
      takes no job any more.
    * A job that arrives with the answer to a request that was open at SIGTERM. The SDK ends without having run it.
    * A worker that asked to be replaced (`refresh_worker`). The SDK takes more jobs until RunPod has ended it.

    The SDK's own queue of jobs stays empty: it takes jobs, hears stop signals and SIGTERM; `JobsInHand` does the rest.
    """

    class PatchedJobScaler(scaler):  # type: ignore[misc]
        jobs_fetcher: Any

        def __init__(self, config: dict[str, Any]) -> None:
            super().__init__(config)
            self._take_jobs = take_jobs
            self._jobs = JobsInHand(config["handler"], self.job_progress)
            self.jobs_fetcher = self._fetch

        async def set_scale(self) -> None:
            await super().set_scale()
            await self._jobs.wait_for_slot(self.current_concurrency)  # or the SDK would sleep for a second

        def current_occupancy(self) -> int:
            return self._jobs.slots

        async def get_jobs(self, session: Any) -> None:
            await super().get_jobs(session)
            await self._jobs.drain()

        async def stop_job(self, job_id: str) -> bool:
            return self._jobs.stop(job_id)

        async def _fetch(self, session: Any, count: int) -> list[Any]:
            """Take jobs and begin them; none are left for the SDK."""
            if self._jobs.is_retired:
                await asyncio.sleep(_RETIRED_SECONDS)
            elif self.is_alive():
                for job in await self._take_jobs(session, count):
                    self._jobs.begin(session, job)
            return []

    return PatchedJobScaler
