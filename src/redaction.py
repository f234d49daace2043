"""Text from inside ComfyUI, redacted so that a caller may see it."""

from __future__ import annotations

import re

_URL = re.compile(r"(?P<scheme>\b(?:https?|s3|ftp)://)(?:[^/\s@]*@)?(?P<place>[^\s?#'\"]*)(?P<query>[?#][^\s'\"]*)?")
_PATH = re.compile(r"(?<![\w.…/])(?:\w+:)?/+(?:[\w.@+~-]+/+)+")
_SCAN_FACTOR = 8  # input characters that are scanned, per character of the result
_STASHED = re.compile("\0(\\d+)\0")


def public_text(text: object, limit: int = 500) -> str:
    """`text` without the worker's folders and without credentials in URLs, valid UTF-8, at most `limit` characters."""
    cleaned = redacted(str(text)[: limit * _SCAN_FACTOR]).strip()
    return cleaned if len(cleaned) <= limit else f"{cleaned[: limit - 1]}…"


def redacted(text: str) -> str:
    """The same for a text of any length: the regular expressions may take minutes for a megabyte."""
    urls: list[str] = []

    def stash(found: re.Match[str]) -> str:
        urls.append(f"{found['scheme']}{found['place']}" + ("?…" if found["query"] else ""))
        return f"\0{len(urls) - 1}\0"

    without_paths = _PATH.sub("…/", _URL.sub(stash, text.replace("\0", "")))
    restored = _STASHED.sub(lambda found: urls[int(found[1])], without_paths)
    return restored.encode("utf-8", "replace").decode("utf-8")
