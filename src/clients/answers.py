"""Answers in the format of other workers. The contract is that of runpod-workers/worker-comfyui 5.8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..settings import AnswerFormat

_KEPT = ("errors", "text", "seed", "warnings", "error_type", "error_code", "refresh_worker")


def in_answer_format(answer: dict[str, Any], wanted: AnswerFormat) -> dict[str, Any]:
    """The answer to a run, or to a job that failed, as clients of that worker read it.

    What `validate` and `info` answer stays as it is: no other worker has these.
    """
    if wanted == "standard" or not ("files" in answer or answer["status"] == "error"):
        return answer
    return _as_worker_comfyui(answer)


def _as_worker_comfyui(answer: Mapping[str, Any]) -> dict[str, Any]:
    """`images` with an entry for every file, whatever kind; `{"error", "details"}` for a failure."""
    kept = {name: answer[name] for name in _KEPT if name in answer}
    if answer["status"] == "error":
        return {"error": answer["error"], "details": _details(answer), **kept}
    images = [_entry(file, answer["images"]) for file in answer["files"]]
    return {"images": images, **({} if images else {"status": "success_no_images"}), **kept}


def _entry(file: Mapping[str, Any], images: list[str]) -> dict[str, str]:
    name = file["name"].rpartition("/")[2]
    if "bucket" in file:
        link = file.get("url") or f"s3://{file['bucket']}/{file['key']}"
        return {"filename": name, "type": "s3_url", "data": link}
    data = images[file["image_index"]] if "image_index" in file else file["data"]
    return {"filename": name, "type": "base64", "data": data}


def _details(answer: Mapping[str, Any]) -> list[str]:
    """What is wrong, a sentence each: for every node that is, else the one of the whole."""
    nodes = answer.get("node_errors")
    told = [entry["message"] for entry in nodes if "message" in entry] if isinstance(nodes, list) else []
    return told or [answer["error"]]
