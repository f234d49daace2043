"""Each fault once: the caller's result, the seconds until the next job worked, and the leftovers.

    python -m benchmarks.faults [--draft]

Runs on a real ComfyUI, or with --draft on the draft engine. Needs the tests' requirements (requirements-dev.txt),
because the faults are those in tests/scenarios.py. Exits with 1 if the worker did not recover from a fault.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from src import job_log
from src.errors import WorkerError
from tests.conftest import booted, settings_for
from tests.scenarios import SCENARIOS, run_scenario
from tests.tiny_models import make_paths


def main() -> int:
    """Print the table; 0 if every row recovered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", action="store_true", help="on the draft engine instead of ComfyUI")
    name = "draft" if parser.parse_args().draft else "real"
    job_log.configure("CRITICAL")
    recovered = []
    with tempfile.TemporaryDirectory() as folder, booted(name, settings_for(name, make_paths(Path(folder)))) as bench:
        print(f"{bench.engine.process.installation.name}\n")
        print(f"{'fault':<42} {'caller got':<22} {'recovered s':>11} {'next job':>9} {'left':>5}")
        for scenario in SCENARIOS:
            if name in scenario.engines:
                outcome = run_scenario(bench, scenario)
                is_recovered = outcome.is_recovered(scenario)
                recovered.append(is_recovered)
                fine = "fine" if outcome.next_is_fine else "FAILED"
                row = f"{scenario.name.strip():<42} {outcome.got:<22} {outcome.seconds:>11.1f} {fine:>9}"
                print(
                    f"{row} {len(outcome.leftovers):>5}{'' if is_recovered else '  <-- not as expected'}", flush=True
                )
    print(f"\n{sum(recovered)} of {len(recovered)} recovered")
    return 0 if all(recovered) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WorkerError as error:
        sys.exit(f"{error.error_code}: {error.message}")
