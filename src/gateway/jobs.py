"""The queue and the history as a list of jobs, for the panels of the editor: ComfyUI's /api/jobs since 0.26."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from aiohttp import web

from ..protocol.bodies import json_of
from ..protocol.queue import PromptQueue, QueuedPrompt
from ..protocol.report import ENDINGS
from ..protocol.server import Route

_STATES = ("pending", "in_progress", "completed", "failed", "cancelled")
_SORTED_BY, _ORDERS = ("created_at", "execution_duration"), ("asc", "desc")
_SHOWN = ("images", "video", "audio", "3d", "text", "gifs")  # keys of outputs that the editor can show
_SHOWN_FORMATS = ("video/", "audio/")
_3D_ENDINGS = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXT_ENDINGS = (".txt", ".md", ".json")
_TYPES = ("input", "output", "temp")
_TEXT_FIELDS = ("filename", "subfolder", "type", "format", "display_name", "content", "mediaType")
_MAX_TEXT = 1024  # characters of a text that stands for a result


@dataclass(frozen=True)
class Jobs:
    """The routes, over a queue. `cancel` ends a prompt that waits or runs, and says whether there was one."""

    queue: PromptQueue
    cancel: Any

    def routes(self) -> list[Route]:
        """Method, path and handler of each."""
        return [
            ("GET", "/jobs", self.list_jobs),
            ("POST", "/jobs/cancel", self.cancel_some),
            ("GET", "/jobs/{job}", self.one_job),
            ("POST", "/jobs/{job}/cancel", self.cancel_one),
        ]

    async def list_jobs(self, request: web.Request) -> web.Response:
        """GET /jobs: newest first, by `status`, `workflow_id`, `limit`, `offset`, `sort_order`."""
        query = request.query
        states = [state.strip().lower() for state in query.get("status", "").split(",") if state.strip()]
        if unknown := [state for state in states if state not in _STATES]:
            return _refused(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(_STATES)}")
        sort_by, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
        if sort_by not in _SORTED_BY or order not in _ORDERS:
            return _refused(f"sort_by must be one of {', '.join(_SORTED_BY)}, sort_order one of {', '.join(_ORDERS)}")
        jobs = [job for job in self._jobs() if not states or job["status"] in states]
        if query.get("workflow_id"):
            jobs = [job for job in jobs if job.get("workflow_id") == query["workflow_id"]]
        jobs.sort(key=_duration if sort_by == "execution_duration" else _created, reverse=order == "desc")
        try:
            limit, offset = int(query.get("limit") or len(jobs) or 1), max(0, int(query.get("offset") or 0))
        except ValueError:
            return _refused("limit and offset must be integers")
        if limit <= 0:
            return _refused("limit must be a positive integer")
        more = {"offset": offset, "limit": limit, "total": len(jobs), "has_more": offset + limit < len(jobs)}
        return web.json_response({"jobs": jobs[offset : offset + limit], "pagination": more})

    async def one_job(self, request: web.Request) -> web.Response:
        """GET /jobs/{id}: with its outputs and its workflow, if it has ended."""
        job_id = request.match_info["job"]
        entry = self.queue.history.get(job_id)
        if entry is not None:
            _, _, prompt, extra_data, _ = entry["prompt"]
            workflow = {"prompt": prompt, "extra_data": extra_data}
            whole = {"outputs": entry["outputs"], "execution_status": entry["status"], "workflow": workflow}
            return web.json_response({**_ended_job(job_id, entry), **whole})
        found = next((job for job in self._jobs() if job["id"] == job_id), None)
        return web.json_response(found if found else {"error": "Job not found"}, status=200 if found else 404)

    async def cancel_one(self, request: web.Request) -> web.Response:
        """POST /jobs/{id}/cancel."""
        return web.json_response({"cancelled": await self.cancel([request.match_info["job"]])})

    async def cancel_some(self, request: web.Request) -> web.Response:
        """POST /jobs/cancel: those in `job_ids`."""
        try:
            body = json_of(await request.read())
        except ValueError:
            return _refused("Request body must be valid JSON")
        job_ids = body.get("job_ids") if isinstance(body, dict) else None
        if not isinstance(job_ids, list):
            return _refused("job_ids must be a list")
        if invalid := [
            job_id if isinstance(job_id, str) else repr(job_id) for job_id in job_ids if not _is_id(job_id)
        ]:
            return _refused("job_ids contains invalid id(s)", invalid_ids=invalid)
        return web.json_response({"cancelled": await self.cancel(job_ids)})

    def _jobs(self) -> list[dict[str, Any]]:
        running, pending, history = self.queue.snapshot()
        return [
            *(_waiting_job(queued, "pending") for queued in pending),
            *(_waiting_job(queued, "in_progress") for queued in running),
            *(_ended_job(prompt_id, entry) for prompt_id, entry in history.items()),
        ]


def _waiting_job(queued: QueuedPrompt, state: str) -> dict[str, Any]:
    about = _about(queued.prompt_id, queued.number, queued.extra_data)
    return {**about, "status": state, "outputs_count": 0, "previewable_outputs_count": 0}


def _ended_job(prompt_id: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    number, _, _, extra_data, _ = entry["prompt"]
    messages = dict(entry["status"]["messages"])
    ending = next((kind for kind in ENDINGS if kind in messages), ENDINGS[0])
    state = {"execution_error": "failed", "execution_interrupted": "cancelled"}.get(ending, "completed")
    results = list(_results(entry["outputs"]))
    shown = [result for result in results if _is_shown(result)]
    job = {
        **_about(prompt_id, number, extra_data),
        "status": state,
        "execution_start_time": messages.get("execution_start", {}).get("timestamp"),
        "execution_end_time": messages.get(ending, {}).get("timestamp"),
        "execution_error": messages.get("execution_error"),
        "outputs_count": sum("filename" in result for result in results),
        "previewable_outputs_count": sum("filename" in result for result in shown),
        "preview_output": min(shown, key=_rank, default=None),
    }
    return {name: value for name, value in job.items() if value is not None}


def _about(prompt_id: str, number: float, extra_data: Mapping[str, Any]) -> dict[str, Any]:
    """What every job says. The editor drops the whole list for one value of another type."""
    pnginfo = extra_data.get("extra_pnginfo")
    workflow = pnginfo.get("workflow") if isinstance(pnginfo, Mapping) else None
    workflow_id = workflow.get("id") if isinstance(workflow, Mapping) else None
    about = {"id": prompt_id, "priority": number, "create_time": extra_data.get("create_time") or 0}
    return {**about, "workflow_id": workflow_id} if workflow_id and isinstance(workflow_id, str) else about


def _results(outputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each file and text that the nodes report, as the editor shows it."""
    for node_id, ui in outputs.items():
        for media_type, items in ui.items() if isinstance(ui, Mapping) else ():
            for item in items if isinstance(items, list) else ():
                if result := _result(item, media_type):
                    yield {"mediaType": media_type, **result, "nodeId": node_id}


