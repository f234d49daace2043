"""What `action: info` returns only for a job that names it in `parts`, since it is large."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from typing import Any, Literal, get_args

from ..comfy.client import ComfyClient
from ..errors import UnexpectedAnswer, WorkerError

InfoPart = Literal["object_info", "models"]
INFO_PARTS: tuple[InfoPart, ...] = get_args(InfoPart)


def describe_parts(client: ComfyClient, parts: Iterable[InfoPart]) -> dict[str, Any]:
    """The fields of these parts: `object_info` and `node_replacements`, `all_models`.

    Raises UnexpectedAnswer if ComfyUI cannot list its node classes, WorkerError if it does not answer.
    """
    return {name: value for part in dict.fromkeys(parts) for name, value in _DESCRIBED[part](client).items()}


def models_by_folder(client: ComfyClient) -> dict[str, list[str]]:
    """All names by ComfyUI's name of the folder, without folders that it cannot list."""
    found = {}
    for folder in client.model_folders():
        try:
            found[folder] = client.models(folder)
        except WorkerError:
            continue
    return found


def _object_info(client: ComfyClient) -> dict[str, Any]:
    try:
        listed = client.object_info()
    except UnexpectedAnswer as error:
        raise UnexpectedAnswer(
            f"object_info is not known: {error.message}, because one of its node classes is broken. ComfyUI does not "
            "say which class: the worker's log has the reason, and action: validate names the class of a workflow "
            "that uses it. Update its node pack in the image, or remove it"
        ) from error
    return {"object_info": _packed(listed), "node_replacements": client.node_replacements()}


def _models(client: ComfyClient) -> dict[str, Any]:
    return {"all_models": _packed(json.dumps(models_by_folder(client)).encode())}


_DESCRIBED = {"object_info": _object_info, "models": _models}


def _packed(content: bytes) -> str:
    """The base64 of its gzip."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
