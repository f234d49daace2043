"""Nodes for strings and plain values: they really run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .values import Context, Output


def primitive(context: Context, value: Any) -> Output:
    """The value itself."""
    return Output((value,))


def string_concatenate(context: Context, string_a: str, string_b: str, delimiter: str) -> Output:
    """Both strings with the delimiter between them."""
    return Output((delimiter.join((string_a, string_b)),))


def string_replace(context: Context, string: str, find: str, replace: str) -> Output:
    """The string with every `find` replaced."""
    return Output((string.replace(find, replace),))


def string_trim(context: Context, string: str, mode: str) -> Output:
    """The string without white space at "Both" ends, at the "Left" or at the "Right"."""
    return Output(({"Both": string.strip, "Left": string.lstrip, "Right": string.rstrip}[mode](),))


def string_length(context: Context, string: str) -> Output:
    """The number of characters."""
    return Output((len(string),))


def string_substring(context: Context, string: str, start: int, end: int) -> Output:
    """The characters from `start` up to `end`."""
    return Output((string[start:end],))


def string_contains(context: Context, string: str, substring: str, case_sensitive: bool) -> Output:
    """Whether the string contains the substring."""
    if not case_sensitive:
        string, substring = string.lower(), substring.lower()
    return Output((substring in string,))


def case_converter(context: Context, string: str, mode: str) -> Output:
    """The string in another case."""
    converted = {"UPPERCASE": string.upper, "lowercase": string.lower, "Capitalize": string.capitalize}
    return Output((converted.get(mode, string.title)(),))


def preview_any(context: Context, source: Any) -> Output:
    """Any value as text, shown to the client."""
    if isinstance(source, (bool, int, float)):
        text = str(source)
    elif isinstance(source, str):
        text = source
    else:
        try:
            text = json.dumps(source, indent=4, ensure_ascii=False)
        except (TypeError, ValueError):
            text = str(source)
    return Output((text,), {"text": [text]})


NODES: dict[str, Callable[..., Output]] = {
    "PrimitiveString": primitive,
    "PrimitiveStringMultiline": primitive,
    "PrimitiveInt": primitive,
    "PrimitiveFloat": primitive,
    "PrimitiveBoolean": primitive,
    "StringConcatenate": string_concatenate,
    "StringReplace": string_replace,
    "StringTrim": string_trim,
    "StringLength": string_length,
    "StringSubstring": string_substring,
    "StringContains": string_contains,
    "CaseConverter": case_converter,
    "PreviewAny": preview_any,
}
