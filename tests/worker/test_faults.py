"""Every fault is answered, the next job runs, nothing is left behind: on the draft engine and on a real ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import Bench, booted, settings_for
from ..scenarios import SCENARIOS, Scenario, failing, run_scenario


@pytest.fixture(scope="module", params=["draft", pytest.param("real", marks=pytest.mark.slow)])
def own(request: pytest.FixtureRequest, model_paths: Path) -> Iterator[Bench]:
    """An engine of this module's own, to be harmed."""
    with booted(request.param, settings_for(request.param, model_paths)) as bench:
        yield bench


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.strip().replace(" ", "-"))
def test_a_fault_is_answered_and_the_next_job_runs(own: Bench, scenario: Scenario) -> None:
    if own.name not in scenario.engines:
        pytest.skip(f"not on the {own.name} engine")
    outcome = run_scenario(own, scenario)
    assert outcome.is_recovered(scenario), outcome


def test_out_of_memory_restarts_nothing_and_retires_nobody(own: Bench) -> None:
    if own.name == "draft":
        pytest.skip("it has no memory to run out of")
    number = own.engine.generation
    answer = own.run(workflow=failing("out of memory")("real"))
    assert "node 3 (WorkerTestFail) ran out of memory" in answer["error"]
    assert "refresh_worker" not in answer
    assert own.engine.generation == number


def test_a_cuda_error_retires_the_worker(own: Bench) -> None:
    if own.name == "draft":
        pytest.skip("it has no GPU")
    assert own.run(workflow=failing("cuda error")("real"))["refresh_worker"] is True
