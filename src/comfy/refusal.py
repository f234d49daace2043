"""ComfyUI's own words about a prompt that it refused, for programs that pass them on. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ..redaction import public_text
from .folders import without_job_folders

Entry = TypeVar("Entry")

_MAX_NODES = 20
_MAX_ERRORS = 10  # of one node
_MAX_CHARACTERS = 50_000  # of all nodes, as JSON
_MAX_TEXT = 500
_MAX_ITEMS = 20  # of a list or an object in `extra_info`
_MAX_DEPTH = 3
_LEFT_OUT = ("options", "traceback", "tooltip")
_FAILED = {
    "type": "prompt_outputs_failed_validation",
    "message": "Prompt outputs failed validation",
    "details": "",
    "extra_info": {},
}


def public_refusal(error: object, node_errors: object) -> dict[str, Any]:
    """`error` and `node_errors` as in ComfyUI's answer to /prompt, fit for a caller: at most about 50,000 characters.

    Left out are the options of inputs and tracebacks. `error` is there also where ComfyUI has none, since it would
    have run a part of the prompt.
    """
    entries = node_errors.items() if isinstance(node_errors, Mapping) else ()
    nodes = ((node_id, _node(entry)) for node_id, entry in entries if isinstance(entry, Mapping))
    return {
        "error": _error(error) if isinstance(error, Mapping) and error else dict(_FAILED),
        "node_errors": dict(within(nodes, _MAX_NODES, _MAX_CHARACTERS)),
    }


def within(entries: Iterable[Entry], count: int, characters: int) -> list[Entry]:
    """The first entries: at most so many, and so many characters of JSON."""
    taken: list[Entry] = []
    for entry in entries:
        characters -= len(json.dumps(entry))
        if len(taken) == count or characters < 0:
            break
        taken.append(entry)
    return taken


def _node(entry: Mapping[str, Any]) -> dict[str, Any]:
    errors, outputs = entry.get("errors"), entry.get("dependent_outputs")
    listed = errors if isinstance(errors, list) else []
    return {
        "errors": [_error(error) for error in listed[:_MAX_ERRORS] if isinstance(error, Mapping)],
        "dependent_outputs": [_text(output) for output in outputs[:_MAX_ITEMS]] if isinstance(outputs, list) else [],
        "class_type": _text(entry.get("class_type", "")),
    }


def _error(error: Mapping[str, Any]) -> dict[str, Any]:
    extra = error.get("extra_info")
    return {
        **{name: _text(error.get(name, "")) for name in ("type", "message", "details")},
        "extra_info": _extra(extra) if isinstance(extra, Mapping) else {},
    }


def _extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    config = extra.get("input_config")
    is_choice = isinstance(config, list) and bool(config) and isinstance(config[0], list)
    kept: dict[str, Any] = _small({name: value for name, value in extra.items() if name != "input_config"})
    return {**kept, **({} if config is None or is_choice else {"input_config": _small(config)})}


def _small(value: object, depth: int = 0) -> Any:
    """A JSON value without what is long in it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return value if abs(value) < 1e300 and math.isfinite(value) else _text(value)
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        kept = [(name, part) for name, part in value.items() if name not in _LEFT_OUT]
        return {_text(name): _small(part, depth + 1) for name, part in kept[:_MAX_ITEMS]}
    if isinstance(value, list) and depth < _MAX_DEPTH:
        return [_small(part, depth + 1) for part in value[:_MAX_ITEMS]]
    return _text(value)


def _text(value: object) -> str:
    return public_text(without_job_folders(str(value)[: 8 * _MAX_TEXT]), _MAX_TEXT)
