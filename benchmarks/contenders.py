"""Our worker and a peer's, each as its users start it, on the same ComfyUI, SDK and queue.

The peer is a checkout of runpod-workers/worker-comfyui. Its handler runs as it is; its start script is followed in
its order: a Python that imports torch to look for a GPU (the import only: no CPU passes the look itself), then ComfyUI
with its default flags and DEBUG logs, then the handler. Both get the same extra arguments for ComfyUI.
"""

from __future__ import annotations

import compileall
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.comfy.install import Installation
from tests.loopback_queue import LoopbackQueue
from tests.worker_process import WORKER, WorkerProcess, ended

NODES = Path(__file__).resolve().parent.parent / "tests" / "comfyui_nodes"
_BYTECODE = NODES.parent.parent / "src" / "launch" / "comfy_bytecode.py"
PEER_PORT = 8188
"""The peer's handler knows no other."""
PEER_FLAGS = ("--disable-auto-launch", "--disable-metadata", "--verbose", "DEBUG", "--log-stdout")
"""What its start script gives to ComfyUI."""


@dataclass(frozen=True)
class Contender:
    """How to start a worker: a command, and variables beside those of the queue."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def started(self, queue: LoopbackQueue, place: Path, **variables: str) -> Iterator[WorkerProcess]:
        """The worker, taking jobs from the queue; `place` is a folder that it has to itself."""
        place.mkdir(parents=True)
        environment = {**queue.environment, **self.environment, **variables}
        with ended(WorkerProcess(list(self.command), environment, place)) as worker:
            yield worker


def comfyui_arguments(folder: Path) -> str:
    """Arguments that both get: the CPU, and a node that sleeps, for jobs of a known length."""
    paths = folder / "nodes.yaml"
    paths.write_text(f"bench:\n  custom_nodes: {NODES}\n")
    return f"--cpu --extra-model-paths-config {paths}"


def ours(installation: Installation, arguments: str) -> Contender:
    """Our worker with its defaults."""
    environment = {"COMFYUI_PATH": str(installation.directory), "COMFYUI_ARGS": arguments}
    return Contender("ours", (sys.executable, str(WORKER)), environment)


@contextmanager
def kept_bytecode(installation: Installation) -> Iterator[None]:
    """With the bytecode of a boot kept for our launcher, which goes again, and our own compiled, as in our image."""
    compileall.compile_dir(_BYTECODE.parent, quiet=1)
    folder = installation.directory / "__pycache__"
    if list(folder.glob("boot.*.pack")):
        yield
        return
    command = [installation.start[0], str(_BYTECODE), "main.py", "--cpu", "--quick-test-for-ci"]
    subprocess.run(command, cwd=installation.directory, check=True, capture_output=True)
    try:
        yield
    finally:
        for pack in folder.glob("boot.*.pack"):
            pack.unlink()


def peer(checkout: Path, installation: Installation, arguments: str, folder: Path) -> Contender:
    """The peer in the order of its start script."""
    files = peer_files(checkout, folder)
    comfyui = " ".join(map(shlex.quote, peer_comfyui(installation, arguments, folder)))
    script = f"""
{shlex.quote(installation.start[0])} -c 'import torch'
(cd {shlex.quote(str(installation.directory))} && exec {comfyui}) &
echo $! > /tmp/comfyui.pid
exec {shlex.quote(sys.executable)} -u {shlex.quote(str(files / "handler.py"))}
"""
    return Contender("worker-comfyui", ("bash", "-c", script))


def peer_files(checkout: Path, folder: Path) -> Path:
    """The peer's Python files, side by side as in its image."""
    files = folder / "peer"
    if not files.exists():
        files.mkdir()
        for file in [checkout / "handler.py", *(checkout / "src").glob("*.py")]:
            shutil.copy(file, files)
    return files


def peer_comfyui(installation: Installation, arguments: str, folder: Path) -> list[str]:
    """The command that starts ComfyUI for the peer; its pictures go to a folder of ours."""
    output = folder / "peer-output"
    output.mkdir(exist_ok=True)
    python = installation.start[0]
    return [python, "-u", "main.py", *PEER_FLAGS, *shlex.split(arguments), "--output-directory", str(output)]


def picture(color: int) -> dict[str, Any]:
    """A workflow without models, of next to no work."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": color}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "start"}},
    }


def drop_page_cache() -> bool:
    """Make the kernel forget what it has read, as on a new host; whether it did (it wants root)."""
    os.sync()
    done = subprocess.run(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"], check=False, stderr=subprocess.DEVNULL)
    return done.returncode == 0
