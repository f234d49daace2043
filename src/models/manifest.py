"""What is known of model files: name, folder, source, size, digest, licence; and the sets that workflows need.

`manifest.json` beside this room holds the ones that we know of. A file is pinned by its digest, by the revision of its
repository, or by both; a pickle, which can run code, only by both. Sizes and digests are those that the publishers'
own listings and other projects' manifests agree on; what nobody tells is left out, not guessed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InvalidManifest, UnknownModelSet
from ..settings import Settings

MANIFEST_FILE = Path(__file__).with_name("manifest.json")
"""The manifest of this repository."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_HUB = "https://huggingface.co"

_Name = Annotated[str, Field(pattern=r"^[\w.+-]+(/[\w.+-]+)*$", max_length=200)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
_Strict = ConfigDict(extra="forbid", frozen=True)


class Source(BaseModel):
    """Where a file comes from: a Hugging Face repository, a web address, or a key in the bucket of models.

    An address is https; http is for hosts that TRUSTED_HOSTS names.
    """

    model_config = _Strict

    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    revision: _Revision | None = None
    path: str | None = None
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Source:
        if [self.repository, self.url, self.key].count(None) != 2:
            raise ValueError("must have one of repository, url or key")
        if (self.repository is None) != (self.path is None) or (self.revision and not self.repository):
            raise ValueError("repository and path go together, and revision with them")
        return self

    @property
    def page(self) -> str:
        """Where a person can get it; empty for a key in a bucket."""
        if self.repository:
            return f"{_HUB}/{self.repository}/resolve/{self.revision or 'main'}/{self.path}"
        return self.url or ""


class Model(BaseModel):
    """One file: `folder` is ComfyUI's (below `models`), `file` its name there, `size` in bytes.

    `gated`: its licence has to be accepted on its page first; `instead` names the same or a like model that is not.
    """

    model_config = _Strict

    name: _Name
    folder: _Name
    file: Annotated[str, Field(pattern=r"^[\w.+-]+$", max_length=200)]
    source: Source
    size: Annotated[int, Field(gt=0)] | None = None
    sha256: _Digest | None = None
    licence: Annotated[str, Field(min_length=1)]
    commercial_ok: bool
    gated: bool = False
    instead: str | None = None
    pickle: bool = False

    @model_validator(mode="after")
    def _is_safe(self) -> Model:
        for path in (self.folder, self.file, self.source.path or "", self.source.key or ""):
            if {"..", "."} & set(PurePosixPath(path).parts) or path.startswith("/"):
                raise ValueError(f"{path} leads out of its folder")
        if self.file.lower().endswith(_PICKLES) != self.pickle:
            raise ValueError("pickle must be true for .bin, .pt, .pth, .ckpt and .pkl files, and for no other")
        if self.pickle and not (self.sha256 and (self.source.revision or self.source.url)):
            raise ValueError("a pickle can run code: it must have sha256 and a revision")
        if not (self.sha256 or self.source.revision):
            raise ValueError("must have sha256 or a revision, or nobody knows what it is")
        return self

    @property
    def about(self) -> str:
        """What a person wants to know before fetching it."""
        size = f"{self.size / 1e9:.1f} GB, " if self.size else ""
        use = "" if self.commercial_ok else ", not for commercial use"
        return f"{size}{self.licence}{use}"


class Manifest(BaseModel):
    """All models by name, and the sets: name to the names of its models."""

    model_config = _Strict

    models: tuple[Model, ...]
    sets: dict[str, tuple[str, ...]]

    @model_validator(mode="after")
    def _is_whole(self) -> Manifest:
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"models must have names of their own: {', '.join(twice)}")
        wanted = {name for members in self.sets.values() for name in members}
        wanted |= {model.instead for model in self.models if model.instead}
        unknown = sorted(wanted - set(names))
        if unknown:
            raise ValueError(f"there is no model of the name {', '.join(unknown)}")
        return self

    def model(self, name: str) -> Model:
        """The model of that name. Raises KeyError."""
        return next(model for model in self.models if model.name == name)

    def expand(self, names: Iterable[str]) -> list[Model]:
        """The models of sets and models by name, each once. Raises UnknownModelSet with the nearest names."""
        known = {model.name for model in self.models}
        found: dict[str, Model] = {}
        for name in names:
            members = self.sets.get(name) or ((name,) if name in known else ())
            if not members:
                choices = [*self.sets, *known]
                near = difflib.get_close_matches(name[:200], choices, n=3, cutoff=0.4) or sorted(self.sets)
                raise UnknownModelSet(f"there is no set or model {name[:80]!r}; there is {', '.join(near)}")
            found.update({member: self.model(member) for member in members})
        return list(found.values())

    def known_as(self, file: str, folder: str = "") -> list[Model]:
        """The models whose file has that name, whatever folder is in front of it; those without a gate first.

        With a `folder`, ComfyUI's name of one, only those for it.
        """
        name = PurePosixPath(file.replace("\\", "/")).name
        known = (model for model in self.models if model.file == name and folder in ("", model.folder.split("/")[0]))
        return sorted(known, key=lambda model: model.gated)

    def sets_with(self, name: str) -> list[str]:
        """The sets that have a model of that name, or one that is the same file from elsewhere."""
        model = self.model(name)
        same = {other.name for other in self.models if (other.folder, other.file) == (model.folder, model.file)}
        return [name for name, members in self.sets.items() if same & set(members)]


def read_manifest(content: object, base: Manifest | None = None) -> Manifest:
    """A manifest from JSON; its models and sets take the place of those of `base` that have the same names.

    Raises InvalidManifest with the place and what is wrong there.
    """
    try:
        if base is None:
            return Manifest.model_validate(content)
        given: dict[str, Any] = content if isinstance(content, dict) else {}
        own = [Model.model_validate(model) for model in given.get("models", [])]
        names = {model.name for model in own}
        kept = [model for model in base.models if model.name not in names]
        return Manifest(models=(*kept, *own), sets={**base.sets, **given.get("sets", {})})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in problem["loc"]) or "the manifest"
        raise InvalidManifest(f"{place}: {problem['msg']}") from error


@cache
def shipped_manifest() -> Manifest:
    """The manifest of this repository."""
    return read_manifest(json.loads(MANIFEST_FILE.read_text(encoding="utf-8")))


def known_manifest(settings: Settings) -> Manifest:
    """The shipped manifest with MODELS_MANIFEST over it. Raises InvalidManifest."""
    if not settings.models_manifest:
        return shipped_manifest()
    file = Path(settings.models_manifest).expanduser()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidManifest(f"MODELS_MANIFEST must be a JSON file, and {file.name} cannot be read as one") from error
    try:
        return read_manifest(content, shipped_manifest())
    except InvalidManifest as error:
        raise InvalidManifest(f"{file.name}: {error.message}") from error


def where_to_get(file: str, manifest: Manifest, folder: str = "") -> list[str]:
    """For a file that is missing: where it is to be had, a sentence for each model of that name (and folder)."""
    told = []
    for model in manifest.known_as(file, folder):
        gate = " (its licence has to be accepted there first)" if model.gated else ""
        told.append(f"{model.file} for models/{model.folder} is at {model.source.page}{gate}: {model.about}")
    return told
