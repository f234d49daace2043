"""Civitai: what its API says of a file, which its download routes don't tell.

`/api/download/models/VERSION?type=…&format=…` redirects to the file; `/api/v1/model-versions/VERSION` lists the files
of a version with their digests (https://developer.civitai.com/docs/api/public-rest).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from urllib3.util import Url, parse_url

from ..errors import InputFileRefused, InputFileUnavailable, ModelFetchFailed
from ..storage.web import FetchRules, fetch_json

_DOWNLOAD = re.compile(r"/api/download/models/(\d{1,12})/?")
_PAGE = re.compile(r"/models/\d{1,12}(/[^/]*)?/?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# The parts of a download URL that say which file of a version is meant, and where the API has them.
_CHOICES = {
    "type": ("type",),
    "format": ("metadata", "format"),
    "size": ("metadata", "size"),
    "fp": ("metadata", "fp"),
}


@dataclass(frozen=True)
class CivitaiFile:
    """A file of Civitai: where it is downloaded, and its SHA-256."""

    url: str
    sha256: str


@dataclass(frozen=True)
class Civitai:
    """Civitai's site, and the token for it."""

    endpoint: str = "https://civitai.com"
    token: str = field(default="", repr=False)
    rules: FetchRules = field(default_factory=FetchRules)

    def has(self, url: str) -> bool:
        """Whether a URL is one of its site."""
        mine, other = (parse_url(text) for text in (self.endpoint, url))
        host = (other.host or "").removeprefix("www.")
        return (other.scheme, host, _port(other)) == (mine.scheme, mine.host, _port(mine))

    def look_up(self, url: str, name: str) -> CivitaiFile:
        """The file that a download URL, or the page of a version, means. Raises ModelFetchFailed."""
        version, wanted = _version_of(url, name)
        files = list(_files(self._version(version, name)))
        fits = [file for file in files if all(_choice(file, part) == value for part, value in wanted.items())]
        chosen = next((file for file in fits if file.get("primary") is True), fits[0] if fits else None)
        if chosen is None:
            raise ModelFetchFailed(
                f"{name}: version {version} on Civitai does not have this file, only {len(files)} others"
            )
        hashes = chosen.get("hashes")
        digest = str(hashes.get("SHA256") or "").lower() if isinstance(hashes, Mapping) else ""
        if not _SHA256.fullmatch(digest):
            raise ModelFetchFailed(f"{name}: Civitai has no SHA-256 for this file, so it cannot be verified")
        query = f"?{urlencode(wanted)}" if wanted else ""
        return CivitaiFile(f"{self.endpoint}/api/download/models/{version}{query}", digest)

    def _version(self, version: str, name: str) -> Mapping[str, Any]:
        try:
            return fetch_json(f"{self.endpoint}/api/v1/model-versions/{version}", self.rules, name)
        except (InputFileRefused, InputFileUnavailable) as error:
            raise ModelFetchFailed(f"{error.message} (Civitai was asked for its digest)") from error


def _port(url: Url) -> int | None:
    return url.port or {"https": 443, "http": 80}.get(url.scheme or "")


def _version_of(url: str, name: str) -> tuple[str, dict[str, str]]:
    """The version that a URL is of, and what it says of the file."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    download = _DOWNLOAD.fullmatch(parts.path)
    if download:
        return download[1], {part: query[part] for part in _CHOICES if part in query}
    version = query.get("modelVersionId", "")
    if _PAGE.fullmatch(parts.path) and re.fullmatch(r"\d{1,12}", version):
        return version, {}
    raise ModelFetchFailed(
        f"{name}: a Civitai URL must be a download link (https://civitai.com/api/download/models/VERSION) or the "
        "page of a version (https://civitai.com/models/MODEL?modelVersionId=VERSION)"
    )


def _files(version: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    files = version.get("files")
    for file in files if isinstance(files, list) else ():
        if isinstance(file, Mapping):
            yield file


def _choice(file: Mapping[str, Any], part: str) -> object:
    value: object = file
    for name in _CHOICES[part]:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
