"""Tells the callers' webhooks how their jobs ended, as RunPod does."""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from .jobs import Job, Status

_ATTEMPTS = 3
_PAUSE_SECONDS = 10.0  # RunPod's
_TIMEOUT = aiohttp.ClientTimeout(total=10.0)
_TOLD = (Status.COMPLETED, Status.FAILED, Status.TIMED_OUT)

log = logging.getLogger("endpoint")


class Webhooks:
    """Posts what /status shows of a job that ended, with its `input` and `webhook`; anything but 200 is tried again.

    RunPod documents neither a signature nor what a cancelled job gets: it is told of none. For use on one event loop.
    """

    def __init__(self, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self._pause_seconds = pause_seconds
        self._calls = set[asyncio.Task[None]]()

    def tell(self, job: Job) -> None:
        """Call the job's webhook, if it has one, without waiting for it."""
        if job.webhook and job.status in _TOLD:
            body = {**job.as_json(), "input": job.input, "webhook": job.webhook}
            call = asyncio.get_running_loop().create_task(self._post(job.webhook, job.id, body))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def close(self) -> None:
        """Give up calls that have not succeeded yet."""
        if self._calls:
            log.warning("%s webhooks were not delivered", len(self._calls))
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _post(self, url: str, job_id: str, body: dict[str, object]) -> None:
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._pause_seconds)
            try:
                async with (
                    aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                    session.post(url, json=body, allow_redirects=False) as answer,
                ):
                    if answer.status == 200:
                        return
                    problem = f"it returned status {answer.status}"
            except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
                problem = type(error).__name__
            log.warning("the webhook of job %s: %s (try %s of %s)", job_id, problem, attempt + 1, _ATTEMPTS)
