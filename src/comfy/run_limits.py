"""What may end the wait for a prompt early, and what is called with its progress."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ..deadline import Deadline
from ..errors import JobCancelled, JobTimeout
from .events import Event

Report = Callable[[Event], None]
"""Called with each event of a prompt that carries progress."""


@dataclass(frozen=True)
class RunLimits:
    """The limits of a wait: its time budget, silence, and `stop`, which is set when the caller withdraws the job.

    `deadline` starts again while the prompt waits behind others. `stall` is the seconds that a running prompt may go
    without an event, `grace` those that an interrupted one gets to stop before ComfyUI is restarted.
    """

    deadline: Deadline
    stall: float
    grace: float
    stop: threading.Event = field(default_factory=threading.Event)

    def check_stop(self) -> None:
        """Raise JobCancelled if the caller has withdrawn the job."""
        if self.stop.is_set():
            raise JobCancelled("the job was cancelled")

    def check(self) -> None:
        """Raise JobCancelled or JobTimeout if the wait has to end."""
        self.check_stop()
        if self.deadline.passed:
            raise JobTimeout(
                f"the job did not end within {self.deadline.seconds:g} s (JOB_TIMEOUT); "
                "raise the limit or use fewer steps or a smaller size"
            )
