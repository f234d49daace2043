"""Download of a model set from a server on loopback, compared with plain tools on the same files and server.

    python -m benchmarks.download [--megabytes 1000] [--files 2] [--runs 3]

Ours is `python -m src.models fetch`, including the start of Python and the SHA-256 of every byte; the other tools
(those of curl, wget and aria2c that are installed) write the bytes and check nothing. All write to the same disk; the
files are removed and the disk is flushed before each run. The server is aiohttp with sendfile(2); memory is the peak
of the process (wait4(2)).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SERVE = (
    "import sys; from aiohttp import web; app = web.Application(); app.router.add_static('/', sys.argv[1]); "
    "web.run_app(app, host='127.0.0.1', port=int(sys.argv[2]), print=None, access_log=None)"
)
_START_SECONDS = 20.0


def main() -> None:
    """Print a table: MB/s and peak memory, medians of the runs, and the ratio to the fastest tool."""
    options = _parse()
    with tempfile.TemporaryDirectory(prefix="download-") as folder:
        root = Path(folder)
        names = [f"model-{number}.gguf" for number in range(options.files)]
        (root / "served").mkdir()
        digests = {name: _write(root / "served" / name, options.megabytes) for name in names}
        with _server(root / "served") as url:
            commands = _commands(root, url, digests, options.megabytes * 1_000_000)
            measured: dict[str, list[tuple[float, int]]] = {way: [] for way in commands}
            for _ in range(options.runs):
                for way, command in commands.items():
                    measured[way].append(_measure(command, root / "target"))
    _print_table(measured, options)


def _write(file: Path, megabytes: int) -> str:
    """Write random bytes to a file; their SHA-256."""
    digest = hashlib.sha256()
    with file.open("wb") as opened:
        for _ in range(megabytes):
            chunk = os.urandom(1_000_000)
            digest.update(chunk)
            opened.write(chunk)
    return digest.hexdigest()


def _commands(root: Path, url: str, digests: dict[str, str], size: int) -> dict[str, Callable[[Path], list[str]]]:
    """The name of each tool, and a function from a target folder to the command that downloads all files there."""
    manifest = root / "manifest.json"
    common = {"folder": "vae", "licence": "MIT", "commercial_ok": True, "size": size}
    models = [
        {**common, "name": name, "file": name, "source": {"url": f"{url}/{name}"}, "sha256": digest}
        for name, digest in digests.items()
    ]
    manifest.write_text(json.dumps({"models": models, "sets": {"benchmark": list(digests)}}))
    os.environ |= {"MODELS_MANIFEST": str(manifest), "TRUSTED_HOSTS": url.removeprefix("http://")}
    urls = [f"{url}/{name}" for name in digests]
    ours = [sys.executable, "-m", "src.models", "fetch", "benchmark", "--folder"]
    tools: dict[str, Callable[[Path], list[str]]] = {
        "curl": lambda target: ["curl", "-s", "-Z", "--output-dir", str(target), "--remote-name-all", *urls],
        "wget": lambda target: ["wget", "-q", "-P", str(target), *urls],
        "aria2c": lambda target: [
            "aria2c",
            "-q",
            "-x8",
            "-s8",
            "-Z",
            "--file-allocation=none",
            "-d",
            str(target),
            *urls,
        ],
    }
    return {
        "ours": lambda target: [*ours, str(target)],
        **{name: command for name, command in tools.items() if shutil.which(name)},
    }


def _measure(command: Callable[[Path], list[str]], target: Path) -> tuple[float, int]:
    """Seconds, and peak memory in bytes, of one command."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    os.sync()
    started = time.monotonic()
    process = subprocess.Popen(command(target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command(target)[0]} failed with exit status {process.returncode}")
    return seconds, usage.ru_maxrss * 1024


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", _SERVE, str(folder), str(port)])
    try:
        end = time.monotonic() + _START_SECONDS
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit("the server did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _print_table(measured: dict[str, list[tuple[float, int]]], options: argparse.Namespace) -> None:
    total = options.megabytes * options.files
    speeds = {way: total / statistics.median(seconds for seconds, _ in runs) for way, runs in measured.items()}
    fastest = max((speed for way, speed in speeds.items() if way != "ours"), default=0.0)
    print(f"{options.files} files of {options.megabytes} MB, {options.runs} runs, medians; {os.cpu_count()} cores")
    print(f"{'way':>8} {'MB/s':>7} {'peak MB':>8} {'vs fastest tool':>16}")
    for way, speed in speeds.items():
        memory = max(peak for _, peak in measured[way]) / 1e6
        ratio = f"{speed / fastest:.2f}" if fastest else "none installed"
        print(f"{way:>8} {speed:>7.0f} {memory:>8.0f} {ratio:>16}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
