"""ComfyUI's words, old and new, become ours."""

from __future__ import annotations

from typing import Any

import pytest

from src.comfy.boot_log import FailedPack
from src.comfy.rejection import Engine, explain_failure, explain_rejection
from src.errors import InvalidWorkflow, MissingModel, MissingNodeType, NodeFailed, OutOfMemory, RunInterrupted

from .. import workflows

WORKFLOW = workflows.flux()


def options(class_type: str, name: str) -> list[str]:
    """More than twenty files."""
    return [f"model-{number}.safetensors" for number in range(40)] + ["flux1-dev-fp8.safetensors"]


ENGINE = Engine("ComfyUI 0.33.0", options)


def test_a_missing_model_among_many_asks_for_the_names_and_gives_the_near_ones() -> None:
    extra = {"input_name": "unet_name", "input_config": None, "received_value": "flux1-dev.safetensors"}
    error = {"type": "value_not_in_list", "message": "Value not in list", "details": "", "extra_info": extra}
    body = {"error": {"type": "prompt_outputs_failed_validation"}, "node_errors": {"12": {"errors": [error]}}}
    explained = explain_rejection(body, WORKFLOW, ENGINE)
    assert isinstance(explained, MissingModel)
    said = "node 12 (UNETLoader): unet_name 'flux1-dev.safetensors' was not found in the folder diffusion_models or unet; "
    assert explained.message.startswith(f"{said}similar names there: 'flux1-dev-fp8.safetensors'")
    assert "/runpod-volume/models" in explained.message


@pytest.mark.parametrize(
    "error",
    [
        {
            "type": "invalid_prompt",
            "message": "Cannot execute because node Nope does not exist.",
            "details": "Node ID '#2'",
        },
        {
            "type": "missing_node_type",
            "message": "Node 'Nope' not found",
            "extra_info": {"node_id": "2", "class_type": "Nope"},
        },
    ],
    ids=["0.3.64", "0.12 and later"],
)
def test_a_missing_class_is_recognised_in_old_and_new_versions(error: dict[str, Any]) -> None:
    explained = explain_rejection({"error": error, "node_errors": {}}, WORKFLOW, ENGINE)
    assert isinstance(explained, MissingNodeType)
    assert explained.details["class_type"] == "Nope"


@pytest.mark.parametrize(
    "body", [None, [], {}, {"error": "text"}, {"node_errors": {"6": {"errors": ["?"]}}}, {"node_errors": 5}]
)
def test_an_answer_that_makes_no_sense_is_still_an_error(body: Any) -> None:
    assert isinstance(explain_rejection(body, WORKFLOW, ENGINE), InvalidWorkflow)


def test_many_problems_are_counted_and_not_all_told() -> None:
    error = {"type": "required_input_missing", "message": "", "details": "x", "extra_info": {"input_name": "x"}}
    body = {"node_errors": {"6": {"errors": [error] * 15}}}
    assert explain_rejection(body, WORKFLOW, ENGINE).message.endswith("and 5 more")


def failure(kind: str, **data: Any) -> Any:
    """What a history entry with that last message becomes."""
    messages = [["execution_start", {}], [kind, data]]
    return explain_failure({"status": {"status_str": "error", "completed": False, "messages": messages}}, WORKFLOW)


def test_out_of_memory_is_told_apart_and_says_what_helps() -> None:
    for name, message in (
        ("torch.OutOfMemoryError", ""),
        ("torch.cuda.OutOfMemoryError", "Allocation on device"),
        ("torch.AcceleratorError", "CUDA error: out of memory"),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory"),
        ("MemoryError", ""),
    ):
        explained = failure(
            "execution_error",
            node_id="13",
            node_type="SamplerCustomAdvanced",
            exception_type=name,
            exception_message=message,
        )
        assert isinstance(explained, OutOfMemory)
        assert "13 (SamplerCustomAdvanced)" in explained.message


@pytest.mark.parametrize(
    "message",
    ["CUDA error: an illegal memory access was encountered", "CUBLAS_STATUS_EXECUTION_FAILED", "cuDNN error: X"],
)
def test_a_gpu_that_failed_retires_the_worker(message: str) -> None:
    explained = failure("execution_error", node_id="13", exception_type="RuntimeError", exception_message=message)
    assert (explained.error_code, explained.retire_worker) == ("cuda_error", True)


def test_a_model_that_is_missing_when_the_node_runs_is_a_missing_model() -> None:
    message = "Model in folder 'upscale_models' with filename '4x.pth' not found."
    explained = failure("execution_error", node_id="8", exception_type="FileNotFoundError", exception_message=message)
    assert isinstance(explained, MissingModel)
    assert "'4x.pth' was not found in the folder upscale_models" in explained.message


def test_the_inputs_and_the_traceback_of_a_failed_node_stay_inside() -> None:
    explained = failure(
        "execution_error", node_id="8", node_type="VAEDecode", exception_type="ValueError", exception_message="bad /root/x/y.pt",
        traceback=["secret"], current_inputs={"text": ["private"]},
    )  # fmt: skip
    assert isinstance(explained, NodeFailed)
    assert explained.message == "node 8 (VAEDecode) failed: ValueError: bad …/y.pt"
    assert "secret" not in str(explained.details)
    assert "private" not in str(explained.details)


def test_interrupted_and_unfinished_are_no_success() -> None:
    assert isinstance(failure("execution_interrupted"), RunInterrupted)
    assert isinstance(failure("execution_cached"), NodeFailed)
    assert failure("execution_success") is None
    assert explain_failure({"status": {"status_str": "success", "completed": True, "messages": []}}, WORKFLOW) is None
    assert isinstance(explain_failure({"status": None}, WORKFLOW), NodeFailed)


def test_a_class_whose_pack_could_not_be_imported_is_not_asked_for() -> None:
    failed = FailedPack("ComfyUI-Waves", "No module named 'pywt'")
    engine = Engine("ComfyUI 0.33.0", failed_pack=lambda name: failed if name == "Nope" else None)
    error = {"type": "missing_node_type", "message": "Node 'Nope' not found", "extra_info": {"class_type": "Nope"}}
    explained = explain_rejection({"error": error, "node_errors": {}}, WORKFLOW, engine)
    assert "its node pack ComfyUI-Waves is installed, but ComfyUI 0.33.0 could not import it: No module" in str(
        explained
    )
    assert "install its node pack" not in str(explained)
    error["extra_info"] = {"class_type": "Other"}
    explained = explain_rejection({"error": error, "node_errors": {}}, WORKFLOW, engine)
    assert "ComfyUI 0.33.0 has no such node class; use a newer ComfyUI if it has the class, install" in str(explained)


@pytest.mark.parametrize(
    ("is_core", "value", "is_told"),
    [(True, "krea5", True), (False, "krea5", False), (True, "file.png", False), (True, 5, False)],
    ids=["a choice of ComfyUI's", "of a pack's", "a file", "a number"],
)
def test_a_choice_that_this_version_lacks_may_be_one_of_a_newer(is_core: bool, value: object, is_told: bool) -> None:
    extra = {"input_name": "type", "input_config": [["flux", "sd3"], {}], "received_value": value}
    error = {"type": "value_not_in_list", "message": "Value not in list", "details": "", "extra_info": extra}
    engine = Engine("ComfyUI 0.33.0", is_core=lambda class_type: is_core)
    explained = explain_rejection({"error": {}, "node_errors": {"11": {"errors": [error]}}}, WORKFLOW, engine)
    assert "type must be one of 'flux', 'sd3', not" in str(explained)
    assert ("ComfyUI 0.33.0 does not have it; a newer ComfyUI may" in str(explained)) == is_told
