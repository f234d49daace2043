"""A running engine: its process, its HTTP client and its events, booted and restarted together."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from types import TracebackType

from ..deadline import Deadline
from ..errors import (
    BootTimeout,
    ComfyBootFailed,
    ComfyCrashed,
    ComfyUnreachable,
    MemoryLimitReached,
    PortTaken,
    UnexpectedAnswer,
    WorkerError,
)
from ..settings import Settings
from .client import ComfyClient
from .events import EventStream
from .install import Installation
from .process import ComfyProcess

log = logging.getLogger(__name__)

_PROBE_SECONDS = 0.02


class ComfyEngine:
    """ComfyUI (or the draft engine) as a resource: entering starts it, leaving in any way ends it.

    `process` may have been started already.
    """

    def __init__(self, installation: Installation, settings: Settings, process: ComfyProcess | None = None) -> None:
        self.process = process or ComfyProcess(installation, settings)
        self.version = "unknown"
        self._settings = settings
        self._client: ComfyClient | None = None
        self._events: EventStream | None = None
        self._generation = 0
        self._lifecycle = threading.RLock()
        self.stopping = threading.Lock()
        """Held while a prompt is being stopped, which may end in a restart: a prompt queued then would be lost."""

    def __enter__(self) -> ComfyEngine:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._disconnect()
        self.process.close()

    @property
    def client(self) -> ComfyClient:
        """Its HTTP routes."""
        if self._client is None:
            raise ComfyCrashed("ComfyUI is not running")
        return self._client

    @property
    def events(self) -> EventStream:
        """Its events."""
        if self._events is None:
            raise ComfyCrashed("ComfyUI is not running")
        return self._events

    def start(self) -> None:
        """Start the process, unless that has been done, and return at once; it is ready after `wait_ready`."""
        if not self.process.is_started:
            self.process.start()
        self._client = ComfyClient(self.process.url, self.process.installation.name, self.process.boot_log)

    def wait_ready(self) -> None:
        """Wait until our own child answers, then connect to its events.

        Raises ComfyBootFailed (PortTaken) as soon as it is dead, BootTimeout after the boot budget.
        """
        deadline = Deadline(self._settings.boot_timeout)
        while not self._answers():
            if not self.process.alive:
                raise self.process.boot_failure()
            if deadline.passed:
                raise BootTimeout(
                    f"ComfyUI did not answer within {deadline.seconds:g} s; raise COMFYUI_BOOT_TIMEOUT, or see its "
                    "last log lines for the reason",
                    self.process.log_tail(),
                )
            time.sleep(_PROBE_SECONDS)
        self.process.mark_ready()
        self._events = EventStream(self.process.url)
        self._events.start()
        seconds = time.monotonic() - self.process.started_at
        log.info("%s is ready, %.1f s after its start", self.process.installation.name, seconds)
        if paths := self.process.boot_log.fast_paths(self._settings.comfyui_args):
            log.info("fast paths: %s", ", ".join(map(str, paths)))
        for pack in self.process.boot_log.failed_packs:
            log.warning("%s", pack)

    def forget(self, prompt_id: str) -> None:
        """Have ComfyUI drop the history entry of a prompt that ended.

        If ComfyUI does not answer, because another job has it restarted, the entry is gone with the process.
        """
        with contextlib.suppress(WorkerError):
            self.client.forget(prompt_id)

    # --- Start, restart, end ---------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """How many processes of this engine there were before the one that runs now."""
        return self._generation

    def ensure_ready(self) -> int:
        """Boot the engine if it does not run, or wait until it has booted; the generation that runs now.

        It is restarted if a node has replaced one of its folders. A boot that a signal ended (the kernel may have run
        out of memory) is tried once more. Raises ComfyBootFailed or BootTimeout; nothing runs then.
        """
        with self._lifecycle:
            if not self.process.alive or not self.process.folders.are_intact:
                self._restart()
            if self._events is None:
                try:
                    self._boot()
                except WorkerError:
                    self._kill()
                    raise
            return self._generation

    def _boot(self) -> None:
        try:
            self.wait_ready()
        except ComfyBootFailed as error:
            if not self.process.was_killed:
                raise
            log.warning("%s", error)
            self._restart()
            self.wait_ready()

    def restart(self, generation: int) -> None:
        """Kill the process of that generation and start another, which is ready after `ensure_ready`.

        Does nothing if that process is gone already: several jobs see the same process fail.
        """
        with self._lifecycle:
            if generation == self._generation:
                self._restart()

    def discard(self, generation: int) -> None:
        """Kill the process of that generation; the next job, if there is one, boots another."""
        with self._lifecycle:
            if generation == self._generation:
                self._generation += 1  # first: by this a job whose process is gone sees that it was not the cause
                self._kill()

    def _restart(self) -> None:
        log.warning("restarting %s", self.process.installation.name)
        self._generation += 1  # first: by this a job whose process is gone sees that it was not the cause
        self._kill()
        self.start()

    def _kill(self) -> None:
        self._disconnect()
        self.process.stop(grace=0)

    def ensure_alive(self) -> None:
        """Raise ComfyCrashed (MemoryLimitReached) if the process has ended."""
        if self.process.alive:
            return
        ending = f"ComfyUI ended while the job ran: {self.process.exit_description()}"
        if self.process.reached_memory_limit:
            raise MemoryLimitReached(
                f"{ending}; use smaller images, batches or models, set COMFYUI_CACHE=none, or use a machine with "
                "more memory"
            )
        raise ComfyCrashed(ending)

    def _answers(self) -> bool:
        """Whether /system_stats answers, and it is our child that does."""
        try:
            system = self.client.system_stats().get("system") or {}
        except (ComfyUnreachable, UnexpectedAnswer):
            return False
        if str(self.process.folders.root) not in (system.get("argv") or []):
            raise PortTaken(
                f"another server answers on port {self.process.port}; set COMFYUI_PORT to 0 or a free port"
            )
        self.version = str(system.get("comfyui_version"))
        return True

    def _disconnect(self) -> None:
        if self._events is not None:
            self._events.stop()
        if self._client is not None:
            self._client.close()
        self._events = self._client = None
