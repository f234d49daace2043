"""ComfyUI's registry of node packs, by its published API (https://docs.comfy.org/api-reference/registry)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ..deadline import Deadline
from ..errors import InputFileRefused, InputFileUnavailable, PackFailed
from ..storage.web import Fetch, FetchRules

_TIMEOUT_SECONDS = 30.0
_MAX_ANSWER_BYTES = 4 << 20
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
        told = self._answer(f"/nodes/{quote(pack_id, safe='')}/install{query}", pack_id)
        status = str(told.get("status"))
        if status in _REFUSED:
            raise PackFailed(f"{pack_id}: the registry has {_REFUSED[status]} version {told.get('version')}")
        found = PackVersion(
            str(told.get("node_id") or pack_id), str(told.get("version")), str(told.get("downloadUrl"))
        )
        if found.id.lower() != pack_id.lower() or version not in ("", found.version):
            raise PackFailed(f"{pack_id}@{version}: the registry answers with {found.id}@{found.version}"[:300])
        return found

    def repository_of(self, pack_id: str) -> str:
        """The repository of a pack, "" if the registry knows none. Raises PackFailed."""
        told = self._answer(f"/nodes/{quote(pack_id, safe='')}", pack_id)
        return str(told.get("repository") or "").removesuffix(".git")

    def pack_of_class(self, class_type: str) -> tuple[str, str]:
        """Id and repository of the pack that may have a node class, a guess; "" for nobody. Raises PackFailed."""
        try:
            told = self._answer(f"/comfy-nodes/{quote(class_type, safe='')}/node", class_type)
        except _NotThere:
            return "", ""
        return str(told.get("id") or ""), str(told.get("repository") or "").removesuffix(".git")

    def _answer(self, path: str, what: str) -> Mapping[str, Any]:
        content = bytearray()

        def write(chunk: bytes) -> None:
            content.extend(chunk)
            if len(content) > _MAX_ANSWER_BYTES:
                raise PackFailed(f"{what}: the registry's answer is larger than {_MAX_ANSWER_BYTES:,} bytes")

        try:
            Fetch(self.rules, what[:100], Deadline(_TIMEOUT_SECONDS)).download(f"{self.endpoint}{path}", write)
            told = json.loads(content)
        except InputFileUnavailable as error:
            kind = _NotThere if "status 404" in error.message else PackFailed
            raise kind(f"{what[:100]}: ComfyUI's registry does not have it, or does not answer") from error
        except (InputFileRefused, ValueError, RecursionError) as error:
            raise PackFailed(f"{what[:100]}: ComfyUI's registry gave no valid answer") from error
        if not isinstance(told, Mapping):
            raise PackFailed(f"{what[:100]}: ComfyUI's registry gave no valid answer")
        return told


class _NotThere(PackFailed):
    """The registry does not know it."""
