"""The values that pass along links between the draft engine's nodes, and what a node may use while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..protocol.executor import Folders

Images = list[Image.Image]
"""IMAGE and MASK: a batch of pictures, RGB or RGBA for IMAGE, grey ("L") for MASK.

INT, FLOAT, STRING and BOOLEAN are Python values.
"""


@dataclass(frozen=True)
class Placeholder:
    """Stands for a MODEL, CLIP, VAE, CONDITIONING, GUIDER, SIGMAS, NOISE or SAMPLER.

    It holds no tensors, only the `properties` that the draft picture is to show, such as the model's file name.
    """

    properties: dict[str, Any] = field(default_factory=dict)

    def with_properties(self, **properties: Any) -> Placeholder:
        """A copy with more properties."""
        return Placeholder({**self.properties, **properties})


@dataclass(frozen=True)
class Latent:
    """LATENT: the size in pixels of the pictures that it decodes to, and the properties that they are to show.

    `picture` is the one that VAEEncode made it from, if any.
    """

    width: int
    height: int
    batch: int
    properties: dict[str, Any] = field(default_factory=dict)
    picture: Image.Image | None = None


class Interrupted(Exception):
    """The run was interrupted."""


@dataclass(frozen=True)
class Context:
    """What a node may use besides its inputs. `step_seconds` is the duration of one sampling step.

    `send_preview` takes the JPEG of what a sampler is at, if anyone wants it.
    """

    folders: Folders
    step_seconds: float
    interrupt: threading.Event
    progress: Callable[[int, int], None]
    metadata: dict[str, Any] | None = None
    send_picture: Callable[[bytes], None] = lambda png: None
    send_preview: Callable[[bytes], None] | None = None

    def step(self, step: int, steps: int) -> None:
        """Take the time of one sampling step and report its number. Raises Interrupted if the run was interrupted."""
        if self.interrupt.wait(self.step_seconds) if self.step_seconds else self.interrupt.is_set():
            raise Interrupted
        self.progress(step, steps)


@dataclass(frozen=True)
class Output:
    """What a node returns: the values of its outputs, and `ui`, which an output node reports to the client."""

    values: tuple[Any, ...] = ()
    ui: dict[str, Any] | None = None


def input_file(folders: Folders, name: str) -> Path:
    """The file that LoadImage opens for a name, which may end in ` [input]`, ` [output]` or ` [temp]`."""
    for kind, folder in (("input", folders.input), ("output", folders.output), ("temp", folders.temp)):
        if name.endswith(f" [{kind}]"):
            return folder / name.removesuffix(f" [{kind}]")
    return folders.input / name
