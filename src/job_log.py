"""Logging to stderr: one format with the job's id on each line; and the error why the worker could not start."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import BootTimeout, ComfyBootFailed, WorkerError

_job_id: ContextVar[str] = ContextVar("job_id", default="-")


class _JobIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.job_id = _escaped(_job_id.get())
        record.msg, record.args = _escaped(record.getMessage()), None
        return True


def _escaped(text: str) -> str:
    """`text` on one line, without control characters: input from callers must not pass for log lines of the worker."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def configure(level: str) -> None:
    """Send the log of this process to stderr from `level` up (DEBUG, INFO, WARNING, ERROR)."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(job_id)s %(name)s: %(message)s"))
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
