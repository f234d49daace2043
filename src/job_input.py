"""Job dict -> checked, frozen `Request`; the only place that knows the names of input fields."""

from __future__ import annotations

import difflib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import InvalidInput
from .settings import BucketConfig, Delivery, ImageFormat
from .workflow import NODE_FIELDS, Lora, Overrides, Slot, check_workflow, set_inputs
from .workflow.graph import Workflow

Action = Literal["run", "validate", "info"]
FindWorkflow = Callable[[str], object]
"""Name of a stored workflow to what its file holds. Raises InvalidInput, listing the names there are."""

_MAX_SEED = 2**64 - 1
_RANDOM_SEEDS = 2**31
"""A random seed is below this: every node takes it, and JavaScript can read it."""


@dataclass(frozen=True)
class InputFile:
    """A file that a job brings: base64, a data URI or a URL in `source`, for nodes that name `name`.

    `where` is its place in the input, for messages.
    """

    name: str
    source: str = field(repr=False)
    where: str
    is_image: bool


@dataclass(frozen=True)
class OutputOptions:
    """How a job wants its outputs; None means as the worker's settings say.

    `quality` is 1 to 100, `max_side` in pixels, `background` the RGB that transparent parts get in a JPEG.
    """

    format: ImageFormat | None = None
    quality: int | None = None
    max_side: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    delivery: Delivery | None = None
    may_reencode: bool = False
    previews: bool = False
    metadata: bool | None = None


@dataclass(frozen=True)
class Request:
    """One job, checked: nobody re-checks it. `warnings` are told to the caller beside the result.

    `set_inputs` are the inputs that `overrides` wrote into the workflow. `bucket` is the caller's own.
    """

    action: Action = "run"
    workflow: Workflow = field(default_factory=dict)
    overrides: Overrides = field(default_factory=Overrides)
    set_inputs: tuple[Slot, ...] = ()
    files: tuple[InputFile, ...] = ()
    output: OutputOptions = field(default_factory=OutputOptions)
    bucket: BucketConfig | None = None
    extra_pnginfo: Mapping[str, Any] | None = None
    comfy_org_api_key: str = field(default="", repr=False)
    warnings: tuple[str, ...] = ()


# --- The fields, as they come --------------------------------------------------------------------------


