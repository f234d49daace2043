"""Entries of docker/custom_nodes.lock for packs that a workflow needs: a commit or archive, and exact requirements."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import PackFailed
from ..needs import Needs, PackNeed
from ..settings import PackSource
from ..settings.node_packs import read_source
from ..storage.web import FetchRules
from .classes import has_class
from .fetch import fetch_pack, newest_commit
from .libraries import resolve, wanted_by
from .registry import Registry

_GLIBC_MINOR = 36  # of Debian 12, the image's base: 2.36
_PYTHON = "3.11"  # the oldest that an image's base may have: newer ones take these versions too
_KEPT = ("name", "group", "why", "system_packages", "build_packages")
_TORCH = re.compile(r"(torch|torchvision|torchaudio|triton|nvidia-.*|cuda-.*)$")


@dataclass(frozen=True)
class LockedPack:
    """An entry of the lock: `repository` and `commit`, or `registry` (`id@version`), `archive` and its `sha256`."""

    name: str
    group: str
    why: str
    state: str
    classes: tuple[str, ...]
    requirements: tuple[str, ...]
    repository: str = ""
    commit: str = ""
    registry: str = ""
    archive: str = ""
    sha256: str = ""

    def as_entry(self) -> dict[str, object]:
        """As JSON values, without what is empty."""
        always = ("state", "classes", "requirements")
        return {name: value for name, value in asdict(self).items() if value or name in always}


@dataclass(frozen=True)
class Target:
    """What the packs are locked for: the Python of the image, and what is installed there."""

    known: tuple[str, ...]
    pip_options: tuple[str, ...]


@dataclass(frozen=True)
class PackLocker:
    """Locks packs with `python`'s pip. `preferred` are versions of libraries that are taken where packs want them."""

    registry: Registry
    rules: FetchRules
    python: str
    target: Target
    preferred: tuple[str, ...] = ()

    def lock(self, found: Sequence[Needs]) -> tuple[list[LockedPack], list[str]]:
        """The entries for what the files need, and what cannot be locked, a sentence each."""
        locked, failures = dict[str, LockedPack](), list[str]()
        for needs in found:
            wanted, unknown = self._wanted(needs)
            failures += unknown
            for pack in wanted:
                try:
                    entry = self._lock(
                        pack, needs.name, [line for other in locked.values() for line in other.requirements]
                    )
                except PackFailed as error:
                    failures.append(f"{pack.id or pack.repository}: {error.message}")
                    continue
                before = locked.get(entry.name.lower())
                if before is not None:
                    classes = tuple(sorted({*before.classes, *entry.classes}))
                    entry = replace(before, classes=classes)
                locked[entry.name.lower()] = entry
        return list(locked.values()), failures

    def _wanted(self, needs: Needs) -> tuple[list[PackNeed], list[str]]:
        """The packs, with those of which the registry guesses that they have the classes that no pack is known of."""
        packs = {(pack.id or pack.repository).lower(): pack for pack in needs.packs if pack.is_needed}
        unknown = []
        for class_type in needs.open_classes:
            try:
                pack_id, repository = self.registry.pack_of_class(class_type)
            except PackFailed as error:
                unknown.append(error.message)
                continue
            if not pack_id or pack_id == "comfy-core":
                unknown.append(f"no known node pack provides: {class_type}")
                continue
            before = packs.get(pack_id.lower(), PackNeed(pack_id, repository))
            packs[pack_id.lower()] = replace(before, classes=(*before.classes, class_type))
        return list(packs.values()), unknown

    def _lock(self, pack: PackNeed, workflow: str, chosen: Sequence[str]) -> LockedPack:
        source, state = self.source_of(pack)
        with TemporaryDirectory(prefix="node-packs-") as temporary:
            folder = Path(temporary, source.name)
            fetched = fetch_pack(source, folder, self.registry, self.rules)
            if lacking := [name for name in pack.classes if not has_class(folder, name)]:
                raise PackFailed(f"these classes were not found in {source}: {', '.join(lacking)}")
            taken = {_name_of(line) for line in chosen}
            preferred = [line for line in self.preferred if _name_of(line) not in taken]
            known = [*self.target.known, *chosen, *preferred]
            resolved, how = self._resolve(wanted_by(folder), known, Path(temporary))
        there = {_name_of(line) for line in self.target.known}
        requirements = [line for line in resolved if _name_of(line) not in there and not _TORCH.match(_name_of(line))]
        entry = LockedPack(
            source.name,
            "workflow",
            f"{workflow} needs it.",
            f"{state}{how}",
            tuple(sorted(pack.classes)),
            tuple(requirements),
        )
        if source.id:
            return replace(entry, registry=str(source), archive=fetched.url, sha256=fetched.sha256)
        return replace(entry, repository=source.repository, commit=source.commit)

    def _resolve(self, wanted: Sequence[str], known: Sequence[str], temporary: Path) -> tuple[list[str], str]:
        """The exact requirements in the image; where one has no wheel, those of this Python, which is said."""
        try:
            return resolve((self.python, "-m", "pip"), wanted, known, temporary, *self.target.pip_options), ""
        except PackFailed:
            here = resolve((self.python, "-m", "pip"), wanted, known, temporary, "--ignore-installed")
            version = ".".join(map(str, sys.version_info[:2]))
            return here, f" Its requirements were resolved for Python {version}, as not all of them have wheels."

    def source_of(self, pack: PackNeed) -> tuple[PackSource, str]:
        """Where it is locked, and how that was chosen. Raises PackFailed."""
        if pack.names_commit and not pack.repository:
            pack = replace(pack, repository=self.registry.repository_of(pack.id))
        if pack.source:
            try:
                return read_source(pack.source), "The version that the workflow names."
            except ValueError as error:
                raise PackFailed(f"{pack.source} cannot be locked; expected {error}") from error
        said = f"the workflow names {', '.join(pack.versions)}" if pack.versions else "the workflow names none"
        if pack.id and not pack.repository:
            return PackSource(pack.id, self.registry.version(pack.id).version), f"The newest version: {said}."
        return PackSource(
            repository=pack.repository, commit=newest_commit(pack.repository, self.rules)
        ), f"The newest commit: {said}."


