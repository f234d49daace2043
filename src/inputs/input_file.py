"""A file that a job brings, as its input names it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class InputFile:
    """A file that a job brings: base64, a data URI or a URL in `source`, for nodes that name `name`.

    `where` is its place in the input, for messages.
    """

    name: str
    source: str = field(repr=False)
    where: str
    is_image: bool
