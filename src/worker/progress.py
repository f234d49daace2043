"""Progress of a job for RunPod: one percent that only grows, sent at most once a second, one at a time.

RunPod's SDK sends each update from a thread of its own, in no order and perhaps after the result, which then shows a
finished job as in progress. So: one in flight, and none after `close`.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from ..comfy.events import Event
from ..pictures.helper import HELPERS, HelperFailed, TooSlow, time_limit
from ..workflow.graph import Graph, Workflow

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any], dict[str, Any]], None]
"""Sends (job, progress) to RunPod and returns when it is sent."""

_SAMPLER_WEIGHT = 30
_INTERVAL_SECONDS = 1.0
_IN_FLIGHT_SECONDS = 5.0  # that a result waits for an update which is being sent
_PREVIEW_SECONDS = 5.0  # that the encoding of a preview may take


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
    """Sends the progress of one job, with the newest preview of the node that runs, each preview once."""

    def __init__(self, job: dict[str, Any], workflow: Workflow, send: Send) -> None:
        self._job = job
        self._progress = JobProgress(workflow)
        self._send = send
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="progress")
        self._last_update: Future[None] | None = None
        self._is_scheduled = False  # an update that has not taken the progress yet
        self._newest: Mapping[str, Any] | None = None
        self._preview: Event | None = None
        self._closed = threading.Event()
        self._sent_at = time.monotonic()  # a job of less than a second sends nothing, and waits for nothing

    def __enter__(self) -> Callable[[Event], None]:
        return self.report

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._last_update is not None:
            wait([self._last_update], _IN_FLIGHT_SECONDS)
        self._executor.shutdown(wait=False)

    def report(self, event: Event) -> None:
        """Take an event in, and send the progress if it is time; a preview is sent as soon as it is."""
        if event.jpeg:
            self._preview = event
        else:
            progress = self._progress.update(event)
            if progress is None:
                return
            self._newest = progress
        if self._is_scheduled or self._newest is None:
            return
        if event.jpeg or (self._is_free and self._seconds_left() <= 0):
            self._is_scheduled = True
            self._last_update = self._executor.submit(self._send_newest)

    @property
    def _is_free(self) -> bool:
        return self._last_update is None or self._last_update.done()

    def _seconds_left(self) -> float:
        """Until the next update may be sent."""
        return self._sent_at + _INTERVAL_SECONDS - time.monotonic()

    def _send_newest(self) -> None:
        """Send, once it is time, what is the newest progress then."""
        if self._closed.wait(max(0.0, self._seconds_left())):
            return
        self._sent_at, self._is_scheduled = time.monotonic(), False
        preview, self._preview = self._preview, None
        update = _Update(self._newest or {})
        if preview is not None and preview.node_id == update.get("node_id"):
            update.update(self._encoded(preview.jpeg))
        if not self._closed.is_set():
            with contextlib.suppress(Exception):  # the edge of progress: what the SDK raises must never cost a job
                self._send(self._job, update)

    def _encoded(self, jpeg: bytes) -> dict[str, str]:
        """The preview as an update has it; nothing of one that is broken or huge, or if the job ends meanwhile."""
        try:
            content = base64.b64encode(jpeg).decode()
            return {"preview": HELPERS.call("preview", time_limit(_PREVIEW_SECONDS, self._check_open), content)}
        except (HelperFailed, TooSlow, OSError) as error:
            log.debug("a preview was left out: %s", error)
        except _Closed:
            pass
        return {}

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise _Closed


class _Closed(Exception):
    """The job has ended."""


class _Update(dict[str, Any]):
    """A progress update, which RunPod's SDK writes into its log: there without the preview's base64."""

    def __repr__(self) -> str:
        return repr({name: "…" if name == "preview" else value for name, value in self.items()})
