"""The bytecode of the modules that ComfyUI imports at startup, in one file (a pack).

Finding and opening these modules takes a fifth of ComfyUI's startup time. `python comfy_bytecode.py main.py
--quick-test-for-ci …`, run in ComfyUI's folder by its Python, starts ComfyUI once and writes the bytecode of all
imported modules to `__pycache__/boot.TAG.pack` (some 4,500 modules, 100 MB); `comfy_launcher` then loads modules from
that file.

A module is loaded from the pack only if Python would find the same one: its folder is searched, no folder before it
has anything of that name, and the source still has the same size and modification time, which is also what Python
checks for its `.pyc` files. Otherwise Python's own finder is used, as for modules that are not in the pack. One case
is not detected: a file added later to the folder of a source that takes precedence over it (`x/__init__.py` or `x.so`
next to `x.py`).

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
from importlib.util import spec_from_file_location as _spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from comfy_deferred_imports import DeferredImports, compile_deferred  # type: ignore[import-not-found]  # in this folder

_FORMAT = importlib.util.MAGIC_NUMBER + b"boot pack 2, -O%d\n" % sys.flags.optimize
_LENGTH_BYTES = 8
_OWN_LIBRARIES = {"comfy_aimdo", "comfy_kitchen"}


class Entry(NamedTuple):
    """A module of the pack: its file, and where its bytecode is. Extension modules have no bytecode: `length` is 0."""

    folder: str  # the entry of `sys.path` or of the package's `__path__`
    file: str
    is_package: bool
    modified: int  # modification time in seconds, as in .pyc files
    size: int
    offset: int
    length: int
    deferred: tuple[str, ...]  # the modules whose import its bytecode puts off: see `comfy_deferred_imports`


class PackFinder:
    """A finder for `sys.meta_path` that finds the modules of a pack."""

    def __init__(self, entries: dict[str, tuple[Any, ...]], descriptor: int, start: int, defers: bool) -> None:
        self._entries = entries
        self._descriptor = descriptor
        self._start = start
        self._defers = defers
        self._names: dict[str, tuple[int, frozenset[str]]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of the pack if Python would find the same one, else None."""
        entry = self._valid_entry(name, sys.path if path is None else path)
        return self._spec(name, entry) if entry else None

    def spec_from_file_location(self, name: str, location: Any = None, **options: Any) -> ModuleSpec | None:
        """`importlib.util.spec_from_file_location`, by which ComfyUI imports the files of `comfy_extras`."""
        fields = self._entries.get(str(location))
        entry = Entry(*fields) if fields and not options else None
        spec = self._spec(name, entry) if entry and _is_unchanged(entry) else None
        return spec or _spec_from_file_location(name, location, **options)

    def _spec(self, name: str, entry: Entry) -> ModuleSpec | None:
        if entry.deferred and not self._can_defer(entry):
            return None
        loader: ExtensionFileLoader | PackLoader = ExtensionFileLoader(name, entry.file)
        if entry.length:
            bytecode = os.pread(self._descriptor, entry.length, self._start + entry.offset)
            loader = (DeferringLoader if entry.deferred else PackLoader)(name, entry.file, bytecode)
        locations = [os.path.dirname(entry.file)] if entry.is_package else None
        return _spec_from_file_location(name, entry.file, loader=loader, submodule_search_locations=locations)

    def _valid_entry(self, name: str, path: Iterable[str]) -> Entry | None:
        """The entry of a module, if Python would find the same one."""
        fields = self._entries.get(name)
        if fields is None:
            return None
        entry = Entry(*fields)
        return entry if self._is_first_match(entry, name, path) and _is_unchanged(entry) else None

    def _can_defer(self, entry: Entry) -> bool:
        """Whether the libraries that it puts off are still those whose import went well when the pack was made."""
        libraries = {name.partition(".")[0] for name in entry.deferred}
        return self._defers and all(self._valid_entry(library, sys.path) for library in libraries)

    def _is_first_match(self, entry: Entry, name: str, path: Iterable[str]) -> bool:
        """Whether the module's folder is searched, and no folder before it has anything with the module's name."""
        tail = name.rpartition(".")[2]
        for folder in path:
            if folder == entry.folder:
                return True
            if not isinstance(folder, str) or tail in self._names_in(folder or os.getcwd()):
                return False
        return False

    def _names_in(self, folder: str) -> frozenset[str]:
        """The names of a folder's entries up to the first dot; listed again when the folder changed, like Python."""
        try:
            modified = os.stat(folder).st_mtime_ns
            if self._names.get(folder, (None,))[0] != modified:
                self._names[folder] = (modified, frozenset(name.partition(".")[0] for name in os.listdir(folder)))
        except FileNotFoundError:
            return frozenset()
        except OSError:  # a zip archive of modules: it may have any name in it
            return _AllNames()
        return self._names[folder][1]


class PackLoader(SourceFileLoader):
    """Python's loader for source files, given the bytecode."""

    def __init__(self, name: str, file: str, bytecode: bytes) -> None:
        super().__init__(name, file)
        self._bytecode = bytecode

    def get_code(self, fullname: str) -> CodeType | None:
        """The code of the module; compiled from its source if the pack is damaged."""
        bytecode, self._bytecode = self._bytecode, b""
        with contextlib.suppress(EOFError, ValueError, TypeError):
            code = marshal.loads(bytecode)
            if isinstance(code, CodeType):
                return code
        return super().get_code(fullname)


