"""A control group of the kernel with a memory limit, as a container has one."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_GROUPS = Path("/sys/fs/cgroup")
_numbers = itertools.count()


@contextmanager
def memory_group(limit: int) -> Iterator[list[str]]:
    """A group with a limit in bytes; the words that go before a command that is to run in it.

    Skips the test where no group can be made: that needs root, and the memory controller.
    """
    version1 = _GROUPS / "memory"
    group = (version1 if version1.is_dir() else _GROUPS) / f"worker-tests-{os.getpid()}-{next(_numbers)}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"']
    try:
        files = (group / "memory.limit_in_bytes", group / "memory.max")
        file = next((file for file in files if file.exists()), None)
        if file is None:
            pytest.skip("the memory controller is not on here")
        try:
            file.write_text(str(limit))
            swap = group / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")
        except OSError as error:
            pytest.skip(f"no limit can be set here: {error.strerror}")
        if subprocess.run([*enter, "true"], check=False, capture_output=True).returncode:
            pytest.skip("no process can be put into a control group here")
        yield enter
    finally:
        for _ in range(50):  # its last process may just be ending
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)
