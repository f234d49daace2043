"""The models that ComfyUI's stock templates name, beside those of the manifest, which go first.

`catalog.json` is made from PyPI's packages of these templates (`python -m maintenance.catalog`). It knows where a
file is from, but not which it is: size and digest are what the source says when the file is fetched; the digest is
checked, and kept beside the models. Pickles, which can run code, are left out.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..errors import UnknownModelSet
from ..settings import Settings
from .manifest import Manifest, Model, UnpinnedModel, UnpinnedSource, read_own_manifest

CATALOG_FILE = Path(__file__).with_name("catalog.json")
TEMPLATE = "template:"
"""The beginning of the name of a template's set: `template:image_qwen_image`."""


class KnownManifest(Manifest):
    """A manifest with the catalog behind it."""

    def model(self, name: str) -> Model:
        """The model of that name. Raises KeyError."""
        own = next((model for model in self.models if model.name == name), None)
        return own if own is not None else stock_catalog().model(name)

    def expand(self, names: Iterable[str]) -> list[Model]:
        """The models of the named sets, templates and models, each once. Raises UnknownModelSet with similar names."""
        found: dict[str, Model] = {}
        for name in (part.strip() for given in names for part in given.split(",") if part.strip()):
            found.update({model.name: model for model in self._named(name)})
        return list(found.values())

    def find_by_file(self, file: str, folder: str = "") -> list[Model]:
        """As in a manifest; if that has none, those of the catalog, the one that most templates name first."""
        return super().find_by_file(file, folder) or stock_catalog().find_by_file(file, folder)

    def sets_with(self, name: str) -> list[str]:
        """The sets of the manifest that have that model, or another one with the same folder and file name."""
        return super().sets_with(name) if any(model.name == name for model in self.models) else []

    def _named(self, name: str) -> list[Model]:
        if name.lower().startswith(TEMPLATE):
            return self._of_template(name)
        try:
            return super().expand([name])
        except UnknownModelSet:
            known = next((model for model in stock_catalog().models if model.name == name), None)
            if known is None:
                raise
            return [known]

    def _of_template(self, name: str) -> list[Model]:
        """The models of a stock template, those that the manifest has pinned from there."""
        catalog = stock_catalog()
        known = {known.lower(): known for known in catalog.sets}
        if name.lower() not in known:
            near = difflib.get_close_matches(name.lower()[:200], known, n=3, cutoff=0.4)
            raise UnknownModelSet(
                f"there is no stock template {name.removeprefix(TEMPLATE)[:80]!r} with models; similar names: "
                f"{', '.join(near) or 'none'}. All sets: `python -m src.models sets`"
            )
        members = [catalog.model(member) for member in catalog.sets[known[name.lower()]]]
        return [next((m for m in self.models if _is_same(m, member)), member) for member in members]


def _is_same(model: Model, other: Model) -> bool:
    """Whether they are the same file of the same repository, whatever the revision."""
    return (model.folder, model.file, model.source.repository, model.source.path) == (
        other.folder,
        other.file,
        other.source.repository,
        other.source.path,
    )


@cache
def stock_catalog() -> Manifest:
    """The models of the catalog, those first that most templates name; a set for each template."""
    content = json.loads(CATALOG_FILE.read_text(encoding="utf-8"))
    models = tuple(
        UnpinnedModel.make(
            entry["folder"],
            entry["file"],
            UnpinnedSource(repository=entry["repository"], path=entry["path"], revision=entry.get("revision")),
            entry.get("sha256"),
            f"huggingface.co/{entry['repository']}",
        )
        for entry in content["models"]
    )
    templates = {f"{TEMPLATE}{name}": members for name, members in content["templates"].items()}
    return Manifest(models=models, sets=templates)


def known_manifest(settings: Settings) -> KnownManifest:
    """The shipped manifest, the entries of MODELS_MANIFEST over it, the catalog behind it. Raises InvalidManifest."""
    manifest = read_own_manifest(settings)
    return KnownManifest(models=manifest.models, sets=manifest.sets)
