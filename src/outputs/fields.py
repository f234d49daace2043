"""The fields of an answer as a schema: what `answer` builds, and what callers may rely on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from ..errors import ErrorType

_CLOSED = ConfigDict(extra="forbid")


class FileEntry(BaseModel):
    """One entry of `files`: its content is `images[image_index]`, `data` (base64), or in a bucket."""

    model_config = _CLOSED
    node_id: str = Field(description="id of the node that produced it")
    name: str = Field(description="its name, with the folders of the workflow's prefix")
    type: Literal["image", "video", "audio", "text", "latent", "file"]
    content_type: str = Field(description="its MIME type as delivered")
    size_bytes: int = Field(ge=0, description="of the file as delivered")
    preview: Literal[True] = Field(default=True, description="present only for what a preview node showed")
    image_index: int = Field(default=0, ge=0, description="of an image returned as base64: its index in images")
    data: str = Field(default="", description="base64 of any other file")
    url: str = Field(default="", description="a link to the file in the bucket")
    bucket: str = Field(default="", description="name of the bucket that it went to")
    key: str = Field(default="", description="its key in that bucket")


class TimingFields(BaseModel):
    """Where the time went, in seconds; `nodes` by node id."""

    model_config = _CLOSED
    inputs: float = Field(ge=0, description="fetching the input files of the job")
    queue: float = Field(ge=0, description="waiting for ComfyUI, behind other jobs")
    execution: float = Field(ge=0, description="running in ComfyUI")
    encode: float = Field(ge=0)
    upload: float = Field(ge=0)
    nodes: dict[str, float]


class Success(BaseModel):
    """A job that went well."""

    model_config = _CLOSED
    status: Literal["success"]
    images: list[str] = Field(description="the images as base64")
    filenames: list[str] = Field(description="their names, in the same order")
    files: list[FileEntry] = Field(description="every file")
    execution_time_seconds: float = Field(ge=0, description="from the job's arrival to its response")
    prompt_id: str = Field(description="ComfyUI's id of the run")
    seed: int = Field(default=0, ge=0, description="seed of the samplers, if they share one")
    converted: Literal[True] = Field(
        default=True, description="present only if the workflow was sent in the editor's save format"
    )
    text: list[str] = Field(default=[], description="texts that nodes show")
    outputs: dict[str, dict[str, Any]] = Field(
        default={}, description="what each node reported to the client, by node id, in ComfyUI's own form"
    )
    warnings: list[str] = []
    timings: TimingFields
    cached_nodes: list[str] = Field(description="ids of nodes whose results came from ComfyUI's cache")
    versions: dict[str, str] = Field(description="of the worker and of ComfyUI")
    refresh_worker: Literal[True] = Field(default=True, description="for RunPod, which removes it from the output")


class Problem(BaseModel):
    """What keeps the worker from running a workflow; a node's also tells `node_id`, `class_type`, `input`, …"""

    model_config = ConfigDict(extra="allow")
    reason: str
    message: str


class EditableField(BaseModel):
    """A field of the input that has a place in the workflow, or `candidates` for it."""

    model_config = _CLOSED
    name: str
    value: Any = None
    node_id: str = ""
    title: str = ""
    candidates: list[dict[str, Any]] = []
    given_in: str = Field("", description="`inputs`: an App Mode input of the workflow, set by the field `inputs`")
    type: str = Field("", description="ComfyUI's type of the input: INT, FLOAT, STRING, BOOLEAN, COMBO, …")
    min: float = Field(0, description="the least value that the input takes")
    max: float = Field(0, description="the largest one")
    step: float = Field(0, description="of the widget in the editor; other values are accepted too")
    options: list[str | float] = Field([], description="the choices of a COMBO, if they are not too many")


class InputPlace(BaseModel):
    """An input of a node that names a file."""

    model_config = _CLOSED
    node_id: str
    title: str
    input: str
    name: Any


class NeededModel(BaseModel):
    """A model that the workflow names: where it is from, and whether it is there."""

    model_config = _CLOSED
    folder: str
    file: str
    sources: list[str]
    origin: Literal["file", "catalog", "unknown"] = Field(
        description="where the sources come from: the workflow itself, or the worker's model catalog"
    )
    sha256: str
    size: int | None
    licence: str
    nodes: list[str]
    is_needed: bool = Field(description="false: only nodes that do not run use it")
    is_there: bool | None


class NeededPack(BaseModel):
    """A node pack that the workflow names: its id in ComfyUI's registry, its repository, the versions that it was."""

    model_config = _CLOSED
    id: str
    repository: str
    versions: list[str]
    classes: list[str]
    is_needed: bool
    is_there: bool | None


class WorkflowNeeds(BaseModel):
    """What a workflow needs besides ComfyUI; what is empty is left out. `questions`: what nothing says."""

    model_config = _CLOSED
    core_version: str = ""
    models: list[NeededModel] = []
    packs: list[NeededPack] = []
    inputs: list[str] = []
    partner_classes: list[str] = Field([], description="classes of ComfyUI's paid partner nodes")
    open_classes: list[str] = Field([], description="node classes that no known node pack provides")
    questions: list[str] = []


