"""The known model files (name, folder, source, size, digest, licence) and the sets of them that workflows need.

`manifest.json` next to this module lists them. A file is pinned by its digest, by the revision of its repository, or
by both; a pickle, which can run code, only by both. Sizes and digests are those that the publishers' own listings and
other projects' manifests agree on; unknown ones are left out, not guessed.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..errors import InvalidManifest, UnknownModelSet
from ..settings import Settings
from .folders import folder_names, kind_of

MANIFEST_FILE = Path(__file__).with_name("manifest.json")
"""The manifest in this repository."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# What a field must be, for error messages, where its regular expression would say little to the user.
EXPECTED_FORMS = {
    "file": "a name without slashes and without leading or trailing spaces; put a subfolder into folder",
    "folder": "a folder below models/, without spaces",
    "name": "letters, digits and . + - _ /",
    "revision": "the 40 hexadecimal digits of a commit",
    "sha256": "64 hexadecimal digits",
    "url": "a URL that begins with https://",
    "repository": "owner/name",
}
_COMMIT_LENGTH = 40
_HUB = "https://huggingface.co"
_NO_NAME = re.compile(r"[^\w.+/-]")

log = logging.getLogger(__name__)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


_Name = Annotated[str, Field(pattern=r"^[\w.+-]+(/[\w.+-]+)*$", max_length=200)]
_File = Annotated[str, Field(pattern=r"^[^\s/\\\x00-\x1f]([^/\\\x00-\x1f]*[^\s/\\\x00-\x1f])?$", max_length=200)]
_Digest = Annotated[str, BeforeValidator(_lower), Field(pattern=r"^[0-9a-f]{64}$")]
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
        if self.url and "@" in self.url.split("/")[2]:
            raise ValueError("url must not contain a user or password: use a signed link, or the models bucket")
        if (self.repository is None) != (self.path is None) or (self.revision and not self.repository):
            raise ValueError("repository and path are required together; revision requires both")
        return self

    @property
    def page(self) -> str:
        """Its URL for messages, without the signature of a presigned URL."""
        if self.repository:
            return f"{_HUB}/{self.repository}/resolve/{self.revision or 'main'}/{quote(self.path or '')}"
        return (self.url or "the bucket of models").partition("?")[0].partition("#")[0]  # a presigned URL is a secret


class Model(BaseModel):
    """One file: `folder` is ComfyUI's (below `models`), `file` its name there, `size` in bytes.

    `gated`: its licence has to be accepted on its page first; `instead` names the same or a like model that is not.
    """

    model_config = _Strict
    may_be_unpinned: ClassVar[bool] = False

    name: _Name
    folder: _Name
    file: _File
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
        if not (self.is_pinned or self.may_be_unpinned):
            raise ValueError("must have sha256 or a revision, so that the file can be verified")
        return self

    @property
    def is_pinned(self) -> bool:
        """Whether it is known for sure which file it is."""
        return bool(self.sha256 or len(self.source.revision or "") == _COMMIT_LENGTH)

    @property
    def about(self) -> str:
        """Its size and licence, for messages: what a user wants to know before fetching it."""
        size = f"{self.size / 1e9:.1f} GB, " if self.size else ""
        use = "" if self.commercial_ok else ", not for commercial use"
        return f"{size}{self.licence}{use}"


class UnpinnedSource(Source):
    """A source with any revision: a branch, too."""

    revision: Annotated[str, Field(pattern=r"^[\w.-]{1,100}$")] | None = None


class UnpinnedModel(Model):
    """A model of which only the place is known: which file it is, its source says when it is fetched."""

    may_be_unpinned: ClassVar[bool] = True
    source: UnpinnedSource
    commercial_ok: bool = True

    @staticmethod
    def make(folder: str, file: str, source: UnpinnedSource, sha256: str | None, page: str) -> UnpinnedModel:
        """One named by its place. Raises ValidationError."""
        name = _NO_NAME.sub("_", (source.path and f"{source.repository}/{source.path}") or f"{folder}/{file}")
        return UnpinnedModel(
            name=name, folder=folder, file=file, source=source, sha256=sha256, licence=f"licence: see {page}"
        )


