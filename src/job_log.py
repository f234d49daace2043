"""Logging to stderr: one format with the job's id on each line; and the error why the worker could not start.

Where several workers share a terminal (`--serve --workers 3`), lines have the worker's name too.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import BootTimeout, ComfyBootFailed, WorkerError

_job_id: ContextVar[str] = ContextVar("job_id", default="-")
_worker = os.environ.get("RUNPOD_POD_ID", "")
_TEXT = "%(asctime)s %(levelname)-7s %(job_id)s %(name)s: %(message)s"
_TEXT_OF_SEVERAL = "%(asctime)s %(levelname)-7s %(worker)s %(job_id)s %(name)s: %(message)s"


class _JobIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.job_id = _escaped(_job_id.get())
        record.worker = _worker
        record.msg, record.args = _escaped(record.getMessage()), None
        return True


def _escaped(text: str) -> str:
    """`text` on one line, without control characters: input from callers must not pass for log lines of the worker."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class _JsonLines(logging.Formatter):
    """Each record as one line of JSON; `exception` is the traceback, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname,
            "worker": _worker,
            "job": getattr(record, "job_id", "-"),
            "logger": record.name,
            "message": record.getMessage(),
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({name: value for name, value in entry.items() if value}, ensure_ascii=False)


def configure(level: str, as_json: bool = False, names_worker: bool = False) -> None:
    """Send the log of this process to stderr from `level` up (DEBUG, INFO, WARNING, ERROR), perhaps as JSON lines."""
    lines = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(_TEXT_OF_SEVERAL if names_worker and _worker else _TEXT)
    lines.setFormatter(_JsonLines() if as_json else text)
    lines.addFilter(_JobIdFilter())
    logging.basicConfig(level=level, handlers=[lines], force=True)
    for name in ("urllib3", "botocore", "boto3", "s3transfer"):  # at DEBUG they log signatures and presigned URLs
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def job(job_id: str) -> Iterator[None]:
    """Put `job_id` on every line that is logged inside, also from threads started with this context."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)


def print_error(error: WorkerError) -> None:
    """Print why the worker could not start, after the last lines of ComfyUI's log, unless they are in this log."""
    is_shown = logging.getLogger("comfyui").isEnabledFor(logging.INFO)
    log_tail = error.log_tail if isinstance(error, (ComfyBootFailed, BootTimeout)) and not is_shown else ()
    sys.stderr.writelines(f"    {line}\n" for line in log_tail)
    sys.stderr.write(f"{error.error_code}: {error.message}\n")
    sys.stderr.flush()
