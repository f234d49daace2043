"""The simulation of an endpoint, on cases that can be worked out by hand."""

from __future__ import annotations

import re
import statistics

import pytest

from benchmarks.scaling import DAY, Endpoint, arrivals, main, simulate
from src.terminal.gpus import POOLS

from ..worker_process import ROOT

ONE = Endpoint(max_workers=1, idle_timeout=10, queue_delay=4, cold_start=30, job=20)


def test_the_first_job_pays_for_the_queue_delay_and_the_cold_start() -> None:
    outcome = simulate(ONE, [100.0])
    assert outcome.waits == (34.0,)
    assert outcome.billed == 30 + 20 + 10


def test_a_worker_that_idles_takes_the_next_job_at_once_and_a_later_one_finds_it_gone() -> None:
    assert simulate(ONE, [0.0, 60.0]).waits == (34.0, 0.0), "free at 54, idle until 64"
    assert simulate(ONE, [0.0, 65.0]).waits == (34.0, 34.0)
    assert simulate(ONE, [0.0, 65.0]).billed == 2 * 60


def test_jobs_behind_one_worker_wait_for_each_other_and_more_workers_share_them() -> None:
    assert simulate(ONE, [0.0, 0.0, 0.0]).waits == (34.0, 54.0, 74.0)
    three = Endpoint(max_workers=3, idle_timeout=10, queue_delay=4, cold_start=30, job=20)
    assert simulate(three, [0.0, 0.0, 0.0]).waits == (34.0, 34.0, 34.0)


def test_a_worker_that_is_always_on_is_billed_all_day_and_nobody_waits() -> None:
    always = Endpoint(max_workers=1, idle_timeout=10, queue_delay=4, cold_start=30, job=20, min_workers=1)
    outcome = simulate(always, [0.0, 100.0])
    assert outcome.waits == (0.0, 0.0)
    assert outcome.billed == DAY


def test_a_queue_of_random_arrivals_waits_as_queueing_theory_says() -> None:
    """M/D/1 (Pollaczek and Khinchine): mean wait = load x service / (2 (1 - load))."""
    endpoint = Endpoint(max_workers=1, idle_timeout=10, queue_delay=4, cold_start=30, job=10, min_workers=1)
    waits = [statistics.mean(simulate(endpoint, arrivals("steady", 180, seed)).waits) for seed in range(20)]
    assert statistics.mean(waits) == pytest.approx(0.5 * 10 / (2 * 0.5), rel=0.1)


@pytest.mark.parametrize("kind", ["steady", "bursts", "day"])
def test_arrivals_are_as_many_as_was_said_and_in_order(kind: str) -> None:
    times = arrivals(kind, 600)
    assert times == sorted(times) and times[0] > 0 and times[-1] < DAY
    assert len(times) == pytest.approx(24 * 600, rel=0.1)


def test_a_longer_idle_timeout_costs_more_and_waits_less() -> None:
    times = arrivals("day", 60)
    short, long = (simulate(Endpoint(3, idle, 4, 30, 10), times) for idle in (5, 300))
    assert long.billed > short.billed
    assert statistics.mean(long.waits) < statistics.mean(short.waits)


def test_the_price_is_that_of_the_gpu_and_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = ["--per-hour", "6", "--max-workers", "1", "--idle-timeout", "5"]
    shown = []
    for chosen in (["--gpu", "a40"], ["--gpu", "HOPPER_141"], ["--gpu", "a40", "--price", "1"]):
        monkeypatch.setattr("sys.argv", ["scaling", *load, *chosen])
        main()
        shown.append(capsys.readouterr().out)
    assert "$0.00034 a second of a worker: A6000, A40 with 48 GB" in shown[0]
    assert "$0.00155 a second of a worker: H200 with 141 GB" in shown[1]
    assert "$1.00000 a second of a worker: --price" in shown[2]
    a_day = [float(output.splitlines()[-1].split()[4]) for output in shown]
    assert a_day[1] / a_day[0] == pytest.approx(0.00155 / 0.00034, rel=0.02)


@pytest.mark.parametrize(
    ("gpu", "reason"), [("RTX 9999", "unknown GPU 'RTX 9999'; use one of A4000"), ("5090", "give it by --price")]
)
def test_a_gpu_without_a_price_is_an_error_that_says_what_to_do(
    gpu: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scaling", "--gpu", gpu])
    with pytest.raises(SystemExit):
        main()
    assert reason in capsys.readouterr().err


def test_the_documents_have_the_same_pools_and_prices() -> None:
    """The table of GPUs in docs/operations.md."""
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \| (\d+) \| ([\d.]+|unknown) \|",
        (ROOT / "docs/operations.md").read_text(),
        re.MULTILINE,
    )
    said = [
        (pool, gpus, int(memory), None if price == "unknown" else float(price)) for pool, gpus, memory, price in rows
    ]
    assert said == [(pool.id, ", ".join(pool.gpus), pool.memory, pool.price) for pool in POOLS]
