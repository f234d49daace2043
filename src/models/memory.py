"""The memory of the machine, or of the container if that has less (control groups, versions 1 and 2)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc/meminfo")


def total_memory(groups: Path = _GROUPS, meminfo: Path = _PROC) -> int:
    """Bytes that this container may use; 0 if unknown."""
    limit = _limit(groups)
    total = _meminfo(meminfo).get("MemTotal", 0)
    return min(total, limit) if limit is not None else total


def free_memory(groups: Path = _GROUPS, meminfo: Path = _PROC) -> int:
    """Bytes that are free, the reclaimable page cache included; 0 if unknown."""
    available = _meminfo(meminfo).get("MemAvailable", 0)
    limit = _limit(groups)
    if limit is None:
        return available
    used = _number(groups / "memory.current")
    if used is None:
        used = _number(groups / "memory" / "memory.usage_in_bytes") or 0
    reclaimable = _pages(groups / "memory.stat") or _pages(groups / "memory" / "memory.stat")
    return max(0, min(available, limit - used + reclaimable))


def _limit(groups: Path) -> int | None:
    """The limit of version 2, else of version 1; None without one (version 1 then reports an enormous number)."""
    for file in (groups / "memory.max", groups / "memory" / "memory.limit_in_bytes"):
        limit = _number(file)
        if limit is not None and limit < 1 << 60:
            return limit
    return None


def _pages(stat: Path) -> int:
    """Bytes of the page cache that were not used lately."""
    with contextlib.suppress(OSError, ValueError):
        counters = dict(line.split() for line in stat.read_text().splitlines())
        return int(counters.get("total_inactive_file") or counters.get("inactive_file") or 0)
    return 0


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())  # "max" is no number
    return None


def _meminfo(file: Path) -> Mapping[str, int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        rows = (line.split() for line in file.read_text().splitlines())
        return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) > 1}
    return {}
