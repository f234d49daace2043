"""What is refused before it costs a worker is refused as ComfyUI refuses it, and nothing that ComfyUI would run."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import pytest
import requests

from src.draft.schema import object_info
from src.gateway.checking import validate
from src.protocol.executor import ValidationResult
from src.workflow.schemas import NodeSchema, read_schema

from .. import workflows
from ..conftest import Bench
from ..workflows import node


def still(**nodes: Any) -> dict[str, Any]:
    """A picture that is saved, with other nodes: `n1` is node 1."""
    whole = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    return {**whole, **{name.removeprefix("n"): part for name, part in nodes.items()}}


INVERTED = {"1": node("ImageInvert", image=["3", 0]), "3": node("ImageInvert", image=["1", 0])}

# Prompts with their targets, whose answers are ComfyUI's to the letter.
SAME: dict[str, tuple[Any, Any]] = {
    "good": (still(), None),
    "no nodes": ({}, None),
    "no class": (still(n1={"inputs": {}}), None),
    "no class but a title": (still(n1={"inputs": {}, "_meta": {"title": "Mine"}}), None),
    "unknown class": (still(n1=node("Nope")), None),
    "unknown class with a title": (still(n1={**node("Nope"), "_meta": {"title": "Mine"}}), None),
    "no output": ({"1": still()["1"]}, None),
    "another target": (still(), ["9"]),
    "no target": (still(), []),
    "a target that is no output": (still(), ["1"]),
    "a missing input": (still(n2=node("SaveImage", filename_prefix="x")), None),
    "a missing input before": (still(n1=node("EmptyImage", height=64, batch_size=1, color=0)), None),
    "missing inputs": (still(n1=node("EmptyImage", height=1, batch_size=1, color=0), n2=node("SaveImage", images=["1", 0])), None),
    "one good output": (still(n3=node("PreviewImage")), None),
    "one good target": (still(n3=node("PreviewImage")), ["2"]),
    "one bad target": (still(n3=node("PreviewImage")), ["3"]),
    "a link of one": (still(n2=node("SaveImage", images=["1"], filename_prefix="x")), None),
    "a link of three": (still(n2=node("SaveImage", images=["1", 0, 0], filename_prefix="x")), None),
    "no number": (still(n1=node("EmptyImage", width="abc", height=64, batch_size=1, color=0)), None),
    "null": (still(n1=node("EmptyImage", width=None, height=64, batch_size=1, color=0)), None),
    "no broken number": (
        {
            "1": still()["1"],
            "2": node("ImageScaleBy", image=["1", 0], upscale_method="area", scale_by="x"),
            "3": node("PreviewImage", images=["2", 0]),
        },
        None,
    ),
    "a missing picture": ({"1": node("LoadImage", image="nope.png"), "2": node("PreviewImage", images=["1", 0])}, None),
    "a node that nothing needs": (still(n3=node("EmptyImage")), None),
}  # fmt: skip

# Where ComfyUI's words are of no help: the error is at the same node.
SAME_NODE = {
    "a cycle": ({**INVERTED, "2": node("SaveImage", images=["1", 0], filename_prefix="x")}, None),
    "itself": (still(n1=node("ImageInvert", image=["1", 0])), None),
    "no such output": (still(n2=node("SaveImage", images=["1", 5], filename_prefix="x")), None),
    "no such node": (still(n2=node("SaveImage", images=["77", 0], filename_prefix="x")), None),
    "a link by a number": (still(n2=node("SaveImage", images=[1, 0], filename_prefix="x")), None),
}  # fmt: skip


@lru_cache(4)
def schemas_of(url: str) -> dict[str, NodeSchema]:
    """Of a running engine."""
    return {name: read_schema(entry) for name, entry in requests.get(f"{url}/object_info", timeout=60).json().items()}


def compared(bench: Bench, prompt: Any, targets: Any) -> tuple[Any, Any]:
    """The engine's answer and ours, each (error, errors of nodes)."""
    url = bench.engine.process.url
    body = {"prompt": prompt, "front": True} | ({} if targets is None else {"partial_execution_targets": targets})
    theirs = requests.post(f"{url}/prompt", json=body, timeout=30).json()
    if prompt_id := theirs.get("prompt_id"):
        requests.post(f"{url}/queue", json={"delete": [prompt_id]}, timeout=30)
    ours = validate(copy.deepcopy(prompt), targets, schemas_of(url))
    return (theirs.get("error"), theirs["node_errors"]), (ours.error, ours.node_errors)


@pytest.mark.parametrize("name", SAME)
def test_a_prompt_is_answered_as_comfyui_answers_it(bench: Bench, name: str) -> None:
    theirs, ours = compared(bench, *SAME[name])
    if bench.engine.version == "0.3.64":  # has other words for some
        assert (bool(ours[0]), shape(ours)[1]) == (bool(theirs[0]), shape(theirs)[1])
    else:
        assert ours == theirs


@pytest.mark.parametrize("name", SAME_NODE)
def test_an_error_is_at_the_node_where_comfyui_has_it(bench: Bench, name: str) -> None:
    if bench.name == "draft" or bench.engine.version == "0.3.64":
        pytest.skip("only newer versions have an answer for all of them")
    theirs, ours = compared(bench, *SAME_NODE[name])
    assert shape(ours) == shape(theirs)


