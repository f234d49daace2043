"""Job dict -> checked, frozen `Request`; with `fields` the only place that knows the names of input fields."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ..clients import as_own_input, merged_fields
from ..editor import App, Converted, is_editor_workflow, set_app_inputs, with_editor_numbers
from ..errors import InvalidInput, WorkerError
from ..inputs.inline import is_named, with_files_apart
from ..inputs.input_file import InputFile
from ..models.job_models import NamedModel
from ..overrides import NODE_FIELDS, Lora, Overrides, set_inputs
from ..settings import AnswerFormat, BucketConfig, Delivery, ImageFormat, endpoint_and_bucket
from ..workflow import check_workflow
from ..workflow.checks import check_graph, check_json, check_nodes, needs_schemas
from ..workflow.graph import Graph, Slot, Workflow
from ..workflow.leftovers import without_leftovers
from .fields import (
    Action,
    FileFields,
    InputFields,
    OutputFields,
    listed,
    read_fields,
    shown,
    unknown_fields,
)
from .info_parts import InfoPart

Convert = Callable[[dict[str, Any]], Converted]
"""A file of the editor to its API format. Raises GuiFormatWorkflow."""

Mend = Callable[[Workflow], tuple[Workflow, list[str]]]
"""A workflow with odd links without those that do no harm, and warnings. Raises InvalidWorkflow."""

FindWorkflow = Callable[[str], object]
"""Name of a stored workflow to what its file holds. Raises InvalidInput, listing the names there are."""

_RANDOM_SEEDS = 2**31
"""A random seed is below this: every node takes it, and JavaScript can read it."""


@dataclass(frozen=True)
class OutputOptions:
    """How a job wants its outputs; None means as the worker's settings say.

    `quality` is 1 to 100, `max_side` in pixels, `background` the RGB that transparent parts get in a JPEG.
    """

    format: ImageFormat | Literal["original"] | None = None
    quality: int | None = None
    max_side: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    delivery: Delivery | None = None
    may_reencode: bool = False
    previews: bool = False
    live_previews: bool | None = None
    metadata: bool | None = None
    answer: AnswerFormat | None = None


@dataclass(frozen=True)
class Request:
    """One job, checked: it is not checked again. `warnings` are given to the caller with the result.

    `set_inputs` are the inputs that `inputs` and `overrides` wrote into the workflow. `bucket` is the caller's own.
    `is_converted`: the workflow was sent as the editor saves it, and `extra_pnginfo` has that, as if the editor had
    queued it; `app` is what its author chose for App Mode. `parts` are those of `info`.
    """

    action: Action = "run"
    parts: tuple[InfoPart, ...] = ()
    workflow: Workflow = field(default_factory=dict)
    overrides: Overrides = field(default_factory=Overrides)
    set_inputs: tuple[Slot, ...] = ()
    files: tuple[InputFile, ...] = ()
    output: OutputOptions = field(default_factory=OutputOptions)
    bucket: BucketConfig | None = None
    models: tuple[NamedModel, ...] = ()
    extra_pnginfo: Mapping[str, Any] | None = None
    comfy_org_api_key: str = field(default="", repr=False)
    warnings: tuple[str, ...] = ()
    is_converted: bool = False
    app: App | None = None


@dataclass(frozen=True)
class UnreadableInput:
    """Stands for a job's input that could not be read as JSON, and says why."""

    reason: str


# --- Reading -------------------------------------------------------------------------------------------


def _no_stored_workflow(name: str) -> object:
    raise InvalidInput("workflow must be an object in ComfyUI's API format; this worker has no stored workflows")


def _no_conversion(saved: dict[str, Any]) -> Converted:
    return Converted(dict(check_workflow(saved)))  # raises GuiFormatWorkflow


def _as_it_is(workflow: Workflow) -> tuple[Workflow, list[str]]:
    return workflow, []


