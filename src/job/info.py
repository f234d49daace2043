"""What a worker reports about itself, for those who have no shell on it."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from .. import VERSION
from ..comfy.engine import ComfyEngine
from ..errors import UnexpectedAnswer
from ..redaction import public_text
from ..settings import Settings
from ..workflow.stored import list_stored_workflows
from .info_parts import models_by_folder

_MAX_NAMES = 500  # of models in one folder: the answer has a size limit
_FILE_SYSTEMS = {"temporary": tempfile.gettempdir(), "volume": "/runpod-volume", "workspace": "/workspace"}


def versions(engine: ComfyEngine) -> dict[str, str]:
    """Of the worker and of ComfyUI."""
    return {"worker": VERSION, "comfyui": engine.version}


def describe_worker(engine: ComfyEngine, settings: Settings) -> dict[str, Any]:
    """Versions, devices, models by folder, node packs with their number of classes, settings without secrets, disk.

    `fast_paths` are those of ComfyUI: which run, why not, and what would turn them on. `warnings` tell what is
    missing.

    Raises WorkerError if the engine does not answer.
    """
    node_packs, warnings = _node_packs(engine)
    stats = engine.client.system_stats()
    system, devices = stats.get("system") or {}, stats.get("devices") or []
    return {
        "engine": engine.process.installation.name,
        "versions": {
            **versions(engine),
            "python": platform.python_version(),
            "runpod": _version_of("runpod"),
            "comfyui_python": public_text(system.get("python_version", ""), 100),
            "comfyui_torch": public_text(system.get("pytorch_version", ""), 100),
        },
        "devices": [_device(device) for device in devices if isinstance(device, Mapping)],
        "memory": {name: system.get(name) for name in ("ram_total", "ram_free")},
        "models": _models(engine),
        "node_packs": node_packs,
        "failed_node_packs": {pack.name: pack.error for pack in engine.process.boot_log.failed_packs},
        "fast_paths": [path._asdict() for path in engine.process.boot_log.fast_paths(settings.comfyui_args)],
        "workflows": list_stored_workflows(settings)[:_MAX_NAMES],
        "settings": settings.public(),
        "disk": _disk(),
        "warnings": warnings,
    }


def _device(device: Mapping[str, Any]) -> dict[str, Any]:
    known = ("name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free")
    return {name: device[name] for name in known if name in device}


def _models(engine: ComfyEngine) -> dict[str, Any]:
    """Names by folder; of a long list the first ones and how many there are."""
    found: dict[str, Any] = {}
    for folder, names in models_by_folder(engine.client).items():
        if names:
            found[folder] = names[:_MAX_NAMES]
        if len(names) > _MAX_NAMES:
            found[f"{folder} (count)"] = len(names)
    return found


def _node_packs(engine: ComfyEngine) -> tuple[dict[str, int], list[str]]:
    """The number of classes by pack, and a warning if ComfyUI cannot list them."""
    try:
        modules = [schema.pack for schema in engine.client.all_schemas().values()]
    except UnexpectedAnswer as error:
        return {}, [
            f"node_packs are not known: {error.message}; a node class is broken, and the worker's log shows which"
        ]
    return dict(sorted(Counter(module.removeprefix("custom_nodes.") for module in modules).items())), []


def _disk() -> dict[str, dict[str, int]]:
    """Free and total bytes of the file systems that fill up."""
    found = {}
    for name, place in _FILE_SYSTEMS.items():
        try:
            usage = shutil.disk_usage(place)
        except OSError:
            continue
        found[name] = {"free_bytes": usage.free, "total_bytes": usage.total}
    return found


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
