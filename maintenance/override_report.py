"""Reports where overrides are applied in the workflows of a folder, and whether one is silently wrong.

    python -m maintenance.override_report FOLDER [--object-info FILE] [--verbose]

Accepts workflows in API format and in the editor's format. For each file and each kind of override it reports one of:
placed (and where), warned (placed, with the warnings that the caller gets), refused (with the candidates), no place;
or *wrong*: the override was placed, but its old value remains in another input of the same meaning on which the
output depends, and no warning names that node. Here only an input's name decides its meaning, not the rules that place
overrides. Exits with 1 if anything is wrong.

The schemas are those stored with the worker, or a file with the response of a ComfyUI's /object_info.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.editor import class_types, convert, is_editor_workflow, read_document
from src.errors import AmbiguousOverrideTarget, NoOverrideTarget, WorkerError
from src.overrides import Lora, Overrides, apply_overrides
from src.overrides.overrides import Schemas
from src.workflow import check_workflow
from src.workflow.core_classes import core_schemas
from src.workflow.graph import as_link
from src.workflow.schemas import read_schema
from src.workflow.typed import TypedGraph

OVERRIDES: dict[str, Overrides] = {
    "prompt": Overrides(prompt="a text that stands nowhere else"),
    "negative_prompt": Overrides(negative_prompt="another text that stands nowhere else"),
    "seed": Overrides(seed=987654321),
    "size": Overrides(width=648, height=424),
    "batch_size": Overrides(batch_size=3),
    "steps": Overrides(steps=37),
    "cfg": Overrides(cfg=2.625),
    "guidance": Overrides(guidance=2.375),
    "denoise": Overrides(denoise=0.625),
    "sampler_name": Overrides(sampler_name="dpm_adaptive"),
    "scheduler": Overrides(scheduler="beta"),
    "loras": Overrides(loras=(Lora("style.safetensors"),)),
}
"""One of each kind, with values that no workflow has."""

_MEANINGS = {
    "prompt": r"(^|_)(prompt|text|positive|tags|caption|clip_[lg]|t5xxl|text_[gl])(_|$)",
    "negative_prompt": r"(^|_)(prompt|text|negative)(_|$)",
    "seed": r"^(?!last_)(.*_)?seed$",
    "size": r"(^|_)(width|height)(_|$)",
    "batch_size": r"^batch_size$",
    "steps": r"^steps$",
    "cfg": r"^cfg$|^cfg_(conds|high|low)|_cfg$",
    "guidance": r"^guidance$",
    "denoise": r"^denoise$",
    "sampler_name": r"^sampler_name$",
    "scheduler": r"^scheduler$",
    "loras": "$^",
}
_CUT = re.compile(r"^(start|end)_(at_)?step$|^step$")


@dataclass(frozen=True)
class Outcome:
    """What became of one override in one workflow. `left` are the inputs that make it wrong."""

    kind: str
    details: str
    left: tuple[str, ...] = ()


def outcome_of(workflow: Mapping[str, Any], name: str, schemas: Schemas) -> Outcome:
    """What becomes of the override of that name."""
    try:
        applied = apply_overrides(workflow, OVERRIDES[name], schemas)
    except AmbiguousOverrideTarget as error:
        return Outcome("refused", _candidates(error))
    except NoOverrideTarget as error:
        asks = "computed by" in error.message
        return Outcome("refused" if asks else "no place", _candidates(error) if asks else error.message[:160])
    where = ", ".join(f"{node_id}.{input_name}" for node_id, input_name in applied.changed)
    left = tuple(silently_left(workflow, applied.workflow, name, applied.hints, schemas))
    kind = "wrong" if left else "warned" if applied.hints else "placed"
    return Outcome(kind, f"{where} {list(applied.hints) or ''}".strip(), left)


def silently_left(
    before: Mapping[str, Any], after: Mapping[str, Any], name: str, hints: tuple[str, ...], schemas: Schemas
) -> Iterator[str]:
    """Inputs of the same meaning that still have the old value, at nodes that no warning names."""
    meaning = re.compile(_MEANINGS[name])
    old = {_key(value) for node_id, n, value in _inputs(before) if after[node_id]["inputs"].get(n) != value}
    told = " ".join(hints)
    for node_id in TypedGraph(before, schemas).live:
        for input_name, value in before[node_id]["inputs"].items():
            same = meaning.search(input_name.rpartition(".")[2].lower()) and _key(value) in old and _counts(value)
            is_left = same and after[node_id]["inputs"][input_name] == value and f"{node_id} (" not in told
            if is_left and (name != "size" or _is_old_pair(before, after, node_id, input_name)):
                yield f"{node_id}.{input_name}={str(value)[:40]!r}"
    if name == "steps":
        yield from _cuts_left(before, after, told, schemas)


def _cuts_left(before: Mapping[str, Any], after: Mapping[str, Any], told: str, schemas: Schemas) -> Iterator[str]:
    """Where a part of the steps starts or ends that is neither rescaled nor told, in nodes whose steps changed."""
    changed = {node_id for node_id, n, value in _inputs(before) if after[node_id]["inputs"].get(n) != value}
    for node_id in TypedGraph(before, schemas).live:
        inputs = before[node_id]["inputs"]
        sources = {link.node_id for value in inputs.values() if (link := as_link(value))}
        for name, value in inputs.items():
            is_cut = _CUT.match(name) and type(value) is int and 0 < value < 37 and (sources | {node_id}) & changed
            if is_cut and after[node_id]["inputs"][name] == value and f"{node_id} (" not in told:
                yield f"{node_id}.{name}={value}"


def _is_old_pair(before: Mapping[str, Any], after: Mapping[str, Any], node_id: str, name: str) -> bool:
    """Whether an input is half of a width and a height that a changed node had too."""
    inputs = before[node_id]["inputs"]
    if {"x", "y"} <= inputs.keys():
        return False
    changed = {n: i for n, i, value in _inputs(before) if after[n]["inputs"].get(i) != value}
    pairs = {_pair(before[other]["inputs"], other_name) for other, other_name in changed.items()}
    return _pair(inputs, name) in pairs


def _pair(inputs: Mapping[str, Any], name: str) -> str:
    """The width and the height that an input is part of; for a primitive node, its value."""
    width, height = name.replace("height", "width"), name.replace("width", "height")
    return _key([inputs.get(width), inputs.get(height)])


def _inputs(workflow: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for node_id, node in workflow.items():
        for name, value in node["inputs"].items():
            yield node_id, name, value


def _key(value: Any) -> str:
    return json.dumps(value)


def _counts(value: Any) -> bool:
    """Whether an equal value is hardly by chance."""
    return (len(value.strip()) > 3) if isinstance(value, str) else isinstance(value, (int, float))


def _candidates(error: WorkerError) -> str:
    found = ", ".join(candidate["node_id"] for candidate in error.details.get("candidates", ()))
    return f"candidates {found} ({error.message[:100]})"


def read_workflow(file: Path, schemas: Schemas) -> dict[str, Any] | None:
    """The workflow of a file in API format; None if it is not a workflow or cannot be converted."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if is_editor_workflow(content):
            document = read_document(content)
            content = convert(document, {name: schemas.get(name) for name in class_types(document)}).prompt
        return dict(check_workflow(content))
    except (ValueError, WorkerError):
        return None


def main() -> int:
    """Print a line for each file and override, and a count of each outcome."""
    options = _parse()
    schemas: Schemas = core_schemas()
    if options.object_info:
        answer = json.loads(options.object_info.read_text(encoding="utf-8"))
        schemas = {name: read_schema(entry) for name, entry in answer.items()}
    counts: dict[str, Counter[str]] = {name: Counter() for name in OVERRIDES}
    for file in sorted(options.folder.rglob("*.json")):
        workflow = read_workflow(file, schemas)
        if workflow is None:
            continue
        for name in OVERRIDES:
            outcome = outcome_of(workflow, name, schemas)
            counts[name][outcome.kind] += 1
            if options.verbose or outcome.kind == "wrong":
                print(f"{file.stem}: {name}: {outcome.kind}: {outcome.details} {' '.join(outcome.left)}")
    for name, outcomes in counts.items():
        print(f"{name:>16}: {', '.join(f'{count} {kind}' for kind, count in sorted(outcomes.items()))}")
    return 1 if any(outcomes["wrong"] for outcomes in counts.values()) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--object-info", type=Path, metavar="FILE")
    parser.add_argument("--verbose", action="store_true", help="print every outcome, not only wrong ones")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
