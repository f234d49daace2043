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

_STOP_SECONDS = 10.0
_RESTART_SECONDS, _LONGEST_RESTART_SECONDS = 0.5, 30.0

WorkerGone = Callable[[str, str], None]
"""Called with a worker's id and a reason when its process has ended."""


@dataclass
class _Worker:
    """One process."""

    id: str
    process: asyncio.subprocess.Process
    is_ready: bool = False
    is_leaving: bool = False


class WorkerPool:
    """A number of worker processes, kept up."""

    def __init__(self, count: int, arguments: list[str], gone: WorkerGone) -> None:
        self._count = count
        self._arguments = arguments
        self._gone = gone
        self._workers: dict[str, _Worker] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._started = 0

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start them all; `environment` is what tells a worker where its endpoint is."""
        self._keepers = [asyncio.create_task(self._keep(environment)) for _ in range(self._count)]

    async def stop(self) -> None:
        """End them all; one that does not end by itself is killed."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def replace(self, worker_id: str) -> None:
        """Have a worker end after what it runs; another comes in its place."""
        worker = self._workers.get(worker_id)
        if worker:
            log.info("worker %s asked to be replaced", worker_id)
            worker.is_leaving = True
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()

    def note_ready(self, worker_id: str) -> None:
        """Note that a worker asks for jobs."""
        if worker_id in self._workers:
            self._workers[worker_id].is_ready = True

    def may_take(self, worker_id: str) -> bool:
        """Whether a worker gets jobs: its process lives and has not asked to be replaced."""
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

    async def _keep(self, environment: Mapping[str, str]) -> None:
        """One worker after the other, for ever; each that ends before it took a job is followed more slowly."""
        pause = _RESTART_SECONDS
        while True:
            self._started += 1
            worker = await self._spawn(f"worker-{self._started}", environment)
            try:
                code = await worker.process.wait()
            except asyncio.CancelledError:
                await _end(worker.process)
                raise
            finally:
                del self._workers[worker.id]
            reason = f"worker {worker.id} ended with {_in_words(code)}"
            log.warning("%s", reason)
            self._gone(worker.id, reason)
            pause = _RESTART_SECONDS if worker.is_ready else min(pause * 2, _LONGEST_RESTART_SECONDS)
            await asyncio.sleep(pause)

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


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()


def _in_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
