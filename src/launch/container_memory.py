"""The memory of the machine, or of the container if that has less (control groups, versions 1 and 2).

ComfyUI asks psutil, which knows the machine only: by that it would keep results, and pin memory, of which a container
with less is killed. (From 0.35 on ComfyUI looks at the limit itself.) `limit_psutil` has psutil tell the container's.

It also runs in ComfyUI's environment: standard library only, Python 3.9 and later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_GROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def total_memory(groups: Path = _GROUPS, proc: Path = _PROC) -> int:
    """Bytes that this container may use; 0 if unknown."""
    limit = memory_limit(groups, proc)
    total = _meminfo(proc).get("MemTotal", 0)
    return min(total, limit) if limit is not None else total


def free_memory(groups: Path = _GROUPS, proc: Path = _PROC) -> int:
    """Bytes that are free, the reclaimable page cache included; 0 if unknown."""
    available = _meminfo(proc).get("MemAvailable", 0)
    limits = [limit - used for limit, used in _usages(groups, proc)]
    return max(0, min([available, *limits]))


def memory_limit(groups: Path = _GROUPS, proc: Path = _PROC) -> int | None:
    """The limit of this process's control groups in bytes; None without one."""
    return min((limit for limit, _ in _usages(groups, proc)), default=None)


def kernel_kills(groups: Path = _GROUPS, proc: Path = _PROC) -> int:
    """How many processes of its control groups the kernel has killed as the limit was reached."""
    kills = 0
    for folder in _folders(groups, proc):
        for file in ("memory.events", "memory.oom_control"):
            kills = max(kills, _counters(folder / file).get("oom_kill", 0))
    return kills


def limit_psutil() -> None:
    """Have psutil tell the memory of this container, where that is less than the machine's, and psutil is there."""
    if memory_limit() is None:
        return
    try:
        import psutil  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        return
    of_machine = psutil.virtual_memory

    def virtual_memory() -> Any:
        machine = of_machine()
        total, available = min(machine.total, total_memory()), min(machine.available, free_memory())
        percent = round(100 * (total - available) / total, 1) if total else 0.0
        free = min(machine.free, available)
        return machine._replace(total=total, available=available, percent=percent, used=total - available, free=free)

    psutil.virtual_memory = virtual_memory


def _usages(groups: Path, proc: Path) -> Iterator[tuple[int, int]]:
    """Limit and use in bytes, without the page cache that was not used lately, of each group that has a limit.

    Without one, version 1 reports an enormous number.
    """
    for folder in _folders(groups, proc):
        for limit_file, usage_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _number(folder / limit_file)
            if limit is not None and limit < 1 << 60:
                pages = _counters(folder / "memory.stat")
                reclaimable = pages.get("total_inactive_file") or pages.get("inactive_file") or 0
                yield limit, (_number(folder / usage_file) or 0) - reclaimable


def _folders(groups: Path, proc: Path) -> Iterator[Path]:
    """The folders of this process's memory groups, up to the top: in a container the top is the container's own."""
    yield groups
    yield groups / "memory"
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                root = groups / controllers
                group = root / path.strip("/")
                while group != root and root in group.parents:
                    yield group
                    group = group.parent


def _counters(file: Path) -> Mapping[str, int]:
    with contextlib.suppress(OSError, ValueError):
        return {name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())}
    return {}


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())  # "max" is no number
    return None


def _meminfo(proc: Path) -> Mapping[str, int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        rows = (line.split() for line in (proc / "meminfo").read_text().splitlines())
        return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) > 1}
    return {}
