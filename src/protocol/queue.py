"""The pending prompts, the running one, and the history of those that ended. May be used from several threads."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class QueuedPrompt:
    """A prompt in the queue: the lowest number runs first. `outputs` are the ids of the output nodes that will run."""

    number: float
    prompt_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]

    def as_json(self) -> list[Any]:
        """As /queue and the history show it."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


@dataclass
class PromptQueue:
    """The queue and the history."""

    running: QueuedPrompt | None = None
    history: dict[str, Any] = field(default_factory=dict)
    _pending: list[tuple[float, int, QueuedPrompt]] = field(default_factory=list)
    _counter: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def next_number(self, is_front: bool) -> float:
        """The number of the next prompt, which goes to the end of the queue or before all others."""
        self._counter += 1
        return -self._counter if is_front else self._counter

    def put(self, queued: QueuedPrompt) -> None:
        """Queue a prompt."""
        with self._changed:
            heapq.heappush(self._pending, (queued.number, self._counter, queued))
            self._changed.notify()

    def take(self) -> QueuedPrompt:
        """Wait for the next prompt, and make it the running one."""
        with self._changed:
            while not self._pending:
                self._changed.wait()
            self.running = heapq.heappop(self._pending)[2]
            return self.running

    def finish(self, entry: dict[str, Any]) -> None:
        """Move the running prompt into the history."""
        if self.running is not None:
            self.history[self.running.prompt_id] = entry
            self.running = None

    def delete(self, prompt_ids: Collection[str]) -> None:
        """Delete pending prompts."""
        self._keep(lambda queued: queued.prompt_id not in prompt_ids)

    def clear(self) -> None:
        """Delete all pending prompts."""
        self._keep(lambda queued: False)

    def delete_history(self, prompt_ids: Iterable[str]) -> None:
        """Delete entries of the history."""
        for prompt_id in prompt_ids:
            self.history.pop(prompt_id, None)

    @property
    def pending(self) -> list[QueuedPrompt]:
        """The pending prompts in the order in which they will run."""
        return [queued for _, _, queued in sorted(self._pending, key=lambda entry: entry[:2])]

    @property
    def remaining(self) -> int:
        """The number of prompts that are pending or running."""
        return len(self._pending) + (1 if self.running else 0)

    def _keep(self, is_kept: Callable[[QueuedPrompt], bool]) -> None:
        with self._changed:
            self._pending[:] = [entry for entry in self._pending if is_kept(entry[2])]
            heapq.heapify(self._pending)
