"""The worker as the process that users start, with all the processes that it starts itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKER = ROOT / "serverless_worker.py"


class WorkerProcess:
    """A running command, mostly `python serverless_worker.py …`; `log` is its output so far."""

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        # A marker in the environment, which child processes inherit: none with it may be left at the end.
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self._lines: list[str] = []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, **environment, "WORKER_TEST_MARK": self.mark, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.append(line.decode("utf-8", "replace"))

    @property
    def log(self) -> str:
        """What it has written; all of it once it has ended, unless a process that it left behind still writes."""
        if self.process.poll() is not None:
            self._reader.join(5)
        return "".join(self._lines)

    def wait_for_log(self, text: str, seconds: float) -> None:
        """Wait until the log has that text."""
        end = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < end, f"no {text!r} in:\n{self.log}"
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
            time.sleep(0.05)

    def process_tree(self) -> list[int]:
        """The ids of the command and of all processes that it started (those with the marker), as far as they run."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"WORKER_TEST_MARK={self.mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def process_tree_ends(self, seconds: float) -> bool:
        """Whether all of these processes end within that time."""
        end = time.monotonic() + seconds
        while self.process_tree():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True


@contextmanager
def running(arguments: list[str], environment: Mapping[str, str], folder: Path) -> Iterator[WorkerProcess]:
    """A running worker, killed at the end of the block if it still runs."""
    with killed_on_exit(WorkerProcess([sys.executable, str(WORKER), *arguments], environment, folder)) as worker:
        yield worker


@contextmanager
def killed_on_exit(worker: WorkerProcess) -> Iterator[WorkerProcess]:
    """The process; it and all processes that it started are killed at the end of the block."""
    try:
        yield worker
    finally:
        for process_id in worker.process_tree():
            with contextlib.suppress(ProcessLookupError):  # it may have ended just now, with its parent
                os.kill(process_id, 9)
        worker.process.wait(30)
