"""The log: one format with worker and job, as text or as JSON lines, one line about each job, tracebacks as errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from .endpoint.test_endpoint import LONG, serving
from .worker_process import ROOT
from .workflows import raising, still

_PROGRAM = """
import logging
from src import job_log
job_log.configure("INFO", as_json=True)
with job_log.job("job-1"):
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("x").exception("two\\nlines")
"""


def test_json_lines_have_job_worker_and_traceback() -> None:
    environment = {"PATH": "/usr/bin:/bin", "RUNPOD_POD_ID": "pod-7"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["worker"], entry["job"], entry["logger"]) == ("ERROR", "pod-7", "job-1", "x")
    assert entry["message"] == "two\\nlines"
    assert "ZeroDivisionError" in entry["exception"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", entry["time"])


def test_each_job_has_one_line_with_its_seconds_files_and_bytes(tmp_path: Path) -> None:
    for name, arguments in (("text", ()), ("json", ("--workers", "2"))):
        folder = tmp_path / name
        folder.mkdir()
        with serving(folder, *arguments, LOG_FORMAT=name) as served:
            served.wait_for_workers(1)
            served.post("runsync", {"input": {"workflow": still()}})
            served.post("runsync", {"input": {"workflow": {**still(), "9": raising("draft")}}})
            served.process.wait_for_log("error (node_execution_error) after ", LONG)
        text = served.process.log
        assert re.search(r"success after [\d.]+ s, 1 file of [\d,]+ bytes", text), text
        if name == "text":
            assert re.search(r"INFO +worker-1 \S+ worker: success", text)
