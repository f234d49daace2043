"""Run an image's root filesystem as a container without Docker: own processes and mounts, but the host's network.

Root has the capabilities that Docker gives by default. Needs Linux and root. The root filesystem is a folder (`buildah mount`, or an unpacked `docker export`). It is not
changed: all writes go to an overlay.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# The image's entrypoint and environment, which a container engine would read from the image's configuration.
ENTRY = ["/worker/src/start.sh"]
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": "/root",
    "COMFYUI_PATH": "/comfyui",
    "COMFYUI_PYTHON": "/opt/comfyui/bin/python",
    "WORKER_PYTHON": "/opt/worker/bin/python",
    "PYTHONDONTWRITEBYTECODE": "1",
    "COMFYUI_ARGS": "--cpu",
    "MODE_TO_RUN": "serverless",
}

_START = """
set -eu
mount -t tmpfs tmpfs "$1"; mkdir "$1/upper" "$1/work" "$1/root" "$1/none"
if [ "$3" = read-only ]; then layers="lowerdir=$2:$1/none"; else layers="lowerdir=$2,upperdir=$1/upper,workdir=$1/work"; fi
if [ -n "$5" ]; then cp -a "$5/." "$1/upper"; fi
mount -t overlay overlay -o "$layers" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/tmp"
if [ -n "$4" ]; then mkdir -p "$1/root/$4"; mount -t tmpfs tmpfs "$1/root/$4"; fi
root="$1/root"; capabilities="$6"; shift 6
exec setpriv --inh-caps=-all --bounding-set="$capabilities" chroot "$root" /usr/bin/env -i "$@"
"""
# What Docker gives to root by default.
_CAPABILITIES = [
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "net_bind_service",
    "net_raw",
    "sys_chroot",
    "mknod",
    "audit_write",
    "setfcap",
]
DOCKER_CAPABILITIES = f"-all,{','.join(f'+{name}' for name in _CAPABILITIES)}"


class Container:
    """A running container. `init_pid` is the host's process id of its PID 1; `log` is its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self.init_pid = 0
        deadline = time.monotonic() + 10
        while not self.init_pid:
            assert time.monotonic() < deadline and process.poll() is None, self.log
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            self.init_pid = int(children[0]) if children else 0
        self._namespace = Path(f"/proc/{self.init_pid}/ns/pid").readlink()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def processes(self) -> list[str]:
        """The command line of every process in the container."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and (folder / "ns" / "pid").readlink() == self._namespace:
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return found

    def stop(self, seconds: float) -> tuple[int, float]:
        """Send SIGTERM to PID 1. The exit status, and the seconds until no process was left."""
        began = time.monotonic()
        os.kill(self.init_pid, signal.SIGTERM)
        status = self._process.wait(timeout=seconds)
        while self.processes():
            assert time.monotonic() - began < seconds, self.processes()
            time.sleep(0.02)
        return status, time.monotonic() - began

    def wait_for_log(self, text: str, seconds: float) -> None:
        """Wait until the log has that text."""
        deadline = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < deadline and self._process.poll() is None, self.log[-5000:]
            time.sleep(0.02)


@contextmanager
def running(
    root: Path,
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    read_only: bool = False,
    volume: str = "",
    overlay: Path | None = None,
) -> Iterator[Container]:
    """Run a command in a container whose root filesystem is `root`; what still runs is killed at the end of the block.

    `read_only`: the root filesystem is read-only (its /tmp is always writable). `volume`: a path in the container for
    an empty, writable mount. `overlay`: a folder whose files are overlaid on the image's. `folder` is for the
    container's mounts and log.
    """
    mounts = folder / "container"
    mounts.mkdir(parents=True)
    variables = [f"{name}={value}" for name, value in environment.items()]
    mode = "read-only" if read_only else "writable"
    arguments = [str(mounts), str(root), mode, volume, str(overlay or ""), DOCKER_CAPABILITIES]
    arguments += [*variables, *command]
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    log = folder / "container.log"
    with log.open("wb") as out:
        process = subprocess.Popen([*unshare, "sh", "-c", _START, "start", *arguments], stdout=out, stderr=out)
    try:
        yield Container(process, log)
    finally:
        process.kill()
        process.wait()
