"""The queue of a RunPod endpoint: which jobs wait, which worker runs which, how each ended.

No I/O; for use on one event loop only.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

MAX_ATTEMPTS = 3
"""How often a job is given to a worker, if the workers that run it die."""

_PING_DELAY_SECONDS = 1.0  # from when the SDK takes a job until its pings name it
_STOPPED_CHECK_INTERVAL_SECONDS = 0.1  # between two checks whether a worker has stopped a job
_STOP_SIGNAL_INTERVAL_SECONDS = 0.25  # between two signals to stop the same job
_RESULT_TTL_SECONDS, _RESULT_TTL_SECONDS_SYNC = 1800.0, 60.0  # of /run and of /runsync, from the end of the job


class Status(str, Enum):
    """RunPod's names for the states of a job."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self not in (Status.IN_QUEUE, Status.IN_PROGRESS)


@dataclass(frozen=True)
class Policy:
    """A job's limits in seconds: `execution` from pick-up, `ttl` from submission."""

    execution: float = 600.0
    ttl: float = 86400.0


@dataclass
class Job:
    """One job. Times are of a monotonic clock, in seconds."""

    id: str
    input: Any
    policy: Policy
    created: float
    extra_fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    webhook: str = ""
    status: Status = Status.IN_QUEUE
    started: float | None = None
    ended: float | None = None
    worker_id: str | None = None
    attempts: int = 0
    output: Any = None
    has_output: bool = False
    error: Any = None
    chunks: list[Any] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_sync(self) -> bool:
        """Whether it was submitted to /runsync."""
        return self.id.startswith("sync-")

    def as_json(self) -> dict[str, Any]:
        """As /status shows it: times in whole milliseconds."""
        answer: dict[str, Any] = {"id": self.id, "status": self.status.value}
        if self.started is not None:
            answer["delayTime"] = int((self.started - self.created) * 1000)
            answer["workerId"] = self.worker_id
            if self.ended is not None:
                answer["executionTime"] = int((self.ended - self.started) * 1000)
        if self.has_output:
            answer["output"] = self.output
        if self.error is not None:
            answer["error"] = self.error
        return answer


@dataclass
class _StopRequest:
    """A job that its worker is to stop: when that was requested, and when the worker last got the signal."""

    requested: float
    signalled: float = float("-inf")