class Validation(BaseModel):
    """The answer to `action: validate`."""

    model_config = _CLOSED
    status: Literal["success"]
    valid: bool
    converted: Literal[True] = True
    problems: list[Problem]
    warnings: list[str]
    fields: list[EditableField]
    inputs: list[InputPlace]
    needs: WorkflowNeeds
    versions: dict[str, str]
    execution_time_seconds: float = Field(ge=0)


class FastPath(BaseModel):
    """One of ComfyUI's fast paths, such as its CUDA kernels."""

    model_config = _CLOSED
    name: str
    is_on: bool
    detail: str = Field(description="why it is off, or how it is on")
    remedy: str = Field(description="how to turn it on; empty if unknown")


class Info(BaseModel):
    """The answer to `action: info`."""

    model_config = _CLOSED
    status: Literal["success"]
    engine: str
    versions: dict[str, str]
    devices: list[dict[str, Any]]
    memory: dict[str, int | None] = Field(description="bytes")
    models: dict[str, Any] = Field(description="file names by folder")
    node_packs: dict[str, int] = Field(description="number of node classes by pack")
    failed_node_packs: dict[str, str] = Field(
        description="packs that could not be imported: the exception's last line"
    )
    fast_paths: list[FastPath] = Field(description="ComfyUI's fast paths, as far as this version reports them")
    workflows: list[str] = Field(description="names of stored workflows")
    settings: dict[str, Any]
    disk: dict[str, dict[str, int]] = Field(description="bytes")
    object_info: str = Field("", description="base64 of the gzip of what ComfyUI answers to GET /object_info")
    node_replacements: dict[str, Any] = Field({}, description="what ComfyUI answers to GET /node_replacements")
    all_models: str = Field("", description="base64 of the gzip of a JSON object: all model files by folder")
    warnings: list[str]
    execution_time_seconds: float = Field(ge=0)


class LackingModel(BaseModel):
    """A model that ComfyUI does not find; what is not known of it is left out."""

    model_config = _CLOSED
    name: str = Field(description="as the workflow calls it")
    folder: str = Field(description="ComfyUI's name of it, empty if that is not known")
    source: str = Field("", description="where it can be downloaded")
    size: int = Field(0, gt=0, description="bytes")
    model: str = Field("", description="its name in `python -m src.models fetch`, and in MODELS")


class LackingNode(BaseModel):
    """A node whose class ComfyUI does not have."""

    model_config = _CLOSED
    node_id: str
    class_type: str


class ComfyuiError(BaseModel):
    """What ComfyUI answers to a prompt that it refuses."""

    model_config = _CLOSED
    error: dict[str, Any] = Field(description="`type`, `message`, `details`, `extra_info`")
    node_errors: dict[str, dict[str, Any]] = Field(
        description="by node id: `errors`, each like `error`, `dependent_outputs`, `class_type`"
    )


class Failure(BaseModel):
    """A job that failed; where it helps there is more, such as `field`, `candidates` or `node_errors`."""

    model_config = ConfigDict(extra="allow")
    comfyui_error: ComfyuiError = Field(
        ComfyuiError(error={}, node_errors={}),
        description="of a prompt that ComfyUI refuses: its own answer, shortened",
    )
    missing_nodes: list[LackingNode] = []
    missing_models: list[LackingModel] = []
    status: Literal["error"]
    error_type: ErrorType
    error_code: str = Field(description="the finer reason, for programs")
    error: str = Field(description="what is wrong, where, and what would be right")
    execution_time_seconds: float = Field(ge=0)
    warnings: list[str] = []
    refresh_worker: Literal[True] = True


class ImageOfWorkerComfyui(BaseModel):
    """One entry of `images` in the format of worker-comfyui: a file of any kind."""

    model_config = _CLOSED
    filename: str
    type: Literal["base64", "s3_url"]
    data: str = Field(description="base64, or a link")


class SuccessOfWorkerComfyui(BaseModel):
    """A job that went well, with `output.answer` or `ANSWER_FORMAT` worker-comfyui."""

    model_config = _CLOSED
    images: list[ImageOfWorkerComfyui]
    status: Literal["success_no_images"] = Field("success_no_images", description="present only if there are none")
    errors: list[str] = Field([], description="of a node that failed after others had saved their files")
    text: list[str] = []
    seed: int = Field(default=0, ge=0)
    warnings: list[str] = []
    refresh_worker: Literal[True] = True


class FailureOfWorkerComfyui(BaseModel):
    """A job that failed, in that format."""

    model_config = _CLOSED
    error: str
    details: list[str] = Field(description="what is wrong, one sentence each")
    error_type: ErrorType
    error_code: str
    warnings: list[str] = []
    refresh_worker: Literal[True] = True


class Answer(RootModel[Success | Validation | Info | Failure | SuccessOfWorkerComfyui | FailureOfWorkerComfyui]):
    """`output` of a job that ended."""
