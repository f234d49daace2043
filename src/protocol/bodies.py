"""What clients send, read and checked: JSON bodies, their fields, numbers in a query."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

from aiohttp import web

_MAX_NUMBER = 2**53  # that JavaScript and SQLite hold exactly
_NULL = type(None)
# Fields of a request to /prompt: what they may be.
_PROMPT_FIELDS: dict[str, tuple[tuple[type, ...], str]] = {
    "client_id": ((str, _NULL), "a string"),
    "extra_data": ((dict, _NULL), "an object"),
    "number": ((int, float), "a number"),
    "partial_execution_targets": ((list, _NULL), "a list of node ids"),
}


def json_of(content: bytes) -> Any:
    """What a body holds as JSON. Raises ValueError: also for numbers that are none for JavaScript, NaN and infinity.

    Browsers could not read what the server later says of these.
    """
    try:
        return json.loads(content, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


async def read_json(request: web.Request) -> Any:
    """What a request holds as JSON, whatever its content type says. Raises HTTPBadRequest."""
    try:
        return json_of(await request.read())
    except ValueError as error:
        raise web.HTTPBadRequest(text="the body must be JSON") from error


async def read_object(request: web.Request) -> dict[str, Any]:
    """The object that a request holds as JSON. Raises HTTPBadRequest."""
    return _as_object(await read_json(request))


def _as_object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body must be a JSON object")
    return body


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a JSON number")
    return number


def problem_of(body: dict[str, Any]) -> str:
    """What is wrong with the fields of a request to /prompt besides the prompt, "" for nothing."""
    for name, (types, what) in _PROMPT_FIELDS.items():
        if name in body and (not isinstance(body[name], types) or isinstance(body[name], bool)):
            return f"{name} must be {what}"
    if abs(body.get("number", 0)) > _MAX_NUMBER:
        return "number is too large"
    targets = body.get("partial_execution_targets") or []
    return "" if all(isinstance(target, str) for target in targets) else "a target must be the id of a node"


def ids_to_delete(body: dict[str, Any]) -> list[str]:
    """The prompts to delete. Raises HTTPBadRequest."""
    prompt_ids = body.get("delete", [])
    if not isinstance(prompt_ids, list):
        raise web.HTTPBadRequest(text="delete must be a list of ids")
    return [prompt_id for prompt_id in prompt_ids if isinstance(prompt_id, str)]


def whole_number(request: web.Request, name: str, default: int) -> int:
    """A whole number in the query; the default for anything else."""
    try:
        return int(request.query.get(name, default))
    except ValueError:
        return default


def is_canonical_uuid(value: object) -> bool:
    """Whether a value is a prompt id as ComfyUI takes it: a UUID in lowercase with hyphens."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False