class DeferringLoader(PackLoader):
    """A loader of a module that puts imports off."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, given what it puts its imports off with."""
        DeferredImports(module.__dict__)
        super().exec_module(module)


class _AllNames(frozenset):  # type: ignore[type-arg]
    def __contains__(self, name: object) -> bool:
        return True


def pack_path(directory: Path) -> Path:
    """The path of the pack of a ComfyUI folder for this Python."""
    return directory / "__pycache__" / f"boot.{sys.implementation.cache_tag}.pack"


def install_finder(pack: Path, defers: bool) -> bool:
    """Have modules loaded from a pack. Returns False if there is none, or none that this Python can read.

    `defers` is whether ComfyUI's modules put off imports of large libraries: see `comfy_deferred_imports`.
    """
    try:
        descriptor = os.open(pack, os.O_RDONLY)
    except OSError:
        return False
    header_length = len(_FORMAT) + _LENGTH_BYTES
    header = os.pread(descriptor, header_length, 0)
    index_length = int.from_bytes(header[len(_FORMAT) :], "little")
    try:
        if not header.startswith(_FORMAT):
            raise ValueError("of another Python")
        entries = dict(marshal.loads(os.pread(descriptor, index_length, header_length)))
    except (EOFError, ValueError, TypeError):
        os.close(descriptor)
        return False
    position = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)
    finder = PackFinder(entries, descriptor, header_length + index_length, defers)
    sys.meta_path.insert(position, finder)
    importlib.util.spec_from_file_location = finder.spec_from_file_location
    return True


def write_pack(pack: Path, excluded_folder: str) -> int:
    """Write all modules imported so far, except those in one folder; returns how many. Raises OSError."""
    entries: dict[str, Entry] = {}
    codes: list[bytes] = []
    offset = 0
    for name, loader in _imported_modules():
        folder, stem = os.path.split(loader.path)
        is_package = stem.partition(".")[0] == "__init__"
        if is_package:
            folder, stem = os.path.split(folder)
        stamp = _mtime_and_size(loader.path)
        code, deferred = _bytecode(loader, name)
        is_found_by_name = stem.partition(".")[0] == name.rpartition(".")[2]
        is_found = is_found_by_name or _is_comfyui(name, loader.path)
        if stamp is None or code is None or not is_found or folder == excluded_folder:
            continue
        entries[name if is_found_by_name else loader.path] = Entry(
            folder, loader.path, is_package, *stamp, offset, len(code), deferred
        )
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


def _imported_modules() -> Iterator[tuple[str, SourceFileLoader | ExtensionFileLoader]]:
    """The modules imported from files, in the order of their import, which is also the order of the next reads."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        loader = spec.loader if isinstance(spec, ModuleSpec) and spec.name == name else None
        if type(loader) is SourceFileLoader or type(loader) is ExtensionFileLoader:
            yield name, loader


def _bytecode(loader: SourceFileLoader | ExtensionFileLoader, name: str) -> tuple[bytes | None, tuple[str, ...]]:
    """The bytecode of a module, and the modules whose import it puts off, which only ComfyUI's own modules do.

    Empty for an extension module, None if its source cannot be read or compiled.
    """
    if isinstance(loader, ExtensionFileLoader):
        return b"", ()
    try:
        if _is_comfyui(name, loader.path):
            compiled = compile_deferred(Path(loader.path).read_bytes(), loader.path, sys.modules.__contains__)
            if compiled:
                return marshal.dumps(compiled.code), compiled.deferred
        return marshal.dumps(loader.get_code(name)), ()
    except (OSError, SyntaxError):
        return None, ()


def _is_comfyui(name: str, file: str) -> bool:
    """Whether a module is of ComfyUI or its own libraries; custom nodes, and an environment in its folder, are not."""
    if name.partition(".")[0] in _OWN_LIBRARIES:
        return True
    try:
        parts = Path(file).relative_to(Path.cwd()).parts
    except ValueError:
        return False
    return "site-packages" not in parts and parts[0] != "custom_nodes"


def _is_unchanged(entry: Entry) -> bool:
    return _mtime_and_size(entry.file) == (entry.modified, entry.size)


def _mtime_and_size(file: str) -> tuple[int, int] | None:
    """A file's modification time in seconds and its size in bytes; None if there is no such file."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return int(status.st_mtime), status.st_size


def main() -> None:
    """Run a program that exits by itself, and write a pack of what it imported."""
    from comfy_launcher import run_script  # type: ignore[import-not-found]  # in this folder

    gc.disable()
    here = sys.path[0]
    try:
        run_script(sys.argv[1:])
    except SystemExit as ending:
        if ending.code:
            raise
    pack = pack_path(Path.cwd())
    count = write_pack(pack, here)
    sys.stdout.write(f"kept {count} modules in {pack}: {pack.stat().st_size / 1e6:.0f} MB\n")


if __name__ == "__main__":
    main()
