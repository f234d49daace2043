"""The ComfyUI subprocess: start, alive, log tail, stop; the only owner of `subprocess`."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import ComfyBootFailed, ComfyStuck, PortTaken
from ..launch import LAUNCHER
from ..launch.comfy_launcher import WORKER_THREAD_ENDED
from ..launch.container_memory import kernel_kills, total_memory
from ..models.places import write_model_paths
from ..packs import InstalledPacks, install_packs
from ..redaction import public_text
from ..settings import SECRETS_FILE, Settings, child_environment, guarded_programs
from .boot_log import BootLog
from .folders import Folders
from .install import Installation

log = logging.getLogger(__name__)
_comfyui_log = logging.getLogger("comfyui")

_MARK = "COMFYUI_WORKER_FOLDERS"
"""Variable that marks the processes of one ComfyUI: those that it starts inherit it."""
_KILL_ROUNDS, _KILL_ROUND_SECONDS = 20, 0.05
_TRACEBACK = "Traceback (most recent call last)"
_STOP_SECONDS = 3.0
_GIGABYTE = 1 << 30
_KILL_SECONDS = 30.0  # that the system may take to end a killed process
_MAX_LINE_BYTES = 65536
_KEPT_LINES = 200
_KEPT_CHARACTERS = 1000
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # of a terminal: colours, and where to write
_LEVEL = re.compile(r"^\[(DEBUG|INFO|WARNING|ERROR|CRITICAL)\] ?")
# Log lines of every start that no one needs: its database, its kernels, and that its editor is not installed.
_NOISE = re.compile(
    r"Adding extra search path |setup plugin alembic|Context impl |Will assume |Running upgrade |Revis(ion ID|es): "
    r"|Create Date: |Change preview_id |Database upgraded |Found comfy_kitchen backend "
    r"|\*+ ERROR \*+$|comfyui-(workflow-templates is not installed|embedded-docs package not found)"
    r"|Please install the updated requirements|.* -m pip install -r .*requirements\.txt$|If you are on the portable "
    r"|The ComfyUI frontend is shipped "
)

# What a line of a failed boot means for the operator.
_HINTS = (
    (r"NVIDIA driver on your system is too old|driver version is insufficient",
     "the host's NVIDIA driver is too old for the CUDA of this image; filter hosts by CUDA version in the endpoint's "
     "settings (13.0 and later for cu130, 12.8 and later for cu128)"),
    (r"Found no NVIDIA driver|No CUDA GPUs are available|Torch not compiled with CUDA",
     "ComfyUI found no GPU; to run it on the CPU set COMFYUI_ARGS=--cpu"),
    (r"ASSETS_STARTUP_FAILED",  # of ComfyUI 0.38 and later
     "its database of assets could not be opened: remove --enable-assets and --database-url from COMFYUI_ARGS"),
    (r"not allowed with argument --cache", "use COMFYUI_CACHE instead of a cache flag in COMFYUI_ARGS"),
    (r"unrecognized arguments|invalid choice|expected one argument|not allowed with", "check COMFYUI_ARGS"),
    (r"No module named|cannot import name",
     "install ComfyUI's requirements.txt, or set COMFYUI_PYTHON to a Python that has them"),
)  # fmt: skip
_ADDRESS_IN_USE = re.compile(r"address already in use", re.IGNORECASE)


class ComfyProcess:
    """One engine process with folders of its own. It may be started and stopped several times."""

    def __init__(self, installation: Installation, settings: Settings) -> None:
        self.installation = installation
        self.port = 0
        self.started_at = 0.0
        self.folders = Folders(Path())
        self.packs: InstalledPacks | None = None
        self.boot_log = BootLog()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader: threading.Thread | None = None
        self._is_stopping = False
        self._ready_pipe: int | None = None
        self._kernel_kills = 0
        # The kernel ties a child to the *thread* that started it, so that has to be one that stays.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="comfyui-starter")

    def start(self) -> None:
        """Start the engine and return at once. Raises PortTaken, or ComfyBootFailed if there is nothing to start."""
        self.started_at = time.monotonic()
        self.port = _free_port(self._settings.comfyui_port)
        self.folders = Folders.make()
        self._log.clear()
        self.boot_log = BootLog()
        self._is_stopping = False
        self._kernel_kills = kernel_kills()
        command = self.installation.command(self._settings, self.folders, self.port)
        try:
            self._prepare()
        except BaseException:  # the edge of a start: the folders go with it, also at Ctrl-C
            self.folders.remove()
            raise
        log.info("starting %s on port %d", self.installation.name, self.port)
        try:
            self._process = self._starter.submit(self._spawn, command).result()
        except OSError as error:
            self.folders.remove()
            raise ComfyBootFailed(
                f"{self.installation.name} cannot be started: {error.strerror}; set COMFYUI_PYTHON to its Python "
                "interpreter"
            ) from error
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), daemon=True, name="comfyui-log")
        self._reader.start()

    def _prepare(self) -> None:
        """Bring what it reads at its start: input files, node packs, the places of models."""
        if self.installation.loads_models:
            folders, directory = self.folders, self.installation.directory
            for name in folders.bring_inputs(directory / "input"):
                log.warning("jobs cannot use %s of ComfyUI's input folder: it cannot be copied", name)
            if self.packs is None:  # once: packs that install libraries themselves would look like another ComfyUI
                self.packs = install_packs(self._settings, self.installation.start[0])
            self.boot_log.not_installed = self.packs.failures
            write_model_paths(self._settings, directory, folders.model_paths, folders.models, self.packs.folders)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        python, *program = command
        ready_end, self._ready_pipe = os.pipe()
        try:
            return subprocess.Popen(
                [python, str(LAUNCHER), str(os.getpid()), str(ready_end), *self._launch_options(), *program],
                cwd=self.installation.directory,
                env={**child_environment(self._settings), _MARK: str(self.folders.root)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(ready_end,),
            )
        except OSError:
            self._close_ready_pipe()
            raise
        finally:
            os.close(ready_end)

    def _launch_options(self) -> list[str]:
        """The launcher's options: see `launch.comfy_confinement` and `launch.comfy_deferred_imports`."""
        options = [] if self._settings.comfyui_defer_imports else ["--import-all"]
        if self.packs is not None and self.packs.libraries is not None:
            options = ["--libraries", str(self.packs.libraries), *options]
        if not self._settings.comfyui_confined:
            return options
        return ["--guard", os.pathsep.join(guarded_programs()), str(SECRETS_FILE), *options]

    def mark_ready(self) -> None:
        """Tell the launcher that the engine has booted: it goes on with what the boot put off."""
        self._close_ready_pipe(b"ready")

    def _close_ready_pipe(self, message: bytes = b"") -> None:
        pipe, self._ready_pipe = self._ready_pipe, None
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(pipe, message)
            os.close(pipe)

    @property
    def url(self) -> str:
        """Where its HTTP server answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_started(self) -> bool:
        """Whether it has been started and not been stopped; it may have ended by itself."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """The id of the process, None if it has not been started."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended the process."""
        return self._process is not None and (self._process.poll() or 0) < 0

    @property
    def reached_memory_limit(self) -> bool:
        """Whether the kernel ended the process as the container had used up its memory."""
        is_killed = self._process is not None and self._process.poll() == -signal.SIGKILL
        return is_killed and kernel_kills() > self._kernel_kills

    def activity(self) -> tuple[int, ...] | None:
        """Numbers that grow whenever the process does anything: page faults, CPU time, bytes read.

        None while a thread waits for a disk (state D), and where there is no proc(5), which is Linux only.
        """
        if self._process is None:
            return None
        proc = Path("/proc") / str(self._process.pid)
        try:
            threads = [(task / "stat").read_text() for task in (proc / "task").iterdir()]
            if any(thread.rsplit(")", 1)[1].split()[0] == "D" for thread in threads):
                return None
            fields = (proc / "stat").read_text().rsplit(")", 1)[1].split()
            read = (proc / "io").read_text().split()[1]
        except (OSError, IndexError):
            return None
        minor_faults, major_faults, user_time, system_time = (int(fields[index]) for index in (7, 9, 11, 12))
        return (minor_faults, major_faults, user_time, system_time, int(read))

    def public_log(self, lines: int = 5) -> list[str]:
        """The last lines, fit for a caller: no traceback, no path of the worker."""
        lines_kept = self.log_tail(_KEPT_LINES)
        public = [line for line in lines_kept if line.strip() and not line[0].isspace() and "Traceback" not in line]
        return [public_text(line, 300) for line in public[-lines:]]

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines that the engine wrote, for the operator."""
        return list(self._log)[-lines:]

    def exit_description(self) -> str:
        """How the process ended: its exit code, or the signal that killed it."""
        code = self._process.poll() if self._process else None
        if code is None:
            return "it is still running"
        if self._reader:
            self._reader.join(timeout=1)  # its last lines may still be in the pipe
        if code < 0:
            if self.reached_memory_limit:
                return f"killed by the kernel at this container's memory limit of {total_memory() / _GIGABYTE:.1f} GB"
            name = signal.Signals(-code).name
            return f"killed by {name}" + (" (the machine may be out of memory)" if name == "SIGKILL" else "")
        if code == WORKER_THREAD_ENDED:
            return "its worker thread ended with an exception"
        return f"exit code {code}"

    def boot_failure(self) -> ComfyBootFailed:
        """The error for an engine that died before it answered."""
        ending, tail = self.exit_description(), self.log_tail()
        text = "\n".join(tail)
        if _ADDRESS_IN_USE.search(text):
            return PortTaken(f"port {self.port} is in use by another process; set COMFYUI_PORT to a free one, or to 0")
        hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), "see its last log lines")
        return ComfyBootFailed(f"{self.installation.name} exited before it was ready: {ending}; {hint}", tail)

    def stop(self, grace: float = _STOP_SECONDS) -> None:
        """End the engine and all that it started, and remove its folders. Does nothing if it does not run.

        `grace` is the seconds that it gets to end by itself. Raises ComfyStuck if the system cannot end it.
        """
        if self._process is None:
            return
        self._is_stopping = True
        try:
            if grace:
                self._signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(grace)
        finally:  # also after a second Ctrl-C
            self._signal(signal.SIGKILL)  # also for processes that it started and left behind
            try:
                self._process.wait(_KILL_SECONDS)
            except subprocess.TimeoutExpired:
                raise ComfyStuck(
                    f"ComfyUI did not exit within {_KILL_SECONDS:g} s of being killed: the GPU driver or a disk may "
                    "hang; this worker has to be replaced"
                ) from None
            self._kill_left_behind()
            self._close_ready_pipe()
            self.folders.remove()
            self._process = None

    def _kill_left_behind(self) -> None:
        """Kill the processes that left ComfyUI's process group: they would keep its port, or the GPU.

        They are known by a variable of their environment, where there is a proc(5).
        """
        mark = f"{_MARK}={self.folders.root}".encode()
        for _ in range(_KILL_ROUNDS):  # a process may start another before it ends
            left = [entry for entry in Path("/proc").glob("[0-9]*") if mark in _environment_of(entry)]
            for entry in left:
                log.warning("ending process %s, left behind by a ComfyUI node", entry.name)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(entry.name), signal.SIGKILL)
            if not left:
                return
            time.sleep(_KILL_ROUND_SECONDS)

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._starter.shutdown()

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, for a zombie
                os.killpg(self._process.pid, number)

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        """Read every line, so that the engine never waits for a full pipe."""
        stream, in_traceback = process.stdout, False
        while stream and (raw := stream.readline(_MAX_LINE_BYTES)):
            line = plain_line(raw.decode("utf-8", "replace"))[:_KEPT_CHARACTERS]
            self._log.append(line)
            self.boot_log.read(line)
            # Lines that are written while the engine is being ended, tracebacks included, are of no interest.
            is_noise = self._is_stopping or not line or _NOISE.match(line)
            is_error, in_traceback = in_traceback or line.startswith(_TRACEBACK), _goes_on(in_traceback, line)
            level = logging.DEBUG if is_noise else logging.ERROR if is_error else logging.INFO
            _comfyui_log.log(level, "%s", line)


def _goes_on(in_traceback: bool, line: str) -> bool:
    """Whether the next line is of a traceback too: it ends with the exception, which is not indented."""
    return line.startswith(_TRACEBACK) or (in_traceback and (not line or line.startswith(" ")))


def plain_line(text: str) -> str:
    """A line as ComfyUI's log has it, without colours and without the level that newer versions begin it with.

    A progress bar rewrites its line after each \\r: the last part is what a terminal would show.
    """
    return _LEVEL.sub("", _ESCAPES.sub("", text).rstrip().rsplit("\r", 1)[-1])


def _environment_of(process: Path) -> list[bytes]:
    """The variables of a process, by its folder in proc(5); none of one that has ended or is not ours."""
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _free_port(wanted: int) -> int:
    """`wanted` if no process holds it, any free port if it is 0. Raises PortTaken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise PortTaken(
                f"port {wanted} is in use by another process; set COMFYUI_PORT to a free one, or to 0"
            ) from error
        return int(probe.getsockname()[1])
