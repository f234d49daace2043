"""Writes `src/models/catalog.json`: the models that ComfyUI's stock templates name.

    python -m maintenance.catalog

It is generated from the packages comfyui-workflow-templates-json and comfyui-subgraph-blueprints, which must be
installed. It lists only files on Hugging Face and no pickles; files that are left out are printed.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from src.models.catalog import CATALOG_FILE

_PACKAGES = {"comfyui_workflow_templates_json": "templates", "comfyui_subgraph_blueprints": "blueprints"}
_ON_HUB = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/resolve/([^/]+)/([^?#]+)")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class _Entry(NamedTuple):
    """A file of the catalog."""

    folder: str
    file: str
    repository: str
    path: str
    revision: str
    sha256: str

    @property
    def name(self) -> str:
        """Its repository and path, which are unique."""
        return f"{self.repository}/{self.path}"


def catalog() -> tuple[dict[str, Any], list[str]]:
    """The content of the file, and one line for each model that was left out."""
    used: Counter[_Entry] = Counter()
    templates: dict[str, list[str]] = {}
    left_out: dict[str, None] = {}
    for file in _files():
        content = json.loads(file.read_text(encoding="utf-8"))
        members: dict[str, None] = {}
        for saved in _saved_models(content if isinstance(content, dict) else {}):
            entry = _entry(saved)
            if isinstance(entry, str):
                left_out[entry] = None
            elif entry.name not in members:
                members[entry.name] = None
                used[entry] += 1
        if members:
            templates[file.stem] = list(members)
    unique = {entry.name: entry for entry, _ in reversed(used.most_common())}
    ordered = sorted(unique.values(), key=lambda entry: (-used[entry], entry.name))
    models = [
        {name: value for name, value in {"name": entry.name, **entry._asdict()}.items() if value} for entry in ordered
    ]
    versions = [f"{package} {metadata.version(package.replace('_', '-'))}" for package in _PACKAGES]
    return {"made_from": versions, "models": models, "templates": templates}, list(left_out)


def _files() -> Iterator[Path]:
    """The JSON files of the packages."""
    for package, folder in _PACKAGES.items():
        yield from sorted((Path(str(resources.files(package))) / folder).glob("*.json"))


def _saved_models(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    graphs = [content, *(content.get("definitions") or {}).get("subgraphs", [])]
    for graph in graphs:
        for node in graph.get("nodes", []):
            yield from (node.get("properties") or {}).get("models") or []


def _entry(saved: Mapping[str, Any]) -> _Entry | str:
    """An entry of the catalog, or the reason why the model is left out."""
    folder, file, url = (str(saved.get(part) or "") for part in ("directory", "name", "url"))
    match = _ON_HUB.match(url)
    if match is None:
        return f"{folder}/{file}: not on Hugging Face, or without a path there: {url}"
    if file.lower().endswith(_PICKLES):
        return f"{folder}/{file}: a pickle"
    revision = match[2] if re.fullmatch(r"[0-9a-f]{40}", match[2]) else ""
    is_digest = str(saved.get("hash_type") or "").lower() == "sha256"
    digest = str(saved.get("hash") or "").lower() if is_digest else ""
    digest = digest if re.fullmatch("[0-9a-f]{64}", digest) else ""
    return _Entry(folder, file, match[1], unquote(match[3]), revision, digest)


def main() -> int:
    """Write the file."""
    content, left_out = catalog()
    CATALOG_FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    made_from = ", ".join(content["made_from"])
    print(f"{len(content['models'])} models, {len(content['templates'])} templates, from {made_from}")
    print("".join(f"left out: {line}\n" for line in left_out), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
