"""The packs that ComfyUI is to load besides those in its own folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class InstalledPacks:
    """Folders that ComfyUI loads packs from, one with their libraries or None, and pack to reason for the others."""

    folders: tuple[Path, ...] = ()
    libraries: Path | None = None
    failures: dict[str, str] = field(default_factory=dict)
