"""What callers send as `input` in other shapes: ComfyUI's own /prompt, those of other workers, bare workflows.

The contracts are those of ComfyUI 0.33.0 (`POST /prompt`), SaladTechnologies/comfyui-api 1.18 (`POST /prompt`),
ashleykleynhans/runpod-worker-comfyui 4.0 and runpod-workers/worker-comfyui 5.8.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

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
    "hf_upload": "results go to S3 or into the response",
    "azure_blob_upload": "results go to S3 or into the response",
    "http_upload": "results go to S3 or into the response",
    "credentials": "models come with the worker's image, from the volume, or by DOWNLOAD_MODELS",
    "ckpt_name": "the workflow names the model; overrides can set it",
}
"""Fields of other contracts that have no place in a job here, and what stands for them."""

PARTLY_USED: Mapping[str, str] = {
    "extra_data": "only its extra_pnginfo and api_key_comfy_org are used",
    "convert_output": "only its format and options.quality are used; the field output has the other options",
}
"""Fields of other contracts of which a part is used."""

SAME_FIELDS: Mapping[str, str] = {
    "api_key_comfy_org": "comfy_org_api_key",
    "cfg_scale": "cfg",
    "num_inference_steps": "steps",
    "sampler": "sampler_name",
}
"""Fields of other contracts that only have another name here."""

MAY_BE_EMPTY = ("prompt", "negative_prompt")
"""Fields whose empty text is a value; elsewhere an empty text is treated as absent."""

_CUSTOM = "custom"  # ashleykleynhans: `workflow` is a name, and this one means the graph in `payload`
_MAX_LEVELS = 10  # of inputs inside one another
_HOLDERS = frozenset({"workflow", "prompt", "input"})


def as_own_input(given: object, known: Collection[str]) -> object:
    """A job's `input` with what it brings under this worker's names; what has no such shape stays as it is.

    `known` are the names of this worker's own fields. Where one name is given twice, the outer value wins. Raises
    InvalidInput for a text that is no JSON.
    """
    levels, current, is_workflow = list[dict[str, Any]](), given, False
    while len(levels) < _MAX_LEVELS:
        if isinstance(current, str) and (not levels or _looks_like_json(current)):
            current = _parsed(current, "workflow" if levels else "input")
        if not isinstance(current, dict):
            break
        if _is_workflow(current):
            around = {} if levels else {n: current[n] for n in current.keys() & known if not _is_node(current[n])}
            workflow = {name: value for name, value in current.items() if name not in around}
            return {**_merged([*levels, around]), "workflow": workflow}
        if is_workflow and not current.keys() & _HOLDERS:
            break
        level = _level(current)
        levels.append(level.fields)
        if level.inner is None:
            return _merged(levels)
        current, is_workflow = level.inner, level.is_workflow
    return {**_merged(levels), "workflow": current} if levels else current


def what_is_given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that are absent, also inside objects: null, and "" but for a prompt."""
    parts = {name: _part_given(name, value) for name, value in fields.items()}
    return {name: part for name, part in parts.items() if part is not None and (part != "" or name in MAY_BE_EMPTY)}


def merged_fields(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of two levels: what is given above goes before what is below, also within `output`."""
    above = what_is_given(above)
    both = {**below, **above}
    if isinstance(below.get("output"), dict) and isinstance(above.get("output"), dict):
        both["output"] = {**below["output"], **above["output"]}
    return both


def _part_given(name: str, value: Any) -> Any:
    if name == "output" and isinstance(value, dict):
        return what_is_given(value)
    if name in ("images", "files", "loras") and isinstance(value, list):
        return [what_is_given(entry) if isinstance(entry, dict) else entry for entry in value]
    return value


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "neither JSON nor the name of a stored workflow" if where == "workflow" else "not valid JSON"
        raise InvalidInput(f'{where} is a string that is {what}; send an object like {{"workflow": {{…}}}}') from error


def _looks_like_json(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[")


def _is_workflow(value: Mapping[Any, Any]) -> bool:
    """Whether it is a workflow, in either format."""
    return is_editor_workflow(value) or any(map(_is_node, value.values()))


def _is_node(value: object) -> bool:
    """Whether it is a node in API format."""
    return (
        isinstance(value, dict) and isinstance(value.get("class_type"), str) and isinstance(value.get("inputs"), dict)
    )


class _Level(NamedTuple):
    """One level of an input: its fields under our names, and what is inside; None if nothing is."""

    fields: dict[str, Any]
    inner: object = None
    is_workflow: bool = True
    """Whether what is inside is a workflow, unless it is a level again."""


def _level(given: dict[str, Any]) -> _Level:
    fields = _converted(_with_extra_data(_with_same_fields(what_is_given(given))))
    if isinstance(fields.get("prompt"), dict):
        inner, saved = fields.pop("prompt"), fields.pop("workflow", None)
        if isinstance(saved, dict) and is_editor_workflow(saved):  # the two texts of a picture's metadata
            fields.setdefault("extra_pnginfo", {"workflow": saved})
        return _Level(fields, inner)
    name, payload = fields.get("workflow"), fields.get("payload")
    if isinstance(name, str) and not _looks_like_json(name) and isinstance(payload, (dict, str)):
        del fields["payload"]
        if name == _CUSTOM:
            return _Level({n: value for n, value in fields.items() if n != "workflow"}, payload)
        return _Level(merged_fields(_with_same_fields(payload), fields) if isinstance(payload, dict) else fields)
    for holder in ("workflow", "input"):
        value = fields.get(holder)
        if isinstance(value, dict) or (isinstance(value, str) and _looks_like_json(value)):
            return _Level({n: v for n, v in fields.items() if n != holder}, value, holder == "workflow")
    return _Level(fields)


def _merged(levels: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for fields in reversed(levels):
        result = merged_fields(result, fields)
    return result


def _with_same_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, with those that only have another name under ours."""
    return {(own if (own := SAME_FIELDS.get(name, name)) not in given else name): v for name, v in given.items()}


def _with_extra_data(given: dict[str, Any]) -> dict[str, Any]:
    """What is for nodes, from ComfyUI's `extra_data`; the rest of it stays there."""
    extra = given.get("extra_data")
    if not isinstance(extra, dict):
        return given
    ours = {"extra_pnginfo": "extra_pnginfo", "api_key_comfy_org": "comfy_org_api_key"}
    used = {own: extra[name] for name, own in ours.items() if extra.get(name)}
    rest = {name: value for name, value in extra.items() if name not in ours}
    others = {name: value for name, value in given.items() if name != "extra_data"}
    return {**used, **others, **({"extra_data": rest} if rest else {})}


def _converted(given: dict[str, Any]) -> dict[str, Any]:
    """`output` for Salad's `convert_output`: `{"format": "jpeg", "options": {"quality": 80}}`; what is left stays."""
    asked = given.get("convert_output")
    if not isinstance(asked, dict):
        return given
    options = asked.get("options")
    quality = options.get("quality") if isinstance(options, dict) else None
    used = {"output": what_is_given({"format": asked.get("format"), "quality": quality})}
    is_all = asked.keys() <= {"format", "options"} and (options is None or isinstance(options, dict))
    is_all = is_all and (options or {}).keys() <= {"quality"}
    others = {name: value for name, value in given.items() if name != "convert_output" or not is_all}
    return merged_fields(used, others)
