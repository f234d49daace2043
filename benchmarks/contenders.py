"""Our worker and a peer, each started as its users start it, on the same ComfyUI, SDK and queue.

The peer is a checkout of runpod-workers/worker-comfyui. Its handler runs unmodified. The steps of its start script run
in the same order: a Python that imports torch to check for a GPU (only the import: without a GPU the check itself
would fail), then ComfyUI with its default flags and DEBUG logs, then the handler. Both get the same extra ComfyUI
arguments.
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
from tests.worker_process import WORKER, WorkerProcess, killed_on_exit

NODES = Path(__file__).resolve().parent.parent / "tests" / "comfyui_nodes"
_COMFY_BYTECODE = NODES.parent.parent / "src" / "launch" / "comfy_bytecode.py"
PEER_PORT = 8188
"""The port of ComfyUI that is hard-coded in the peer's handler."""
PEER_FLAGS = ("--disable-auto-launch", "--disable-metadata", "--verbose", "DEBUG", "--log-stdout")
"""The ComfyUI flags of the peer's start script."""


@dataclass(frozen=True)
class Contender:
    """How to start a worker: its command, and environment variables besides those of the queue."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def started(self, queue: LoopbackQueue, folder: Path, **variables: str) -> Iterator[WorkerProcess]:
        """The worker, taking jobs from the queue. `folder` is created: its working folder, for this worker alone."""
        folder.mkdir(parents=True)
        environment = {**queue.environment, **self.environment, **variables}
        with killed_on_exit(WorkerProcess(list(self.command), environment, folder)) as worker:
            yield worker


def comfyui_arguments(folder: Path) -> str:
    """ComfyUI arguments for both: run on the CPU, with a node that sleeps, for jobs of a known duration."""
    paths = folder / "nodes.yaml"
    paths.write_text(f"bench:\n  custom_nodes: {NODES}\n")
    return f"--cpu --extra-model-paths-config {paths}"


def our_worker(installation: Installation, arguments: str) -> Contender:
    """Our worker with its default settings."""
    environment = {"COMFYUI_PATH": str(installation.directory), "COMFYUI_ARGS": arguments}
    return Contender("ours", (sys.executable, str(WORKER)), environment)


@contextmanager
def cached_bytecode(installation: Installation) -> Iterator[None]:
    """Bytecode as in our image: `src/launch` compiled, and ComfyUI's boot pack; a pack made here is removed again."""
    compileall.compile_dir(_COMFY_BYTECODE.parent, quiet=1)
    folder = installation.directory / "__pycache__"
    if list(folder.glob("boot.*.pack")):
        yield
        return
    command = [installation.start[0], str(_COMFY_BYTECODE), "main.py", "--cpu", "--quick-test-for-ci"]
    subprocess.run(command, cwd=installation.directory, check=True, capture_output=True)
    try:
        yield
    finally:
        for pack in folder.glob("boot.*.pack"):
            pack.unlink()


def peer_worker(checkout: Path, installation: Installation, arguments: str, folder: Path) -> Contender:
    """The peer, started in the order of its start script."""
    files = copy_peer_files(checkout, folder)
    comfyui = " ".join(map(shlex.quote, peer_comfyui_command(installation, arguments, folder)))
    script = f"""
{shlex.quote(installation.start[0])} -c 'import torch'
(cd {shlex.quote(str(installation.directory))} && exec {comfyui}) &
echo $! > /tmp/comfyui.pid
exec {shlex.quote(sys.executable)} -u {shlex.quote(str(files / "handler.py"))}
"""
    return Contender("worker-comfyui", ("bash", "-c", script))


def copy_peer_files(checkout: Path, folder: Path) -> Path:
    """Copy the peer's Python files into one folder, as in its image; that folder."""
    files = folder / "peer"
    if not files.exists():
        files.mkdir()
        for file in [checkout / "handler.py", *(checkout / "src").glob("*.py")]:
            shutil.copy(file, files)
    return files


def peer_comfyui_command(installation: Installation, arguments: str, folder: Path) -> list[str]:
    """The command that starts ComfyUI for the peer. Output files go below `folder`."""
    output = folder / "peer-output"
    output.mkdir(exist_ok=True)
    python = installation.start[0]
    return [python, "-u", "main.py", *PEER_FLAGS, *shlex.split(arguments), "--output-directory", str(output)]


def empty_image_workflow(color: int) -> dict[str, Any]:
    """A workflow without models that takes almost no time."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": color}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "start"}},
    }


def drop_page_cache() -> bool:
    """Drop the kernel's page cache, as on a new host. Whether it succeeded (it needs root)."""
    os.sync()
    done = subprocess.run(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"], check=False, stderr=subprocess.DEVNULL)
    return done.returncode == 0
