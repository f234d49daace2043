"""What the text of an environment variable may be: one parser a kind.

Each takes the text and gives the value, or raises ValueError with what would be right: "VARIABLE must be …".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}
_CACHE = re.compile(r"classic|none|lru:[1-9]\d*")


def text(value: str) -> str:
    """Any text."""
    return value.strip()


def names(value: str) -> tuple[str, ...]:
    """Texts with commas between them."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


def flag(value: str) -> bool:
    """A yes or a no."""
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("true or false")


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number."""

    def parse(value: str) -> int:
        if not value.strip().isdecimal() or len(value) > 12 or not least <= int(value) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(value)

    return parse


def number(most: float, unit: str) -> Callable[[str], float]:
    """A number of a unit, above 0."""

    def parse(value: str) -> float:
        try:
            given = float(value)
        except ValueError:
            given = -1.0
        if not 0 < given <= most:
            raise ValueError(f"a number of {unit} above 0 and at most {most:g}")
        return given

    return parse


seconds = number(604800, "seconds")  # 7 days


def one_of(*words: str) -> Callable[[str], str]:
    """One of a few words."""

    def parse(value: str) -> str:
        word = value.strip().lower()
        if word not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return word

    return parse


def log_level(value: str) -> str:
    """A level of the log, in capitals."""
    return one_of("debug", "info", "warning", "error")(value).upper()


def checks(value: str) -> tuple[str, ...]:
    """Names of fitness checks."""
    wanted = () if value.strip().lower() == "none" else names(value.lower())
    if set(wanted) - {"disk", "gpu"}:
        raise ValueError("disk, gpu, both with a comma between them, or none")
    return wanted


def port(value: str) -> int:
    """A port, or 0."""
    if not value.strip().isdecimal() or int(value) > 65535:
        raise ValueError("a port from 1 to 65535, or 0 for any free one")
    return int(value)


def cache(value: str) -> str:
    """What ComfyUI keeps."""
    word = value.strip().lower()
    if not _CACHE.fullmatch(word):
        raise ValueError("classic, none or lru:N (N results kept)")
    return word


def url(value: str) -> str:
    """An address without a slash at its end."""
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in value:
        raise ValueError("a URL like https://host without query and user")
    return value.strip().rstrip("/")


def prefix(value: str) -> str:
    """A folder in a bucket, with places to fill in."""
    folder = value.strip().strip("/")
    if set(re.findall(r"{[^}]*}?", folder)) - {"{date}", "{job_id}"} or ".." in folder.split("/"):
        raise ValueError("a path that may hold {date} and {job_id}")
    return folder
