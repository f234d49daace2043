"""What files need, as text for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from .facts import ModelNeed, Needs, PackNeed

_ORIGINS = {"file": "from the file", "catalog": "from the catalog", "unknown": "?"}


def as_json(found: Iterable[Needs]) -> list[dict[str, Any]]:
    """The facts of each file, as JSON values."""
    return [{**asdict(needs), "questions": list(needs.open)} for needs in found]


def as_table(found: Sequence[Needs]) -> str:
    """The facts of each file, a part for each."""
    return "\n\n".join("\n".join(_lines(needs)) for needs in found)


def _lines(needs: Needs) -> Iterator[str]:
    core = f"   (ComfyUI {needs.core_version} or later)" if needs.core_version else ""
    yield f"{needs.name}{core}"
    yield from _rows("models", [_model(model) for model in needs.models])
    if any(model.is_needed and model.sources and not model.is_there for model in needs.models):
        yield "    DOWNLOAD_MODELS=true downloads those with a source"
    yield from _rows("node packs", [_pack(pack) for pack in needs.packs])
    if sources := [pack.source for pack in needs.packs if pack.is_needed and pack.source]:
        yield f"    CUSTOM_NODES={','.join(sources)}"
    yield from _rows("paid partner nodes (ENABLE_API_NODES, and a key)", [(name,) for name in needs.partner_classes])
    yield from _rows("files to send with a job", [(name,) for name in needs.inputs])
    yield from _rows("Python libraries", [(name,) for name in needs.libraries])
    yield from _rows("open", [(question,) for question in needs.open])
    if needs.open_classes:
        yield "    --lock asks ComfyUI's registry for the pack of a class; --from FOLDER lists your ComfyUI's packs"
    if not (needs.models or needs.packs or needs.inputs or needs.libraries or needs.partner_classes or needs.open):
        yield "  nothing but ComfyUI"


def _rows(head: str, rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Rows with their columns below one another."""
    if not rows:
        return
    yield f"  {head}"
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "    " + "  ".join([*cells, row[-1]]).rstrip()


def _model(model: ModelNeed) -> tuple[str, ...]:
    size = f"{model.size / 1e9:.1f} GB" if model.size else ""
    source = model.sources[0] if model.sources else "?"
    rest = f"{source}{_state(model)}"
    return model.folder or "?", model.file, size, _ORIGINS[model.origin], rest


def _pack(pack: PackNeed) -> tuple[str, ...]:
    versions = ", ".join(pack.versions) or "any version"
    return pack.id or "?", versions, pack.repository or "(registry)", f"{', '.join(pack.classes)}{_state(pack)}"


def _state(need: ModelNeed | PackNeed) -> str:
    """What is to be said of a need besides what it is."""
    said = ["installed"] if need.is_there else ["missing"] if need.is_there is False else []
    said += [] if need.is_needed else ["only nodes that do not run"]
    return f"  ({', '.join(said)})" if said else ""
