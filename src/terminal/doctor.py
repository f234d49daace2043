"""What is there and what is missing on this machine, and how to fix it: `python serverless_worker.py --doctor`."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from .. import VERSION
from ..comfy.engine import ComfyEngine
from ..comfy.install import Installation, find_comfyui
from ..errors import ComfyNotFound, WorkerError
from ..models.catalog import known_manifest
from ..models.places import VOLUMES, find_places
from ..settings import BucketConfig, Settings
from ..storage.bucket import Bucket
from ..worker import fitness

_TORCH_SECONDS = 120.0
_TORCH_SCRIPT = (
    "import json, torch; c = torch.cuda.is_available(); "
    "print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.get_device_name(0) if c else None]))"
)


class State(Enum):
    """The result of a check: good, worth knowing, or so bad that the worker cannot run."""

    GOOD = "ok"
    NOTE = "note"
    BAD = "FAILED"


class Use(Enum):
    """What a person may want to do on this machine."""

    DRAFTS = "drafts, without ComfyUI (--draft)"
    COMFYUI = "jobs on this ComfyUI (--test, --serve)"
    RUNPOD = "RunPod's jobs"


_EVERYWHERE = frozenset(Use)
_NOT_DRAFTS = frozenset({Use.COMFYUI, Use.RUNPOD})


class Finding(NamedTuple):
    """What a check found, as text for the user; `what` names the thing that was checked, `needed_for` its uses."""

    what: str
    state: State
    message: str
    needed_for: frozenset[Use] = _EVERYWHERE


def examine(settings: Settings) -> Iterator[Finding]:
    """Run every check, one after the other."""
    yield Finding("Python", State.GOOD, platform.python_version())
    installation: Installation | None = None
    try:
        installation = find_comfyui(settings)
        yield Finding("ComfyUI", State.GOOD, f"{installation.name} in {installation.directory}")
    except ComfyNotFound as error:
        yield Finding("ComfyUI", State.BAD, error.message, _NOT_DRAFTS)
    if installation:
        torch = _torch(installation, settings)
        yield torch
        if torch.state is not State.BAD:
            yield from _boot(installation, settings)
    yield _run_check("GPU driver", lambda: fitness.CHECKS["gpu"](settings), _driver_message(), _NOT_DRAFTS)
    yield _run_check("disk", lambda: fitness.CHECKS["disk"](settings), "enough free space for the files of jobs")
    yield _volume()
    yield from _models(settings, installation)
    yield _bucket("results", settings.bucket, "none; results are in the response, up to RESULT_LIMIT_MB")
    yield _bucket("models", settings.models_bucket, "none; R2_ENDPOINT and the other R2_ settings set one")
    yield from _keys(settings)


def run_doctor(settings: Settings) -> int:
    """Print a line for each check and each use; the exit status: 1 if something keeps RunPod's jobs from running."""
    logging.getLogger().setLevel(logging.ERROR)  # ComfyUI's lines are told in ours
    failed: list[Finding] = []
    try:
        print(f"worker {VERSION}")
        for finding in examine(settings):
            failed += [finding] if finding.state is State.BAD else []
            print(f"{finding.state.value:>6}  {finding.what}: {finding.message}", flush=True)
        print("\nwhat would run here:")
        for use in Use:
            reasons = ", ".join(dict.fromkeys(finding.what for finding in failed if use in finding.needed_for))
            print(f"{'no' if reasons else 'yes':>6}  {use.value}{f': fix {reasons}' if reasons else ''}", flush=True)
    except BrokenPipeError:  # the reader of a pipe has closed it, like `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(bool(failed))


