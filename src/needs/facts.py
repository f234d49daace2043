"""What is needed, and where each fact is from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
Origin = Literal["file", "catalog", "unknown"]
"""Where a source is from: the file itself, the models that this worker knows, or nowhere."""


@dataclass(frozen=True)
class ModelNeed:
    """A model file: `folder` is ComfyUI's kind of model, "" if it is not known; `file` its path below that folder.

    `sources` are URLs, the first one preferred; `size` is in bytes. `nodes` are those that name it. Not `is_needed`:
    only nodes that do not run name it (muted, bypassed, in a subgraph that nothing uses). `is_there` is None where
    nobody has looked.
    """

    folder: str
    file: str
    sources: tuple[str, ...] = ()
    origin: Origin = "unknown"
    sha256: str = ""
    size: int | None = None
    licence: str = ""
    nodes: tuple[str, ...] = ()
    is_needed: bool = True
    is_there: bool | None = None


@dataclass(frozen=True)
class PackNeed:
    """A node pack: its id in ComfyUI's registry, or its repository, or both; "" for what the file does not say.

    `versions` are those that the file names: a version of the registry, or a commit. `classes` are its node classes.
    """

    id: str = ""
    repository: str = ""
    versions: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    is_needed: bool = True
    is_there: bool | None = None

    @property
    def names_commit(self) -> bool:
        """Whether the file names a commit of the pack's repository."""
        return any(map(_COMMIT.fullmatch, self.versions))

    @property
    def source(self) -> str:
        """What CUSTOM_NODES calls it, "" if the file pins no version of it."""
        of_registry = (f"{self.id}@{version}" for version in self.versions if self.id and _VERSION.fullmatch(version))
        of_git = (f"{self.repository}@{v}" for v in self.versions if self.repository and _COMMIT.fullmatch(v))
        return next(of_git, "") or next(of_registry, "")


@dataclass(frozen=True)
class Needs:
    """What one file needs. `core_version` is the newest ComfyUI that it names, "" for none.

    `inputs` are files that a job has to send. `partner_classes` are those of ComfyUI's paid partner nodes.
    `open_classes` are node classes of which nothing says which pack has them, `questions` what else stays open besides
    models, a sentence each.
    """

    name: str
    core_version: str = ""
    models: tuple[ModelNeed, ...] = ()
    packs: tuple[PackNeed, ...] = ()
    inputs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    partner_classes: tuple[str, ...] = ()
    open_classes: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()

    @property
    def unknown_classes(self) -> str:
        """The sentence about node classes of which nothing says which pack has them, "" if there is none."""
        return f"no known node pack provides: {', '.join(self.open_classes)}" if self.open_classes else ""

    @property
    def open(self) -> tuple[str, ...]:
        """All that stays open, a sentence each."""
        missing = [model for model in self.models if model.is_needed and not model.is_there]
        nowhere = ", ".join(model.file for model in missing if not model.sources)
        several = [model for model in missing if len(model.sources) > 1]
        return (
            *filter(None, [self.unknown_classes]),
            *self.questions,
            *([f"no download source known for {nowhere}"] if nowhere else []),
            *(f"{model.file} has several sources: {', '.join(model.sources)}" for model in several),
        )
