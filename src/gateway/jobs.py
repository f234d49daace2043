"""The queue and the history as a list of jobs, for the panels of the editor: ComfyUI's /api/jobs since 0.26."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ..protocol.queue import PromptQueue, QueuedPrompt
from ..protocol.report import ENDINGS
from ..protocol.server import Route

_STATES = ("pending", "in_progress", "completed", "failed", "cancelled")
_SHOWN = ("images", "video", "audio", "3d", "text", "gifs")  # keys of outputs that the editor can show
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
        states = [state for state in query.get("status", "").split(",") if state]
        if set(states) - set(_STATES):
            return _refused(f"Invalid status value(s). Valid values: {', '.join(_STATES)}")
        jobs = [job for job in self._jobs() if not states or job["status"] in states]
        if "workflow_id" in query:
            jobs = [job for job in jobs if job.get("workflow_id") == query["workflow_id"]]
        key = _duration if query.get("sort_by") == "execution_duration" else _created
        jobs.sort(key=key, reverse=query.get("sort_order") != "asc")
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
            body = await request.json()
        except ValueError:
            return _refused("Request body must be valid JSON")
        job_ids = body.get("job_ids") if isinstance(body, dict) else None
        if not isinstance(job_ids, list) or not all(isinstance(job_id, str) for job_id in job_ids):
            return _refused("job_ids must be a list of strings")
        return web.json_response({"cancelled": await self.cancel(job_ids)})

    def _jobs(self) -> Iterator[dict[str, Any]]:
        running, pending, history = self.queue.snapshot()
        yield from (_waiting_job(queued, "pending") for queued in pending)
        yield from (_waiting_job(queued, "in_progress") for queued in running)
        yield from (_ended_job(prompt_id, entry) for prompt_id, entry in history.items())


def _waiting_job(queued: QueuedPrompt, state: str) -> dict[str, Any]:
    about = _about(queued.prompt_id, queued.number, queued.extra_data)
    return {**about, "status": state, "outputs_count": 0, "previewable_outputs_count": 0}


def _ended_job(prompt_id: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    number, _, _, extra_data, _ = entry["prompt"]
    messages = dict(entry["status"]["messages"])
    ending = next((kind for kind in ENDINGS if kind in messages), ENDINGS[0])
    state = {"execution_error": "failed", "execution_interrupted": "cancelled"}.get(ending, "completed")
    results = list(_results(entry["outputs"]))
    shown = [result for result in results if result["mediaType"] in _SHOWN]
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
    pnginfo = extra_data.get("extra_pnginfo")
    workflow = pnginfo.get("workflow") if isinstance(pnginfo, Mapping) else None
    workflow_id = workflow.get("id") if isinstance(workflow, Mapping) else None
    about = {"id": prompt_id, "priority": number, "create_time": extra_data.get("create_time")}
    return {**about, "workflow_id": workflow_id} if workflow_id else about


def _results(outputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each file and text that the nodes report, as the editor shows it."""
    for node_id, ui in outputs.items():
        for media_type, items in ui.items():
            for item in items if isinstance(items, list) else ():
                if isinstance(item, Mapping) and "filename" in item:
                    yield {**item, "nodeId": node_id, "mediaType": media_type}
                elif isinstance(item, str) and media_type == "text":
                    cut = {"truncated": True} if len(item) > _MAX_TEXT else {}
                    yield {"content": item[:_MAX_TEXT], **cut, "nodeId": node_id, "mediaType": media_type}


def _rank(result: Mapping[str, Any]) -> int:
    """Saved files stand for a job first, then previews, then texts."""
    return 2 if "content" in result else 0 if result.get("type") == "output" else 1


def _created(job: Mapping[str, Any]) -> float:
    return float(job.get("create_time") or 0)


def _duration(job: Mapping[str, Any]) -> float:
    return float(job.get("execution_end_time", 0)) - float(job.get("execution_start_time", 0))


def _refused(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)