def _torch(installation: Installation, settings: Settings) -> Finding:
    """Whether ComfyUI's Python can import torch, and whether torch finds a GPU."""
    try:
        command = [installation.start[0], "-c", _TORCH_SCRIPT]
        process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TORCH_SECONDS)
        version, cuda, device = json.loads(process.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return Finding(
            "torch",
            State.BAD,
            f"{installation.start[0]} cannot import it: install ComfyUI's requirements.txt into the .venv of its "
            "folder, or name its Python with COMFYUI_PYTHON",
            _NOT_DRAFTS,
        )
    if device:
        return Finding("torch", State.GOOD, f"{version}, {device}")
    if "--cpu" in settings.comfyui_args.split():
        return Finding("torch", State.GOOD, f"{version}, on the CPU (COMFYUI_ARGS)")
    built = f"built for CUDA {cuda}" if cuda else "built without CUDA"
    remedy = "on a machine without a GPU set COMFYUI_ARGS=--cpu"
    return Finding("torch", State.BAD, f"{version}, {built}, finds no GPU: {remedy}", _NOT_DRAFTS)


def _boot(installation: Installation, settings: Settings) -> Iterator[Finding]:
    """Whether ComfyUI boots, which of its fast paths run, and which node packs it could not import."""
    try:
        with ComfyEngine(installation, settings) as engine:
            engine.wait_ready()
            boot_log = engine.process.boot_log
    except WorkerError as error:
        yield Finding("boot", State.BAD, error.message, _NOT_DRAFTS)
        return
    yield Finding("boot", State.GOOD, f"{installation.name} starts")
    for path in boot_log.fast_paths(settings.comfyui_args):
        remedy = f"; to turn it on: {path.remedy}" if path.remedy else ""
        yield Finding("fast path", State.GOOD if path.is_on else State.NOTE, f"{path}{remedy}")
    for pack in boot_log.failed_packs:
        yield Finding("node pack", State.NOTE, str(pack))


def _driver_message() -> str:
    return "answers" if Path("/dev/nvidiactl").exists() else "none, so no NVIDIA GPU"


def _run_check(
    what: str, check: Callable[[], None], message: str, needed_for: frozenset[Use] = _EVERYWHERE
) -> Finding:
    try:
        check()
    except WorkerError as error:
        return Finding(what, State.BAD, error.message, needed_for)
    return Finding(what, State.GOOD, message)


def _volume() -> Finding:
    for place in VOLUMES:
        if place.is_dir():
            free = f"{place}, {shutil.disk_usage(place).free / 1e9:.0f} GB free"
            if os.access(place, os.W_OK):
                return Finding("volume", State.GOOD, free)
            return Finding("volume", State.NOTE, f"{free}, but it is not writable")
    return Finding("volume", State.NOTE, "none; models are in ComfyUI's folder, or downloaded by each new worker")


def _models(settings: Settings, installation: Installation | None) -> Iterator[Finding]:
    """Whether the models named in MODELS are there, or would be downloaded at the start."""
    try:
        models = known_manifest(settings).expand(settings.models)
    except WorkerError as error:
        yield Finding("models", State.BAD, error.message)
        return
    if not models:
        yield Finding("models", State.NOTE, "MODELS is empty; `python -m src.models sets` lists the known sets")
        return
    places = find_places(settings, installation.directory if installation else Path("ComfyUI").absolute())
    missing = [model.file for model in models if places.find(model) is None]
    if not missing:
        yield Finding("models", State.GOOD, f"all {len(models)} of MODELS are installed")
        return
    names = f"{len(missing)} of {len(models)} models of MODELS are missing: {', '.join(missing[:5])}"
    remedy = "they are downloaded at startup (DOWNLOAD_MODELS)"
    if not settings.download_models:
        remedy = "set DOWNLOAD_MODELS=true, or `python -m src.models fetch` them"
    yield Finding("models", State.NOTE if settings.download_models else State.BAD, f"{names}; {remedy}", _NOT_DRAFTS)


def _bucket(purpose: str, config: BucketConfig | None, message_without: str) -> Finding:
    what = f"bucket of {purpose}"
    if config is None:
        return Finding(what, State.NOTE, message_without)
    return _run_check(what, Bucket(config).check, f"{config.name} is accessible", _NOT_DRAFTS)


def _keys(settings: Settings) -> Iterator[Finding]:
    for name, value, use in (
        ("HF_TOKEN", settings.hf_token, "only gated models need one"),
        ("COMFY_ORG_API_KEY", settings.comfy_org_api_key, "only paid partner nodes need one"),
    ):
        message = "set" if value else f"not set; {use}"
        yield Finding(name, State.GOOD if value else State.NOTE, message)
