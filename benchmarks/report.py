"""The figures of `benchmarks.versus` as a Markdown table and as plots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks import boot

mpl.use("Agg")
from matplotlib import pyplot

Rows = list[tuple[str, float, float, str]]
"""The name of a measure, our figure, the peer's (or the limit), unit."""

OURS, PEER = "ours", "worker-comfyui"


def table(figures: dict[str, Any]) -> str:
    """A Markdown table with one row per measure, and the ratio ours / worker-comfyui."""
    lines = ["| | ours | worker-comfyui | ratio |", "|---|---|---|---|"]
    for what, own, other, unit in rows(figures):
        lines.append(f"| {what} | {own:.3g} {unit} | {other:.3g} {unit} | **{own / other:.2f}** |")
    for what, own, limit, unit in _limit_rows(figures):
        lines.append(f"| {what} ({limit:.3g} {unit}) | {own:.3g} {unit} | | {own / limit:.2f} |")
    return "\n".join(lines)


def rows(figures: dict[str, Any]) -> Rows:
    """The measures that exist for both workers."""
    return [row for name, read_rows in _READERS.items() if name in figures for row in read_rows(figures[name])]


def _limit_rows(figures: dict[str, Any]) -> Rows:
    """The measures with a lower limit: the time of ComfyUI itself and of a client that checks nothing."""
    found = [
        (
            f"cold start, {cache} page cache, compared with ComfyUI's own boot{more} and a bare client",
            statistics.median(seconds[OURS]),
            statistics.median(seconds[limit]),
            "s",
        )
        for limit, more in (("limit", ""), ("limit, nothing deferred", " without deferred imports"))
        for cache, seconds in figures.get("cold", {}).items()
        if limit in seconds
    ]
    by_case = {(e["name"], e["side"], e["pictures"]): statistics.median(e["ms"]) for e in figures.get("overhead", [])}
    for (name, side, pictures), own in by_case.items():
        if name == OURS and ("limit", side, pictures) in by_case:
            what = f"handler overhead, {pictures} x {side}², compared with a bare client"
            found.append((what, own, by_case["limit", side, pictures], "ms"))
    return found


def _cold(cold: dict[str, dict[str, list[float]]]) -> Rows:
    return [
        (f"cold start, {cache} page cache", statistics.median(seconds[OURS]), statistics.median(seconds[PEER]), "s")
        for cache, seconds in cold.items()
    ]


def _busy(busy: list[dict[str, Any]]) -> Rows:
    found = []
    for entry in busy:
        if entry["name"] == OURS:
            other = next(e["each"] for e in busy if e["name"] == PEER and e["job"] == entry["job"])
            line = f", {entry['line']:g} s to send a response" if entry["line"] else ""
            found.append((f"full queue of {entry['job']:g} s jobs{line}, per job", entry["each"], other, "s"))
    return found


def _overhead(entries: list[dict[str, Any]]) -> Rows:
    return _rows_per_case(entries, "handler overhead", lambda entry: statistics.median(entry["ms"]), "ms")


def _memory(entries: list[dict[str, Any]]) -> Rows:
    return _rows_per_case(entries, "handler's peak memory", lambda entry: statistics.median(entry["growth_mb"]), "MB")


def _rows_per_case(
    entries: list[dict[str, Any]], what: str, measure: Callable[[dict[str, Any]], float], unit: str
) -> Rows:
    peers = {(entry["side"], entry["pictures"]): entry for entry in entries if entry["name"] == PEER}
    found = []
    for entry in entries:
        if entry["name"] == OURS:
            side, pictures = entry["side"], entry["pictures"]
            found.append((f"{what}, {pictures} x {side}²", measure(entry), measure(peers[side, pictures]), unit))
    return found


def _memory_bucket(entries: list[dict[str, Any]]) -> Rows:
    what = "handler's peak memory, upload to a bucket"
    return _rows_per_case(entries, what, lambda entry: statistics.median(entry["growth_mb"]), "MB")


_READERS: dict[str, Callable[[Any], Rows]] = {
    "cold": _cold,
    "busy": _busy,
    "overhead": _overhead,
    "memory": _memory,
    "memory_bucket": _memory_bucket,
}


def write(figures: dict[str, Any], folder: Path) -> None:
    """Save the figures (figures.json), their table and one plot per case to a folder; cases not among them stay.

    Its README.md also shows the output of other benchmarks (*.txt) that `python -m benchmarks --write` saved there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "figures.json").exists():
        figures = {**json.loads((folder / "figures.json").read_text(encoding="utf-8")), **figures}
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    plots = [_plot(name, read_rows(figures[name]), folder) for name, read_rows in _READERS.items() if name in figures]
    if "boot" in figures:
        plots.append(folder / "boot.png")
        boot.draw(figures["boot"], plots[-1])
    lines = [
        "# Performance",
        "",
        f"Generated by `python -m benchmarks.versus --write {folder}`: {figures['engine']} on the CPU,",
        f"{figures['machine']}, both workers alternately in one run. Cold starts and full queues are medians of",
        f"{figures['runs']} runs; handler figures are medians of all jobs. Ratios are more reliable than seconds.",
        "",
        table(figures),
        "",
        *[f"![{plot.stem}]({plot.name})\n" for plot in plots],
        *[_section(file) for file in sorted(folder.glob("*.txt"))],
    ]
    (folder / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _section(file: Path) -> str:
    summary, _, printed = file.read_text(encoding="utf-8").partition("\n\n")
    return f"## {summary.rstrip('.')}\n\n`python -m benchmarks.{file.stem}`:\n\n```text\n{printed.rstrip()}\n```\n"


def _plot(name: str, measures: Rows, folder: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.55 * len(measures)), layout="constrained")
    positions = range(len(measures))
    axes.barh(
        [y - 0.2 for y in positions],
        [own for _, own, _, _ in measures],
        0.38,
        label=OURS,
        color="#2a7ae2",
    )
    axes.barh(
        [y + 0.2 for y in positions],
        [other for _, _, other, _ in measures],
        0.38,
        label=PEER,
        color="#b0b7c3",
    )
    axes.set_yticks(list(positions), [what.replace("`", "") for what, _, _, _ in measures], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(measures[0][3])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    file = folder / f"{name}.png"
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
    return file
