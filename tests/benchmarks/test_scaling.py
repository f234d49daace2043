"""The simulation of an endpoint, on cases that can be worked out by hand."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.scaling import DAY, Endpoint, arrivals, simulate

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
