"""The figures of `benchmarks.versus` as a table in Markdown, and as plots."""

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
"""What, ours, the peer's, unit."""

OURS, PEER = "ours", "worker-comfyui"


def table(figures: dict[str, Any]) -> str:
    """A Markdown table, a row a measure, with the ratio ours / worker-comfyui."""
    lines = ["| | ours | worker-comfyui | ratio |", "|---|---|---|---|"]
    for what, own, other, unit in rows(figures):
        lines.append(f"| {what} | {own:.3g} {unit} | {other:.3g} {unit} | **{own / other:.2f}** |")
    for what, own, limit, unit in _beside_limit(figures):
        lines.append(f"| {what} ({limit:.3g} {unit}) | {own:.3g} {unit} | | {own / limit:.2f} |")
    return "\n".join(lines)


def rows(figures: dict[str, Any]) -> Rows:
    """The measures that both have."""
    return [row for name, read in _CASES.items() if name in figures for row in read(figures[name])]


def _beside_limit(figures: dict[str, Any]) -> Rows:
    """The measures for which there is a limit: what ComfyUI itself and a client that checks nothing take."""
    found = [
        (
            f"cold start, {cache} page cache, beside ComfyUI's own boot and a bare client",
            statistics.median(seconds[OURS]),
            statistics.median(seconds["limit"]),
            "s",
        )
        for cache, seconds in figures.get("cold", {}).items()
        if "limit" in seconds
    ]
    by_case = {(e["name"], e["side"], e["pictures"]): statistics.median(e["ms"]) for e in figures.get("overhead", [])}
    for (name, side, pictures), own in by_case.items():
        if name == OURS and ("limit", side, pictures) in by_case:
            what = f"handler beside ComfyUI, {pictures} x {side}², beside a bare client"
            found.append((what, own, by_case["limit", side, pictures], "ms"))
    return found


def _cold(cold: dict[str, dict[str, list[float]]]) -> Rows:
    return [
        (f"cold start, {cache} page cache", statistics.median(by[OURS]), statistics.median(by[PEER]), "s")
        for cache, by in cold.items()
    ]


def _busy(busy: list[dict[str, Any]]) -> Rows:
    found = []
    for entry in busy:
        if entry["name"] == OURS:
            other = next(e["each"] for e in busy if e["name"] == PEER and e["job"] == entry["job"])
            what = f"full queue of {entry['job']:g} s jobs, `CONCURRENCY={entry['concurrency']}`, a job"
            found.append((what, entry["each"], other, "s"))
    return found


def _overhead(entries: list[dict[str, Any]]) -> Rows:
    return _pairs(entries, "handler beside ComfyUI", lambda entry: statistics.median(entry["ms"]), "ms")


def _memory(entries: list[dict[str, Any]]) -> Rows:
    return _pairs(entries, "handler's peak memory", lambda entry: statistics.median(entry["growth_mb"]), "MB")


def _pairs(entries: list[dict[str, Any]], what: str, read: Callable[[dict[str, Any]], float], unit: str) -> Rows:
    peers = {(entry["side"], entry["pictures"]): entry for entry in entries if entry["name"] == PEER}
    found = []
    for entry in entries:
        if entry["name"] == OURS:
            side, pictures = entry["side"], entry["pictures"]
            found.append((f"{what}, {pictures} x {side}²", read(entry), read(peers[side, pictures]), unit))
    return found


def _memory_bucket(entries: list[dict[str, Any]]) -> Rows:
    what = "handler's peak memory, to a bucket"
    return _pairs(entries, what, lambda entry: statistics.median(entry["growth_mb"]), "MB")


_CASES: dict[str, Callable[[Any], Rows]] = {
    "cold": _cold,
    "busy": _busy,
    "overhead": _overhead,
    "memory": _memory,
    "memory_bucket": _memory_bucket,
}


def write(figures: dict[str, Any], folder: Path) -> None:
    """Keep the figures (figures.json), their table and a plot a case in a folder.

    Its README.md also shows what other benchmarks have left there (`python -m benchmarks --write`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    plots = [_plot(name, read(figures[name]), folder) for name, read in _CASES.items() if name in figures]
    if "boot" in figures:
        plots.append(folder / "boot.png")
        boot.draw(figures["boot"], plots[-1])
    told = [
        "# Performance",
        "",
        f"Made by `python -m benchmarks.versus --write {folder}`: {figures['engine']} on the CPU,",
        f"{figures['machine']}, both workers alternately in one run. Cold starts are medians of {figures['runs']},",
        "handlers of all their jobs, full queues the better of two. Ratios hold better than seconds.",
        "",
        table(figures),
        "",
        *[f"![{plot.stem}]({plot.name})\n" for plot in plots],
        *[_shown(file) for file in sorted(folder.glob("*.txt"))],
    ]
    (folder / "README.md").write_text("\n".join(told).rstrip() + "\n", encoding="utf-8")


def _shown(file: Path) -> str:
    summary, _, printed = file.read_text(encoding="utf-8").partition("\n\n")
    return f"## {summary.rstrip('.')}\n\n`python -m benchmarks.{file.stem}`:\n\n```text\n{printed.rstrip()}\n```\n"


def _plot(name: str, measures: Rows, folder: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.55 * len(measures)), layout="constrained")
    places = range(len(measures))
    axes.barh([place - 0.2 for place in places], [own for _, own, _, _ in measures], 0.38, label=OURS, color="#2a7ae2")
    axes.barh(
        [place + 0.2 for place in places], [other for _, _, other, _ in measures], 0.38, label=PEER, color="#b0b7c3"
    )
    axes.set_yticks(list(places), [what.replace("`", "") for what, _, _, _ in measures], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(measures[0][3])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    file = folder / f"{name}.png"
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
    return file