class JobQueue:
    """All jobs of the endpoint."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, on_end: Callable[[Job], object] = lambda job: None
    ) -> None:
        self._clock = clock
        self._on_end = on_end
        self._jobs: dict[str, Job] = {}
        self._waiting: list[str] = []
        self._stopping: dict[str, dict[str, _StopRequest]] = {}  # by worker id, by job id
        self._retried = 0
        self._arrived = asyncio.Event()

    def submit(
        self,
        job_input: Any,
        policy: Policy,
        is_sync: bool,
        extra_fields: Mapping[str, Any] = MappingProxyType({}),
        webhook: str = "",
    ) -> Job:
        """A new job at the end of the queue; `extra_fields` are given to the handler along with the input."""
        job_id = f"sync-{uuid.uuid4()}-u1" if is_sync else f"{uuid.uuid4()}-u1"
        job = Job(job_id, job_input, policy, self._clock(), extra_fields, webhook)
        self._jobs[job.id] = job
        self._enqueue(job)
        return job

    def get(self, job_id: str) -> Job | None:
        """The job with this id; None if there is none, or its result is no longer kept."""
        self.expire()
        return self._jobs.get(job_id)

    async def take(self, worker_id: str, count: int, seconds: float, may_take: Callable[[], bool]) -> list[Job]:
        """Up to `count` jobs for a worker, waiting up to `seconds` for the first; none if not `may_take()` by then."""
        self.expire()
        if not self._waiting:
            self._arrived.clear()
            with_timeout = asyncio.wait_for(self._arrived.wait(), seconds)
            try:
                await with_timeout
            except asyncio.TimeoutError:
                return []
        if not may_take():  # the worker died while waiting
            return []
        # A job that was stopped and queued again goes to the same worker only once that worker has stopped it.
        stopping = self._stopping.get(worker_id, {})
        taken = [self._jobs[job_id] for job_id in self._waiting if job_id not in stopping][:count]
        if not taken:
            await asyncio.sleep(_STOPPED_CHECK_INTERVAL_SECONDS)
        for job in taken:
            self._waiting.remove(job.id)
            job.status, job.worker_id, job.started = Status.IN_PROGRESS, worker_id, self._clock()
            job.attempts += 1
            self._notify(job)
        return taken

    def progress(self, worker_id: str, job_id: str, output: Any) -> None:
        """Note a progress update of a running job; it is shown as the job's output until the job ends."""
        job = self._running(worker_id, job_id)
        if job:
            job.output, job.has_output = output, True
            self._notify(job)

    def stream(self, worker_id: str, job_id: str, chunk: Any) -> None:
        """Add a chunk to a running job's output stream."""
        job = self._running(worker_id, job_id)
        if job:
            job.chunks.append(chunk)
            self._notify(job)

    def finish(self, worker_id: str, job_id: str, answer: dict[str, Any] | None) -> None:
        """End a job with the answer that its worker posted; None for one that was too large, which RunPod loses.

        Ignored if that worker does not run the job (any more): it was cancelled, timed out or given to another.
        """
        self._stopping.get(worker_id, {}).pop(job_id, None)
        job = self._running(worker_id, job_id)
        if job is None:
            return
        answer = answer or {}
        job.has_output, job.output = "output" in answer, answer.get("output")
        job.error = answer.get("error")
        self._end(job, Status.COMPLETED if job.error is None else Status.FAILED)

    def cancel(self, job: Job) -> None:
        """End a job; if it is running, its worker is asked to stop it."""
        if not job.status.is_final:
            self._stop(job, Status.CANCELLED)

    def retry(self, job: Job) -> bool:
        """Queue a failed or timed-out job again. Returns False, and does nothing, for any other."""
        if job.status not in (Status.FAILED, Status.TIMED_OUT):
            return False
        job.ended = job.error = job.output = None
        job.has_output, job.attempts = False, 0
        self._requeue(job)
        return True

    def purge(self) -> int:
        """Cancel all queued jobs; returns how many there were."""
        dropped, self._waiting = self._waiting, []
        for job_id in dropped:
            self._end(self._jobs[job_id], Status.CANCELLED)
        return len(dropped)

    def jobs_to_stop(self, worker_id: str) -> list[str]:
        """Ids of the jobs to signal a worker to stop now.

        Signals are repeated, because one may reach the worker before the job does.
        """
        now, job_ids = self._clock(), []
        for job_id, stop in self._stopping.get(worker_id, {}).items():
            if now - stop.signalled >= _STOP_SIGNAL_INTERVAL_SECONDS:
                stop.signalled = now
                job_ids.append(job_id)
        return job_ids

    def note_running(self, worker_id: str, job_ids: Iterable[str]) -> None:
        """Note the jobs that a worker reports as still running: any other that it was to stop has stopped."""
        running, now = set(job_ids), self._clock()
        for job_id, stop in list(self._stopping.get(worker_id, {}).items()):
            # The SDK reports a job only a moment after taking it: until then, a missing id says nothing.
            if job_id not in running and now - stop.requested > _PING_DELAY_SECONDS:
                del self._stopping[worker_id][job_id]

    def worker_died(self, worker_id: str, reason: str) -> None:
        """Put the jobs of a worker that died back at the front of the queue, or fail those given out too often."""
        self._stopping.pop(worker_id, None)
        for job in list(self._jobs.values()):
            if job.status is Status.IN_PROGRESS and job.worker_id == worker_id:
                if job.attempts < MAX_ATTEMPTS:
                    self._retried += 1
                    self._requeue(job, first=True)
                else:
                    job.error = f"{reason}; the job was handed out {job.attempts} times"
                    self._end(job, Status.FAILED)

    def expire(self) -> None:
        """Time out jobs that ran or waited too long; drop results that are no longer kept."""
        now = self._clock()
        for job in list(self._jobs.values()):
            if job.ended is not None:
                if now - job.ended > (_RESULT_TTL_SECONDS_SYNC if job.is_sync else _RESULT_TTL_SECONDS):
                    del self._jobs[job.id]
            elif now - job.created > job.policy.ttl:
                self._stop(job, Status.TIMED_OUT)
                del self._jobs[job.id]
            elif job.status is Status.IN_PROGRESS and now - (job.started or now) > job.policy.execution:
                job.error = f"job timed out after {job.policy.execution:g} seconds (executionTimeout)"
                self._stop(job, Status.TIMED_OUT)

    def counts(self) -> dict[str, int]:
        """As /health shows them."""
        by_status = [job.status for job in self._jobs.values()]
        return {
            "completed": by_status.count(Status.COMPLETED),
            "failed": by_status.count(Status.FAILED) + by_status.count(Status.TIMED_OUT),
            "inProgress": by_status.count(Status.IN_PROGRESS),
            "inQueue": len(self._waiting),
            "retried": self._retried,
        }

    def busy_workers(self) -> set[str]:
        """Ids of the workers that run a job."""
        running = (job.worker_id for job in self._jobs.values() if job.status is Status.IN_PROGRESS)
        return {worker_id for worker_id in running if worker_id}

    def _running(self, worker_id: str, job_id: str) -> Job | None:
        job = self._jobs.get(job_id)
        return job if job and job.status is Status.IN_PROGRESS and job.worker_id == worker_id else None

    def _stop(self, job: Job, status: Status) -> None:
        if job.status is Status.IN_PROGRESS and job.worker_id:
            self._stopping.setdefault(job.worker_id, {})[job.id] = _StopRequest(self._clock())
        if job.id in self._waiting:
            self._waiting.remove(job.id)
        self._end(job, status)

    def _end(self, job: Job, status: Status) -> None:
        job.status, job.ended = status, self._clock()
        self._notify(job)
        self._on_end(job)

    def _requeue(self, job: Job, first: bool = False) -> None:
        job.status, job.worker_id, job.started = Status.IN_QUEUE, None, None
        job.has_output, job.output = False, None
        self._enqueue(job, first)

    def _enqueue(self, job: Job, first: bool = False) -> None:
        self._waiting.insert(0 if first else len(self._waiting), job.id)
        self._arrived.set()
        self._notify(job)

    def _notify(self, job: Job) -> None:
        changed, job.changed = job.changed, asyncio.Event()
        changed.set()