def image_target(docker: Path) -> Target:
    """What packs are locked for: the image that docker/Dockerfile builds, on amd64."""
    dockerfile = (docker / "Dockerfile").read_text(encoding="utf-8")
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", dockerfile, re.MULTILINE))
    constraints = docker / "constraints" / "comfyui" / f"{arguments['COMFYUI_VERSION']}.txt"
    lines = constraints.read_text(encoding="utf-8").splitlines()
    torch = [f"{name}=={arguments[f'{name.upper()}_VERSION']}" for name in ("torch", "torchvision", "torchaudio")]
    manylinux = (f"manylinux_2_{minor}_x86_64" for minor in range(_GLIBC_MINOR, 4, -1))
    platforms = (*manylinux, "manylinux2014_x86_64", "linux_x86_64")
    options = [word for platform in platforms for word in ("--platform", platform)]
    return Target(
        (*torch, *(line for line in lines if line and not line.startswith("#"))),
        (
            *("--ignore-installed", "--only-binary=:all:", "--implementation", "cp", "--target", "unused"),
            *("--python-version", _PYTHON, *options),
        ),
    )


def merged(lock: Path, entries: Sequence[LockedPack]) -> str:
    """The content of a lock file with entries in place of those with their names. Raises PackFailed.

    An entry that is there keeps its name, its group and the system's packages that it names.
    """
    try:
        content = json.loads(lock.read_text(encoding="utf-8"))
        there = {str(entry["name"]).lower(): entry for entry in content["custom_nodes"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackFailed(f"{lock.name} cannot be read as a lock file") from error
    for entry in entries:
        before = there.get(entry.name.lower(), {})
        kept = {name: before[name] for name in _KEPT if name in before}
        classes = sorted({*before.get("classes", ()), *entry.classes})
        there[entry.name.lower()] = {**entry.as_entry(), **kept, "classes": classes}
    content["custom_nodes"] = list(there.values())
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>!~\[; @]", requirement, maxsplit=1)[0]).lower()
