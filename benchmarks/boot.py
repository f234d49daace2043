"""The phases of a cold start as bars, from the line that a worker logs when it is ready for jobs.

    python -m benchmarks.boot [WORKER_LOG] [--plot FILE.png]

Without WORKER_LOG it starts a worker here (with the ComfyUI in COMFYUI_PATH) and uses that worker's log.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from benchmarks.contenders import cached_bytecode, comfyui_arguments, empty_image_workflow, our_worker
from src.comfy.install import find_comfyui
from src.settings import read_settings
from tests.loopback_queue import serving

Span = tuple[str, float, float]
"""What was done, and its start and end in seconds since the process began."""

_LINE = re.compile(r"taking jobs [\d.]+ s after the process began: (.+)")
_SPAN = re.compile(r"([^,]+?) (\d+\.\d)-(\d+\.\d)(?:, |$)")
_WIDTH = 60
_TIMEOUT_SECONDS = 300.0


def read_spans(log: str) -> list[Span]:
    """The spans of the last `taking jobs` line of a log; empty if there is no such line."""
    lines = _LINE.findall(log)
    return [(what, float(start), float(end)) for what, start, end in _SPAN.findall(lines[-1])] if lines else []


def format_bars(spans: list[Span]) -> str:
    """The spans as text: one line with a bar for each."""
    total = max(end for _, _, end in spans)
    width = max(len(what) for what, _, _ in spans)
    lines = []
    for what, start, end in spans:
        left, right = (round(at / total * _WIDTH) for at in (start, end))
        bar = " " * left + "█" * max(right - left, 1)
        lines.append(f"{what:>{width}} {bar:<{_WIDTH + 1}} {start:.1f}-{end:.1f} s")
    return "\n".join(lines)


def draw(spans: list[Span], file: Path) -> None:
    """Save the spans as a bar chart (PNG)."""
    from matplotlib import pyplot  # noqa: PLC0415  only needed for the chart

    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.35 * len(spans)), layout="constrained")
    axes.barh([what for what, _, _ in spans], [max(b - a, 0.02) for _, a, b in spans], left=[a for _, a, _ in spans])
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the process began")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Print the bars, and draw them with `--plot`."""
    options = _parse()
    log = options.log.read_text(encoding="utf-8", errors="replace") if options.log else _log_of_new_worker()
    spans = read_spans(log)
    if not spans:
        raise SystemExit(
            "the log has no line `taking jobs … s after the process began`; LOG_LEVEL=INFO is needed to log it"
        )
    print(format_bars(spans))
    if options.plot:
        draw(spans, options.plot)


def _log_of_new_worker() -> str:
    installation = find_comfyui(read_settings())
    with tempfile.TemporaryDirectory() as folder, cached_bytecode(installation), serving() as queue:
        contender = our_worker(installation, comfyui_arguments(Path(folder)))
        queue.put("first", {"workflow": empty_image_workflow(0)})
        with contender.started(queue, Path(folder, "worker")) as worker:
            queue.wait_for(1, _TIMEOUT_SECONDS)
            return worker.log


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, nargs="?", metavar="WORKER_LOG")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    return parser.parse_args()


if __name__ == "__main__":
    main()
