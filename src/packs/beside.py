"""The node packs beside those of ComfyUI's own folder: on volumes, and those of CUSTOM_NODES."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ..models.places import VOLUMES
from ..settings import Settings
from .installed import InstalledPacks

log = logging.getLogger(__name__)

_FOLDER = "node-packs"


def install_packs(settings: Settings, python: str) -> InstalledPacks:
    """The packs of CUSTOM_NODES, installed for ComfyUI's `python`, and those in `custom_nodes/` of the volumes.

    Never fails: what cannot be installed is in `failures`, and in the log.
    """
    on_volumes = tuple(path for volume in VOLUMES if (path := volume / "custom_nodes").is_dir())
    if not settings.custom_nodes:
        return InstalledPacks(on_volumes)
    from .install import install  # noqa: PLC0415  it delays the start of ComfyUI, where there is nothing to install

    installed = install(settings, python, _root(settings))
    for name, reason in installed.failures.items():
        log.error("CUSTOM_NODES: skipping %s: %s", name, reason)
    return InstalledPacks((*installed.folders, *on_volumes), installed.libraries, installed.failures)


def _root(settings: Settings) -> Path:
    """The folder for the packs of CUSTOM_NODES: CUSTOM_NODES_DIR, a volume, or one in this container."""
    if settings.custom_nodes_dir:
        return Path(settings.custom_nodes_dir).expanduser().absolute()
    volume = next((volume for volume in VOLUMES if volume.is_dir() and os.access(volume, os.W_OK)), None)
    return volume / _FOLDER if volume else Path.home() / ".cache" / _FOLDER
