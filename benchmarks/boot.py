"""Where the seconds of a cold start go, drawn: from the line that a worker logs when it takes jobs.

    python -m benchmarks.boot [WORKER_LOG] [--plot FILE.png]

Without a log it starts a worker here (with the ComfyUI of COMFYUI_PATH) and draws that one's line.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from benchmarks.contenders import comfyui_arguments, kept_bytecode, ours, picture
from src.comfy.install import find_comfyui
from src.settings import read_settings
from tests.loopback_queue import serving

Span = tuple[str, float, float]
"""What, from when to when in seconds since the process began."""

_LINE = re.compile(r"taking jobs [\d.]+ s after the process began: (.+)")
_SPAN = re.compile(r"([^,]+?) (\d+\.\d)-(\d+\.\d)(?:, |$)")
_WIDTH = 60
_HANG = 300.0


def spans(log: str) -> list[Span]:
    """The spans of the last such line of a log; none if it has none."""
    lines = _LINE.findall(log)
    return [(what, float(began), float(ended)) for what, began, ended in _SPAN.findall(lines[-1])] if lines else []


def bars(found: list[Span]) -> str:
    """The spans as lines of text, a bar each."""
    end = max(ended for _, _, ended in found)
    width = max(len(what) for what, _, _ in found)
    lines = []
    for what, began, ended in found:
        left, right = (round(at / end * _WIDTH) for at in (began, ended))
        bar = " " * left + "█" * max(right - left, 1)
        lines.append(f"{what:>{width}} {bar:<{_WIDTH + 1}} {began:.1f}-{ended:.1f} s")
    return "\n".join(lines)


def draw(found: list[Span], file: Path) -> None:
    """The spans as a picture."""
    from matplotlib import pyplot  # noqa: PLC0415  only for a picture

    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.35 * len(found)), layout="constrained")
    axes.barh([what for what, _, _ in found], [max(b - a, 0.02) for _, a, b in found], left=[a for _, a, _ in found])
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the process began")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Print the bars, and draw them if asked to."""
    options = _parse()
    log = options.log.read_text(encoding="utf-8", errors="replace") if options.log else _log_of_a_boot()
    found = spans(log)
    if not found:
        raise SystemExit("the log has no line `taking jobs … s after the process began`: LOG_LEVEL=INFO writes it")
    print(bars(found))
    if options.plot:
        draw(found, options.plot)


def _log_of_a_boot() -> str:
    installation = find_comfyui(read_settings())
    with tempfile.TemporaryDirectory() as folder, kept_bytecode(installation), serving() as queue:
        contender = ours(installation, comfyui_arguments(Path(folder)))
        queue.put("first", {"workflow": picture(0)})
        with contender.started(queue, Path(folder, "worker")) as worker:
            queue.wait_for(1, _HANG)
            return worker.log


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, nargs="?", metavar="WORKER_LOG")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    return parser.parse_args()


if __name__ == "__main__":
    main()
