"""What runs along the draft engine's links, and what a node may use while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..protocol.executor import Folders

Images = list[Image.Image]
"""IMAGE and MASK: a batch, RGB or RGBA pictures and grey ("L") ones. Numbers and texts are themselves."""


@dataclass(frozen=True)
class Facts:
    """MODEL, CLIP, VAE, CONDITIONING, GUIDER, SIGMAS, NOISE, SAMPLER: what a picture should tell about each."""

    told: dict[str, Any] = field(default_factory=dict)

    def with_(self, **more: Any) -> Facts:
        """A copy that tells more."""
        return Facts({**self.told, **more})


@dataclass(frozen=True)
class Latent:
    """LATENT: size in pixels of the picture that it would decode to, and what was told on the way."""

    width: int
    height: int
    batch: int
    facts: Facts = Facts()
    picture: Image.Image | None = None


class Interrupted(Exception):
    """The run was interrupted."""


@dataclass(frozen=True)
class Context:
    """What a node may use beside its inputs. `step_seconds` is what one sampling step takes."""

    folders: Folders
    step_seconds: float
    interrupt: threading.Event
    progress: Callable[[int, int], None]
    metadata: dict[str, Any] | None = None
    send_picture: Callable[[bytes], None] = lambda png: None

    def step(self, step: int, steps: int) -> None:
        """One step of a sampler: takes its time, tells its number; raises Interrupted if so asked."""
        if self.interrupt.wait(self.step_seconds) if self.step_seconds else self.interrupt.is_set():
            raise Interrupted
        self.progress(step, steps)


@dataclass(frozen=True)
class Output:
    """What a node gives: values along its links, and what is shown (`ui`), if it is an output node."""

    values: tuple[Any, ...] = ()
    ui: dict[str, Any] | None = None


def input_file(folders: Folders, name: str) -> Path:
    """The file of a LoadImage name, which may end in ` [input]`, ` [output]` or ` [temp]`."""
    for kind, folder in (("input", folders.input), ("output", folders.output), ("temp", folders.temp)):
        if name.endswith(f" [{kind}]"):
            return folder / name.removesuffix(f" [{kind}]")
    return folders.input / name