class Manifest(BaseModel):
    """All models, and the sets: the name of a set to the names of its models."""

    model_config = _Strict

    models: tuple[Model, ...]
    sets: dict[str, tuple[str, ...]]

    @model_validator(mode="after")
    def _is_whole(self) -> Manifest:
        names = [model.name for model in self.models]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"model names must be unique: {', '.join(duplicates)}")
        referenced = {name for members in self.sets.values() for name in members}
        referenced |= {model.instead for model in self.models if model.instead}
        unknown = sorted(referenced - set(names))
        if unknown:
            raise ValueError(f"there is no model named {', '.join(unknown)}")
        return self

    def model(self, name: str) -> Model:
        """The model of that name. Raises KeyError."""
        return next(model for model in self.models if model.name == name)

    def expand(self, names: Iterable[str]) -> list[Model]:
        """The models of the named sets, and the named models, each once. Raises UnknownModelSet with similar names."""
        members_of = {**{model.name: (model.name,) for model in self.models}, **self.sets}
        spelled = {name.lower(): name for name in members_of}
        found: dict[str, Model] = {}
        for name in (part.strip() for given in names for part in given.split(",") if part.strip()):
            known = name if name in members_of else spelled.get(name.lower())
            if known is None:
                near = difflib.get_close_matches(name[:200], members_of, n=3, cutoff=0.4) or sorted(self.sets)
                hint = " (a folder goes into MODELS_DIR)" if name.startswith(("/", ".", "~")) else ""
                raise UnknownModelSet(
                    f"there is no set or model {name[:80]!r}{hint}; similar names: {', '.join(near)}. All sets: "
                    "`python -m src.models sets`"
                )
            found.update({member: self.model(member) for member in members_of[known]})
        return list(found.values())

    def find_by_file(self, file: str, folder: str = "") -> list[Model]:
        """The models whose file has that name, any folders in `file` ignored; those that are not gated first.

        With a `folder`, only models for that kind of folder. Without, models in a subfolder of their own are left out:
        their file names say little (`model.safetensors`).
        """
        name = PurePosixPath(file.replace("\\", "/")).name
        known = [model for model in self.models if model.file == name]
        fits = [m for m in known if (kind_of(m.folder) == kind_of(folder) if folder else "/" not in m.folder)]
        return sorted(fits, key=lambda model: model.gated)

    def find_by_path(self, path: str, folder: str = "") -> list[Model]:
        """The models that lie at that path below their kind of folder, on whatever system it was written.

        Without subfolders in `path` those of `find_by_file`; with some, only models that go into the same.
        """
        parts = PurePosixPath(path.replace("\\", "/"))
        if len(parts.parts) <= 1:
            return self.find_by_file(path, folder)
        known = [m for m in self.models if PurePosixPath(m.folder, m.file).parts[1:] == parts.parts]
        fits = [model for model in known if not folder or kind_of(model.folder) == kind_of(folder)]
        return sorted(fits, key=lambda model: model.gated)

    def sets_with(self, name: str) -> list[str]:
        """The sets that have that model, or another one with the same folder and file name."""
        model = self.model(name)
        same = {other.name for other in self.models if (other.folder, other.file) == (model.folder, model.file)}
        return [name for name, members in self.sets.items() if same & set(members)]


class OwnManifest(BaseModel):
    """Models and sets of one's own, which go over those of a manifest."""

    model_config = _Strict

    models: tuple[Model, ...] = ()
    sets: dict[str, tuple[str, ...]] = Field(default_factory=dict)


def read_manifest(content: object, base: Manifest | None = None) -> Manifest:
    """A manifest from JSON; its models and sets replace those of `base` with the same names.

    Raises InvalidManifest, which says what is wrong and where.
    """
    try:
        if base is None:
            return Manifest.model_validate(content)
        given = OwnManifest.model_validate(content)
        own = list(given.models)
        names = {model.name for model in own}
        kept = [model for model in base.models if model.name not in names]
        return Manifest(models=(*own, *kept), sets={**base.sets, **given.sets})
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        listed = "; ".join(_problem(problem["loc"], problem["msg"], content) for problem in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InvalidManifest(f"{listed}{more}") from error


def _problem(loc: Sequence[int | str], message: str, content: object) -> str:
    """The message for one problem: which model, which field, what it must be."""
    place, rest = "the manifest", list(loc)
    if rest[:1] == ["models"] and len(rest) > 1 and isinstance(content, Mapping):
        entry = content["models"][rest[1]]
        name = entry.get("name") if isinstance(entry, Mapping) else None
        place, rest = f"model {name!r}" if name else f"models[{rest[1]}]", rest[2:]
    field = str(rest[-1]) if rest else ""
    expected = f"; {EXPECTED_FORMS[field]}" if field in EXPECTED_FORMS and "match pattern" in message else ""
    return f"{'.'.join((place, *map(str, rest)))}: {message.removeprefix('Value error, ')}{expected}"


@cache
def shipped_manifest() -> Manifest:
    """The manifest in this repository."""
    return read_manifest(json.loads(MANIFEST_FILE.read_text(encoding="utf-8")))


def read_own_manifest(settings: Settings) -> Manifest:
    """The shipped manifest, with the entries of MODELS_MANIFEST over it. Raises InvalidManifest."""
    if not settings.models_manifest:
        return shipped_manifest()
    file = Path(settings.models_manifest).expanduser()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidManifest(f"MODELS_MANIFEST: there is no file {file}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidManifest(
            f"MODELS_MANIFEST must be a JSON file, but {file.name} cannot be read as JSON"
        ) from error
    try:
        manifest = read_manifest(content, shipped_manifest())
        for model in manifest.models:
            _warn_about_folder(kind_of(model.folder))
        return manifest
    except InvalidManifest as error:
        raise InvalidManifest(f"{file.name}: {error.message}") from error


@cache
def _warn_about_folder(kind: str) -> None:
    """Warn once in the log about a folder that ComfyUI does not have: a node pack may use it, or it is a typo."""
    if kind not in folder_names():
        near = difflib.get_close_matches(kind, folder_names(), n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        log.warning("MODELS_MANIFEST: %r is not one of ComfyUI's model folders%s", kind, hint)


def where_to_get(file: str, manifest: Manifest, folder: str = "") -> list[str]:
    """Where a missing file can be downloaded: a sentence for each model of that file name (and folder)."""
    sentences = []
    for model in manifest.find_by_file(file, folder):
        gate = " (accept its licence there first)" if model.gated else ""
        sentences.append(
            f"{model.file} for models/{model.folder} is available at {model.source.page}{gate}: {model.about}"
        )
    return sentences
