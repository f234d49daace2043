"""Runs all benchmarks, one after the other.

    python -m benchmarks [--only NAME …] [--peer WORKER_COMFYUI] [--root POD_ROOT] [--write docs/performance] [--list]

`--write` saves the output of each benchmark to a folder; the report of `versus` in that folder includes it. On a
machine without a GPU, a real ComfyUI needs COMFYUI_ARGS=--cpu. Benchmarks that compare are run only with `--peer`, a
checkout of runpod-workers/worker-comfyui, or `--root`, the root filesystem of an image built from the target `pod`.
Each benchmark takes minutes, and its figures are only valid on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

STANDALONE = (  # need neither --peer nor --root
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
    "gateway",
    "tracing",
)


def main() -> int:
    """Run or list the benchmarks; the exit status is 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and run none")
    options = parser.parse_args()
    peer = ["--peer", str(options.peer)] if options.peer else []
    commands = {name: list[str]() for name in STANDALONE}
    if options.peer or options.list:
        commands["versus"] = peer
    if options.root or options.list:
        commands["container_start"] = ["--root", str(options.root), *peer]
    if options.write:
        commands.get("versus", []).extend(["--write", str(options.write)])
    failed = False
    for name, arguments in commands.items():
        if options.only and name not in options.only:
            continue
        print(f"\n== {name}: {summary(name)}", flush=True)
        if not options.list:
            failed |= not _run(name, arguments, options.write if name in STANDALONE else None)
    return int(failed)


def _run(name: str, arguments: list[str], folder: Path | None) -> bool:
    """Run one benchmark, pass on what it prints and save it to the folder. Whether it succeeded."""
    command = [sys.executable, "-u", "-m", f"benchmarks.{name}", *arguments]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if folder and process.returncode == 0:
        folder.mkdir(parents=True, exist_ok=True)
        report = f"{summary(name)}\n\n{''.join(line for line in lines if not line.startswith('---'))}"
        (folder / f"{name}.txt").write_text(report, encoding="utf-8")
    return process.returncode == 0


def summary(name: str) -> str:
    """The first line of a benchmark's docstring."""
    text = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
