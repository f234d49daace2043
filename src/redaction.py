"""Text from inside ComfyUI, made fit for a caller."""

from __future__ import annotations

import re

_PATH = re.compile(r"(?<![\w.:/])(?:/[\w.@+~-]+)+/(?=[\w.@+~-]*)")


def public_text(text: object, limit: int = 500) -> str:
    """`text` without the folders of the worker, encodable, at most `limit` characters."""
    cleaned = _PATH.sub("…/", str(text)).encode("utf-8", "replace").decode("utf-8").strip()
    return cleaned if len(cleaned) <= limit else f"{cleaned[: limit - 1]}…"
