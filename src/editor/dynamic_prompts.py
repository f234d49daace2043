"""Dynamic prompts: of `{a cat|a {big|small} dog}` the editor chooses one option at random each time it queues."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_TOKENS = re.compile(r"\\.?|[{|}]|[^\\{|}]+", re.DOTALL)
_ESCAPED = re.compile(r"\\([{}|])")
_LINE_END = re.compile("[\n\r\u2028\u2029]")


def choose_texts(text: str, choose: Callable[[Sequence[str]], str]) -> str:
    """The text without comments and with one option of each block; blocks may be nested, and `\\{` is a brace.

    A block that is not closed extends to the end of the text.
    """
    blocks: list[list[list[str]]] = [[[]]]  # of each open block its options so far, each as a list of chunks
    for part in _TOKENS.findall(_without_comments(text)):
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
    options = ["".join(chunks) for chunks in blocks.pop()]
    blocks[-1][-1].append(choose(options))


def _without_comments(text: str) -> str:
    """The text without `/* … */` comments and without `//` comments. An unclosed `/*` is not a comment."""
    kept, position = [], 0
    has_comment_end = "*/" in text
    while (start := text.find("/", position)) >= 0:
        end = -1
        if has_comment_end and text.startswith("/*", start):
            end = text.find("*/", start + 2)
            has_comment_end = end >= 0
            end = end + 2 if has_comment_end else -1
        elif text.startswith("//", start):
            found = _LINE_END.search(text, start)
            end = found.start() if found else len(text)
        if end < 0:
            kept.append(text[position : start + 1])
            position = start + 1
        else:
            kept.append(text[position:start])
            position = end
    return "".join([*kept, text[position:]])
