"""The packs of CUSTOM_NODES, put on the volume once for all workers, with libraries of their own.

All of them lie in one folder, which is named by a digest of the packs and of ComfyUI's libraries: `custom_nodes/` with
a folder for each pack, and `libraries/`. A pack that cannot be had, or whose libraries do not go with those of ComfyUI
or of the packs before it, is left out; the next worker tries it again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import PackFailed
from ..models.locks import locked
from ..redaction import public_text
from ..settings import PackSource, Settings
from ..storage.web import FetchRules
from .beside import InstalledPacks
from .fetch import fetch_pack
from .libraries import install_libraries, installed_in, resolve, wanted_by
from .registry import Registry

log = logging.getLogger(__name__)

_LIBRARIES_DONE = "libraries.json"


def install(settings: Settings, python: str, root: Path) -> InstalledPacks:
    """The packs of CUSTOM_NODES in a folder below `root`; what cannot be installed is in `failures`."""
    try:
        return _Installer(settings, python, root).run()
    except (PackFailed, OSError) as error:
        return InstalledPacks((), None, {source.name: _reason(error) for source in settings.custom_nodes})


@dataclass
class _Installer:
    settings: Settings
    python: str
    root: Path
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> Sequence[PackSource]:
        return self.settings.custom_nodes

    def run(self) -> InstalledPacks:
        own = installed_in(self.python)
        folder = self.root / _digest(self.sources, own)
        packs = folder / "custom_nodes"
        if not self._is_done(folder):
            packs.mkdir(parents=True, exist_ok=True)
            with locked(folder / "lock", lambda: None):
                self._fetch(packs)
                self._install_libraries(folder, own)
        return InstalledPacks((packs,), folder / "libraries", self.failures)

    def _is_done(self, folder: Path) -> bool:
        return (folder / _LIBRARIES_DONE).is_file() and all(
            (folder / "custom_nodes" / source.name).is_dir() for source in self.sources
        )

    def _fetch(self, packs: Path) -> None:
        rules = FetchRules(self.settings.allow_http_urls, frozenset(self.settings.trusted_hosts))
        registry = Registry(self.settings.comfy_registry, rules)
        for source in self.sources:
            if not (packs / source.name).is_dir():
                log.info("CUSTOM_NODES: fetching %s", source)
                try:
                    fetch_pack(source, packs / source.name, registry, rules)
                except (PackFailed, OSError) as error:
                    self.failures[source.name] = _reason(error)

    def _install_libraries(self, folder: Path, own: Sequence[str]) -> None:
        """Install what all packs want. Of packs that do not go together, or not with ComfyUI, the later go."""
        packs = folder / "custom_nodes"
        there = [packs / source.name for source in self.sources if (packs / source.name).is_dir()]
        wanted = {pack.name: wanted_by(pack) for pack in there}
        together = [line for lines in wanted.values() for line in lines]
        with TemporaryDirectory(prefix=".libraries-", dir=folder) as temporary:
            try:
                requirements = resolve(self.python, together, own, Path(temporary))
            except PackFailed:
                requirements = self._resolve_one_by_one(packs, wanted, own, Path(temporary))
            done = folder / _LIBRARIES_DONE
            if done.is_file() and json.loads(done.read_text(encoding="utf-8")) == requirements:
                return
            log.info("CUSTOM_NODES: installing %d libraries", len(requirements))
            install_libraries(self.python, requirements, Path(temporary, "libraries"))
            shutil.rmtree(folder / "libraries", ignore_errors=True)
            Path(temporary, "libraries").replace(folder / "libraries")
            done.write_text(json.dumps(requirements), encoding="utf-8")

    def _resolve_one_by_one(
        self, packs: Path, wanted: dict[str, list[str]], own: Sequence[str], temporary: Path
    ) -> list[str]:
        together: list[str] = []
        requirements: list[str] = []
        for name, lines in wanted.items():
            try:
                requirements = resolve(self.python, [*together, *lines], own, temporary)
                together += lines
            except PackFailed as error:
                self.failures[name] = public_text(f"its libraries do not fit: {error.message}", 300)
                shutil.rmtree(packs / name, ignore_errors=True)
        return requirements


def _reason(error: PackFailed | OSError) -> str:
    told = error.message if isinstance(error, PackFailed) else f"{error.strerror} (CUSTOM_NODES_DIR)"
    return public_text(told, 300)


def _digest(sources: Sequence[PackSource], own: Sequence[str]) -> str:
    content = json.dumps([sorted(map(str, sources)), sorted(own)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
