"""ComfyUI's registry of node packs, by its published API (https://docs.comfy.org/api-reference/registry)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from ..errors import InputFileRefused, InputFileUnavailable, PackFailed
from ..storage.web import FetchRules, fetch_json

_REFUSED = {
    "NodeVersionStatusBanned": "banned",
    "NodeVersionStatusDeleted": "deleted",
    "NodeVersionStatusFlagged": "flagged as unsafe",
}


@dataclass(frozen=True)
class PackVersion:
    """A version of a pack: where its archive is."""

    id: str
    version: str
    url: str


@dataclass(frozen=True)
class Registry:
    """The registry at an endpoint."""

    endpoint: str = "https://api.comfy.org"
    rules: FetchRules = field(default_factory=FetchRules)

    def version(self, pack_id: str, version: str = "") -> PackVersion:
        """A version of a pack, the newest one by default. Raises PackFailed."""
        query = f"?version={quote(version)}" if version else ""
        told = self._ask(f"/nodes/{quote(pack_id, safe='')}/install{query}", pack_id)
        status = str(told.get("status"))
        if status in _REFUSED:
            raise PackFailed(f"{pack_id}: the registry has {_REFUSED[status]} version {told.get('version')}")
        found = PackVersion(
            str(told.get("node_id") or pack_id), str(told.get("version")), str(told.get("downloadUrl"))
        )
        if found.id.lower() != pack_id.lower() or version not in ("", found.version):
            raise PackFailed(f"{pack_id}@{version}: the registry returned {found.id}@{found.version}"[:300])
        return found

    def repository_of(self, pack_id: str) -> str:
        """The repository of a pack, "" if the registry knows none. Raises PackFailed."""
        told = self._ask(f"/nodes/{quote(pack_id, safe='')}", pack_id)
        return str(told.get("repository") or "").removesuffix(".git")

    def pack_of_class(self, class_type: str) -> tuple[str, str]:
        """Id and repository of the pack that may have a node class, a guess; "" for nobody. Raises PackFailed."""
        try:
            told = self._ask(f"/comfy-nodes/{quote(class_type, safe='')}/node", class_type)
        except _Unknown:
            return "", ""
        return str(told.get("id") or ""), str(told.get("repository") or "").removesuffix(".git")

    def _ask(self, path: str, what: str) -> Mapping[str, Any]:
        try:
            return fetch_json(f"{self.endpoint}{path}", self.rules, f"{what[:100]}: ComfyUI's registry")
        except (InputFileRefused, InputFileUnavailable) as error:
            if isinstance(error, InputFileUnavailable) and error.status == HTTPStatus.NOT_FOUND:
                raise _Unknown(f"{what[:100]}: not found in ComfyUI's registry") from error
            raise PackFailed(error.message) from error


class _Unknown(PackFailed):
    """The registry does not know it."""
