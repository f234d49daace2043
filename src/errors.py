"""All exceptions that this worker raises on purpose.

Each class has one of the three `error_type` values of the API, and a finer `error_code` that programs can test. The
message is for people: what is wrong, where, and what would be right. It is shown to the caller, so it must not contain
paths of the worker, tracebacks or secrets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

ErrorType = Literal["validation", "timeout", "internal"]


class WorkerError(Exception):
    """Base class of these exceptions.

    `message` is shown to the caller; `details` are JSON values that the answer has next to it.
    """

    error_type: ClassVar[ErrorType] = "internal"
    error_code: ClassVar[str] = "internal_error"
    retire_worker: ClassVar[bool] = False
    """Whether the worker that raised this should take no further job (RunPod's `refresh_worker`)."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hints: list[str] = []
        """What else the caller may want to know; shown as `warnings`."""


# --- What the caller can fix ---------------------------------------------------------------------------


class InvalidInput(WorkerError):
    """The job's input, or a field of it, is not as documented."""

    error_type: ClassVar[ErrorType] = "validation"
    error_code: ClassVar[str] = "invalid_input"


class InvalidWorkflow(InvalidInput):
    """The workflow is not a graph that ComfyUI could run."""

    error_code: ClassVar[str] = "invalid_workflow"


class GuiFormatWorkflow(InvalidWorkflow):
    """The workflow is in the editor's own save format instead of the API format."""

    error_code: ClassVar[str] = "workflow_format_ui"


class MissingNodeType(InvalidWorkflow):
    """The workflow uses a node class that this ComfyUI does not have."""

    error_code: ClassVar[str] = "missing_node_type"


class BrokenNodeType(InvalidWorkflow):
    """The workflow uses a node class that cannot say what it takes: its node pack is broken."""

    error_code: ClassVar[str] = "broken_node_type"


class MissingModel(InvalidWorkflow):
    """The workflow names a model file that this ComfyUI does not find. `is_all`: nothing else is wrong with it."""

    error_code: ClassVar[str] = "missing_model"

    def __init__(self, message: str, is_all: bool = True, **details: Any) -> None:
        super().__init__(message, **details)
        self.is_all = is_all


class NoOverrideTarget(InvalidInput):
    """An override's node does not exist, does not fit, or cannot be found."""

    error_code: ClassVar[str] = "override_target"


class AmbiguousOverrideTarget(NoOverrideTarget):
    """Several nodes could be meant by an override; the caller has to name one."""

    error_code: ClassVar[str] = "override_target_ambiguous"


class PartnerKeyMissing(InvalidInput):
    """The workflow has paid partner nodes, and neither the job nor the settings have a key for them."""

    error_code: ClassVar[str] = "partner_key_missing"


class StoredWorkflowNotFound(InvalidInput):
    """There is no stored workflow of that name."""

    error_code: ClassVar[str] = "workflow_not_found"


class InputFileRefused(InvalidInput):
    """An input file of the job is not acceptable: its name, size, kind, or source."""

    error_code: ClassVar[str] = "input_file"


class InputFileUnavailable(InvalidInput):
    """What a URL leads to could not be fetched. `status` is the HTTP status of an answer that says so, else None."""

    error_code: ClassVar[str] = "input_file_unavailable"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class NoBucket(InvalidInput):
    """The job requires a bucket, and none is configured."""

    error_code: ClassVar[str] = "no_bucket"


class ResultRefused(WorkerError):
    """RunPod did not accept the result of a job that ran."""

    error_code: ClassVar[str] = "result_refused"


class OutputTooLarge(InvalidInput):
    """The answer would be larger than RunPod delivers: it would be lost silently."""

    error_code: ClassVar[str] = "output_too_large"


# --- Time ---------------------------------------------------------------------------------------------


class JobTimeout(WorkerError):
    """The job did not end within its time budget."""

    error_type: ClassVar[ErrorType] = "timeout"
    error_code: ClassVar[str] = "job_timeout"


class JobStalled(WorkerError):
    """The job's nodes ran, but reported no progress for too long."""

    error_type: ClassVar[ErrorType] = "timeout"
    error_code: ClassVar[str] = "job_stalled"


class BootTimeout(WorkerError):
    """ComfyUI did not answer within its boot budget. `log_tail` is for the operator of the worker."""

    error_type: ClassVar[ErrorType] = "timeout"
    error_code: ClassVar[str] = "comfyui_boot_timeout"
    retire_worker: ClassVar[bool] = True

    def __init__(self, message: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log_tail = log_tail


class ComfyStuck(WorkerError):
    """ComfyUI's process cannot be killed: it hangs in a driver."""

    error_code: ClassVar[str] = "comfyui_stuck"
    retire_worker: ClassVar[bool] = True


# --- What happened while the job ran -------------------------------------------------------------------


class JobCancelled(WorkerError):
    """The caller cancelled the job."""

    error_code: ClassVar[str] = "cancelled"


class NodeFailed(WorkerError):
    """A node raised while the workflow ran."""

    error_code: ClassVar[str] = "node_execution_error"


class OutOfMemory(NodeFailed):
    """A node ran out of GPU memory (or, on a CPU, of memory)."""

    error_code: ClassVar[str] = "out_of_memory"


class CudaFailed(NodeFailed):
    """The GPU or its driver failed; nothing that uses it can be trusted any more."""

    error_code: ClassVar[str] = "cuda_error"
    retire_worker: ClassVar[bool] = True


class RunInterrupted(WorkerError):
    """The run was interrupted inside ComfyUI, not by this worker."""

    error_code: ClassVar[str] = "interrupted"


class OutputMissing(WorkerError):
    """ComfyUI named an output file that is not there."""

    error_code: ClassVar[str] = "output_missing"


class DiskFull(WorkerError):
    """The worker's disk has no room for what a job brings or makes."""

    error_code: ClassVar[str] = "disk_full"


class BucketFailed(WorkerError):
    """The bucket refused an upload or a download, or could not be reached."""

    error_code: ClassVar[str] = "bucket_failed"


class JobBucketFailed(BucketFailed):
    """The job's own bucket refused an upload or a download, or could not be reached."""

    error_type: ClassVar[ErrorType] = "validation"


class OutputRefused(WorkerError):
    """An output file is outside ComfyUI's own folders and is not delivered."""

    error_code: ClassVar[str] = "output_refused"


# --- The engine itself --------------------------------------------------------------------------------


class InvalidSetting(WorkerError):
    """An environment variable has a value that cannot be used."""

    error_code: ClassVar[str] = "invalid_setting"


class InvalidManifest(WorkerError):
    """A model manifest has an entry that cannot be used."""

    error_code: ClassVar[str] = "invalid_manifest"


class UnknownModelSet(WorkerError):
    """There is no set of models, and no model, of that name."""

    error_code: ClassVar[str] = "unknown_model_set"


class ModelRefused(InvalidInput):
    """A model that the job names may not be fetched: its folder, format, or the host of its URL."""

    error_code: ClassVar[str] = "model_refused"


class ModelFetchFailed(WorkerError):
    """A model file could not be fetched from where the manifest says that it is."""

    error_code: ClassVar[str] = "model_fetch_failed"


class ModelGated(ModelFetchFailed):
    """The model is gated: its licence has to be accepted first, or the token has no access to it."""

    error_code: ClassVar[str] = "model_gated"


class ModelCorrupt(ModelFetchFailed):
    """The downloaded file is not the one that the manifest describes."""

    error_code: ClassVar[str] = "model_corrupt"


class NoSpaceForModels(ModelFetchFailed):
    """The disk or the volume has no space for a model file."""

    error_code: ClassVar[str] = "no_space_for_models"


class PackFailed(WorkerError):
    """A node pack could not be fetched, or its libraries could not be installed."""

    error_code: ClassVar[str] = "node_pack_failed"


class UnfitMachine(WorkerError):
    """The machine cannot take jobs."""

    error_code: ClassVar[str] = "unfit_machine"


class ComfyNotFound(WorkerError):
    """No ComfyUI checkout was found."""

    error_code: ClassVar[str] = "comfyui_not_found"


class ComfyBootFailed(WorkerError):
    """ComfyUI died before it answered. `log_tail` is for the operator of the worker, not for callers."""

    error_code: ClassVar[str] = "comfyui_boot_failed"
    retire_worker: ClassVar[bool] = True

    def __init__(self, message: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log_tail = log_tail


class PortTaken(ComfyBootFailed):
    """Another process holds the port that ComfyUI should have."""

    error_code: ClassVar[str] = "port_taken"


class EngineFault(WorkerError):
    """ComfyUI failed a job that may be fine: the job can run again on a fresh process."""

    error_code: ClassVar[str] = "comfyui_fault"


class ComfyCrashed(EngineFault):
    """ComfyUI died, or lost the prompt, while a job ran."""

    error_code: ClassVar[str] = "comfyui_crashed"


class MemoryLimitReached(ComfyCrashed):
    """The kernel ended ComfyUI while a job ran: it reached the memory limit of the container."""

    error_code: ClassVar[str] = "memory_limit_reached"


class ComfyHung(EngineFault):
    """ComfyUI's process lives, but answers nothing and does nothing."""

    error_code: ClassVar[str] = "comfyui_hung"


class ComfyUnreachable(EngineFault):
    """ComfyUI's process lives but did not answer an HTTP request."""

    error_code: ClassVar[str] = "comfyui_unreachable"


class UnexpectedAnswer(WorkerError):
    """ComfyUI gave an answer that its API does not have."""

    error_code: ClassVar[str] = "comfyui_unexpected_answer"
