"""Container start to first answer: our image's start beside a serial one, in the same image on the same ComfyUI.

    python -m benchmarks.container_start --root ROOT [--peer WORKER_COMFYUI] [--runs 3]

ROOT is the root filesystem of an image of the target `pod` (docker/BUILD_COMMANDS.md): it has the editor's files, for
whose first page worker-comfyui waits. `--peer` is a checkout of runpod-workers/worker-comfyui: its handler runs as it
is, started in the order of its start script (a Python that imports torch to look for a GPU; then ComfyUI with its
default flags and DEBUG logs; then the handler), on the worker's libraries. The look for a GPU is the import only: no
CPU passes it. Both take one job without models from RunPod's queue on loopback, alternately; nothing is kept between
runs but the pages of files. Linux, root.
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

from benchmarks.contenders import PEER_FLAGS, peer_files, picture
from tests.container import ENTRY, ENVIRONMENT, running
from tests.loopback_queue import LoopbackQueue, serving

Start = Callable[[LoopbackQueue, Path], Any]

_HANG = 180.0
_SERIAL = f"""#!/bin/bash
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
    with tempfile.TemporaryDirectory() as folder:
        starts: dict[str, Start] = {"ours": lambda queue, place: _ours(options.root, queue, place)}
        if options.peer:
            over = Path(folder) / "over"
            over.mkdir()
            files = _files_over(options.peer, over)
            starts["serial"] = lambda queue, place: _serial(options.root, files, queue, place)
        for run in range(options.runs):
            for name, start in starts.items():
                place = Path(folder) / f"{name}{run}"
                place.mkdir()
                seconds.setdefault(name, []).append(_first_answer(start, place))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"container start to first answer, median of {options.runs}, {os.cpu_count()} cores")
    for name, median in medians.items():
        told = " ".join(f"{value:.2f}" for value in seconds[name])
        print(f"{name:>8} {median:>7.2f} s  {median / medians['ours']:>5.2f} x  ({told})")
    print(json.dumps(seconds))


def _first_answer(start: Start, place: Path) -> float:
    with serving() as queue:
        queue.put("one", {"workflow": picture(7)})
        began = time.monotonic()
        with start(queue, place) as container:
            while not queue.posted:
                if not container.alive or time.monotonic() - began > _HANG:
                    raise SystemExit(f"no answer: {container.log[-3000:]}")
                time.sleep(0.01)
            seconds = time.monotonic() - began
        (posted,) = queue.posted["one"]
        images = posted.get("output", {}).get("images")
        if not images:
            raise SystemExit(f"the answer has no image: {str(posted)[:2000]}")
    return seconds


def _ours(root: Path, queue: LoopbackQueue, place: Path) -> Any:
    return running(root, ENTRY, {**ENVIRONMENT, **queue.environment}, place)


def _serial(root: Path, files: Path, queue: LoopbackQueue, place: Path) -> Any:
    environment = {**ENVIRONMENT, **queue.environment, "COMFYUI_ARGS": ""}
    return running(root, ["/usr/bin/tini", "--", "/bin/bash", "/peer/start.sh"], environment, place, over=files)


def _files_over(checkout: Path, folder: Path) -> Path:
    """What is laid over the image for the peer: its files, and the start script."""
    (peer_files(checkout, folder) / "start.sh").write_text(_SERIAL)
    return folder


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
