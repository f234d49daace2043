"""What is wrong with a workflow, by the schemas of its node classes."""

from __future__ import annotations

from typing import Any

import pytest

from src.workflow.core_classes import core_schemas
from src.workflow.graph import Graph
from src.workflow.schemas import check_nodes


def missing(class_type: str, **inputs: Any) -> list[str]:
    """The inputs that such an output node has to have and lacks."""
    nodes = {"1": {"class_type": class_type, "inputs": inputs}}
    found = check_nodes(Graph(nodes), core_schemas()).get("1", {"errors": []})
    return [
        error["extra_info"]["input_name"] for error in found["errors"] if error["type"] == "required_input_missing"
    ]


@pytest.mark.parametrize(
    ("inputs", "lacking"),
    [
        ({}, ["images.image0"]),
        ({"images.image1": ["2", 0]}, ["images.image0"]),
        ({"images.image0": ["2", 0]}, []),
    ],
)
def test_an_autogrow_needs_as_many_inputs_as_its_template_says(inputs: dict[str, Any], lacking: list[str]) -> None:
    nodes = {
        "1": {"class_type": "BatchImagesNode", "inputs": inputs},
        "2": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    found = check_nodes(Graph(nodes), core_schemas())
    assert [error["extra_info"]["input_name"] for error in found.get("1", {"errors": []})["errors"]] == lacking


@pytest.mark.parametrize(("key", "lacking"), [("mp3", ["format.quality"]), ("flac", [])])
def test_a_dynamic_combo_needs_the_inputs_of_its_key(key: str, lacking: list[str]) -> None:
    assert [name for name in missing("SaveAudioAdvanced", format=key) if name.startswith("format")] == lacking
