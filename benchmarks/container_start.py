"""Time from container start to first response: our start and a serial start, in the same image with the same ComfyUI.

    python -m benchmarks.container_start --root ROOT [--peer WORKER_COMFYUI] [--runs 3]

ROOT is the root filesystem of an image of the target `pod` (docker/BUILD_COMMANDS.md): it has the editor's files,
which worker-comfyui needs because it waits for the editor's first page. `--peer` is a checkout of
runpod-workers/worker-comfyui: its handler runs unmodified with the worker's libraries, in the order of its start
script: a Python that imports torch to check for a GPU, then ComfyUI with its default flags and DEBUG logs, then the
handler. The GPU check is reduced to the import, since it would fail without a GPU. Both alternately run one job
without models from a queue on loopback; nothing is kept between runs except the page cache. Needs Linux and root.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contenders import PEER_FLAGS, copy_peer_files, empty_image_workflow
from tests.container import ENTRY, ENVIRONMENT, running
from tests.loopback_queue import LoopbackQueue, serving

Start = Callable[[LoopbackQueue, Path], Any]
"""Starts a container that takes jobs from the queue; the folder is for its files and log."""

_TIMEOUT_SECONDS = 180.0
_SERIAL_START_SCRIPT = f"""#!/bin/bash
/opt/comfyui/bin/python -c 'import torch'
cd /comfyui
/opt/comfyui/bin/python -u main.py {" ".join(PEER_FLAGS)} --cpu &
echo $! > /tmp/comfyui.pid
exec /opt/worker/bin/python -u /peer/handler.py
"""


def main() -> None:
    """Print a table and the figures as JSON."""
    options = _parse()
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        starts: dict[str, Start] = {"ours": lambda queue, folder: _start_ours(options.root, queue, folder)}
        if options.peer:
            overlay = Path(temporary) / "overlay"
            overlay.mkdir()
            _write_peer_overlay(options.peer, overlay)
            starts["serial"] = lambda queue, folder: _start_serial(options.root, overlay, queue, folder)
        for run in range(options.runs):
            for name, start in starts.items():
                folder = Path(temporary) / f"{name}{run}"
                folder.mkdir()
                seconds.setdefault(name, []).append(_time_to_first_answer(start, folder))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"container start to first response, median of {options.runs}, {os.cpu_count()} cores")
    for name, median in medians.items():
        runs = " ".join(f"{value:.2f}" for value in seconds[name])
        print(f"{name:>8} {median:>7.2f} s  {median / medians['ours']:>5.2f} x  ({runs})")
    print(json.dumps(seconds))


def _time_to_first_answer(start: Start, folder: Path) -> float:
    with serving() as queue:
        queue.put("one", {"workflow": empty_image_workflow(7)})
        began = time.monotonic()
        with start(queue, folder) as container:
            while not queue.posted:
                if not container.alive or time.monotonic() - began > _TIMEOUT_SECONDS:
                    raise SystemExit(f"no response: {container.log[-3000:]}")
                time.sleep(0.01)
            seconds = time.monotonic() - began
        (posted,) = queue.posted["one"]
        images = posted.get("output", {}).get("images")
        if not images:
            raise SystemExit(f"the response has no image: {str(posted)[:2000]}")
    return seconds


def _start_ours(root: Path, queue: LoopbackQueue, folder: Path) -> Any:
    return running(root, ENTRY, {**ENVIRONMENT, **queue.environment}, folder)


def _start_serial(root: Path, overlay: Path, queue: LoopbackQueue, folder: Path) -> Any:
    environment = {**ENVIRONMENT, **queue.environment, "COMFYUI_ARGS": ""}
    return running(root, ["/usr/bin/tini", "--", "/bin/bash", "/peer/start.sh"], environment, folder, overlay=overlay)


def _write_peer_overlay(checkout: Path, folder: Path) -> None:
    """Write what is overlaid on the image for the peer: its files, and the start script."""
    (copy_peer_files(checkout, folder) / "start.sh").write_text(_SERIAL_START_SCRIPT)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