def _as_node_id(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _encodable(value: str) -> str:
    value.encode("utf-8")  # UnicodeEncodeError, a ValueError, for half a character (a lone surrogate)
    return value


_Text = Annotated[str, AfterValidator(_encodable)]
_Name = Annotated[_Text, Field(min_length=1, max_length=200)]
_NodeId = Annotated[_Name, BeforeValidator(_as_node_id)]
_Side = Annotated[int, Field(ge=16, le=16384, multiple_of=8)]
_Seed = Annotated[int, Field(ge=0, le=_MAX_SEED)] | Literal["random"]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[_Number, Field(ge=0, le=1)]
_UpTo100 = Annotated[_Number, Field(ge=0, le=100)]
_Strength = Annotated[_Number, Field(ge=-100, le=100)]
_Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
_STRICT = ConfigDict(strict=True, extra="forbid")


class _LoraFields(BaseModel):
    model_config = _STRICT
    name: _Name
    strength: _Strength = 1.0
    strength_clip: _Strength | None = None


class _FileFields(BaseModel):
    model_config = _STRICT
    name: _Name
    image: _Text | None = None
    data: _Text | None = None
    url: _Text | None = None


class _OutputFields(BaseModel):
    model_config = _STRICT
    format: ImageFormat | None = None
    quality: Annotated[int, Field(ge=1, le=100)] | None = None
    max_side: Annotated[int, Field(ge=16, le=16384)] | None = None
    background: _Colour = "#ffffff"
    delivery: Delivery | None = None
    may_reencode: bool = False
    previews: bool = False
    metadata: bool | None = None


class _InputFields(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    action: Action = "run"
    workflow: Any = None
    prompt: _Text | None = None
    negative_prompt: _Text | None = None
    seed: _Seed | None = None
    width: _Side | None = None
    height: _Side | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    steps: Annotated[int, Field(ge=1, le=10000)] | None = None
    cfg: _UpTo100 | None = None
    guidance: _UpTo100 | None = None
    denoise: _Share | None = None
    sampler_name: _Name | None = None
    scheduler: _Name | None = None
    loras: Annotated[list[_LoraFields], Field(max_length=20)] = []
    prompt_node_id: _NodeId | None = None
    negative_prompt_node_id: _NodeId | None = None
    seed_node_id: _NodeId | None = None
    size_node_id: _NodeId | None = None
    batch_size_node_id: _NodeId | None = None
    steps_node_id: _NodeId | None = None
    cfg_node_id: _NodeId | None = None
    guidance_node_id: _NodeId | None = None
    denoise_node_id: _NodeId | None = None
    sampler_name_node_id: _NodeId | None = None
    scheduler_node_id: _NodeId | None = None
    loras_node_id: _NodeId | None = None
    overrides: dict[str, Any] = {}
    images: list[_FileFields] = []
    files: list[_FileFields] = []
    output: _OutputFields = _OutputFields()
    extra_pnginfo: dict[str, Any] | None = None
    comfy_org_api_key: _Text = ""


# What would be right, for the message: "<field> must be <rule>, not <value>".
_SIDE_RULE = "a multiple of 8 between 16 and 16384"
_FILE_RULE = "an object with a name and one of image, data or url"
_RULES = {
    "action": f"one of {', '.join(get_args(Action))}",
    "prompt": "a text (a string in Unicode)",
    "negative_prompt": "a text (a string in Unicode)",
    "seed": f'a whole number without quotes from 0 to {_MAX_SEED}, or "random"',
    "width": _SIDE_RULE,
    "height": _SIDE_RULE,
    "batch_size": "a whole number from 1 to 4096",
    "steps": "a whole number from 1 to 10000",
    "cfg": "a number from 0 to 100",
    "guidance": "a number from 0 to 100",
    "denoise": "a number from 0 to 1",
    "sampler_name": 'the name of a sampler, like "euler"',
    "scheduler": 'the name of a scheduler, like "simple"',
    "loras": 'a list of at most 20 objects like {"name": "style.safetensors", "strength": 0.8}',
    "loras.name": "the name of a file in the folder loras",
    "loras.strength": "a number from -100 to 100",
    "loras.strength_clip": "a number from -100 to 100",
    "overrides": 'an object like {"6": {"inputs": {"text": "a cat"}}}',
    "images": f"a list; each entry {_FILE_RULE}",
    "files": f"a list; each entry {_FILE_RULE}",
    "images.name": "the file name that a node of the workflow has, of at most 200 characters",
    "files.name": "the file name that a node of the workflow has, of at most 200 characters",
    "output": 'an object like {"format": "webp", "quality": 90}',
    "output.format": f"one of {', '.join(get_args(ImageFormat))}",
    "output.quality": "a whole number from 1 to 100",
    "output.max_side": "a number of pixels from 16 to 16384",
    "output.background": 'a colour like "#ffffff"',
    "output.delivery": f"one of {', '.join(get_args(Delivery))}",
    "extra_pnginfo": 'an object like {"workflow": {…}}',
    "comfy_org_api_key": "a text",
    **dict.fromkeys(NODE_FIELDS, "the id of a node in the workflow, a string"),
    **dict.fromkeys(("output.may_reencode", "output.previews", "output.metadata"), "true or false"),
    **dict.fromkeys(
        (f"{kind}.{part}" for kind in ("images", "files") for part in ("image", "data", "url")),
        "a text: base64, a data URI or a URL",
    ),
}


# --- Reading -------------------------------------------------------------------------------------------


def _no_stored_workflow(name: str) -> object:
    raise InvalidInput("workflow must be an object in ComfyUI's API format; there are no stored ones here")


def read_job(job: object, find_workflow: FindWorkflow = _no_stored_workflow) -> Request:
    """The request in a RunPod job, `{"id": …, "input": {"workflow": …, …}}`.

    Raises InvalidInput (InvalidWorkflow for what concerns the workflow), naming the field, what it was and what
    would be right.
    """
    if not isinstance(job, dict):
        raise InvalidInput(f"the job must be an object with an input, not {shown(job)}")
    given = job.get("input")
    if not isinstance(given, dict):
        raise InvalidInput(f'input must be an object like {{"workflow": {{…}}}}, not {shown(given)}')
    fields = _read_fields(given)
    warnings = tuple(_unknown_fields(fields))
    if fields.action == "info":
        return Request("info", warnings=warnings)
    workflow = check_workflow(_workflow(fields, given, find_workflow))
    set_slots: tuple[Slot, ...] = ()
    if fields.overrides:
        workflow, set_slots = set_inputs(workflow, fields.overrides)
        check_workflow(workflow)
    return Request(
        action=fields.action,
        workflow=workflow,
        overrides=_overrides(fields),
        set_inputs=set_slots,
        files=(*_files("images", fields.images), *_files("files", fields.files)),
        output=_output(fields.output),
        bucket=_bucket(job.get("s3Config")),
        extra_pnginfo=fields.extra_pnginfo,
        comfy_org_api_key=fields.comfy_org_api_key,
        warnings=warnings,
    )


def job_id_of(job: object) -> str:
    """The job's id for the log, `-` if it has none."""
    job_id = job.get("id") if isinstance(job, dict) else None
    return job_id[:80] if isinstance(job_id, str) and job_id else "-"


def _read_fields(given: dict[str, Any]) -> _InputFields:
    for name in given:
        if not isinstance(name, str) or not name.isprintable():
            raise InvalidInput(f"the names of input fields must be printable strings, not {shown(name)}")
    try:
        return _InputFields.model_validate(given)
    except ValidationError as error:
        raise _explained(error) from error


def _explained(error: ValidationError) -> InvalidInput:
    """The first problem: the place as the caller wrote it, what would be right, and what was there."""
    problem = error.errors(include_url=False, include_context=False)[0]
    is_unknown = problem["type"] == "extra_forbidden"
    loc = problem["loc"][:-1] if is_unknown else problem["loc"]
    steps = [step for step in loc if isinstance(step, int) or step in _STEPS]
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    field_name = str(steps[0])
    rule_name = ".".join(step for step in steps if isinstance(step, str))
    if problem["type"] == "missing":
        return InvalidInput(f"{place} is missing: it must be {_RULES[rule_name]}", field=field_name)
    if is_unknown:
        parts = ", ".join(_PARTS[field_name].model_fields)
        return InvalidInput(f"{place} has no part {shown(problem['loc'][-1])}; it has {parts}", field=field_name)
    rule = _RULES.get(rule_name, "something else")
    return InvalidInput(f"{place} must be {rule}, not {shown(problem['input'])}", field=field_name)


_PARTS: dict[str, type[BaseModel]] = {
    "loras": _LoraFields,
    "images": _FileFields,
    "files": _FileFields,
    "output": _OutputFields,
}
# Steps of a place that the caller wrote; pydantic adds those of unions and constraints.
_STEPS = frozenset(_InputFields.model_fields).union(*(part.model_fields for part in _PARTS.values()))


def _workflow(fields: _InputFields, given: dict[str, Any], find_workflow: FindWorkflow) -> object:
    """The workflow that came, or the one of that name."""
    workflow = fields.workflow
    if workflow is None:
        raise InvalidInput(f"input has no workflow (an object in ComfyUI's API format); it has {_listed(given)}")
    if not isinstance(workflow, str):
        return workflow
    if not workflow.lstrip().startswith(("{", "[")):
        return find_workflow(workflow)
    try:
        return json.loads(workflow)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("workflow is a text that is neither JSON nor the name of a stored workflow") from error


def _overrides(fields: _InputFields) -> Overrides:
    if (fields.width is None) != (fields.height is None):
        missing = "height" if fields.height is None else "width"
        raise InvalidInput(f"width and height go together: {missing} is missing", field=missing)
    seed = secrets.randbelow(_RANDOM_SEEDS) if fields.seed == "random" else fields.seed
    return Overrides(
        prompt=fields.prompt,
        negative_prompt=fields.negative_prompt,
        seed=seed,
        width=fields.width,
        height=fields.height,
        batch_size=fields.batch_size,
        steps=fields.steps,
        cfg=fields.cfg,
        guidance=fields.guidance,
        denoise=fields.denoise,
        sampler_name=fields.sampler_name,
        scheduler=fields.scheduler,
        loras=tuple(Lora(lora.name, lora.strength, lora.strength_clip) for lora in fields.loras),
        node_ids={name: node_id for name in NODE_FIELDS if (node_id := getattr(fields, name)) is not None},
    )


def _files(kind: str, entries: list[_FileFields]) -> list[InputFile]:
    files = []
    for number, entry in enumerate(entries):
        sources = [source for source in (entry.image, entry.data, entry.url) if source is not None]
        where = f"{kind}[{number}]"
        if len(sources) != 1:
            problem = "none of them" if not sources else "several"
            raise InvalidInput(f"{where} ({shown(entry.name)}) must have one of image, data or url, not {problem}")
        files.append(InputFile(entry.name, sources[0], where, kind == "images"))
    return files


def _output(fields: _OutputFields) -> OutputOptions:
    red, green, blue = bytes.fromhex(fields.background.removeprefix("#"))
    return OutputOptions(**{**fields.model_dump(), "background": (red, green, blue)})


_S3_PARTS = {
    "endpointUrl": "endpoint_url",
    "accessId": "access_key_id",
    "accessSecret": "secret_access_key",
    "bucketName": "name",
}


def _bucket(given: object) -> BucketConfig | None:
    """RunPod's `s3Config`, which stands beside `input` in a request."""
    if given is None:
        return None
    parts = given if isinstance(given, Mapping) else {}
    wrong = [name for name in _S3_PARTS if not isinstance(parts.get(name), str) or not parts[name]]
    if wrong:
        raise InvalidInput(f"s3Config must have the texts {', '.join(_S3_PARTS)}; missing: {', '.join(wrong)}")
    return BucketConfig(**{ours: parts[name] for name, ours in _S3_PARTS.items()}, is_from_job=True)


def _unknown_fields(fields: _InputFields) -> list[str]:
    """A misspelt field would be ignored in silence; say so."""
    known = list(_InputFields.model_fields)
    warnings = []
    for name in list(fields.model_extra or {})[:20]:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        warnings.append(f"input field {shown(name)} is not known and was ignored{hint}")
    return warnings


def shown(value: object) -> str:
    """A value for a message: its JSON kind if it is large, else itself, always printable."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    return ascii(value)[:80] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


def _listed(given: dict[str, Any]) -> str:
    return ", ".join(shown(name) for name in list(given)[:10]) or "no fields"
