"""What is known of a prompt that ended: ComfyUI's history entry, and the events received while it ran. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..workflow.graph import Workflow

FRAME_SENDER = "SaveImageWebsocket"
"""The class of the node that sends its pictures over the websocket."""

_ENDINGS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass(frozen=True)
class Frame:
    """A picture that a node sent over the websocket instead of saving it."""

    node_id: str
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Run:
    """A prompt that ended, well or not: its id, the workflow as queued and its history entry.

    `frames` came over the websocket. `queued_at` is in seconds since 1970, `waited` the seconds until it had ended:
    what ComfyUI's own clock tells cannot be longer, though that clock may be set meanwhile. `node_seconds` is how long
    each node ran whose events arrived, by its id.
    """

    prompt_id: str
    workflow: Workflow
    entry: dict[str, Any]
    frames: tuple[Frame, ...] = ()
    has_all_frames: bool = True
    queued_at: float = 0.0
    waited: float = math.inf
    node_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def cached_nodes(self) -> list[str]:
        """The nodes whose results ComfyUI still had."""
        nodes = messages_of(self.entry).get("execution_cached", {}).get("nodes")
        return [str(node) for node in nodes] if isinstance(nodes, list) else []

    @property
    def queue_seconds(self) -> float:
        """How long it waited in ComfyUI's queue, by the clock of both; 0 if that is not known."""
        began = self._timestamp("execution_start")
        return self._within_wait(began - self.queued_at) if began and self.queued_at else 0.0

    @property
    def execution_seconds(self) -> float:
        """How long it ran; 0 if that is not known."""
        began, ended = self._timestamp("execution_start"), self._timestamp(*_ENDINGS)
        return self._within_wait(ended - began) if began and ended else 0.0

    def _within_wait(self, seconds: float) -> float:
        return min(max(0.0, seconds), self.waited)

    def _timestamp(self, *kinds: str) -> float | None:
        """When the first of these events was, in seconds since 1970."""
        messages = messages_of(self.entry)
        times = [messages[kind].get("timestamp") for kind in kinds if kind in messages]
        return next((time / 1000 for time in times if isinstance(time, (int, float))), None)


def messages_of(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The events that a history entry holds: kind to data."""
    status = entry.get("status")
    messages = status.get("messages") if isinstance(status, Mapping) else None
    pairs = [message for message in messages or [] if isinstance(message, list) and len(message) == 2]
    return {str(kind): data if isinstance(data, Mapping) else {} for kind, data in pairs}


def sends_frames(workflow: Workflow) -> bool:
    """Whether a node of it sends pictures over the websocket."""
    return any(node["class_type"] == FRAME_SENDER for node in workflow.values())


class NodeClock:
    """How long each node runs, by the events that announce it."""

    def __init__(self) -> None:
        self.node_seconds: dict[str, float] = {}
        self._node_id: str | None = None
        self._since = 0.0

    def switch_to(self, node_id: str | None, at: float) -> None:
        """From a monotonic time in seconds on, this node runs, or (None) none."""
        if node_id == self._node_id:
            return
        if self._node_id is not None:
            before = self.node_seconds.get(self._node_id, 0.0)
            self.node_seconds[self._node_id] = before + at - self._since
        self._node_id, self._since = node_id, at
