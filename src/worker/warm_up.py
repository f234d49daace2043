"""The workflow that runs before the first job is taken, so that the first caller does not pay for loading models."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

from ..errors import InvalidInput, WorkerError
from ..job.request import Request, read_job
from ..job.run import JobRunner
from ..settings import Settings
from ..workflow.stored import stored_workflow

log = logging.getLogger(__name__)

_RESULT_LIMIT_MB = 1000.0  # the result is not sent anywhere


def read_warm_up(settings: Settings) -> Request | None:
    """The request in WARMUP_WORKFLOW; None if there is none, or if it cannot be used, which is logged."""
    if not settings.warmup_workflow:
        return None
    try:
        return read_job({"input": {"workflow": settings.warmup_workflow}}, lambda name: _find(name, settings))
    except WorkerError as error:
        log.error("WARMUP_WORKFLOW cannot be used: %s", error)
        return None


def _find(name: str, settings: Settings) -> object:
    """What the file of that path holds, else the stored workflow of that name."""
    file = Path(name).expanduser()
    if not file.is_file() and (file.is_absolute() or name.startswith((".", "~"))):
        raise InvalidInput(f"there is no file {name}")
    if not file.is_file():
        return stored_workflow(name, settings)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{file.name} cannot be read as JSON") from error


def warm_up(runner: JobRunner, request: Request) -> None:
    """Run it once. A failure is logged, and jobs are taken nevertheless."""
    started = time.monotonic()
    settings = replace(runner.settings, result_limit=_RESULT_LIMIT_MB, output_delivery="base64")
    request = replace(request, output=replace(request.output, delivery="base64"), bucket=None)
    try:
        replace(runner, settings=settings).run(request, "warm-up", threading.Event(), lambda event: None)
    except WorkerError as error:
        log.error("the warm-up failed: %s: %s", error.error_code, error)
        return
    except Exception:  # the edge of the warm-up: like the handler, it must not cost the worker
        log.exception("the warm-up failed with an unexpected error")
        return
    log.info("warmed up in %.1f s", time.monotonic() - started)
