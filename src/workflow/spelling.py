"""Names of model files as another system writes them: Windows has a backslash where others have a slash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .graph import Graph, Workflow
from .schemas import InputSchema, NodeSchema, input_schema

_MAX_TOLD = 20


class Respelled(NamedTuple):
    """A workflow with names as this ComfyUI writes them, warnings, and the classes whose lists lack a name."""

    workflow: Workflow
    warnings: Sequence[str] = ()
    lacking: frozenset[str] = frozenset()


def respell(workflow: Workflow, schemas: Mapping[str, NodeSchema | None], separator: str) -> Respelled:
    """The workflow with each name that is in its input's list but for its separators taken from there.

    `separator` is the one that this ComfyUI's own names do not have; only names that have it are looked at. Names of
    files in the input folder stay, and so do names that fit two in the list.
    """
    graph, lists = Graph(workflow), _Lists()
    changed: dict[str, Any] = {}
    told, lacking = list[str](), set[str]()
    for node_id in graph:
        schema, inputs = schemas.get(graph.class_of(node_id)), dict(graph.inputs(node_id))
        foreign = [name for name, value in inputs.items() if isinstance(value, str) and separator in value]
        if schema is None:
            continue
        for name in sorted(foreign, key=_depth):  # the key of a dynamic combo goes before what it brings
            expected = input_schema(schema, inputs, name)
            if expected is None or expected.options is None or expected.is_file or inputs[name] in expected.options:
                continue
            taken = lists.find((graph.class_of(node_id), name), expected, inputs[name])
            if taken is None:
                lacking.add(graph.class_of(node_id))
                continue
            inputs[name] = taken
            changed[node_id] = {**workflow[node_id], "inputs": inputs}
            where = f"node {graph.describe(node_id)}: {name[:80]}"
            told.append(f"{where} was read as {taken!r}, this worker's spelling")
    more = [f"and {len(told) - _MAX_TOLD} more such names"] if len(told) > _MAX_TOLD else []
    return Respelled({**workflow, **changed} if changed else workflow, (*told[:_MAX_TOLD], *more), frozenset(lacking))


class _Lists:
    """Lists of names, each made ready once."""

    def __init__(self) -> None:
        self._ready: dict[tuple[str, str], dict[str, list[str]]] = {}

    def find(self, place: tuple[str, str], expected: InputSchema, value: str) -> str | None:
        """The one name in a list that differs from `value` in nothing but its separators."""
        names = self._ready.get(place)
        if names is None:
            names = {}
            for option in expected.options or ():
                if isinstance(option, str):
                    names.setdefault(_neutral(option), []).append(option)
            if "." not in place[1]:  # else the list depends on what is chosen beside it
                self._ready[place] = names
        found = names.get(_neutral(value), [])
        return found[0] if len(found) == 1 else None


def _depth(name: str) -> int:
    return name.count(".")


def _neutral(name: str) -> str:
    return name.replace("\\", "/")
