"""The worker processes of a local endpoint: `serverless_worker.py` with the real SDK; dead ones are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .. import REPOSITORY
from ..launch import LAUNCHER

log = logging.getLogger(__name__)

_STOP_TIMEOUT_SECONDS = 10.0
_RESTART_DELAY_SECONDS, _MAX_RESTART_DELAY_SECONDS = 0.5, 30.0
_MAX_FAILED_STARTS = 2  # in a row

WorkerDied = Callable[[str, str], None]
"""Called with a worker's id and a reason when its process has ended."""


@dataclass
class _Worker:
    """One process."""

    id: str
    process: asyncio.subprocess.Process
    is_ready: bool = False
    is_leaving: bool = False


class WorkerPool:
    """A number of worker processes; any that ends is replaced, until several in a row ended before they were ready."""

    def __init__(self, count: int, arguments: list[str], on_death: WorkerDied) -> None:
        self._count = count
        self._arguments = arguments
        self._on_death = on_death
        self._workers: dict[str, _Worker] = {}
        self._supervisors: list[asyncio.Task[None]] = []
        self._started = 0
        self.has_given_up = asyncio.Event()
        """Set when workers cannot start here."""

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start them all. `environment` includes what tells a worker where its endpoint is (`worker_environment`)."""
        self._supervisors = [asyncio.create_task(self._supervise(environment)) for _ in range(self._count)]

    async def stop(self) -> None:
        """Terminate them all; one that does not exit in time is killed."""
        for supervisor in self._supervisors:
            supervisor.cancel()
        await asyncio.gather(*self._supervisors, return_exceptions=True)

    def replace(self, worker_id: str) -> None:
        """Have a worker exit after the job that it runs; another is started in its place."""
        worker = self._workers.get(worker_id)
        if worker:
            log.info("worker %s asked to be replaced", worker_id)
            worker.is_leaving = True
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()

    def note_ready(self, worker_id: str) -> None:
        """Note that a worker has asked for jobs."""
        if worker_id in self._workers:
            self._workers[worker_id].is_ready = True

    def may_take(self, worker_id: str) -> bool:
        """Whether a worker gets jobs: its process is alive and has not asked to be replaced."""
        worker = self._workers.get(worker_id)
        return worker is not None and not worker.is_leaving and worker.process.returncode is None

    def counts(self, busy: set[str]) -> dict[str, int]:
        """As /health shows them."""
        ready = [worker.id for worker in self._workers.values() if worker.is_ready]
        running = [worker_id for worker_id in ready if worker_id in busy]
        return {
            "idle": len(ready) - len(running),
            "initializing": self._count - len(ready),
            "ready": len(ready),
            "running": len(running),
            "throttled": 0,
            "unhealthy": 0,
        }

    async def _supervise(self, environment: Mapping[str, str]) -> None:
        """Run one worker after another; the delay grows while workers end before they ask for a job."""
        delay, failed = _RESTART_DELAY_SECONDS, 0
        while True:
            self._started += 1
            worker = await self._spawn(f"worker-{self._started}", environment)
            try:
                code = await worker.process.wait()
            except asyncio.CancelledError:
                await _terminate(worker.process)
                raise
            finally:
                del self._workers[worker.id]
            reason = f"worker {worker.id} exited with {_describe_exit(code)}"
            log.warning("%s", reason)
            self._on_death(worker.id, reason)
            delay = _RESTART_DELAY_SECONDS if worker.is_ready else min(delay * 2, _MAX_RESTART_DELAY_SECONDS)
            failed = 0 if worker.is_ready else failed + 1
            if failed == _MAX_FAILED_STARTS:
                self.has_given_up.set()
            await asyncio.sleep(delay)

    async def _spawn(self, worker_id: str, environment: Mapping[str, str]) -> _Worker:
        script = [str(LAUNCHER), str(os.getpid()), "-", str(REPOSITORY / "serverless_worker.py"), *self._arguments]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *script,
            env={**environment, "RUNPOD_POD_ID": worker_id},
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        worker = self._workers[worker_id] = _Worker(worker_id, process)
        return worker


async def _terminate(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_SECONDS)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()


def _describe_exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
