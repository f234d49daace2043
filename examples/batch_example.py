"""Many jobs at a time: every prompt with every seed, as many in the queue as `--at-a-time` says, saved as they come.

    python examples/batch_example.py --local --workflow workflow.json "a cat" "a dog" --seeds 1 2 3

The endpoint and its key come from where examples/api_example.py takes them; RunPod starts as many workers as the
endpoint allows. Jobs that fail are reported, and the others go on; the exit status is the number of those that failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from examples.api_example import LOCAL, Endpoint, JobError, Json, endpoint_of, generate, read_workflow


async def main() -> int:
    """Run all jobs; the number of those that failed."""
    options = _parse()
    try:
        endpoint, workflow = endpoint_of(options), read_workflow(options.workflow)
    except JobError as error:
        print(error, file=sys.stderr)
        return 1
    slots = asyncio.Semaphore(options.at_a_time)
    jobs = [
        _run_job(slots, endpoint, workflow, prompt, seed, options.output)
        for prompt, seed in product(options.prompts, options.seeds)
    ]
    return sum(await asyncio.gather(*jobs))


async def _run_job(
    slots: asyncio.Semaphore, endpoint: Endpoint, workflow: Json | str | None, prompt: str, seed: int, folder: str
) -> int:
    """Run one job as soon as a slot is free; 1 if it failed, else 0."""
    async with slots:
        try:
            result = await asyncio.to_thread(
                generate, endpoint, workflow, prompt=prompt, seed=seed, folder=Path(folder) / f"seed-{seed}"
            )
        except JobError as error:
            print(f"{prompt[:60]!r}, seed {seed}: {error}", file=sys.stderr)
            return 1
    for file in result.files:
        print(file)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("prompts", nargs="+", metavar="PROMPT")
    add("--workflow", required=True, metavar="FILE.json")
    add("--seeds", type=int, nargs="+", default=[1])
    add("--at-a-time", type=int, default=8, metavar="N")
    add("--output", default="output", metavar="FOLDER")
    add("--endpoint", metavar="ID")
    add("--key")
    add("--local", nargs="?", const=LOCAL, metavar="URL")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
