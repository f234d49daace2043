"""What callers send as `input` in other shapes: ComfyUI's own /prompt, the workers of Salad and others, bare graphs.

The contracts are those of ComfyUI 0.33.0 (`POST /prompt`), SaladTechnologies/comfyui-api 1.18 (`POST /prompt`),
ashleykleynhans/runpod-worker-comfyui and runpod-workers/worker-comfyui 5.8.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..editor import is_editor_workflow
from ..errors import InvalidInput

FOREIGN_FIELDS: Mapping[str, str] = {
    "client_id": "progress is in the job's /status",
    "prompt_id": "the job has RunPod's id",
    "id": "the job has RunPod's id",
    "number": "RunPod's queue has one order",
    "front": "RunPod's queue has one order; policy.lowPriority, beside input, puts a job behind others",
    "partial_execution_targets": "leave the other output nodes out of the workflow",
    "webhook": "send it beside input: RunPod calls it",
    "webhook_v2": "send webhook beside input: RunPod calls it",
    "s3": "send s3Config beside input, or set the worker's own bucket",
    "hf_upload": "results go to S3 or into the answer",
    "azure_blob_upload": "results go to S3 or into the answer",
    "http_upload": "results go to S3 or into the answer",
    "convert_output": "output.format and output.quality are what is done of it",
    "credentials": "models come with the worker, from the volume, or by DOWNLOAD_MODELS",
    "ckpt_name": "the workflow names the model; overrides can set it",
}
"""Fields of other contracts that have no place in a job here, and what stands for them."""

SAME_FIELDS = {
    "api_key_comfy_org": "comfy_org_api_key",
    "cfg_scale": "cfg",
    "num_inference_steps": "steps",
    "sampler": "sampler_name",
}
"""Fields of other contracts that only have another name here."""
_CUSTOM = "custom"  # ashleykleynhans: `workflow` is a name, and this one means the graph in `payload`


def as_own_input(given: object) -> object:
    """A job's `input` with what it brings under this worker's names; what is no such shape stays as it is.

    Raises InvalidInput for a text that is no JSON.
    """
    own = _parsed(given) if isinstance(given, str) else given
    if not isinstance(own, dict):
        return own
    for reshaped in (_unwrapped, _with_bare_workflow, _with_same_fields, _from_prompt_request, _from_payload):
        own = reshaped(own)
    return own


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput('input is a text that is no JSON; send an object like {"workflow": {…}}') from error


def _unwrapped(given: dict[str, Any]) -> dict[str, Any]:
    """The input in a whole body that was sent as its own input."""
    inner = given.get("input")
    return inner if given.keys() == {"input"} and isinstance(inner, dict) and "class_type" not in inner else given


def _with_bare_workflow(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a workflow, in either format, that is the whole input."""
    return {"workflow": given} if _is_graph(given) or is_editor_workflow(given) else given


def _is_graph(value: Mapping[Any, Any]) -> bool:
    """Whether it is a workflow in API format: one of its values is a node."""
    return any(isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in value.values())


def _with_same_fields(given: dict[str, Any]) -> dict[str, Any]:
    """The fields, with those that only have another name under ours."""
    return {(own if (own := SAME_FIELDS.get(name, name)) not in given else name): v for name, v in given.items()}


def _from_prompt_request(given: dict[str, Any]) -> dict[str, Any]:
    """A body of ComfyUI's /prompt, or of Salad's, which has its fields beside the graph; also sent as a workflow."""
    inner = given.get("workflow")
    if isinstance(inner, dict) and isinstance(inner.get("prompt"), dict) and not _is_graph(inner):
        return {**_from_prompt_request(inner), **{name: value for name, value in given.items() if name != "workflow"}}
    graph = given.get("prompt")
    if not isinstance(graph, dict) or given.get("workflow") is not None:
        return given
    own = {name: value for name, value in given.items() if name not in ("prompt", "extra_data")}
    return {**_from_extra_data(given.get("extra_data")), **_converted(own), "workflow": graph}


def _from_extra_data(extra: object) -> dict[str, Any]:
    """What is for nodes, from ComfyUI's `extra_data`."""
    given = extra if isinstance(extra, dict) else {}
    found = {"extra_pnginfo": given.get("extra_pnginfo"), "comfy_org_api_key": given.get("api_key_comfy_org")}
    return {name: value for name, value in found.items() if value}


def _converted(given: dict[str, Any]) -> dict[str, Any]:
    """The fields with `output` for Salad's `convert_output`: `{"format": "jpeg", "options": {"quality": 80}}`."""
    asked = given.get("convert_output")
    if not isinstance(asked, dict) or "output" in given:
        return given
    options = asked.get("options")
    quality = options.get("quality") if isinstance(options, dict) else None
    is_done = not isinstance(options, dict) or options.keys() <= {"quality"}
    rest = {name: value for name, value in given.items() if name != "convert_output" or not is_done}
    return {**rest, "output": {"format": asked.get("format"), "quality": quality}}


def _from_payload(given: dict[str, Any]) -> dict[str, Any]:
    """ashleykleynhans' request: the graph, or the fields of a stored workflow, in `payload`."""
    name, payload = given.get("workflow"), given.get("payload")
    if not isinstance(name, str) or not isinstance(payload, dict):
        return given
    rest = {field: value for field, value in given.items() if field not in ("workflow", "payload")}
    fields = {} if name == _CUSTOM else _with_same_fields(payload)
    return {**fields, **rest, "workflow": payload if name == _CUSTOM else name}
