"""The stored node classes are those of a real ComfyUI, as far as types go."""

from __future__ import annotations

import pytest

from src.workflow.core_classes import core_object_info, core_schemas, excerpt

from ..conftest import Bench


def test_the_stored_classes_are_those_of_the_version_that_the_image_has(bench: Bench) -> None:
    if bench.name == "draft" or not bench.engine.version.startswith("0.33"):
        pytest.skip("they are those of ComfyUI 0.33.0")
    theirs = bench.engine.client.all_schemas()
    for name, schema in core_schemas().items():
        if schema.is_partner:  # off by default
            continue
        assert {n: config.kind for n, config in schema.inputs.items()} == {
            n: config.kind for n, config in theirs[name].inputs.items()
        }, name
        assert (schema.outputs, schema.output_names) == (theirs[name].outputs, theirs[name].output_names), name
        assert schema.is_output == theirs[name].is_output, name


def test_of_an_answer_only_what_is_needed_is_stored() -> None:
    entry = {
        "input": {
            "required": {"text": ["STRING", {"multiline": True, "tooltip": "long"}]},
            "hidden": {"id": "UNIQUE_ID"},
        },
        "output": ["CONDITIONING"],
        "output_name": ["CONDITIONING"],
        "output_node": False,
        "display_name": "Encode",
        "description": "long",
        "python_module": "nodes",
    }
    stored = excerpt({"Encode": entry, "OfAPack": {**entry, "python_module": "custom_nodes.pack"}})
    assert list(stored) == ["Encode"]
    assert stored["Encode"]["input"] == {"required": {"text": ["STRING", {"multiline": True}]}}
    assert "description" not in stored["Encode"]


def test_what_is_stored_names_no_file_of_anybody() -> None:
    options = (o for s in core_schemas().values() for c in s.inputs.values() for o in c.options or ())
    names = {option for option in options if str(option).endswith((".safetensors", ".ckpt", ".png", ".glb", ".mp4"))}
    assert names <= {"example.png"}
    assert len(core_object_info()) > 800
