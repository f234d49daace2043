"""Dynamic prompts: `{a cat|a {big|small} dog}` is one of its parts, by chance each time the editor queues."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_COMMENT = re.compile(r"/\*[\s\S]*?\*/|//.*")
_ESCAPED = re.compile(r"\\([{}|])")
_PARTS = re.compile(r"\\.?|[{|}]|[^\\{|}]+", re.DOTALL)


def choose_texts(text: str, choose: Callable[[Sequence[str]], str]) -> str:
    """The text without comments and with one part of each block, which may hold others; `\\{` is a brace.

    A block that does not end goes on to the end of the text.
    """
    found, options, depth = [], [""], 0
    for part in _PARTS.findall(_COMMENT.sub("", text)):
        if depth == 0 and part != "{":
            found.append(part)
            continue
        depth += {"{": 1, "}": -1}.get(part, 0)
        if depth == 0:
            found.append(choose_texts(choose(options), choose))
            options = [""]
        elif part == "|" and depth == 1:
            options.append("")
        elif not (part == "{" and depth == 1):
            options[-1] += part
    if depth:
        found.append(choose_texts(choose(options), choose))
    return _ESCAPED.sub(r"\1", "".join(found))
