"""Where models are: the folders that are searched, and the one that downloads go to."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from ..settings import Settings
from .files import could_be, is_model
from .folders import ALSO_IN, folder_names, folders_for, is_below
from .local_cache import local_cache

if TYPE_CHECKING:
    from .manifest import Manifest, Model

log = logging.getLogger(__name__)

VOLUMES = tuple(map(Path, ("/runpod-volume", "/workspace")))
_BELOW_VOLUMES = ("models", "ComfyUI/models")
# RunPod's caches of models: of Hugging Face's own layout; of RunPod's SDK 2 (runpod/apps/model.py); of its Model Repo.
_HUB_CACHE = Path("/runpod-volume/huggingface-cache/hub")
_HUB_STORE = Path("/runpod/model-store/huggingface")
_REPO_STORE = Path("/runpod/model-store/modelrepo-local/models")
# What a model at the top of a repository may be.
_TOP_KINDS = (
    *("checkpoints", "diffusion_models", "loras", "text_encoders", "vae"),
    *("controlnet", "clip_vision", "upscale_models", "style_models"),
)
# Folders that node packs look for only in ComfyUI's own `models`.
_FIXED_FOLDERS = ("ipadapter-flux", "pulid", "insightface", "facexlib", "clip_vision/siglip-so400m-patch14-384")


@dataclass(frozen=True)
class Places:
    """`roots` are searched in that order; `target` is one of them. `preferred` goes before ComfyUI's own folder.

    `cached` are files stored elsewhere, by the path below a root that they stand for: `vae/ae.safetensors`.
    """

    roots: tuple[Path, ...]
    target: Path
    preferred: Path | None = None
    cached: Mapping[str, Path] = field(default_factory=dict)

    def target_of(self, model: Model) -> Path:
        """The path that a model is downloaded to."""
        return self.target / model.folder / model.file

    def candidates(self, folder: str, file: str) -> Iterator[Path]:
        """The files of that name that ComfyUI would find for a folder, in ComfyUI's order; none for an unsafe name."""
        if not is_below(folder, file):
            return
        for root in self.roots:
            for name in folders_for(folder):
                path = root / name / file
                with contextlib.suppress(OSError):  # not a valid file name
                    if path.is_file():
                        yield path
        for name in folders_for(folder):
            if f"{name}/{file}" in self.cached:
                yield self.cached[f"{name}/{file}"]

    def find(self, model: Model) -> Path | None:
        """The first file that may be this model: its name fits, its size if that is known, and it is not cut short."""
        found = self.candidates(model.folder, model.file)
        return next((path for path in found if could_be(path, model.size)), None)

    def locate(self, name: str) -> Path | None:
        """The first file of that name, as a workflow writes it, in any kind of folder."""
        path = name.replace("\\", "/")
        return next((found for kind in folder_names() for found in self.candidates(kind, path)), None)


def find_places(settings: Settings, comfyui: Path) -> Places:
    """The places for the ComfyUI at `comfyui`: MODELS_DIR, its own `models`, the volumes, RunPod's model cache."""
    given = Path(settings.models_dir).expanduser().absolute() if settings.models_dir else None
    own = comfyui / "models"
    on_volumes = [volume / below for volume in VOLUMES for below in _BELOW_VOLUMES]
    roots = tuple(dict.fromkeys((*((given,) if given else ()), own, *filter(Path.is_dir, on_volumes))))
    target = given or _default_target(own)
    cached = _files_in_caches(settings)
    return Places(roots if target in roots else (*roots, target), target, given, cached)


def _files_in_caches(settings: Settings) -> dict[str, Path]:
    snapshots = list(find_snapshots(settings.model_revision))
    if not snapshots:
        return {}
    from .catalog import known_manifest  # imported here: it takes 0.1 s, and delays the start of ComfyUI

    return cached_files(snapshots, known_manifest(settings))


def _default_target(own: Path) -> Path:
    for volume in VOLUMES:
        if volume.is_dir() and os.access(volume, os.W_OK):
            folders = (volume / below for below in _BELOW_VOLUMES)
            return next(filter(Path.is_dir, folders), volume / _BELOW_VOLUMES[0])
    return own


# --- Model paths for ComfyUI and its node packs --------------------------------------------------------


def write_model_paths(
    settings: Settings, comfyui: Path, file: Path, links: Path, node_packs: Sequence[Path] = ()
) -> None:
    """Write `file` for --extra-model-paths-config of the ComfyUI at `comfyui`, and create the links that it needs.

    Copies on a fast disk go first. RunPod's cached Hugging Face repositories have another layout than ComfyUI's
    folders: the folder `links` gets links to their files. `node_packs` are more folders of node packs.
    """
    places = find_places(settings, comfyui)
    link_fixed_folders(comfyui, places.roots)
    roots = [*places.roots]
    for name, path in places.cached.items():
        (links / name).parent.mkdir(parents=True, exist_ok=True)
        (links / name).symlink_to(path)
    if places.cached:
        roots.append(links)
    cache = local_cache(settings)
    first = (places.preferred, cache.root if cache else None)  # ComfyUI puts the last one first
    defaults = [root for root in first if root is not None]
    packs = {f"packs{number}": {"custom_nodes": str(folder)} for number, folder in enumerate(node_packs)}
    paths = {**_model_paths(roots, defaults), **packs}
    file.write_text(yaml.safe_dump(paths, sort_keys=False), encoding="utf-8")


