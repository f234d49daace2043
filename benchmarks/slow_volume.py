"""Mounts a folder as if it were a network volume: each read has a latency, and all reads share one bandwidth.

    python -m benchmarks.slow_volume SOURCE MOUNT [--latency-ms 2] [--mb-per-second 300]

Needs Linux, root, `pip install mfusepy` and FUSE (Debian's `fuse3` or `libfuse2`). Runs until it is unmounted.
"""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MOUNT_SECONDS = 10.0


class NetworkLink:
    """The network of a volume: `latency` seconds per request, `speed` bytes per second shared by all requests."""

    def __init__(self, latency: float, speed: float) -> None:
        self._latency = latency
        self._speed = speed
        self._free_at = 0.0
        self._lock = threading.Lock()

    def transfer(self, size: int) -> None:
        """Wait as long as the transfer of that many bytes takes."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / self._speed
            end = self._free_at
        time.sleep(max(0.0, end - time.monotonic()) + self._latency)


def main() -> None:
    """Mount the folder, and serve it until it is unmounted."""
    options = _parse()
    import mfusepy  # noqa: PLC0415  only needed by this program

    link = NetworkLink(options.latency_ms / 1000, options.mb_per_second * 1e6)
    operations = _operations(mfusepy, options.source, link)
    # As with network file systems, what was read stays cached until the file changes; without auto_cache, FUSE would
    # drop it at each open.
    mfusepy.FUSE(operations, str(options.mount), foreground=True, ro=True, auto_cache=True)


def _operations(mfusepy: Any, source: Path, link: NetworkLink) -> Any:
    class ReadOnly(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            try:
                stat = os.lstat(f"{source}{path}")
            except OSError as error:
                raise mfusepy.FuseOSError(error.errno or errno.EIO) from error
            names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")
            times = {f"st_{kind}time": getattr(stat, f"st_{kind}time_ns") for kind in "amc"}
            return {**{name: getattr(stat, name) for name in names}, **times}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *os.listdir(f"{source}{path}")]  # noqa: PTH208  only the names are needed

        def open(self, path: str, flags: int) -> int:
            return os.open(f"{source}{path}", os.O_RDONLY)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            data = os.pread(fh, size, offset)
            link.transfer(len(data))
            return data

        def release(self, path: str, fh: int) -> None:
            os.close(fh)

    return ReadOnly()


@contextmanager
def slow_volume(source: Path, mount: Path, latency_ms: float, mb_per_second: float) -> Iterator[Path]:
    """Mount the folder `source` at `mount`, slowed down, with nothing of it in the page cache."""
    mount.mkdir(exist_ok=True)
    flags = ["--latency-ms", str(latency_ms), "--mb-per-second", str(mb_per_second)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.slow_volume", str(source), str(mount), *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + _MOUNT_SECONDS
        while not os.path.ismount(mount):
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                reason = process.communicate()[1].decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
                sys.exit(f"the slow volume could not be mounted: {reason}")
            time.sleep(0.05)
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False, stderr=subprocess.DEVNULL)
        process.kill()
        process.communicate()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("mount", type=Path)
    parser.add_argument("--latency-ms", type=float, default=2.0)
    parser.add_argument("--mb-per-second", type=float, default=300.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
