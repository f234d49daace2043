"""The OpenAPI document of the routes that clients use, with the schemas of a job's input and output.

OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0). Routes and shapes are those of a RunPod endpoint
(https://docs.runpod.io/serverless/endpoints/send-requests), so a client made from it works with both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import VERSION
from ..job.json_schemas import output_schema, plain_input_schema
from .client_routes import MAX_WAIT_MS, MIN_WAIT_MS
from .jobs import Status

_REFERENCE = "#/components/schemas/{model}"
_JOB_ID = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}
_WAIT = {
    "name": "wait",
    "in": "query",
    "description": "how many milliseconds to wait for the job to end",
    "schema": {"type": "integer", "minimum": MIN_WAIT_MS, "maximum": MAX_WAIT_MS},
}
_ERRORS = {
    "400": "The request is not valid or too large.",
    "401": "The key is missing or wrong.",
    "404": "There is no such job, or its result has expired.",
}


def openapi(examples: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The document. `examples` are inputs of jobs by the names of their workflows."""
    schemas: dict[str, Any] = {}
    for name, schema in (("JobInput", plain_input_schema(_REFERENCE)), ("JobOutput", output_schema(_REFERENCE))):
        schemas.update({**schema.pop("$defs"), name: {**schema, "title": name}})
    for name in ("Failure", "FailureOfWorkerComfyui"):
        schemas[name]["required"].remove("error")  # RunPod moves it beside `output`
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ComfyUI worker",
            "version": VERSION,
            "description": "Runs ComfyUI workflows as jobs of a RunPod Serverless endpoint.",
        },
        "servers": [
            {"url": "/v2/local", "description": "this endpoint"},
            {
                "url": "https://api.runpod.ai/v2/{endpoint_id}",
                "description": "the same worker on RunPod",
                "variables": {"endpoint_id": {"default": "ENDPOINT_ID"}},
            },
        ],
        "security": [{"key": []}],
        "paths": _paths(examples),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {**schemas, **_shapes()},
        },
    }


def _paths(examples: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    shown = {name: {"summary": name, "value": {"input": dict(example)}} for name, example in examples.items()}
    body = {"required": True, "content": {"application/json": {"schema": _ref("JobRequest"), "examples": shown}}}
    run: dict[str, Any] = {"requestBody": body}
    return {
        "/run": {"post": _operation("run", "Queue a job", "QueuedJob", ("400", "401"), **run)},
        "/runsync": {
            "post": _operation(
                "runsync", "Queue a job and wait for its result", "Job", ("400", "401"), **run, parameters=[_WAIT]
            )
        },
        "/status/{job_id}": {"get": _of_job("status", "The state of a job, and its result", "Job")},
        "/cancel/{job_id}": {"post": _of_job("cancel", "Cancel a job, queued or running", "Job")},
        "/retry/{job_id}": {"post": _of_job("retry", "Queue a failed or timed-out job again", "QueuedJob", "400")},
        "/stream/{job_id}": {"get": _of_job("stream", "The output since the last call", "Stream")},
        "/health": {
            "get": _operation("health", "How many jobs and workers there are", "Health", ("401",), tag="endpoint")
        },
        "/purge-queue": {
            "post": _operation("purge_queue", "Drop all queued jobs", "Purged", ("401",), tag="endpoint")
        },
    }


def _of_job(name: str, summary: str, shape: str, *more: str) -> dict[str, Any]:
    return _operation(name, summary, shape, (*more, "401", "404"), parameters=[_JOB_ID])


def _operation(
    name: str, summary: str, shape: str, errors: tuple[str, ...], *, tag: str = "jobs", **more: Any
) -> dict[str, Any]:
    refused = {code: {"description": _ERRORS[code], "content": _content("Refusal")} for code in errors}
    responses = {"200": {"description": "OK", "content": _content(shape)}, **refused}
    return {"operationId": name, "tags": [tag], "summary": summary, **more, "responses": responses}


def _content(shape: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(shape)}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=name)}


def _shapes() -> dict[str, Any]:
    """RunPod's own shapes, around the worker's input and output."""
    text, count = {"type": "string"}, {"type": "integer", "minimum": 0}
    status = {"type": "string", "enum": [status.value for status in Status]}
    milliseconds = {**count, "description": "milliseconds"}
    place = {"percent": {"type": "number"}, "node_id": text, "node": text}
    preview = {**text, "description": "JPEG in base64, where there is a new one: see output.live_previews"}
    policy = {"executionTimeout": milliseconds, "ttl": milliseconds}
    bucket = dict.fromkeys(("accessId", "accessSecret", "bucketName", "endpointUrl"), text)
    health = {
        "jobs": ("completed", "failed", "inProgress", "inQueue", "retried"),
        "workers": ("idle", "initializing", "ready", "running", "throttled", "unhealthy"),
    }
    return {
        "JobRequest": _object(
            {
                "input": _ref("JobInput"),
                "webhook": {**text, "description": "a URL that is sent the job when it ends"},
                "policy": _object(policy, required=()),
                "s3Config": {
                    **_object(bucket, required=()),
                    "description": "the bucket for the files of this job",
                },
            },
            required=("input",),
        ),
        "QueuedJob": _object({"id": text, "status": status}),
        "Job": _object(
            {
                "id": text,
                "status": status,
                "delayTime": {**milliseconds, "description": "milliseconds in the queue"},
                "executionTime": {**milliseconds, "description": "milliseconds on the worker"},
                "workerId": text,
                "output": {"anyOf": [_ref("Progress"), _ref("JobOutput")]},
                "error": {**text, "description": "why the job failed"},
            },
            required=("id", "status"),
        ),
        "Progress": {
            **_object({**place, "step": count, "steps": count, "preview": preview}),
            "description": "What `output` holds while the job is in progress.",
            "required": ["percent"],
        },
        "Stream": _object({"status": status, "stream": {"type": "array", "items": _object({"output": {}})}}),
        "Health": _object({name: _object(dict.fromkeys(counts, count)) for name, counts in health.items()}),
        "Purged": _object({"removed": count, "status": text}),
        "Refusal": _object({"error": text}),
    }


def _object(properties: Mapping[str, Any], required: tuple[str, ...] | None = None) -> dict[str, Any]:
    """An object; all of its properties are required unless it says which ones are."""
    names = list(properties) if required is None else list(required)
    return {"type": "object", "properties": dict(properties), **({"required": names} if names else {})}
