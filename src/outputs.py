"""History entry -> files -> answer; the only place that knows the names of output fields."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .comfy_client import ComfyClient
from .comfy_folders import Folders
from .errors import OutputMissing, OutputRefused, OutputTooLarge, WorkerError
from .prompt_run import Run

_BASE64 = 4 / 3
_MEGABYTE = 1_000_000
_LONGEST_DETAILS = 100_000  # an answer that RunPod refuses for its size would be lost


@dataclass(frozen=True)
class OutputFile:
    """A file that a node reported: where it lies below ComfyUI's folder of that type (output, temp or input)."""

    node_id: str
    filename: str
    subfolder: str
    type: str

    def path(self, folders: Folders) -> Path:
        """Where it lies if it lies in our folders."""
        root = folders.output if self.type == "output" else folders.temp
        return root / self.subfolder / self.filename

    def name(self, folders: Folders, job_folder: str) -> str:
        """The name that the caller expects: as the workflow's prefix has it, without any folder of the worker."""
        path = self.path(folders).resolve()
        for root in (folders.output / job_folder, folders.output):
            if path.is_relative_to(root.resolve()):
                return path.relative_to(root.resolve()).as_posix()
        return Path(self.filename).name


# --- What a run made -----------------------------------------------------------------------------------


def list_files(run: Run) -> list[OutputFile]:
    """Every file of every node, under whatever key, each once, in the order of the workflow's nodes."""
    unique: dict[tuple[str, str, str], OutputFile] = {}
    for file in _reported_files(run):
        unique.setdefault((file.type, file.subfolder, file.filename), file)
    return list(unique.values())


def _reported_files(run: Run) -> Iterator[OutputFile]:
    return (
        OutputFile(node_id, item["filename"], str(item.get("subfolder") or ""), str(item.get("type") or "output"))
        for node_id, output in _outputs_in_order(run)
        for items in output.values()
        if isinstance(items, list)
        for item in items
        if isinstance(item, Mapping) and isinstance(item.get("filename"), str)
    )


def list_texts(run: Run) -> list[str]:
    """Every text that a node shows (PreviewAny and the like), in the order of the workflow's nodes."""
    return [
        text.encode("utf-8", "replace").decode("utf-8")
        for _, output in _outputs_in_order(run)
        if isinstance(output.get("text"), list)
        for text in output["text"]
        if isinstance(text, str)
    ]


def hints(run: Run) -> list[str]:
    """What a caller may wonder about in a run that went well."""
    files = list_files(run)
    if any(file.type == "output" for file in files) or list_texts(run):
        return []
    previews = sum(file.type == "temp" for file in files)
    left_out = f"; its {previews} preview images are left out, SaveImage returns them" if previews else ""
    return [f"the workflow ran, but no node of it saved a file{left_out}"]


def _outputs_in_order(run: Run) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """ComfyUI reports nodes in no fixed order."""
    outputs = run.entry.get("outputs") or {}
    order = {node_id: position for position, node_id in enumerate(run.workflow)}
    for node_id in sorted(outputs, key=lambda node_id: order.get(node_id, len(order))):
        if isinstance(outputs[node_id], Mapping):
            yield node_id, outputs[node_id]


# --- Reading -------------------------------------------------------------------------------------------


def read_files(files: Sequence[OutputFile], folders: Folders, client: ComfyClient, limit_bytes: int) -> list[bytes]:
    """The bytes of the files.

    Raises OutputTooLarge before reading what could not be delivered anyway, OutputMissing (with the `node_ids`) for
    files that are not there, OutputRefused for one outside ComfyUI's folders.
    """
    sizes = [path.stat().st_size for file in files if (path := file.path(folders)).is_file()]
    _check_size(int(sum(sizes) * _BASE64), limit_bytes)
    contents, missing = [], []
    for file in files:
        content = _read(file, folders, client)
        if content is None:
            missing.append(file)
        else:
            contents.append(content)
    if missing:
        node_ids = list(dict.fromkeys(file.node_id for file in missing))
        names = ", ".join(repr(file.filename[:200]) for file in missing[:10])
        raise OutputMissing(f"output files that ComfyUI named are not there: {names}", node_ids=node_ids)
    return contents


def _read(file: OutputFile, folders: Folders, client: ComfyClient) -> bytes | None:
    path = file.path(folders)
    if path.exists():
        if not path.resolve().is_relative_to(folders.root.resolve()) or not path.is_file():
            raise OutputRefused(
                f"node {file.node_id}: its output {file.filename[:200]!r} is outside ComfyUI's output folder"
            )
        return path.read_bytes()
    # Not in our folders: ComfyUI may have been told others, by COMFYUI_ARGS.
    return client.view(file.filename, file.subfolder, file.type)


def remove_files(run: Run | None, folders: Folders, job_folder: str, is_alone: bool) -> None:
    """Delete the job's folder, and what its nodes wrote elsewhere: all that is there if no other job runs."""
    shutil.rmtree(folders.output / job_folder, ignore_errors=True)
    if is_alone:
        left = [*folders.output.glob("*"), *folders.temp.glob("*")]
    else:
        reported = [file.path(folders) for file in list_files(run)] if run else []
        left = [path for path in reported if path.resolve().is_relative_to(folders.root.resolve())]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


# --- Answers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a job made: `contents[i]` are the bytes of the file called `names[i]`."""

    prompt_id: str
    names: Sequence[str]
    contents: Sequence[bytes]
    texts: Sequence[str] = ()
    hints: Sequence[str] = ()


def success_answer(result: Result, warnings: Sequence[str], seconds: float, limit_bytes: int) -> dict[str, Any]:
    """The contract's answer for a job that went well. Raises OutputTooLarge over `limit_bytes` as JSON."""
    answer: dict[str, Any] = {
        "status": "success",
        "images": [base64.b64encode(content).decode("ascii") for content in result.contents],
        "filenames": list(result.names),
        "execution_time_seconds": round(seconds, 3),
        "prompt_id": result.prompt_id,
    }
    if result.texts:
        answer["text"] = list(result.texts)
    if warnings or result.hints:
        answer["warnings"] = [*warnings, *result.hints]
    _check_size(json_size(answer), limit_bytes)
    return answer


def json_size(answer: Mapping[str, Any]) -> int:
    """The bytes that an answer takes as JSON. Raises ValueError for what JSON cannot carry.

    Base64 needs no escapes, so the images are only counted: quotes around each, comma and space between two.
    """
    images = answer["images"]
    rest = len(json.dumps({**answer, "images": []}, allow_nan=False))
    return rest + sum(len(image) + 4 for image in images) - (2 if images else 0)


def failure_answer(error: WorkerError, seconds: float) -> dict[str, Any]:
    """The contract's answer for a job that failed. `error` is a string: the SDK loses anything else."""
    details = error.details if len(json.dumps(error.details)) <= _LONGEST_DETAILS else {}
    answer = {
        **details,
        "status": "error",
        "error_type": error.error_type,
        "error_code": error.error_code,
        "error": error.message,
        "execution_time_seconds": round(seconds, 3),
    }
    return {**answer, "refresh_worker": True} if error.retire_worker else answer


def _check_size(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise OutputTooLarge(
            f"the answer would be {size / _MEGABYTE:.1f} MB, over the limit of {limit_bytes / _MEGABYTE:g} MB "
            "(RESULT_LIMIT_MB; RunPod loses larger ones): make fewer or smaller images, or save them "
            "in a smaller format (SaveAnimatedWEBP writes WebP)",
            size_bytes=size,
            limit_bytes=limit_bytes,
        )
