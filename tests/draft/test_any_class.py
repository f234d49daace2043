"""Drafts of workflows with classes that nobody here knows: node packs, and ComfyUIs to come."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from src.models.manifest import shipped_manifest
from src.needs import needs_of_workflow

from .. import editor_files, workflows
from ..conftest import Bench, booted, settings_for
from ..needs.test_needs import stock_graphs


@pytest.fixture(scope="module")
def any_bench() -> Iterator[Bench]:
    """The draft engine as `--draft` starts it, but with steps that take no time."""
    settings = settings_for(
        "draft", enable_api_nodes=True, comfy_org_api_key="x", max_input_files=500, save_metadata=True
    )
    settings = replace(settings, comfyui_args="--step-seconds 0")
    with booted("draft of any class", settings) as bench:
        yield bench


def image_of(response: dict[str, Any]) -> Image.Image:
    """Its first image."""
    assert response["status"] == "success", response
    return Image.open(io.BytesIO(base64.b64decode(response["images"][0])))


def with_a_pack() -> dict[str, Any]:
    """A text-to-image workflow in API format whose model, size, latent and image pass through nodes of packs."""
    workflow = workflows.generative()
    sampler = next(node for node in workflow.values() if node["class_type"] == "KSampler")
    save = next(node for node in workflow.values() if node["class_type"] == "SaveImage")
    workflow["90"] = {
        "class_type": "Power Lora (pack)",
        "inputs": {"model": sampler["inputs"]["model"], "lora_1": "x"},
    }
    workflow["91"] = {"class_type": "LatentOfPack", "inputs": {"preset": "square", "width": 256, "height": 128}}
    workflow["92"] = {"class_type": "Switch (pack)", "inputs": {"on": True, "a": ["91", 0]}}
    workflow["93"] = {"class_type": "FilmLook", "inputs": {"image": save["inputs"]["images"], "amount": 0.5}}
    sampler["inputs"] |= {"model": ["90", 0], "latent_image": ["92", 0]}
    save["inputs"]["images"] = ["93", 0]
    return workflow


def test_classes_of_packs_are_stood_in_for_with_a_warning(any_bench: Bench) -> None:
    response = any_bench.run(workflow=with_a_pack(), prompt="a cat", seed=5)
    assert image_of(response).size == (256, 128)
    (warning,) = response["warnings"]
    assert warning.startswith("draft: ")
    assert all(name in warning for name in ("Power Lora (pack)", "LatentOfPack", "Switch (pack)", "FilmLook"))


def test_a_check_says_the_same(any_bench: Bench) -> None:
    response = any_bench.run(workflow=with_a_pack(), action="validate")
    assert response["valid"]
    assert [warning for warning in response["warnings"] if warning.startswith("draft: ")]


def test_an_output_node_of_a_pack_saves_something(any_bench: Bench) -> None:
    workflow = workflows.still()
    save = next(node_id for node_id, node in workflow.items() if node["class_type"] == "SaveImage")
    images = workflow[save]["inputs"]["images"]
    workflow[save] = {"class_type": "VHS_VideoCombine", "inputs": {"images": images, "frame_rate": 8}}
    response = any_bench.run(workflow=workflow)
    assert response["status"] == "success", response
    assert [file["node_id"] for file in response["files"]] == [save]


def test_what_a_node_would_draw_on_a_canvas_is_drawn(any_bench: Bench) -> None:
    with image_of(any_bench.run(workflow="lighthouse", seed=3, width=96, height=64)) as image:
        assert image.size == (96, 64)
        assert image.getcolors(maxcolors=100) is None


def test_a_workflow_of_known_classes_has_no_such_warning(any_bench: Bench) -> None:
    assert not any_bench.run(workflow=workflows.still()).get("warnings")


def test_without_the_option_they_are_missing_as_in_comfyui(draft_bench: Bench) -> None:
    response = draft_bench.run(workflow=with_a_pack())
    assert response["error_code"] == "missing_node_type"
    saved = draft_bench.run(workflow=saved_with_a_pack(named=True))
    assert saved["error_code"] == "workflow_format_ui"


def saved_with_a_pack(named: bool) -> dict[str, Any]:
    """The editor's file of an image that a pack draws and changes; newer editors name the widgets, older ones do not."""
    widgets = {"=width": ("INT", None), "=seed": ("INT", None), "=text": ("STRING", None)} if named else {}
    return editor_files.saved(
        [
            editor_files.saved_node(1, "DrawOfPack", [192, 7, "randomize", "a cat"], widgets, {"IMAGE": "IMAGE"}),
            editor_files.saved_node(2, "ChangeOfPack", ["much"], {"image": ("IMAGE", 1)}, {"IMAGE": "IMAGE"}),
            editor_files.save(3, 2),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    )


def test_a_saved_workflow_is_converted_by_the_names_that_the_file_has(any_bench: Bench) -> None:
    response = any_bench.run(workflow=saved_with_a_pack(named=True))
    with image_of(response) as image:
        assert image.size[0] == 192
        prompt = json.loads(image.info["prompt"])
    assert prompt["1"]["inputs"] == {"width": 192, "seed": 7, "text": "a cat"}
    assert prompt["2"]["inputs"] == {"value_1": "much", "image": ["1", 0]}


def test_a_saved_workflow_without_names_runs_all_the_same(any_bench: Bench) -> None:
    response = any_bench.run(workflow=saved_with_a_pack(named=False))
    assert image_of(response).format == "PNG"
    assert [warning for warning in response["warnings"] if "DrawOfPack" in warning]


@pytest.mark.parametrize("kind", ["workflow>group", "01234567-89ab-cdef-0123-456789abcdef"])
def test_what_is_no_node_is_refused_as_ever(any_bench: Bench, kind: str) -> None:
    content = editor_files.saved(
        [editor_files.saved_node(1, kind, [], outputs={"IMAGE": "IMAGE"}), editor_files.save(2, 1)],
        [[1, 1, 0, 2, 0, "IMAGE"]],
    )
    assert any_bench.run(workflow=content)["error_code"] == "workflow_format_ui"


# --- Stock templates ------------------------------------------------------------------------------------


def data_for(name: str) -> str:
    """Base64 of a file for an input of that name: a tone for audio, else an image."""
    stream = io.BytesIO()
    if name.lower().endswith((".wav", ".mp3", ".flac", ".ogg", ".m4a", ".opus")):
        with wave.open(stream, "wb") as written:
            written.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
            written.writeframes(bytes(1600))
    else:
        Image.new("RGB", (64, 64), "red").save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def runnable() -> list[tuple[str, dict[str, Any]]]:
    """The stock graphs that have an output: blueprints are parts of workflows and often have none."""
    contents = [(file.name, json.loads(file.read_text(encoding="utf-8"))) for file in stock_graphs()]
    return [(name, content) for name, content in contents if isinstance(content, dict) and "nodes" in content]


@pytest.mark.slow
def test_stock_templates_run(any_bench: Bench) -> None:
    """All but those that need a ComfyUI newer than the schemas of its own classes here, or a browser."""

    def run(graph: tuple[str, dict[str, Any]]) -> dict[str, Any]:
        inputs = needs_of_workflow(*graph, shipped_manifest()).inputs
        files = [{"name": file, "data": data_for(file)} for file in inputs if not file.endswith("]")]
        return any_bench.run(workflow=graph[1], files=files)

    ended, wrong, graphs = Counter[str](), [], runnable()
    with ThreadPoolExecutor(3) as pool:
        responses = list(pool.map(run, graphs))
    for (name, _), response in zip(graphs, responses, strict=True):
        ended[response.get("error_code", "success")] += 1
        if response.get("error_code") not in (None, "workflow_format_ui", "invalid_workflow"):
            wrong.append(f"{name}: {response['error']}")
    assert ended["success"] >= 500
    assert wrong == []