def read_job(
    job: object,
    find_workflow: FindWorkflow = _no_stored_workflow,
    convert: Convert = _no_conversion,
    mend: Mend = _as_it_is,
    default_workflow: str = "",
) -> Request:
    """The request in a RunPod job, `{"id": …, "input": {"workflow": …, …}}`.

    `default_workflow` is the stored workflow of a job that brings none. Without a `convert`, a workflow in the
    editor's format is refused; without a `mend`, one with a link to a missing node, also where no output needs that.
    Raises InvalidInput (InvalidWorkflow for what concerns the workflow), naming the field, what it was and what
    would be right.
    """
    if not isinstance(job, dict):
        raise InvalidInput(f"the job must be an object with an input, not {shown(job)}")
    given = job.get("input")
    if isinstance(given, UnreadableInput):
        raise InvalidInput(f"input cannot be read: {given.reason}")
    given = as_own_input(given, InputFields.model_fields)
    if not isinstance(given, dict):
        raise InvalidInput(f'input must be an object like {{"workflow": {{…}}}}, not {shown(given)}')
    given, workflow = _with_stored(given, find_workflow, default_workflow)
    fields = read_fields(given)
    warnings = (*unknown_fields(fields), *_unused_node_fields(fields), *_unused_parts(fields))
    if fields.action == "info":
        return Request("info", tuple(fields.parts), warnings=warnings)
    if workflow is None:
        has = listed(given)
        raise InvalidInput(f"input has no workflow (in ComfyUI's API format, or as the editor saves it); it has {has}")
    check_json(fields.extra_pnginfo, "extra_pnginfo")
    request = Request(
        action=fields.action,
        overrides=_overrides(fields),
        files=(*_files("images", fields.images), *_files("files", fields.files)),
        output=_output(fields.output),
        models=tuple(_models(fields)),
        bucket=_bucket(job.get("s3Config")),
        extra_pnginfo=fields.extra_pnginfo,
        comfy_org_api_key=fields.comfy_org_api_key,
        warnings=warnings,
    )
    if is_editor_workflow(workflow):  # last: it needs ComfyUI
        request, workflow = _converted(request, workflow, convert)
    workflow, files, told = _checked(workflow, mend)
    request = replace(request, warnings=(*request.warnings, *told))
    try:
        return _with_values(request, workflow, files, fields)
    except WorkerError as error:
        error.hints[:0] = request.warnings
        raise


def _converted(request: Request, saved: dict[str, Any], convert: Convert) -> tuple[Request, object]:
    """The request with what comes with the editor's file, and that file in API format."""
    saved = with_editor_numbers(saved)
    check_json(saved, "workflow")
    converted = convert(saved)
    request = replace(
        request,
        extra_pnginfo={"workflow": saved, **(request.extra_pnginfo or {})},
        is_converted=True,
        app=converted.app,
        warnings=(*request.warnings, *converted.warnings),
    )
    return request, converted.prompt


def _with_values(request: Request, workflow: Workflow, files: list[InputFile], fields: InputFields) -> Request:
    """The request with its workflow, `inputs` and `overrides` set in it, and the files in it that are needed."""
    set_by_inputs: Mapping[Slot, str] = {}
    set_by_overrides: tuple[Slot, ...] = ()
    if fields.inputs:
        check_json(fields.inputs, "inputs")
        workflow, set_by_inputs = set_app_inputs(workflow, request.app, fields.inputs)
    if fields.overrides:
        workflow, set_by_overrides = set_inputs(workflow, fields.overrides)
    if fields.inputs or fields.overrides:
        workflow, more = with_files_apart(workflow)
        files = [*files, *more]
        check_workflow(workflow)
    for slot in set_by_overrides:
        if slot in set_by_inputs:
            where = f"{slot.name} of node {Graph(workflow).describe(slot.node_id)}"
            raise InvalidInput(
                f"{set_by_inputs[slot]} and overrides would both go into {where}: leave one of them out"
            )
    needed = {file.name: file for file in files if is_named(workflow, file.name)}
    return replace(
        request,
        workflow=workflow,
        files=(*request.files, *needed.values()),
        overrides=replace(request.overrides, set_by_inputs=set_by_inputs),
        set_inputs=(*set_by_inputs, *set_by_overrides),
    )


def _checked(given: object, mend: Mend) -> tuple[Workflow, list[InputFile], list[str]]:
    """The workflow without what only the editor knows and what does no harm, checked; files in it; and warnings."""
    tidied, told = without_leftovers(given)
    workflow, files = with_files_apart(check_nodes(tidied))
    if needs_schemas(workflow):
        workflow, more = mend(workflow)
        told = [*told, *more]
    check_graph(workflow)
    return workflow, files, told


def asked_answer_format(job: object) -> AnswerFormat | None:
    """The format of the answer that a job asks for, where the rest of it cannot be read; None for no such wish."""
    try:
        given = as_own_input(job.get("input") if isinstance(job, dict) else None, InputFields.model_fields)
    except InvalidInput:
        return None
    output = given.get("output") if isinstance(given, dict) else None
    wanted = output.get("answer") if isinstance(output, dict) else None
    return next((known for known in get_args(AnswerFormat) if known == wanted), None)


def job_id_of(job: object) -> str:
    """The job's id for the log, `-` if it has none."""
    job_id = job.get("id") if isinstance(job, dict) else None
    return job_id[:80] if isinstance(job_id, str) and job_id else "-"


