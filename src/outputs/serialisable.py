"""Any answer as one that JSON in UTF-8 can carry: file names and texts of nodes may hold anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 50  # our own answers have about 6 levels


def serialisable(value: Any, depth: int = 0) -> Any:
    """A copy in which everything that JSON in UTF-8 cannot carry is replaced by a text that it can.

    Lone surrogates become `?`, NaN and infinities their names, and objects that are no JSON value their types' names.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {serialisable(str(key)): serialisable(part, depth + 1) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [serialisable(part, depth + 1) for part in value]
    return f"({type(value).__name__})"
