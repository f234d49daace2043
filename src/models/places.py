"""Where models are: the folders that are looked into, and the one that what is fetched goes to."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from ..settings import Settings
from .files import could_be, is_model
from .folders import ALSO_IN, folder_names, folders_for
from .local_cache import local_cache

if TYPE_CHECKING:
    from .manifest import Manifest, Model

log = logging.getLogger(__name__)

VOLUMES = tuple(map(Path, ("/runpod-volume", "/workspace")))
_BELOW_VOLUMES = ("models", "ComfyUI/models")
_HUB_CACHE = Path("/runpod-volume/huggingface-cache/hub")
# Folders that node packs look for in ComfyUI's own `models` and nowhere else.
_FIXED_FOLDERS = ("ipadapter-flux", "pulid", "insightface", "facexlib", "clip_vision/siglip-so400m-patch14-384")


@dataclass(frozen=True)
class Places:
    """`roots` are looked into in that order; `target` is one of them. `preferred` goes before ComfyUI's own folder.

    `cached` are files that lie elsewhere, by the place below a root that they stand for: `vae/ae.safetensors`.
    """

    roots: tuple[Path, ...]
    target: Path
    preferred: Path | None = None
    cached: Mapping[str, Path] = field(default_factory=dict)

    def target_of(self, model: Model) -> Path:
        """Where a model goes that is fetched."""
        return self.target / model.folder / model.file

    def candidates(self, folder: str, file: str) -> Iterator[Path]:
        """The files of that name that ComfyUI would find for a folder, in its order."""
        for root in self.roots:
            for name in folders_for(folder):
                path = root / name / file
                if path.is_file():
                    yield path
        for name in folders_for(folder):
            if f"{name}/{file}" in self.cached:
                yield self.cached[f"{name}/{file}"]

    def find(self, model: Model) -> Path | None:
        """The first file that may be this model: of its name, whole, and of its size if that is known."""
        found = self.candidates(model.folder, model.file)
        return next((path for path in found if could_be(path, model.size)), None)

    def locate(self, name: str) -> Path | None:
        """The first file of that name, as a workflow writes it, in a folder of any kind."""
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or "\0" in name:
            return None
        with contextlib.suppress(OSError):  # no name of a file
            for kind in folder_names():
                for path in self.candidates(kind, str(parts)):
                    return path
        return None


def find_places(settings: Settings, comfyui: Path) -> Places:
    """The places for a ComfyUI checkout: MODELS_DIR, its own `models`, the volumes' folders, RunPod's cache."""
    given = Path(settings.models_dir).expanduser().absolute() if settings.models_dir else None
    own = comfyui / "models"
    on_volumes = [volume / below for volume in VOLUMES for below in _BELOW_VOLUMES]
    roots = tuple(dict.fromkeys((*((given,) if given else ()), own, *filter(Path.is_dir, on_volumes))))
    target = given or _default_target(own)
    cached = _files_in_hub_cache(settings)
    return Places(roots if target in roots else (*roots, target), target, given, cached)


def _files_in_hub_cache(settings: Settings) -> dict[str, Path]:
    if not _HUB_CACHE.is_dir():
        return {}
    from .manifest import known_manifest  # only here: it takes a tenth of a second, and ComfyUI waits to be started

    return cached_files(_HUB_CACHE, known_manifest(settings))


def _default_target(own: Path) -> Path:
    for volume in VOLUMES:
        if volume.is_dir() and os.access(volume, os.W_OK):
            there = (volume / below for below in _BELOW_VOLUMES)
            return next(filter(Path.is_dir, there), volume / _BELOW_VOLUMES[0])
    return own


# --- What ComfyUI and its node packs are told -------------------------------------------------------------


def write_model_paths(settings: Settings, comfyui: Path, file: Path, links: Path) -> None:
    """Write the file for the --extra-model-paths-config of the ComfyUI at `comfyui`, and make what it needs.

    Copies on a fast disk go before all. RunPod's cached Hugging Face repositories have folders and names of their own:
    the folder `links` is made to hold links to their files.
    """
    places = find_places(settings, comfyui)
    link_fixed_folders(comfyui, places.roots)
    roots = [*places.roots]
    for place, path in places.cached.items():
        (links / place).parent.mkdir(parents=True, exist_ok=True)
        (links / place).symlink_to(path)
    if places.cached:
        roots.append(links)
    cache = local_cache(settings)
    first = (places.preferred, cache.root if cache else None)  # ComfyUI puts the last before all
    before_all = [root for root in first if root is not None]
    file.write_text(yaml.safe_dump(_model_paths(roots, before_all), sort_keys=False), encoding="utf-8")


def _model_paths(roots: Sequence[Path], before_all: Sequence[Path]) -> dict[str, dict[str, Any]]:
    kinds = {kind: "\n".join(names) for kind, names in folder_names().items()}
    return {
        **{f"root{number}": {"base_path": str(root), **kinds} for number, root in enumerate(roots)},
        # Last of all: where one lies that should lie elsewhere.
        **{f"also{number}": {"base_path": str(root), **ALSO_IN} for number, root in enumerate(roots)},
        **{
            f"first{number}": {"base_path": str(root), "is_default": True, **kinds}
            for number, root in enumerate(before_all)
        },
    }


def link_fixed_folders(comfyui: Path, roots: Iterable[Path]) -> list[Path]:
    """Link the folders that some node packs look for only in ComfyUI's own `models` to where they are; the links.

    A folder that is there already is left alone, unless it is such a link to something that is gone.
    """
    made = []
    for name in _FIXED_FOLDERS:
        link = comfyui / "models" / name
        there = next((root / name for root in roots if root / name != link and (root / name).is_dir()), None)
        if there is None or link.exists():
            continue
        try:
            link.unlink(missing_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(there, target_is_directory=True)
        except OSError as error:
            log.warning("models/%s of ComfyUI could not be linked to %s: %s", name, there, error.strerror)
            continue
        made.append(link)
    return made


def cached_files(cache_folder: Path, manifest: Manifest) -> dict[str, Path]:
    """The model files in RunPod's cache of Hugging Face repositories, by the place that each stands for.

    The cache has `models--org--name/snapshots/REVISION/path`. A file that the manifest knows stands for its folder and
    name; one below a folder that has a name of ComfyUI's (`split_files/vae/`) for that; any other for those where what
    it is may be looked for.
    """
    found: dict[str, Path] = {}
    for snapshot in _snapshots(cache_folder):
        for path in sorted(snapshot.rglob("*")):
            if is_model(path.name) and path.is_file():
                for place in _places_of(path, snapshot, manifest):
                    found.setdefault(place, path)
    return found


def _snapshots(cache_folder: Path) -> Iterator[Path]:
    """The newest, or the one that `refs/main` names, of each repository."""
    for repository in sorted(cache_folder.glob("models--*")):
        named = repository / "refs" / "main"
        main = named.read_text(encoding="utf-8").strip() if named.is_file() else ""
        there = [path for path in (repository / "snapshots").glob("*") if path.is_dir()]
        if there:
            yield max(there, key=lambda path: (path.name == main, path.stat().st_mtime))


def _places_of(path: Path, snapshot: Path, manifest: Manifest) -> list[str]:
    inner = path.relative_to(snapshot)
    repository = snapshot.parent.parent.name.removeprefix("models--").replace("--", "/").lower()
    size = path.stat().st_size
    known = [
        f"{model.folder}/{model.file}"
        for model in manifest.models
        if (model.source.path == inner.as_posix() and (model.source.repository or "").lower() == repository)
        or (model.file == path.name and model.size == size)
    ]
    if known:
        return list(dict.fromkeys(known))
    kinds = [kind for kind, names in folder_names().items() if {kind, *names} & set(inner.parent.parts)]
    if kinds:
        return [f"{folder_names()[kinds[0]][0]}/{path.name}"]
    is_part = len(inner.parts) > 1  # of a repository in another layout: ComfyUI cannot load it alone
    return [] if is_part else [f"{kind}/{path.name}" for kind in ("checkpoints", "diffusion_models", "loras")]
