"""How far a transfer is: lines in a log, a bar on a terminal."""

from __future__ import annotations

import logging
import os
import pty
import select
import subprocess
import sys
import time

import pytest

from src.models import meter
from src.models.meter import Meter, show_progress

from ..worker_process import ROOT


def test_a_line_tells_share_speed_and_time_left() -> None:
    one = Meter("models", 34_000_000_000)
    one.count_existing(4_000_000_000)
    one.count(8_500_000_000)
    line = one.line()
    assert line.startswith("models: 12.50 of 34.00 GB (36 %), ")
    assert " MB/s, " in line
    assert line.endswith(" s left")


def test_without_a_total_it_tells_what_came() -> None:
    one = Meter("models", 0)
    one.count(1_500_000_000)
    assert one.line().startswith("models: 1.50 GB, ")
    assert "left" not in one.line()


def test_a_log_gets_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(meter, "_LINE_SECONDS", 0.05)
    with caplog.at_level(logging.INFO), show_progress(Meter("models", 100)) as one:
        one.count(50)
        end = time.monotonic() + 10
        while caplog.text.count("(50 %)") < 2 and time.monotonic() < end:
            time.sleep(0.02)
    assert caplog.text.count("models: 0.00 of 0.00 GB (50 %)") >= 2


def test_a_terminal_gets_a_bar() -> None:
    code = (
        "import time; from src.models.meter import Meter, show_progress\n"
        "with show_progress(Meter('models', 1000)) as meter:\n    meter.count(500); time.sleep(0.5)\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=theirs)
    process.wait(60)
    assert select.select([ours], [], [], 10)[0]
    said = os.read(ours, 65536).decode()
    os.close(theirs)
    os.close(ours)
    assert "models:  50%" in said
