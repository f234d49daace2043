"""What an endpoint's settings cost and how long callers wait: a simulation of RunPod's queue and workers.

    python -m benchmarks.scaling [--gpu 4090] [--arrivals day] [--per-hour 60] [--job 10] [--cold-start 30]

Arrivals are steady (Poisson), bursts (ten at once) or a day (a sine over 24 hours). For each pair of max workers and
idle timeout it prints how long jobs wait (median, 95th percentile) and what the billed seconds cost a day. The model
is what RunPod documents: a job that has waited for the queue delay starts another worker, up to the most; a worker is
billed from its start (cold start included) until the idle timeout after its last job has passed. Not in it: pulling
the image, hosts that are out of stock, FlashBoot.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from src.terminal.gpus import PRICES_FROM, GpuPool, find_pool

DAY = 86400.0


@dataclass(frozen=True)
class Endpoint:
    """Settings of an endpoint, and how long its cold start and each job take; all times in seconds."""

    max_workers: int
    idle_timeout: float
    queue_delay: float
    cold_start: float
    job: float
    min_workers: int = 0


@dataclass(frozen=True)
class Outcome:
    """How long each job waited until it began, and the billed worker seconds."""

    waits: tuple[float, ...]
    billed: float

    def percentile(self, share: float) -> float:
        """The wait that this share (0 to 1) of the jobs does not exceed."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(share * len(self.waits)))] if self.waits else 0.0


@dataclass
class _Worker:
    """A worker that boots or is busy until `free_at`, then idle."""

    began: float
    free_at: float
    always_on: bool = False


def simulate(endpoint: Endpoint, arrivals: list[float], until: float = DAY) -> Outcome:
    """Run jobs that arrive at those times (ascending) through an endpoint, first come, first served.

    A queued job goes to the worker that is free first. If none is free within the queue delay and the maximum is not
    reached, another worker is started after that delay; the job takes whichever worker is free first.
    """
    workers = [_Worker(0.0, 0.0, always_on=True) for _ in range(endpoint.min_workers)]
    waits, billed = [], 0.0
    for at in arrivals:
        for worker in [w for w in workers if not w.always_on and w.free_at + endpoint.idle_timeout < at]:
            workers.remove(worker)
            billed += worker.free_at + endpoint.idle_timeout - worker.began
        first = min((worker.free_at for worker in workers), default=math.inf)
        if first > at + endpoint.queue_delay and len(workers) < endpoint.max_workers:
            began = at + endpoint.queue_delay
            workers.append(_Worker(began, began + endpoint.cold_start))
        taker = min(workers, key=lambda worker: worker.free_at)
        start = max(at, taker.free_at)
        taker.free_at = start + endpoint.job
        waits.append(start - at)
    for worker in workers:
        ended = max(until, worker.free_at) if worker.always_on else worker.free_at + endpoint.idle_timeout
        billed += ended - worker.began
    return Outcome(tuple(waits), billed)


def arrivals(kind: str, per_hour: float, seed: int = 1, until: float = DAY) -> list[float]:
    """Times at which jobs arrive in a day: `steady`, `bursts` of ten, or a `day` with its peak at 2 p.m."""
    generator = random.Random(seed)
    return list(_KINDS[kind](per_hour / 3600, generator, until))


def _steady(rate: float, generator: random.Random, until: float) -> Iterator[float]:
    at = generator.expovariate(rate)
    while at < until:
        yield at
        at += generator.expovariate(rate)


def _bursts(rate: float, generator: random.Random, until: float) -> Iterator[float]:
    for at in _steady(rate / 10, generator, until):
        yield from [at] * 10


def _day(rate: float, generator: random.Random, until: float) -> Iterator[float]:
    for at in _steady(2 * rate, generator, until):  # then thinned to between 0 and 2 times the rate
        if generator.random() < (1 + math.cos((at / 3600 - 14) / 24 * 2 * math.pi)) / 2:
            yield at


_KINDS = {"steady": _steady, "bursts": _bursts, "day": _day}


def main() -> None:
    """Print the table, and draw it with `--plot`."""
    options = _parse()
    times = arrivals(options.arrivals, options.per_hour)
    print(f"{len(times)} jobs a day ({options.arrivals}), {options.job:g} s each, cold start {options.cold_start:g} s")
    price, source = _price(options)
    print(f"${price:.5f} a second of a worker: {source}")
    print(f"{'max workers':>11} {'idle s':>7} {'wait s':>7} {'95 % s':>7} {'$ a day':>8} {'$ a job':>8}")
    points = []
    for max_workers in options.max_workers:
        for idle in options.idle_timeout:
            endpoint = Endpoint(
                max_workers, idle, options.queue_delay, options.cold_start, options.job, options.min_workers
            )
            outcome = simulate(endpoint, times)
            cost = outcome.billed * price
            wait, p95 = statistics.median(outcome.waits), outcome.percentile(0.95)
            points.append((max_workers, idle, p95, cost))
            print(f"{max_workers:>11} {idle:>7g} {wait:>7.1f} {p95:>7.1f} {cost:>8.2f} {cost / len(times):>8.4f}")
    if options.plot:
        _plot(points, options.plot)


def _price(options: argparse.Namespace) -> tuple[float, str]:
    """Dollars a second of a worker, and where that is from."""
    if options.price is not None:
        return options.price, "--price"
    gpu: GpuPool = options.gpu
    return gpu.price or 0.0, f"{', '.join(gpu.gpus)} with {gpu.memory} GB, {PRICES_FROM}"


def _priced_gpu(name: str) -> GpuPool:
    """The parser of `--gpu`."""
    try:
        pool = find_pool(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if pool.price is None:
        raise argparse.ArgumentTypeError(f"no price of {name} is known here; give it by --price")
    return pool


def _plot(points: list[tuple[int, float, float, float]], file: Path) -> None:
    from matplotlib import pyplot  # noqa: PLC0415  only needed for the chart

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for max_workers in dict.fromkeys(point[0] for point in points):
        line = [point for point in points if point[0] == max_workers]
        axes.plot(
            [cost for *_, cost in line], [p95 for _, _, p95, _ in line], "o-", label=f"{max_workers} workers at most"
        )
        for _, idle, p95, cost in line:
            axes.annotate(f"{idle:g} s", (cost, p95), fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set_xlabel("dollars a day")
    axes.set_ylabel("wait that 95 % do not exceed, s")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrivals", choices=sorted(_KINDS), default="day")
    parser.add_argument("--per-hour", type=float, default=60.0, help="jobs an hour, on average")
    parser.add_argument("--job", type=float, default=10.0)
    parser.add_argument("--cold-start", type=float, default=30.0)
    parser.add_argument("--queue-delay", type=float, default=4.0)
    parser.add_argument("--min-workers", type=int, default=0)
    parser.add_argument("--max-workers", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--idle-timeout", type=float, nargs="+", default=[5, 10, 30, 60, 300])
    parser.add_argument(
        "--gpu", type=_priced_gpu, default="4090", help="name of a GPU or of a RunPod pool (4090), for its price"
    )
    parser.add_argument("--price", type=float, help="dollars a second of a worker, in place of the GPU's")
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