def _with_stored(
    given: dict[str, Any], find_workflow: FindWorkflow, default_workflow: str
) -> tuple[dict[str, Any], object]:
    """The input and its workflow: the one in it, or a stored one, whose file may contain other fields too.

    The caller's fields take precedence over those of the file.
    """
    workflow = given.get("workflow", default_workflow or None)
    if not isinstance(workflow, str) or given.get("action") == "info":
        return given, workflow
    content = as_own_input(find_workflow(workflow), InputFields.model_fields)
    if not isinstance(content, dict) or "workflow" not in content:
        return given, content
    stored = {name: value for name, value in content.items() if name not in ("workflow", "action")}
    return merged_fields(stored, given), content["workflow"]


def _unused_node_fields(fields: InputFields) -> list[str]:
    """A warning for each node that is named for a value that is not given."""
    values = {"size_node_id": fields.width, "loras_node_id": fields.loras or None}
    return [
        f"{name} was not used: the job has no {name.removesuffix('_node_id')}"
        for name in NODE_FIELDS
        if getattr(fields, name) is not None
        and values.get(name, getattr(fields, name.removesuffix("_node_id"), None)) is None
    ]


def _unused_parts(fields: InputFields) -> list[str]:
    return ["parts was not used: only action: info has parts"] if fields.parts and fields.action != "info" else []


def _overrides(fields: InputFields) -> Overrides:
    if (fields.width is None) != (fields.height is None):
        missing = "height" if fields.height is None else "width"
        raise InvalidInput(f"width and height are required together: {missing} is missing", field=missing)
    drawn = secrets.randbelow(_RANDOM_SEEDS)
    seed = drawn if fields.seed == "random" else fields.seed
    return Overrides(
        prompt=fields.prompt,
        negative_prompt=fields.negative_prompt,
        seed=seed,
        width=fields.width,
        height=fields.height,
        batch_size=fields.batch_size,
        length=fields.length,
        fps=fields.fps,
        steps=fields.steps,
        cfg=fields.cfg,
        guidance=fields.guidance,
        denoise=fields.denoise,
        sampler_name=fields.sampler_name,
        scheduler=fields.scheduler,
        loras=tuple(Lora(lora.name, lora.strength, lora.strength_clip) for lora in fields.loras),
        drawn_seed=drawn,
        node_ids={name: node_id for name in NODE_FIELDS if (node_id := getattr(fields, name)) is not None},
    )


def _files(kind: str, entries: list[FileFields]) -> list[InputFile]:
    files = []
    for number, entry in enumerate(entries):
        sources = [source for source in (entry.image, entry.data, entry.url) if source is not None]
        where = f"{kind}[{number}]"
        if len(sources) != 1:
            problem = "none of them" if not sources else "several"
            raise InvalidInput(f"{where} ({shown(entry.name)}) must have one of image, data or url, not {problem}")
        files.append(InputFile(entry.name.removesuffix(" [input]"), sources[0], where, kind == "images"))
    return files


def _models(fields: InputFields) -> Iterator[NamedModel]:
    """The models, and LoRAs, of which the job says the URL."""
    for number, entry in enumerate(fields.models):
        yield NamedModel(entry.folder, _slashed(entry.name), entry.url, f"models[{number}]", _lower(entry.sha256))
    for number, lora in enumerate(fields.loras):
        if lora.url is not None:
            yield NamedModel("loras", _slashed(lora.name), lora.url, f"loras[{number}]", _lower(lora.sha256))
        elif lora.sha256 is not None:
            raise InvalidInput(f"loras[{number}] has a sha256 but no url: sha256 requires url", field="loras")


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _lower(digest: str | None) -> str | None:
    return digest.lower() if digest else None


def _output(fields: OutputFields) -> OutputOptions:
    red, green, blue = bytes.fromhex(fields.background.removeprefix("#"))
    return OutputOptions(**{**fields.model_dump(), "background": (red, green, blue)})


_S3_PARTS = ("endpointUrl", "accessId", "accessSecret", "bucketName")


def _bucket(given: object) -> BucketConfig | None:
    """RunPod's `s3Config`, which is next to `input` in a request."""
    if given is None or given == "":
        return None
    parts = given if isinstance(given, Mapping) else {}
    wrong = [name for name in _S3_PARTS if not isinstance(parts.get(name), str) or not parts[name]]
    if wrong:
        raise InvalidInput(
            f"s3Config must have the strings {', '.join(_S3_PARTS)}; missing or invalid: {', '.join(wrong)}"
        )
    endpoint, in_url = endpoint_and_bucket(parts["endpointUrl"].rstrip("/"))
    if in_url not in ("", parts["bucketName"]):
        raise InvalidInput("s3Config.endpointUrl must name the bucket of bucketName, or none")
    return BucketConfig(endpoint, parts["accessId"], parts["accessSecret"], parts["bucketName"], is_from_job=True)
