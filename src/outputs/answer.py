"""Builds the answer to a job; the only module that knows the names of output fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import WorkerError
from .delivery import Delivered, info_too_large, too_large

_MAX_PROBLEMS = 200
_MAX_DETAILS_CHARACTERS = 100_000  # as JSON; RunPod would refuse an answer that is too large, and it would be lost


@dataclass(frozen=True)
class Timings:
    """Where a job's time went, in seconds; `nodes` by node id, without cached nodes."""

    inputs: float = 0.0
    queue: float = 0.0
    execution: float = 0.0
    encode: float = 0.0
    upload: float = 0.0
    nodes: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Rounded to milliseconds."""
        parts = ("inputs", "queue", "execution", "encode", "upload")
        nodes = {node_id: round(seconds, 3) for node_id, seconds in self.nodes.items()}
        return {**{part: round(getattr(self, part), 3) for part in parts}, "nodes": nodes}


@dataclass(frozen=True)
class Result:
    """What a job produced, and what the answer says about it."""

    prompt_id: str
    files: Sequence[Delivered]
    texts: Sequence[str] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)
    """What each node reported to the client, by its id."""
    hints: Sequence[str] = ()
    errors: Sequence[str] = ()
    """What went wrong beside: only a job that wants partial results has any."""
    seed: int | None = None
    cached_nodes: Sequence[str] = ()
    timings: Timings = field(default_factory=Timings)
    versions: Mapping[str, str] = field(default_factory=dict)
    is_converted: bool = False
    """Whether the workflow was in the editor's save format, and was converted to the API format."""


def success_answer(result: Result, warnings: Sequence[str], seconds: float, limit_bytes: int) -> dict[str, Any]:
    """The answer for a job that succeeded. Raises OutputTooLarge if it takes more than `limit_bytes` as JSON.

    `images` and `filenames` hold the pictures that are sent as base64; `files` has an entry for every file, with the
    base64 of those that are not pictures.
    """
    inline = [item for item in result.files if item.data is not None and item.file.kind == "image"]
    answer: dict[str, Any] = {
        "status": "success",
        "images": [item.data for item in inline],
        "filenames": [item.file.name for item in inline],
        "files": [_file_entry(item, inline) for item in result.files],
        "execution_time_seconds": round(seconds, 3),
        "prompt_id": result.prompt_id,
    }
    if result.seed is not None:
        answer["seed"] = result.seed
    if result.is_converted:
        answer["converted"] = True
    if result.texts:
        answer["text"] = list(result.texts)
    if result.outputs:
        answer["outputs"] = dict(result.outputs)
    if result.errors:
        answer["errors"] = list(result.errors)
    if warnings or result.hints:
        answer["warnings"] = [*warnings, *result.hints]
    answer["timings"] = result.timings.as_json()
    answer["cached_nodes"] = list(result.cached_nodes)
    answer["versions"] = dict(result.versions)
    size = json_size(answer)
    if size > limit_bytes:
        raise too_large(size, limit_bytes)
    return answer


def validation_answer(
    problems: Sequence[Mapping[str, Any]],
    warnings: Sequence[str],
    details: Mapping[str, Any],
    seconds: float,
    is_converted: bool = False,
) -> dict[str, Any]:
    """The answer to `action: validate`: whether the worker can run the workflow, and what problems prevent it."""
    return {
        "status": "success",
        "valid": not problems,
        **({"converted": True} if is_converted else {}),
        "problems": list(problems[:_MAX_PROBLEMS]),
        "warnings": list(warnings),
        **details,
        "execution_time_seconds": round(seconds, 3),
    }


def info_answer(
    info: Mapping[str, Any], parts: Mapping[str, Any], warnings: Sequence[str], seconds: float, limit_bytes: int
) -> dict[str, Any]:
    """The answer to `action: info`. Raises OutputTooLarge if its `parts` make it more than `limit_bytes` as JSON."""
    told = {"warnings": list(warnings), "execution_time_seconds": round(seconds, 3)}
    answer = {"status": "success", **info, **parts, **told}
    size = len(json.dumps(answer)) if parts else 0
    if size > limit_bytes:
        raise info_too_large(size, limit_bytes)
    return answer


def _file_entry(item: Delivered, inline: Sequence[Delivered]) -> dict[str, Any]:
    """One entry of `files`. The base64 of a picture is only in `images`, at `image_index`."""
    entry: dict[str, Any] = {
        "node_id": item.file.node_id,
        "name": item.file.name,
        "type": item.file.kind,
        "content_type": item.file.content_type,
        "size_bytes": item.size,
    }
    if item.file.is_preview:
        entry["preview"] = True
    if item.stored is not None:
        link = {"url": item.stored.url} if item.stored.url else {}
        return {**entry, **link, "bucket": item.bucket_name, "key": item.stored.key}
    index = next((index for index, other in enumerate(inline) if other is item), None)
    return {**entry, "data": item.data} if index is None else {**entry, "image_index": index}


def json_size(answer: Mapping[str, Any]) -> int:
    """The size in bytes of an answer as JSON. Raises ValueError for what JSON cannot represent (NaN, infinity).

    Base64 needs no escaping, so its length is counted instead of encoding it: with quotes around each string, comma
    and space between two.
    """
    images = answer["images"]
    data = [entry.get("data", "") for entry in answer["files"]]
    without_data = [{**entry, "data": ""} if "data" in entry else entry for entry in answer["files"]]
    rest = len(json.dumps({**answer, "images": [], "files": without_data}, allow_nan=False))
    return rest + sum(len(image) + 4 for image in images) - (2 if images else 0) + sum(map(len, data))


def failure_answer(error: WorkerError, seconds: float, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """The answer for a job that failed. Its `error` is a string, because RunPod's SDK loses anything else."""
    details = error.details if len(json.dumps(error.details)) <= _MAX_DETAILS_CHARACTERS else {}
    answer = {
        **details,
        "status": "error",
        "error_type": error.error_type,
        "error_code": error.error_code,
        "error": error.message,
        "execution_time_seconds": round(seconds, 3),
    }
    if warnings:
        answer["warnings"] = list(warnings)
    return {**answer, "refresh_worker": True} if error.retire_worker else answer