def shape(answer: tuple[Any, Any]) -> Any:
    """Which error it is, and at which nodes there are some."""
    error, node_errors = answer
    return error and error["type"], {node_id: entry["dependent_outputs"] for node_id, entry in node_errors.items()}


@lru_cache(1)
def schemas() -> dict[str, NodeSchema]:
    """Of the draft engine's classes."""
    return {name: read_schema(entry) for name, entry in object_info().items()}


def checked(prompt: Any, targets: Any = None, **more: Any) -> ValidationResult:
    """What the gateway says with the classes known."""
    return validate(prompt, targets, schemas(), **more)


def test_a_cycle_is_told_with_its_nodes() -> None:
    result = checked({**INVERTED, "2": node("SaveImage", images=["1", 0], filename_prefix="x")})
    assert result.error and result.error["type"] == "prompt_outputs_failed_validation"
    assert result.node_errors.keys() == {"1", "3"}
    (error,) = result.node_errors["1"]["errors"]
    assert (error["type"], error["details"]) == (
        "dependency_cycle",
        "1 (ImageInvert) -> 3 (ImageInvert) -> 1 (ImageInvert)",
    )


def test_a_cycle_that_no_target_needs_does_not_matter() -> None:
    prompt = {**still(), "7": node("ImageInvert", image=["7", 0]), "8": node("PreviewImage", images=["7", 0])}
    result = checked(prompt)
    assert (result.error, result.outputs, list(result.node_errors)) == (None, ["2"], ["7"])
    assert checked(prompt, ["2"]).node_errors == {}


def test_a_long_chain_is_checked_at_once() -> None:
    prompt: dict[str, Any] = {"0": still()["1"], "end": node("PreviewImage", images=["4999", 0])}
    prompt |= {str(number): node("ImageInvert", image=[str(number - 1), 0]) for number in range(1, 5000)}
    assert checked(prompt).outputs == ["end"]
    prompt["0"] = node("ImageInvert", image=["4999", 0])
    assert len(checked(prompt).node_errors) == 5000


def test_a_link_to_a_node_that_is_not_there_is_told_at_the_input() -> None:
    (error,) = checked(still(n2=node("SaveImage", images=["77", 0], filename_prefix="x"))).node_errors["2"]["errors"]
    assert (error["extra_info"], "node 77" in error["message"]) == ({"input_name": "images"}, True)


def test_what_a_pack_may_allow_is_left_to_the_worker() -> None:
    for inputs in ({"width": 0}, {"width": 10**6}, {"unknown": 5}):
        first = node("EmptyImage", **{"width": 64, "height": 64, "batch_size": 1, "color": 0, **inputs})
        assert checked(still(n1=first)).outputs == ["2"]
    loads = {"1": node("CheckpointLoaderSimple", ckpt_name="newer.safetensors")}
    encodes = {
        "3": node("CLIPTextEncode", clip=["1", 1], text="x"),
        "2": node("SaveImage", images=["4", 0], filename_prefix="x"),
    }
    decodes = {
        "4": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    }
    assert checked({**loads, **encodes, **decodes}).outputs == ["2"]
    mismatch = {
        "1": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "2": node("PreviewImage", images=["1", 0]),
    }
    assert checked(mismatch).outputs == ["2"]


def test_a_class_that_is_replaced_by_another_is_no_unknown_class() -> None:
    prompt = still(n2=node("OldSave", images=["1", 0]))
    assert checked(prompt).error is not None
    assert checked(prompt, replaced={"OldSave": []}).outputs == ["2"]


def test_a_file_of_the_gateway_is_one() -> None:
    prompt = {"1": node("LoadImage", image="mine.png"), "2": node("PreviewImage", images=["1", 0])}
    assert checked(prompt).error is not None
    assert checked(prompt, files={"mine.png"}).outputs == ["2"]


def test_while_the_classes_are_not_known_only_the_form_is_checked() -> None:
    assert validate(still(n2=node("Nope")), None, {}) == ValidationResult([])
    assert validate(still(), ["2", "9"], {}) == ValidationResult(["2"])
    for targets in ([], ["9"]):
        result = validate(still(), targets, {})
        assert result.error and result.error["type"] == "prompt_no_outputs"
    wrong: list[Any] = [
        None, 5, "x", [], {"1": None}, {"1": {}}, {"1": {"class_type": {}, "inputs": {}}}, {"1": {"class_type": "A"}},
    ]  # fmt: skip
    for prompt in wrong:
        assert validate(prompt, None, {}).error is not None


@pytest.mark.parametrize("targets", [None, ["2"]])
def test_what_is_no_prompt_is_explained(targets: Any) -> None:
    ui = {"nodes": [], "links": [], "version": 0.4, "extra": {}}
    for prompt, said in (
        (ui, "save format"),
        ({"prompt": workflows.still()}, "'prompt'"),
        ({"1": {"class_type": "A"}}, "inputs"),
    ):
        result = checked(prompt, targets)
        assert result.error and said in result.error["message"]
        assert (result.outputs, result.node_errors) == ([], {})


def test_text_encoders_and_all_that_is_stock_passes() -> None:
    for prompt in (workflows.still(), workflows.batch_of_four(), workflows.animated_webp(), workflows.text_only()):
        assert checked(prompt).error is None
