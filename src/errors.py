"""Everything this worker raises on purpose, drawn as a tree.

Each class says which of the contract's three `error_type` values it is, and a finer `error_code` that
programs can test. The message is for people: what is wrong, where, and what would be right. It is shown
to the caller, so it holds no path of the worker, no traceback and no secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

ErrorType = Literal["validation", "timeout", "internal"]


class WorkerError(Exception):
    """Base of all our errors.

    `message` is shown to the caller; `details` are JSON values that are put beside it in the answer.
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
        """What the caller may want to know beside; told as `warnings`."""


# --- What the caller can mend -------------------------------------------------------------------------


class InvalidInput(WorkerError):
    """The job's input, or a field of it, is not what the contract says."""

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
    """The workflow has paid partner nodes, and nobody gave a key for them."""

    error_code: ClassVar[str] = "partner_key_missing"


class StoredWorkflowNotFound(InvalidInput):
    """There is no stored workflow of that name."""

    error_code: ClassVar[str] = "workflow_not_found"


class InputFileRefused(InvalidInput):
    """A file that the job brings is not what it should be: name, size, kind, or where it comes from."""

    error_code: ClassVar[str] = "input_file"


class InputFileUnavailable(InvalidInput):
    """A file that the job names by URL could not be fetched."""

    error_code: ClassVar[str] = "input_file_unavailable"


class NoBucket(InvalidInput):
    """The job wants a bucket, and there is none."""

    error_code: ClassVar[str] = "no_bucket"


class OutputTooLarge(InvalidInput):
    """The answer would be larger than RunPod delivers, which would lose it in silence."""

    error_code: ClassVar[str] = "output_too_large"


# --- Time ---------------------------------------------------------------------------------------------


class JobTimeout(WorkerError):
    """The job did not end within its time budget."""

    error_type: ClassVar[ErrorType] = "timeout"
    error_code: ClassVar[str] = "job_timeout"


class JobStalled(WorkerError):
    """The job's nodes ran, but told of no progress for too long."""

    error_type: ClassVar[ErrorType] = "timeout"
    error_code: ClassVar[str] = "job_stalled"


class BootTimeout(WorkerError):
    """ComfyUI did not answer within its boot budget. `log_tail` is for the one who operates the worker."""

    error_type: ClassVar[ErrorType] = "timeout"
    error_code: ClassVar[str] = "comfyui_boot_timeout"
    retire_worker: ClassVar[bool] = True

    def __init__(self, message: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log_tail = log_tail


class ComfyStuck(WorkerError):
    """The system cannot end ComfyUI's process: it waits in a driver."""

    error_code: ClassVar[str] = "comfyui_stuck"
    retire_worker: ClassVar[bool] = True


# --- What happened while it ran -----------------------------------------------------------------------


class JobCancelled(WorkerError):
    """The caller withdrew the job."""

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
    """Somebody else stopped the run inside ComfyUI."""

    error_code: ClassVar[str] = "interrupted"


class OutputMissing(WorkerError):
    """ComfyUI named an output file that is not there."""

    error_code: ClassVar[str] = "output_missing"


class BucketFailed(WorkerError):
    """The bucket refused an upload or a download, or could not be reached."""

    error_code: ClassVar[str] = "bucket_failed"


class JobBucketFailed(BucketFailed):
    """The bucket that the job itself brought refused an upload or a download, or could not be reached."""

    error_type: ClassVar[ErrorType] = "validation"


class OutputRefused(WorkerError):
    """An output lies outside ComfyUI's own folders and is not handed out."""

    error_code: ClassVar[str] = "output_refused"


# --- The engine itself --------------------------------------------------------------------------------


class InvalidSetting(WorkerError):
    """An environment variable has a value that cannot be used."""

    error_code: ClassVar[str] = "invalid_setting"


class InvalidManifest(WorkerError):
    """A manifest of models has an entry that cannot be used."""

    error_code: ClassVar[str] = "invalid_manifest"


class UnknownModelSet(WorkerError):
    """There is no set of models, and no model, of that name."""

    error_code: ClassVar[str] = "unknown_model_set"


class ModelFetchFailed(WorkerError):
    """A model file could not be fetched from where the manifest says that it is."""

    error_code: ClassVar[str] = "model_fetch_failed"


class ModelGated(ModelFetchFailed):
    """Its licence has to be accepted first, or the token has no right to it."""

    error_code: ClassVar[str] = "model_gated"


class ModelCorrupt(ModelFetchFailed):
    """What came is not the file that the manifest describes."""

    error_code: ClassVar[str] = "model_corrupt"


class NoSpaceForModels(ModelFetchFailed):
    """The disk or the volume has no room for a model file."""

    error_code: ClassVar[str] = "no_space_for_models"


class UnfitMachine(WorkerError):
    """The machine cannot take jobs."""

    error_code: ClassVar[str] = "unfit_machine"


class ComfyNotFound(WorkerError):
    """No ComfyUI checkout where we looked."""

    error_code: ClassVar[str] = "comfyui_not_found"


class ComfyBootFailed(WorkerError):
    """ComfyUI died before it answered. `log_tail` is for the one who operates the worker, not for callers."""

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


class ComfyHung(EngineFault):
    """ComfyUI's process lives, but answers nothing and does nothing."""

    error_code: ClassVar[str] = "comfyui_hung"


class ComfyUnreachable(EngineFault):
    """ComfyUI's process lives but did not answer an HTTP request."""

    error_code: ClassVar[str] = "comfyui_unreachable"


class UnexpectedAnswer(WorkerError):
    """ComfyUI answered something that its protocol does not have."""

    error_code: ClassVar[str] = "comfyui_unexpected_answer"
