"""What of the needs is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ..models.places import Places
from .facts import Needs, PackNeed
from .project import read_project


def with_presence(needs: Needs, places: Places, has_pack: Callable[[PackNeed], bool]) -> Needs:
    """The same needs, which say of models and packs whether they are there."""
    models = tuple(replace(model, is_there=_has(places, model.folder, model.file)) for model in needs.models)
    packs = tuple(replace(pack, is_there=has_pack(pack)) for pack in needs.packs)
    return replace(needs, models=models, packs=packs)


def packs_in(folder: Path) -> Callable[[PackNeed], bool]:
    """Whether a pack is in a folder of node packs: by its folder's name, or the id in its pyproject.toml."""
    found = set(_names(folder))
    return lambda pack: bool({pack.id.lower(), pack.repository.rpartition("/")[2].lower()} & found - {""})


def _has(places: Places, folder: str, file: str) -> bool:
    return (next(places.candidates(folder, file), None) if folder else places.locate(file)) is not None


def _names(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.is_dir() and not path.name.endswith(".disabled"):
            yield path.name.lower().partition("@")[0]
            if name := read_project(path).name:
                yield name.lower()
