"""What runs the prompts of a protocol server: the interface, and what goes through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .queue import QueuedPrompt
from .report import RunReport


@dataclass(frozen=True)
class Folders:
    """Where files are, as /view calls the folders."""

    input: Path
    output: Path
    temp: Path


@dataclass
class Verdict:
    """What is said to a POST /prompt: the ids of the output nodes that may run; `error` is set if none may."""

    outputs: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    node_errors: dict[str, Any] = field(default_factory=dict)


class Executor(Protocol):
    """Runs prompts. `execute` is called from a thread, one prompt at a time; all else from the event loop."""

    @property
    def folders(self) -> Folders:
        """Where its files are."""

    @property
    def version(self) -> str:
        """The version of ComfyUI whose protocol it speaks."""

    @property
    def devices(self) -> Sequence[Mapping[str, Any]]:
        """What it runs on, as /system_stats lists it."""

    def prepare(self, prompt: dict[str, Any]) -> Verdict:
        """Validate a prompt, whose values may be converted in place."""

    def execute(self, queued: QueuedPrompt, report: RunReport) -> None:
        """Run a prompt to its end, and report its ending: `succeeded`, `interrupted` or `failed`."""

    def interrupt(self) -> None:
        """Have the prompt that runs end soon."""

    def free_memory(self) -> None:
        """Drop cached results."""

    def object_info(self) -> Mapping[str, Mapping[str, Any]]:
        """Every node class, as /object_info gives it."""
