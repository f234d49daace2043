"""The worker as the process that users start, with all that it starts itself."""

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
    """A command, `python serverless_worker.py …` mostly; `log` grows while it runs."""

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        # A mark in the environment, which children inherit: nothing with it may be left at the end.
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.log = ""
        own = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**own, **environment, "WORKER_TEST_MARK": self.mark, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.log += line.decode("utf-8", "replace")

    def wait_for_log(self, text: str, seconds: float) -> None:
        """Until the log has that text."""
        end = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < end, f"no {text!r} in:\n{self.log}"
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
            time.sleep(0.05)

    def family(self) -> list[int]:
        """The ids of all living processes that carry the mark."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"WORKER_TEST_MARK={self.mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def family_ends(self, seconds: float) -> bool:
        """Whether all of them are gone within that time."""
        end = time.monotonic() + seconds
        while self.family():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True


@contextmanager
def running(arguments: list[str], environment: Mapping[str, str], folder: Path) -> Iterator[WorkerProcess]:
    """A worker that is ended at the end, if it has not ended."""
    with ended(WorkerProcess([sys.executable, str(WORKER), *arguments], environment, folder)) as worker:
        yield worker


@contextmanager
def ended(worker: WorkerProcess) -> Iterator[WorkerProcess]:
    """The process; it and all that it started are ended with the block."""
    try:
        yield worker
    finally:
        for process_id in worker.family():
            with contextlib.suppress(ProcessLookupError):  # it may end with its parent, just now
                os.kill(process_id, 9)
        worker.process.wait(30)
