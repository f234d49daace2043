"""Overrides on every stock template of ComfyUI: none is silently wrong, by a detector that looks at names and values only."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from maintenance.override_report import OVERRIDES, outcome_of, read_workflow, silently_left
from src.workflow.core_classes import core_schemas

from ..workflows import Workflow
from .test_places import diffusion, with_depth

TEMPLATES = Path(str(resources.files("comfyui_workflow_templates_json"))) / "templates"


def left(before: Workflow, changes: dict[str, Any], name: str, *hints: str) -> list[str]:
    """What the detector finds after inputs were set, `NODE.INPUT` each."""
    after = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in before.items()}
    for place, value in changes.items():
        node_id, _, input_name = place.partition(".")
        after[node_id]["inputs"][input_name] = value
    return list(silently_left(before, after, name, hints, core_schemas()))


def test_the_detector_sees_what_was_left_and_hears_warnings() -> None:
    workflow = with_depth()
    assert left(workflow, {"3.steps": 37}, "steps") == ["35.steps='8'"]
    assert left(workflow, {"3.steps": 37}, "steps", "steps was left as it is in 35 (KSampler)") == []
    assert left(workflow, {"3.steps": 37, "35.steps": 37}, "steps") == []
    sized = diffusion(n3=diffusion()["3"], n10={"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": "x"}}, n11={"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 0}})  # fmt: skip
    assert left(sized, {"6.width": 648, "6.height": 424}, "size") == ["11.width='512'", "11.height='512'"]


@pytest.mark.slow
def test_no_override_is_silently_wrong_on_a_stock_template() -> None:
    schemas, counts, wrong = core_schemas(), Counter[str](), list[str]()
    files = sorted(file for file in TEMPLATES.glob("*.json") if not file.name.startswith("index"))
    workflows = {file.stem: workflow for file in files if (workflow := read_workflow(file, schemas))}
    for stem, workflow in workflows.items():
        for name in OVERRIDES:
            outcome = outcome_of(workflow, name, schemas)
            counts[f"{name} {outcome.kind}"] += 1
            wrong.extend([f"{stem}: {name}: {outcome.left}"] if outcome.kind == "wrong" else [])
    print(f"{len(workflows)} of {len(files)} templates: {dict(counts)}")
    assert wrong == []
    assert len(workflows) > 400
    assert counts["prompt placed"] + counts["prompt warned"] > 300
    assert counts["size placed"] + counts["size warned"] > 150
    assert counts["prompt refused"] < 30
