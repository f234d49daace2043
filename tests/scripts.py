"""Shared by the tests of shell scripts: a folder of stub programs that record how they were called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class Stubs:
    """Stub programs in `folder` that replace real ones. Each call of one adds a line to `calls`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "calls"
        folder.mkdir()

    def add(self, name: str, body: str = "") -> Path:
        """Add a program of that name: it records its arguments, then runs `body` (bash)."""
        file = self.folder / name
        file.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >> {self._log}\n{body}\n')
        file.chmod(0o755)
        return file

    @property
    def calls(self) -> list[str]:
        """All calls so far: the name and the arguments of each."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    def environment(self, **more: str) -> dict[str, str]:
        """Environment variables with the stubs first on PATH, without those that a RunPod machine or a test run may set."""
        inherited = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        return {**inherited, "PATH": f"{self.folder}:/usr/sbin:/usr/bin:/sbin:/bin", **more}

    def run(self, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script with the stubs, and wait until it ends."""
        words = [str(word) for word in command]
        return subprocess.run(
            words, env=self.environment(**more), capture_output=True, text=True, timeout=60, check=False
        )
