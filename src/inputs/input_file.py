"""An input file of a job, as the job's input names it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class InputFile:
    """An input file: base64, a data URI or a URL in `source`, for the nodes whose inputs have `name`.

    `where` is its place in the input, for messages.
    """

    name: str
    source: str = field(repr=False)
    where: str
    is_image: bool
