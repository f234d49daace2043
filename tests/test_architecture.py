"""The wings of `src/` are those of its map, and a wing imports only from wings above it in the map."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from .worker_process import ROOT

SOURCE = ROOT / "src"
PROGRAMS = ("__main__.py",)  # what `python -m` runs: they may hand over to what stands above them
NOT_PYTHON = {"start.sh", "extra_model_paths.yaml"}


def order_of_the_map() -> list[str]:
    """The names in the map of `src/__init__.py`, a wing or a module of the ground each, lowest first."""
    return re.findall(r"^([a-z_]+)/?\s{2,}", (SOURCE / "__init__.py").read_text(), re.MULTILINE)


def modules() -> dict[str, Path]:
    """Every module below `src/` by its dotted name; "" is `src/__init__.py`."""
    found = {}
    for file in SOURCE.rglob("*.py"):
        *parts, stem = file.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts if stem == "__init__" else [*parts, stem])] = file
    return found


def imports_of(module: str, file: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that a module imports, anywhere in it."""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    package = [part for part in package if part]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{base}.{alias.name}".lstrip(".")
            yield inner if inner in known else base


def test_the_map_names_every_wing_and_nothing_lies_beside_them() -> None:
    there = {path.name for path in SOURCE.iterdir() if path.name != "__pycache__"} - NOT_PYTHON - {"__init__.py"}
    wings = {name for name in there if (SOURCE / name / "__init__.py").is_file()}
    order = order_of_the_map()
    assert len(order) == len(set(order))
    assert {name.removesuffix(".py") for name in there} == set(order)
    assert all(name in wings or name.endswith(".py") for name in there)


def test_a_wing_imports_only_from_wings_above_it_in_the_map() -> None:
    order, known = order_of_the_map(), modules()
    wrong = [
        f"{module} imports {imported}"
        for module, file in known.items()
        if module and file.name not in PROGRAMS
        for imported in imports_of(module, file, known)
        if imported and order.index(imported.split(".")[0]) > order.index(module.split(".")[0])
    ]
    assert wrong == []


def test_no_module_imports_what_imports_it() -> None:
    known = modules()
    graph = {
        module: set(imports_of(module, file, known)) for module, file in known.items() if file.name not in PROGRAMS
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)  # CycleError names a circle
