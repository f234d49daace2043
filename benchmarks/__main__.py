"""All benchmarks, one after the other.

    python -m benchmarks [--peer WORKER_COMFYUI] [--root POD_ROOT] [--list]

Those that compare need what they compare with: `--peer` a checkout of runpod-workers/worker-comfyui, `--root` the root
filesystem of an image of the target `pod`. They take minutes each, and measure nothing sensible beside other work.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

ALONE = (
    "boot",
    "overhead",
    "busy_queue",
    "many_workers",
    "formats",
    "memory",
    "growth",
    "faults",
    "download",
    "read_ahead",
    "scaling",
)


def main() -> int:
    """Run them, or list them; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--list", action="store_true", help="only say what there is")
    options = parser.parse_args()
    peer = ["--peer", str(options.peer)] if options.peer else []
    commands = {name: list[str]() for name in ALONE}
    if options.peer or options.list:
        commands["versus"] = peer
    if options.root or options.list:
        commands["container_start"] = ["--root", str(options.root), *peer]
    failed = False
    for name, arguments in commands.items():
        print(f"\n== {name}: {summary(name)}", flush=True)
        if not options.list:
            failed |= (
                subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode != 0
            )
    return int(failed)


def summary(name: str) -> str:
    """The first line of a benchmark's docstring."""
    text = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
