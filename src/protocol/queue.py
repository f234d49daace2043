"""The pending prompts, those that run, and the history of those that ended. May be used from several threads."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

_SECRETS = ("api_key_comfy_org", "auth_token_comfy_org")  # of `extra_data`


@dataclass(frozen=True)
class QueuedPrompt:
    """A prompt in the queue: the lowest number runs first. `outputs` are the ids of the output nodes that will run."""

    number: float
    prompt_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]

    def as_json(self) -> list[Any]:
        """As /queue and the history show it: without the caller's keys."""
        shown = {name: value for name, value in self.extra_data.items() if name not in _SECRETS}
        return [self.number, self.prompt_id, self.prompt, shown, self.outputs]


@dataclass
class PromptQueue:
    """The queue and the history.

    A prompt that was taken is still pending until it begins: an executor may wait for what runs it.
    """

    history: dict[str, Any] = field(default_factory=dict)
    _pending: list[tuple[float, int, QueuedPrompt]] = field(default_factory=list)
    _taken: dict[str, QueuedPrompt] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)
    _counter: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def next_number(self, is_front: bool) -> float:
        """The number of the next prompt, which goes to the end of the queue or before all others."""
        self._counter += 1
        return -self._counter if is_front else self._counter

    def put(self, queued: QueuedPrompt) -> None:
        """Queue a prompt."""
        with self._changed:
            self._counter += 1
            heapq.heappush(self._pending, (queued.number, self._counter, queued))
            self._changed.notify()

    def take(self) -> QueuedPrompt:
        """Wait for the next prompt, and take it."""
        with self._changed:
            while not self._pending:
                self._changed.wait()
            queued = heapq.heappop(self._pending)[2]
            self._taken[queued.prompt_id] = queued
            return queued

    def begin(self, prompt_id: str) -> None:
        """Note that a prompt which was taken runs from now on."""
        with self._changed:
            self._begun.add(prompt_id)

    def finish(self, prompt_id: str, entry: dict[str, Any] | None) -> None:
        """Move a prompt that was taken into the history; without an `entry` (it was deleted) it is only dropped."""
        with self._changed:
            if entry is not None:
                self.history[prompt_id] = entry
            self._taken.pop(prompt_id, None)
            self._begun.discard(prompt_id)

    def delete(self, prompt_ids: Collection[str]) -> list[str]:
        """Delete pending prompts. Returns those that were taken already: their executor has to drop them."""
        return self._delete(lambda queued: queued.prompt_id in prompt_ids)

    def clear(self) -> list[str]:
        """The same for all pending prompts."""
        return self._delete(lambda queued: True)

    def delete_history(self, prompt_ids: Iterable[str]) -> None:
        """Delete entries of the history."""
        for prompt_id in prompt_ids:
            self.history.pop(prompt_id, None)

    @property
    def running(self) -> list[QueuedPrompt]:
        """The prompts that run, in the order in which they were taken."""
        with self._changed:
            return [queued for queued in self._taken.values() if queued.prompt_id in self._begun]

    @property
    def current(self) -> list[QueuedPrompt]:
        """What an interrupt is meant for: the prompts that run or, if none does yet, the first that was taken."""
        with self._changed:
            return self.running or self._waiting()[:1]

    @property
    def pending(self) -> list[QueuedPrompt]:
        """The pending prompts in the order in which they will run."""
        with self._changed:
            later = [queued for _, _, queued in sorted(self._pending, key=lambda entry: entry[:2])]
            return [*self._waiting(), *later]

    def snapshot(self) -> tuple[list[QueuedPrompt], list[QueuedPrompt], dict[str, Any]]:
        """The prompts that run, the pending ones and the history, all at the same moment: each prompt is in one."""
        with self._changed:
            return self.running, self.pending, dict(self.history)

    @property
    def remaining(self) -> int:
        """The number of prompts that are pending or running."""
        with self._changed:
            return len(self._pending) + len(self._taken)

    def _waiting(self) -> list[QueuedPrompt]:
        return [queued for queued in self._taken.values() if queued.prompt_id not in self._begun]

    def _delete(self, is_wanted: Callable[[QueuedPrompt], bool]) -> list[str]:
        with self._changed:
            deleted = [queued.prompt_id for _, _, queued in self._pending if is_wanted(queued)]
            self._pending[:] = [entry for entry in self._pending if not is_wanted(entry[2])]
            heapq.heapify(self._pending)
            self._forget(deleted)
            return [queued.prompt_id for queued in self._waiting() if is_wanted(queued)]

    def _forget(self, prompt_ids: Iterable[str]) -> None:
        """Called with the prompts that were deleted."""
