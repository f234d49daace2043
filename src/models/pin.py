"""For maintainers: updates the sizes, digests and revisions in the manifest from Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelFetchFailed
from .manifest import MANIFEST_FILE, read_manifest


def pin_manifest(
    endpoint: str, token: str, names: Sequence[str], may_write: bool, file: Path = MANIFEST_FILE
) -> list[str]:
    """What differs between the manifest and the hub, a sentence each; written into the file if `may_write`.

    `names` are models or sets, all if there are none. A pinned revision is looked up as it is; without one, the newest
    commit of the default branch is taken. Raises ModelFetchFailed if the hub cannot be queried.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    selected = {model.name for model in read_manifest(content).expand(names)} if names else None
    changes = []
    for entry in content["models"]:
        if "repository" in entry["source"] and (selected is None or entry["name"] in selected):
            changes += _update_entry(entry, _published_info(endpoint, token, entry["source"]))
    if may_write and changes:
        read_manifest(content)
        file.write_text(_formatted(content), encoding="utf-8")
    return changes


def _published_info(endpoint: str, token: str, source: dict[str, Any]) -> dict[str, Any]:
    """Size, digest and revision of one file on the hub."""
    from huggingface_hub import HfApi  # noqa: PLC0415  slow to import
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    api = HfApi(endpoint=endpoint, token=token or False)
    place = f"{source['repository']}/{source['path']}"
    try:
        revision = source.get("revision") or api.repo_info(source["repository"]).sha
        found = api.get_paths_info(source["repository"], [source["path"]], revision=revision)
    except (HfHubHTTPError, OSError) as error:
        raise ModelFetchFailed(f"{place} cannot be queried: {type(error).__name__}") from error
    if not found:
        raise ModelFetchFailed(f"{place} does not exist at revision {revision}")
    lfs = getattr(found[0], "lfs", None)
    return {"size": getattr(found[0], "size", None), "sha256": lfs.sha256 if lfs else None, "revision": revision}


def _update_entry(entry: dict[str, Any], published: dict[str, Any]) -> list[str]:
    """Update an entry to what the hub published; returns a sentence for each change."""
    changes = []
    for name, owner in (("size", entry), ("sha256", entry), ("revision", entry["source"])):
        if published[name] is not None and owner.get(name) != published[name]:
            changes.append(f"{entry['name']}: {name} {owner.get(name, 'unknown')} -> {published[name]}")
            owner[name] = published[name]
    return changes


def _formatted(content: dict[str, Any]) -> str:
    """The manifest as JSON text, with one model a line, so that a diff shows which models changed."""
    models = ",\n".join(f"    {json.dumps(entry, ensure_ascii=False)}" for entry in content["models"])
    sets = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(members, ensure_ascii=False)}"
        for name, members in content["sets"].items()
    )
    return f'{{\n  "models": [\n{models}\n  ],\n  "sets": {{\n{sets}\n  }}\n}}\n'