def _result(item: Any, media_type: str) -> dict[str, Any] | None:
    """A file or a text among what a node reports; None for what is neither."""
    if isinstance(item, Mapping) and isinstance(item.get("filename"), str) and item.get("type", "output") in _TYPES:
        return {name: value for name, value in item.items() if name not in _TEXT_FIELDS or isinstance(value, str)}
    if not isinstance(item, str):
        return None
    if item.lower().endswith(_3D_ENDINGS):  # how the savers and previews of 3D files report them
        place = PurePosixPath(item)
        subfolder = "" if place.parent == PurePosixPath() else str(place.parent)
        return {"filename": place.name, "subfolder": subfolder, "type": "output", "mediaType": "3d"}
    if media_type == "text":
        cut = {"truncated": True} if len(item) > _MAX_TEXT else {}
        return {"content": item[:_MAX_TEXT], **cut}
    return None


def _is_shown(result: Mapping[str, Any]) -> bool:
    is_known = result["mediaType"] in _SHOWN or result.get("format", "").startswith(_SHOWN_FORMATS)
    return is_known or result.get("filename", "").lower().endswith((*_3D_ENDINGS, *_TEXT_ENDINGS))


def _rank(result: Mapping[str, Any]) -> int:
    """Saved files stand for a job first, then previews, then files of text, then texts."""
    if "filename" not in result:
        return 3
    if result["mediaType"] == "text" or result["filename"].lower().endswith(_TEXT_ENDINGS):
        return 2
    return 0 if result.get("type") == "output" else 1


def _is_id(job_id: Any) -> bool:
    try:
        return isinstance(job_id, str) and str(uuid.UUID(job_id)) == job_id
    except ValueError:
        return False


def _created(job: Mapping[str, Any]) -> float:
    return float(job.get("create_time") or 0)


def _duration(job: Mapping[str, Any]) -> float:
    """In milliseconds; 0 for one that has not ended."""
    ended = float(job.get("execution_end_time") or 0)
    return ended - float(job.get("execution_start_time") or ended)


def _refused(message: str, **more: Any) -> web.Response:
    return web.json_response({"error": message, **more}, status=400)
