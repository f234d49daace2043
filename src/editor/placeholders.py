"""Placeholders in names of files, `%date:yyyy-MM-dd%` and `%node.widget%`: the editor replaces them when it queues."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from .placing import PlacedNode

_MAX_NAME_LENGTH = 4096  # characters; PATH_MAX of Linux
_SEARCH_NAME_PROPERTY = "Node name for S&R"
_PLACEHOLDER = re.compile("%([^%]+)%")
_INVALID_IN_NAME = re.compile(r'[/?<>\\:*|"\x00-\x1F\x7F]')
_DATE_PART = re.compile("d{1,2}|h{1,2}|m{1,2}|M{1,2}|s{1,2}|y{2,4}")


class Placeholders:
    """Replaces placeholders by the local time, and by the values of nodes: by the id of each, name to value."""

    def __init__(
        self, placed_nodes: Iterable[PlacedNode], values: Mapping[str, Mapping[str, Any]], now: time.struct_time
    ) -> None:
        self._values, self._now = values, now
        last_to_first = sorted(placed_nodes, key=lambda placed: placed.file_position, reverse=True)
        self._by_title = {placed.title: placed.id for placed in last_to_first}
        """By title: the id of the first node with it."""
        self._by_search_name = {
            name: placed.id
            for placed in last_to_first
            if isinstance(name := placed.node.properties.get(_SEARCH_NAME_PROPERTY), str)
        }

    def replace(self, text: str) -> str:
        """The text with these replaced; others stay, because ComfyUI itself replaces some."""
        if len(text) > _MAX_NAME_LENGTH:
            return text

        def replacement(match: re.Match[str]) -> str:
            found = self._placeholder_value(match[1])
            return match[0] if found is None else found[:_MAX_NAME_LENGTH]

        return _PLACEHOLDER.sub(replacement, text)

    def _placeholder_value(self, text: str) -> str | None:
        name, dot, widget = text.partition(".")
        if not dot or "." in widget:
            return self._format_date(text[5:]) if text.startswith("date:") else None
        node_id = self._by_search_name.get(name) or self._by_title.get(name)
        node_values = self._values.get(node_id, {}) if node_id else {}
        if widget not in node_values:
            return None
        return _INVALID_IN_NAME.sub("_", _as_text(node_values[widget]))

    def _format_date(self, pattern: str) -> str:
        now = self._now
        parts = {
            "d": now.tm_mday, "M": now.tm_mon, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec,
        }  # fmt: skip

        def part(match: re.Match[str]) -> str:
            text = match[0]
            if text[0] == "y":
                return {2: f"{now.tm_year % 100:02}", 4: str(now.tm_year)}.get(len(text), text)
            return f"{parts[text[0]]:02}" if len(text) == 2 else str(parts[text[0]])

        return _DATE_PART.sub(part, pattern)


def _as_text(value: Any) -> str:
    """A value as text, as JavaScript converts it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
