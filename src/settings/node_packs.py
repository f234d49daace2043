"""Which pack is meant: an id and version of ComfyUI's registry, or a repository and commit."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OF_REGISTRY = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]{0,99})@(?P<version>\d+\.\d+\.\d+)")
_OF_GIT = re.compile(r"(?P<repository>https?://[^\s@]+?)(\.git)?/?@(?P<commit>[0-9a-fA-F]{40})")


@dataclass(frozen=True)
class PackSource:
    """`id` and `version` of the registry, or `repository` and `commit`; the others are ""."""

    id: str = ""
    version: str = ""
    repository: str = ""
    commit: str = ""

    @property
    def name(self) -> str:
        """The name of its folder in custom_nodes."""
        return self.id or re.sub(r"[^\w.-]", "_", self.repository.rpartition("/")[2]) or "pack"

    def __str__(self) -> str:
        return f"{self.id}@{self.version}" if self.id else f"{self.repository}@{self.commit}"


def read_source(text: str) -> PackSource:
    """`id@1.2.3` or `https://…@commit`. Raises ValueError, which says what would be right."""
    match = _OF_REGISTRY.fullmatch(text) or _OF_GIT.fullmatch(text)
    if match is None:
        raise ValueError("id@1.2.3 (of ComfyUI's registry) or https://…@ followed by a commit of 40 digits")
    found = match.groupdict()
    source = PackSource(**{**found, **({"commit": found["commit"].lower()} if "commit" in found else {})})
    if source.name.startswith(".") or source.name.lower().endswith(".disabled"):
        raise ValueError(f"packs whose names ComfyUI loads, not {source.name}")
    return source


def read_sources(text: str) -> tuple[PackSource, ...]:
    """Several of them, with commas. Raises ValueError."""
    sources = tuple(read_source(part.strip()) for part in text.split(",") if part.strip())
    names = [source.name.lower() for source in sources]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"each pack once; {', '.join(sorted(twice))} is listed twice")
    return sources
