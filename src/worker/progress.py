"""Progress of a job for RunPod: one percent that only grows, sent at most once a second, one at a time.

RunPod's SDK sends each update from a thread of its own, in no order and perhaps after the result, which then shows a
finished job as in progress. So: one in flight, and none after `close`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from ..comfy.events import Event
from ..workflow.graph import Graph, Workflow

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any], dict[str, Any]], None]
"""Sends (job, progress) to RunPod and returns when it is sent."""

_SAMPLER_WEIGHT = 30
_INTERVAL_SECONDS = 1.0
_IN_FLIGHT_SECONDS = 5.0  # that a result waits for an update which is being sent


class JobProgress:
    """How far a run is, by its events."""

    def __init__(self, workflow: Workflow) -> None:
        self._graph = Graph(workflow)
        self._to_run = set(workflow)
        self._begun: list[str] = []
        self._percent = 0

    def update(self, event: Event) -> Mapping[str, Any] | None:
        """The progress after an event, None if the event carries none.

        `percent` counts nodes that began, those from the cache left out, with the step of the one that runs. A node
        that samples counts as much as many others.
        """
        self._to_run.difference_update(event.cached)
        node_id = event.node_id
        if node_id is None or node_id not in self._graph:
            return None
        if node_id not in self._begun:
            self._begun.append(node_id)
        part = event.step / event.steps if event.steps else 0.0
        before = sum(self._weight(begun) for begun in self._begun[:-1])
        whole = sum(self._weight(node) for node in self._to_run) or 1
        done = (before + min(part, 1.0) * self._weight(self._begun[-1])) / whole
        self._percent = max(self._percent, min(99, int(done * 100)))
        title = self._graph.title(node_id)
        # Clients of worker-comfyui read `images` of every `output`, also while the job runs.
        progress: dict[str, Any] = {"percent": self._percent, "node_id": node_id, "node": title, "images": []}
        return {**progress, "step": event.step, "steps": event.steps} if event.steps else progress

    def _weight(self, node_id: str) -> int:
        return _SAMPLER_WEIGHT if self._graph.link(node_id, "latent_image") else 1


class ProgressSender(AbstractContextManager[Callable[[Event], None]]):
    """Sends the progress of one job."""

    def __init__(self, job: dict[str, Any], workflow: Workflow, send: Send) -> None:
        self._job = job
        self._progress = JobProgress(workflow)
        self._send = send
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="progress")
        self._in_flight: Future[None] | None = None
        self._sent_at = time.monotonic()  # a job of less than a second sends nothing, and waits for nothing

    def __enter__(self) -> Callable[[Event], None]:
        return self.report

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._in_flight is not None:
            wait([self._in_flight], _IN_FLIGHT_SECONDS)
        self._executor.shutdown(wait=False)

    def report(self, event: Event) -> None:
        """Take an event in, and send the progress if it is time."""
        progress = self._progress.update(event)
        is_free = self._in_flight is None or self._in_flight.done()
        if progress and is_free and time.monotonic() - self._sent_at >= _INTERVAL_SECONDS:
            self._sent_at = time.monotonic()
            self._in_flight = self._executor.submit(self._try_to_send, dict(progress))

    def _try_to_send(self, progress: dict[str, Any]) -> None:
        with contextlib.suppress(Exception):  # the edge of progress: whatever the SDK raises must never cost a job
            self._send(self._job, progress)
