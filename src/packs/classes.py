"""Which node classes a pack has, as far as its files show."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_SEARCHED_FILES, _SEARCHED_BYTES = 2000, 20_000_000


def has_class(path: Path, class_type: str) -> bool:
    """Whether a node pack has this class: its files have the class's name as a text."""
    wanted = (f'"{class_type}"', f"'{class_type}'")
    return any(word in text for text in _sources(path) for word in wanted)


def _sources(path: Path) -> Iterator[str]:
    """The texts of a node pack's Python and JSON files, up to a limit."""
    left = _SEARCHED_BYTES
    files = [path] if path.is_file() else sorted(file for kind in ("py", "json") for file in path.rglob(f"*.{kind}"))
    for file in files[:_SEARCHED_FILES]:
        with contextlib.suppress(OSError):
            left -= file.stat().st_size
            if left < 0:
                return
            yield file.read_text(encoding="utf-8", errors="replace")
