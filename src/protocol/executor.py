"""The interface of what runs a protocol server's prompts, and its data types."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .queue import QueuedPrompt
from .report import RunReport


@dataclass(frozen=True)
class Folders:
    """The folders that /view serves; it names them by `type`."""

    input: Path
    output: Path
    temp: Path


@dataclass
class ValidationResult:
    """The outcome of validating a prompt: the ids of the output nodes that will run; `error` is set if none will."""

    outputs: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    node_errors: dict[str, Any] = field(default_factory=dict)


class Executor(Protocol):
    """Runs prompts. `execute` is called from `concurrency` threads; everything else from the event loop."""

    @property
    def concurrency(self) -> int:
        """How many prompts it runs at a time."""

    @property
    def folders(self) -> Folders:
        """Where its files are."""

    @property
    def version(self) -> str:
        """The version of ComfyUI whose protocol it speaks."""

    @property
    def devices(self) -> Sequence[Mapping[str, Any]]:
        """What it runs on, as /system_stats lists it."""

    def validate(self, prompt: dict[str, Any], targets: Collection[str] | None) -> ValidationResult:
        """Validate a prompt; its values may be converted in place. Of its output nodes only `targets` will run."""

    def execute(self, queued: QueuedPrompt, report: RunReport) -> None:
        """Run a prompt until it ends, and report how: `succeeded`, `interrupted` or `failed`.

        For one that is withdrawn before it began, nothing is reported.
        """

    def interrupt(self, prompt_id: str) -> None:
        """Ask a prompt to stop that was given to `execute`; this does not wait for it."""

    def withdraw(self, prompt_id: str) -> None:
        """The same for a prompt that its user deletes: it is to leave no trace, unless it has begun."""

    def free_memory(self) -> None:
        """Drop cached results."""

    def object_info(self) -> Mapping[str, Mapping[str, Any]]:
        """Every node class, as /object_info returns it."""

    def node_class(self, name: str) -> Mapping[str, Any] | None:
        """One node class, None for one that it does not have."""
