"""Dynamic prompts: `{a cat|a {big|small} dog}` is one of its parts, by chance each time the editor queues."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_PARTS = re.compile(r"\\.?|[{|}]|[^\\{|}]+", re.DOTALL)
_ESCAPED = re.compile(r"\\([{}|])")
_LINE_END = re.compile("[\n\r\u2028\u2029]")


def choose_texts(text: str, choose: Callable[[Sequence[str]], str]) -> str:
    """The text without comments and with one part of each block, which may hold others; `\\{` is a brace.

    A block that does not end goes on to the end of the text.
    """
    blocks: list[list[list[str]]] = [[[]]]  # of each block that is open, the options so far, in pieces
    for part in _PARTS.findall(_without_comments(text)):
        if part == "{":
            blocks.append([[]])
        elif part == "}" and len(blocks) > 1:
            _close(blocks, choose)
        elif part == "|" and len(blocks) > 1:
            blocks[-1].append([])
        else:
            blocks[-1][-1].append(part)
    while len(blocks) > 1:
        _close(blocks, choose)
    return _ESCAPED.sub(r"\1", "".join(blocks[0][0]))


def _close(blocks: list[list[list[str]]], choose: Callable[[Sequence[str]], str]) -> None:
    options = ["".join(pieces) for pieces in blocks.pop()]
    blocks[-1][-1].append(choose(options))


def _without_comments(text: str) -> str:
    """Without `/* … */`, and from `//` to the end of the line. What does not end is no comment of the first kind."""
    kept, place = [], 0
    is_open = "*/" in text
    while (start := text.find("/", place)) >= 0:
        end = -1
        if is_open and text.startswith("/*", start):
            end = text.find("*/", start + 2)
            is_open = end >= 0
            end = end + 2 if is_open else -1
        elif text.startswith("//", start):
            found = _LINE_END.search(text, start)
            end = found.start() if found else len(text)
        if end < 0:
            kept.append(text[place : start + 1])
            place = start + 1
        else:
            kept.append(text[place:start])
            place = end
    return "".join([*kept, text[place:]])
