"""What ComfyUI imports while it boots, as bytecode in one file: a fifth of a boot goes into finding and opening it.

`python comfy_bytecode.py main.py --quick-test-for-ci …`, run in ComfyUI's folder by its Python, boots it once and
keeps the bytecode of all that was imported in `__pycache__/boot.TAG.pack` (some 4,500 modules, 100 MB), from which
`comfy_launcher` then has modules loaded. What is found is what Python itself would find: the folder that holds the
module is searched, no folder before it has anything of that name, and the source has the size and the time of
modification that it had, as Python asks of its `.pyc` files. Else Python looks for itself, as it does for all modules
that are not there. One thing is not noticed: what was put beside a source later and has precedence over it
(`x/__init__.py` or `x.so` beside `x.py`).

It runs in ComfyUI's environment: standard library only, Python 3.9 and later.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import marshal
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

_FORMAT = importlib.util.MAGIC_NUMBER + b"boot pack 1, -O%d\n" % sys.flags.optimize
_LENGTH_BYTES = 8


class Entry(NamedTuple):
    """A module of the pack: its file, and where its bytecode begins. An extension module has none, `length` 0."""

    folder: str  # which is searched for it
    file: str
    is_package: bool
    modified: int  # seconds, as in .pyc files
    size: int
    offset: int
    length: int


class PackFinder:
    """A finder for `sys.meta_path` that knows the modules of a pack."""

    def __init__(self, entries: dict[str, tuple[Any, ...]], descriptor: int, start: int) -> None:
        self._entries = entries
        self._descriptor = descriptor
        self._start = start
        self._names: dict[str, tuple[int, frozenset[str]]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of the pack if it is the one that Python would find, else None."""
        known = self._entries.get(name)
        if known is None:
            return None
        entry = Entry(*known)
        if not self._comes_first(entry, name, sys.path if path is None else path):
            return None
        if _stamp(entry.file) != (entry.modified, entry.size):
            return None
        loader: ExtensionFileLoader | PackLoader = ExtensionFileLoader(name, entry.file)
        if entry.length:
            bytecode = os.pread(self._descriptor, entry.length, self._start + entry.offset)
            loader = PackLoader(name, entry.file, bytecode)
        inside = [os.path.dirname(entry.file)] if entry.is_package else None
        return importlib.util.spec_from_file_location(
            name, entry.file, loader=loader, submodule_search_locations=inside
        )

    def _comes_first(self, entry: Entry, name: str, path: Iterable[str]) -> bool:
        """Whether the folder of the module is searched, and none before it has something of its name."""
        tail = name.rpartition(".")[2]
        for folder in path:
            if folder == entry.folder:
                return True
            if not isinstance(folder, str) or tail in self._names_in(folder or os.getcwd()):
                return False
        return False

    def _names_in(self, folder: str) -> frozenset[str]:
        """The names, up to their first dot, of what is in a folder: as fresh as in Python's own finder."""
        try:
            modified = os.stat(folder).st_mtime_ns
            if self._names.get(folder, (None,))[0] != modified:
                self._names[folder] = (modified, frozenset(name.partition(".")[0] for name in os.listdir(folder)))
        except FileNotFoundError:
            return frozenset()
        except OSError:  # an archive of modules: who knows what is in it
            return _Everything()
        return self._names[folder][1]


class PackLoader(SourceFileLoader):
    """Python's loader of source files, with the bytecode at hand."""

    def __init__(self, name: str, file: str, bytecode: bytes) -> None:
        super().__init__(name, file)
        self._bytecode = bytecode

    def get_code(self, fullname: str) -> CodeType | None:
        """The code of the module; from its source if the pack is damaged."""
        bytecode, self._bytecode = self._bytecode, b""
        with contextlib.suppress(EOFError, ValueError, TypeError):
            code = marshal.loads(bytecode)
            if isinstance(code, CodeType):
                return code
        return super().get_code(fullname)


class _Everything(frozenset):  # type: ignore[type-arg]
    def __contains__(self, name: object) -> bool:
        return True


def pack_of(directory: Path) -> Path:
    """Where the pack of a ComfyUI folder is, for this Python."""
    return directory / "__pycache__" / f"boot.{sys.implementation.cache_tag}.pack"


def find_in(pack: Path) -> bool:
    """Have modules found in a pack; whether there is one that can be read."""
    try:
        descriptor = os.open(pack, os.O_RDONLY)
    except OSError:
        return False
    begin = len(_FORMAT) + _LENGTH_BYTES
    head = os.pread(descriptor, begin, 0)
    length = int.from_bytes(head[len(_FORMAT) :], "little")
    try:
        if not head.startswith(_FORMAT):
            raise ValueError("of another Python")
        entries = dict(marshal.loads(os.pread(descriptor, length, begin)))
    except (EOFError, ValueError, TypeError):
        os.close(descriptor)
        return False
    place = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)
    sys.meta_path.insert(place, PackFinder(entries, descriptor, begin + length))
    return True


def keep(pack: Path, but: str) -> int:
    """Write what has been imported, but for the files of one folder; how many modules. Raises OSError."""
    entries: dict[str, Entry] = {}
    codes: list[bytes] = []
    offset = 0
    for name, loader in _imported():
        folder, stem = os.path.split(loader.path)
        is_package = stem.partition(".")[0] == "__init__"
        if is_package:
            folder, stem = os.path.split(folder)
        stamp, code = _stamp(loader.path), _bytecode(loader, name)
        is_found_by_name = stem.partition(".")[0] == name.rpartition(".")[2]
        if stamp is None or code is None or not is_found_by_name or folder == but:
            continue
        entries[name] = Entry(folder, loader.path, is_package, *stamp, offset, len(code))
        codes.append(code)
        offset += len(code)
    index = marshal.dumps({name: tuple(entry) for name, entry in entries.items()})
    pack.parent.mkdir(exist_ok=True)
    unfinished = pack.with_suffix(f".{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.writelines([_FORMAT, len(index).to_bytes(_LENGTH_BYTES, "little"), index, *codes])
        unfinished.replace(pack)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(entries)


def _imported() -> Iterator[tuple[str, SourceFileLoader | ExtensionFileLoader]]:
    """The modules that came from files, in the order in which they were wanted: so they are read again."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        loader = spec.loader if isinstance(spec, ModuleSpec) and spec.name == name else None
        if type(loader) is SourceFileLoader or type(loader) is ExtensionFileLoader:
            yield name, loader


def _bytecode(loader: SourceFileLoader | ExtensionFileLoader, name: str) -> bytes | None:
    """Nothing for an extension module; None for a source that has gone."""
    if isinstance(loader, ExtensionFileLoader):
        return b""
    try:
        return marshal.dumps(loader.get_code(name))
    except (OSError, SyntaxError):
        return None


def _stamp(file: str) -> tuple[int, int] | None:
    """When a file was modified, in seconds, and its size; None if it is not there."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return int(status.st_mtime), status.st_size


def main() -> None:
    """Run a program that ends by itself, and keep what it imported."""
    from comfy_launcher import run_script  # type: ignore[import-not-found]  # beside this script

    gc.disable()
    here = sys.path[0]
    try:
        run_script(sys.argv[1:])
    except SystemExit as ended:
        if ended.code:
            raise
    pack = pack_of(Path.cwd())
    count = keep(pack, here)
    sys.stdout.write(f"kept {count} modules in {pack}: {pack.stat().st_size / 1e6:.0f} MB\n")


if __name__ == "__main__":
    main()