def _model_paths(roots: Sequence[Path], defaults: Sequence[Path]) -> dict[str, dict[str, Any]]:
    kinds = {kind: "\n".join(names) for kind, names in folder_names().items()}
    return {
        **{f"root{number}": {"base_path": str(root), **kinds} for number, root in enumerate(roots)},
        # Last: the folders that may hold misplaced models.
        **{f"also{number}": {"base_path": str(root), **ALSO_IN} for number, root in enumerate(roots)},
        **{
            f"first{number}": {"base_path": str(root), "is_default": True, **kinds}
            for number, root in enumerate(defaults)
        },
    }


def link_fixed_folders(comfyui: Path, roots: Iterable[Path]) -> list[Path]:
    """In ComfyUI's own `models`, link the folders that some node packs look for only there; returns the new links.

    A folder that exists already is left alone; a dangling link is replaced.
    """
    made = []
    for name in _FIXED_FOLDERS:
        link = comfyui / "models" / name
        source = next((root / name for root in roots if root / name != link and (root / name).is_dir()), None)
        if source is None or link.exists():
            continue
        try:
            link.unlink(missing_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source, target_is_directory=True)
        except OSError as error:
            log.warning("models/%s of ComfyUI could not be linked to %s: %s", name, source, error.strerror)
            continue
        made.append(link)
    return made


class Snapshot(NamedTuple):
    """A revision of a repository that RunPod has cached: `org/name` in lower case, and its folder."""

    repository: str
    folder: Path


def find_snapshots(revision: str) -> Iterator[Snapshot]:
    """Of each repository in RunPod's caches `revision` if it is there, else that of `refs/main`, else the newest."""
    for folder in sorted(_HUB_CACHE.glob("models--*")):
        named = folder / "refs" / "main"
        main = named.read_text(encoding="utf-8").strip() if named.is_file() else ""
        if found := _newest(folder / "snapshots", revision, main):
            yield Snapshot(folder.name.removeprefix("models--").replace("--", "/").lower(), found)
    for store in (_HUB_STORE, _REPO_STORE):
        for folder in sorted(store.glob("*/*")):
            if found := _newest(folder, revision):
                inner = _newest(found / "snapshots", revision)  # some hosts nest Hugging Face's layout
                yield Snapshot(folder.relative_to(store).as_posix().lower(), inner or found)


def _newest(folder: Path, *preferred: str) -> Path | None:
    """The subfolder of the first preferred name that there is, else the one changed last."""
    found = {path.name: path for path in folder.glob("*") if path.is_dir()}
    named = (found[name] for name in preferred if name in found)
    return next(named, None) or max(found.values(), key=lambda path: path.stat().st_mtime, default=None)


def cached_files(snapshots: Iterable[Snapshot], manifest: Manifest) -> dict[str, Path]:
    """The model files of repositories, by the paths below a root of models that each stands for.

    A file that the manifest knows stands for its folder and name there; a file below a folder with a name of ComfyUI's
    (`split_files/vae/`) for that folder, by its path below it and by its bare name; one at the top of a repository for
    all folders in which workflows may look for it.
    """
    found: dict[str, Path] = {}
    for snapshot in snapshots:
        for path in sorted(snapshot.folder.rglob("*")):
            if is_model(path.name) and path.is_file():
                for place in _places_of(path, snapshot, manifest):
                    found.setdefault(place, path)
    return found


def _places_of(path: Path, snapshot: Snapshot, manifest: Manifest) -> list[str]:
    inner = path.relative_to(snapshot.folder)
    size = path.stat().st_size
    known = [
        f"{model.folder}/{model.file}"
        for model in manifest.models
        if (model.source.path == inner.as_posix() and (model.source.repository or "").lower() == snapshot.repository)
        or (model.file == path.name and model.size == size)
    ]
    if known:
        return list(dict.fromkeys(known))
    kinds = {name: names[0] for kind, names in folder_names().items() for name in (kind, *names)}
    for depth in range(len(inner.parts) - 2, -1, -1):  # the innermost folder that has such a name
        if kind := kinds.get(inner.parts[depth]):
            below = "/".join(inner.parts[depth + 1 :])
            return list(dict.fromkeys((f"{kind}/{below}", f"{kind}/{path.name}")))
    is_part = len(inner.parts) > 1  # of a repository in Diffusers' layout or the like: ComfyUI cannot load it alone
    return [] if is_part else [f"{kind}/{path.name}" for kind in _TOP_KINDS]
