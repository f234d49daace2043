"""The packs of CUSTOM_NODES, put on the volume once for all workers, with libraries of their own.

They lie in a folder that is named by a digest of the packs, ComfyUI's Python and its libraries:

    fetched/NAME      the files of a pack, whole
    set-N/            what ComfyUI loads: custom_nodes/NAME and libraries/; it is never changed once it is there
    current.json      the newest set, and its packs

A pack that cannot be had, or whose libraries do not go with those of ComfyUI or of the packs before it, is left out.
The next worker tries it again, and makes a new set if it succeeds; workers that run keep theirs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import PackFailed
from ..launch import LAUNCHER
from ..models.locks import locked
from ..redaction import public_text
from ..settings import SECRETS_FILE, PackSource, Settings, guarded_programs
from ..storage.web import FetchRules
from .fetch import fetch_pack
from .installed import InstalledPacks
from .libraries import environment_of, install_libraries, resolve, wanted_by
from .registry import Registry

log = logging.getLogger(__name__)

_TEMPORARY = "tmp-"
_LOCK_SECONDS = 1800.0  # that a worker waits for another one that installs


def install(settings: Settings, python: str, root: Path) -> InstalledPacks:
    """The packs of CUSTOM_NODES in a folder below `root`; what cannot be installed is in `failures`."""
    installer, reasons = _Installer(settings, python, root), dict[str, str]()
    with _noting(reasons, "all"):
        return installer.run()
    return InstalledPacks((), None, {source.name: reasons["all"] for source in settings.custom_nodes})


@dataclass
class _Set:
    """What `current.json` says: the folder of the newest set ("" for none), and what is in it."""

    folder: str = ""
    packs: list[str] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)

    @staticmethod
    def read(folder: Path) -> _Set:
        try:
            told = json.loads((folder / "current.json").read_text(encoding="utf-8"))
            found = _Set(str(told["folder"]), list(map(str, told["packs"])), list(map(str, told["libraries"])))
        except (OSError, ValueError, KeyError, TypeError):
            return _Set()
        is_whole = all((folder / found.folder / "custom_nodes" / name).is_dir() for name in found.packs)
        return found if is_whole and (folder / found.folder / "libraries").is_dir() else _Set()

    def write(self, folder: Path) -> None:
        temporary = folder / f"{_TEMPORARY}current.json"
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(folder / "current.json")


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
        """Install what is missing. Raises PackFailed, OSError."""
        own = environment_of(self.python)
        folder = self.root / _digest(self.sources, own)
        current = _Set.read(folder)
        if not self._has_all(current):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / "lock", _check_time(time.monotonic() + _LOCK_SECONDS)):
                current = self._complete(folder, own)
        there = folder / current.folder if current.folder else None
        folders = (there / "custom_nodes",) if there else ()
        return InstalledPacks(folders, there / "libraries" if there else None, self.failures)

    def _has_all(self, current: _Set) -> bool:
        return bool(current.folder) and {source.name for source in self.sources} <= set(current.packs)

    def _complete(self, folder: Path, own: Sequence[str]) -> _Set:
        """Fetch what is missing, and make a new set of all that go together; the set that is the newest then."""
        for leftover in folder.glob(f"{_TEMPORARY}*"):  # of a worker that was killed: nobody else has the lock
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        current = _Set.read(folder)  # another worker may have made it meanwhile
        missing = [source for source in self.sources if source.name not in current.packs]
        fetched = [source.name for source in missing if self._fetch(source, folder)]
        if not fetched and current.folder:
            return current
        reasons = dict[str, str]()
        with _noting(reasons, "all"), TemporaryDirectory(prefix=_TEMPORARY, dir=folder) as temporary:
            made = Path(temporary, "set")
            names, libraries = self._build(folder, current, fetched, own, made)
            if current.folder and len(names) == len(current.packs):
                return current
            numbers = (int(path.name[4:]) for path in folder.glob("set-*") if path.name[4:].isdecimal())
            newest = _Set(f"set-{1 + max(numbers, default=0)}", names, libraries)
            made.replace(folder / newest.folder)
            newest.write(folder)
            return newest
        self.failures.update(dict.fromkeys(fetched, reasons["all"]))
        return current

    def _fetch(self, source: PackSource, folder: Path) -> bool:
        """Fetch a pack, unless it is there; whether it is now."""
        rules = FetchRules(self.settings.allow_http_urls, frozenset(self.settings.trusted_hosts))
        target = folder / "fetched" / source.name
        if target.is_dir():
            return True
        log.info("CUSTOM_NODES: fetching %s", source)
        registry = Registry(self.settings.comfy_registry, rules)
        with _noting(self.failures, source.name), TemporaryDirectory(prefix=_TEMPORARY, dir=folder) as temporary:
            fetch_pack(source, Path(temporary, source.name), registry, rules)
            target.parent.mkdir(exist_ok=True)
            Path(temporary, source.name).replace(target)
        return target.is_dir()

    def _build(
        self, folder: Path, current: _Set, fetched: Sequence[str], own: Sequence[str], made: Path
    ) -> tuple[list[str], list[str]]:
        """Make a set of the current one and those packs whose libraries go with it; its packs and its libraries."""
        names, libraries, pip = list(current.packs), list(current.libraries), self._pip
        (made / "libraries").mkdir(parents=True)
        if current.folder:
            shutil.copytree(
                folder / current.folder / "libraries", made / "libraries", dirs_exist_ok=True, symlinks=True
            )
        for name in fetched:
            with _noting(self.failures, name, "its libraries cannot be installed: "):
                wanted = resolve(pip, wanted_by(folder / "fetched" / name), [*own, *libraries], made.parent)
                more = [line for line in wanted if line not in libraries]
                log.info("CUSTOM_NODES: installing %d libraries of %s", len(more), name)
                install_libraries(pip, more, made / "libraries")
                libraries += more
                names.append(name)
        for name in names:
            shutil.copytree(folder / "fetched" / name, made / "custom_nodes" / name, symlinks=True)
        (made / "custom_nodes").mkdir(exist_ok=True)
        return names, libraries

    @property
    def _pip(self) -> list[str]:
        """The command that runs pip: confined as ComfyUI is, since packages may run code while they are built."""
        if not self.settings.comfyui_confined:
            return [self.python, "-m", "pip"]
        guard = ("--guard", os.pathsep.join(guarded_programs()), str(SECRETS_FILE))
        return [self.python, str(LAUNCHER), str(os.getpid()), "-", *guard, "-m", "pip"]


def _check_time(end: float) -> Callable[[], None]:
    def check() -> None:
        if time.monotonic() > end:
            raise PackFailed("another worker takes too long to install packs")

    return check


@contextmanager
def _noting(failures: dict[str, str], name: str, before: str = "") -> Iterator[None]:
    """Note why something fails, in words for callers, and go on."""
    try:
        yield
    except PackFailed as error:
        failures[name] = public_text(f"{before}{error.message}", 300)
    except OSError as error:
        failures[name] = public_text(f"{before}{error.strerror or 'the disk refuses it'} (CUSTOM_NODES_DIR)", 300)
    except Exception:  # the edge of a pack: whatever is wrong with it, the worker and the other packs go on
        log.exception("unexpected error")
        failures[name] = f"{before}an unexpected error; see the worker's log"


def _digest(sources: Sequence[PackSource], environment: Sequence[str]) -> str:
    content = json.dumps([sorted(map(str, sources)), sorted(environment), os.uname().machine])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
