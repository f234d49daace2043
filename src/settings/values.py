"""Parsers for the text of environment variables, one for each kind of value.

Each takes the text and returns the value. For an invalid text it raises ValueError, whose message completes the
sentence "VARIABLE must be …".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}
_CACHE = re.compile(r"classic|none|lru:[1-9]\d*|ram(:\d+(\.\d+)?)?")


def text(value: str) -> str:
    """Any text."""
    return value.strip()


def names(value: str) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


def flag(value: str) -> bool:
    """A boolean."""
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("true or false")


def whole_number(minimum: int, maximum: int) -> Callable[[str], int]:
    """A parser for whole numbers from `minimum` to `maximum`."""

    def parse(value: str) -> int:
        if not value.strip().isdecimal() or len(value) > 12 or not minimum <= int(value) <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return int(value)

    return parse


def number(maximum: float, unit: str) -> Callable[[str], float]:
    """A parser for numbers above 0 and at most `maximum`; `unit` is for the error message."""

    def parse(value: str) -> float:
        try:
            parsed = float(value)
        except ValueError:
            parsed = -1.0
        if not 0 < parsed <= maximum:
            raise ValueError(f"a number of {unit} above 0 and at most {maximum:g}")
        return parsed

    return parse


seconds = number(604800, "seconds")  # 7 days


def one_of(*words: str) -> Callable[[str], str]:
    """A parser for one of these words, in upper or lower case."""

    def parse(value: str) -> str:
        word = value.strip().lower()
        if word not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return word

    return parse


def log_level(value: str) -> str:
    """A log level, returned in upper case."""
    return one_of("debug", "info", "warning", "error")(value).upper()


def checks(value: str) -> tuple[str, ...]:
    """Names of fitness checks; an empty tuple for `none`."""
    selected = () if value.strip().lower() == "none" else names(value.lower())
    if set(selected) - {"disk", "gpu"}:
        raise ValueError("disk, gpu, both separated by a comma, or none")
    return selected


def port(value: str) -> int:
    """A port number, or 0 for any free one."""
    if not value.strip().isdecimal() or int(value) > 65535:
        raise ValueError("a port from 1 to 65535, or 0 for any free one")
    return int(value)


def cache(value: str) -> str:
    """The mode of ComfyUI's cache."""
    word = value.strip().lower()
    if not _CACHE.fullmatch(word):
        raise ValueError("classic, none, lru:N (N results kept), ram or ram:GB (memory to keep free)")
    return word


def url(value: str) -> str:
    """An http or https URL, returned without a slash at its end."""
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in value:
        raise ValueError("a URL like https://host without query and user")
    return value.strip().rstrip("/")


def prefix(value: str) -> str:
    """A key prefix in a bucket, which may contain the placeholders `{date}` and `{job_id}`."""
    folder = value.strip().strip("/")
    if set(re.findall(r"{[^}]*}?", folder)) - {"{date}", "{job_id}"} or ".." in folder.split("/"):
        raise ValueError("a path that may contain {date} and {job_id}")
    return folder
