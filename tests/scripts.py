"""What tests of shell scripts share: a folder of stub programs that tell how they were called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class Stubs:
    """Programs in `folder` that stand for real ones; each call of one is a line in `calls`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "calls"
        folder.mkdir()

    def add(self, name: str, body: str = "") -> Path:
        """A program of that name: it notes its arguments, then runs `body` (bash)."""
        file = self.folder / name
        file.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >> {self._log}\n{body}\n')
        file.chmod(0o755)
        return file

    @property
    def calls(self) -> list[str]:
        """Every call so far: the name and the arguments."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    def environment(self, **more: str) -> dict[str, str]:
        """Ours with the stubs first, without what a RunPod machine or a test run may set."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        return {**kept, "PATH": f"{self.folder}:/usr/sbin:/usr/bin:/sbin:/bin", **more}

    def run(self, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script with them to its end."""
        words = [str(word) for word in command]
        return subprocess.run(
            words, env=self.environment(**more), capture_output=True, text=True, timeout=60, check=False
        )
