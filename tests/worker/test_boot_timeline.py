"""The line that tells where a cold start's seconds went."""

from __future__ import annotations

import re
import subprocess
import sys
import time

from src.worker.boot_timeline import BootTimeline

from ..worker_process import ROOT


def test_spans_are_told_in_order_with_their_beginning_and_end() -> None:
    began = time.monotonic() - 10
    timeline = BootTimeline(began)
    timeline.begin("ComfyUI")
    with timeline.span("RunPod's SDK"):
        time.sleep(0.2)
    timeline.end("ComfyUI")
    assert timeline.summary() == (
        "taking jobs 10.2 s after the process began: imports 0.0-10.0, ComfyUI 10.0-10.2, RunPod's SDK 10.0-10.2"
    )


def test_it_begins_when_the_process_does_not_when_it_is_imported() -> None:
    program = "import time; time.sleep(0.5); from src.worker.boot_timeline import BootTimeline; print(BootTimeline().summary())"
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (seconds,) = re.findall(r"taking jobs (\d+\.\d) s", told)
    assert 0.5 <= float(seconds) < 60
