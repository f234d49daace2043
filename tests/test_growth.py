"""Twice the input takes about twice the steps: what a caller sends cannot keep the worker busy out of proportion.

Steps are the calls of functions, which are the same in each run, and no seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.comfy.rejection import Engine, explain_problems, list_problems
from src.editor import class_types, convert, read_document
from src.errors import WorkerError
from src.models.folders import folder_names
from src.overrides import Overrides, apply_overrides, overridable_fields
from src.worker.job_take import read_jobs
from src.workflow import check_workflow, isolate_outputs, outline_of, place_files
from src.workflow.core_classes import core_schemas
from src.workflow.graph import Graph
from src.workflow.schemas import check_nodes, read_schema

from .editor_files import saved, saved_node
from .workflows import node

core_schemas()  # read once, whichever test is the first
folder_names()
SMALL = 60
MOST_GROWTH = 3.0
CLASSES: dict[str, Any] = json.loads((Path(__file__).parent / "editor_object_info.json").read_text())["0.21.0"]


def steps(action: Callable[[], Any]) -> int:
    """How many functions are called."""
    count = 0

    def on_event(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(on_event)
    try:
        action()
    except WorkerError:
        pass
    finally:
        sys.setprofile(None)
    return count


# --- Workflows in API format: each shape by its size -------------------------------------------------------------


def sampler(positive: str, **more: Any) -> dict[str, Any]:
    links = {"model": ["m", 0], "positive": [positive, 0], "negative": ["e1", 0], "latent_image": ["l", 0]}
    numbers = {"seed": 1, "steps": 20, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return node("KSampler", **{**links, **numbers, **more})


BASE = {
    "m": node("CheckpointLoaderSimple", ckpt_name="x.safetensors"),
    "l": node("EmptyLatentImage", width=64, height=64, batch_size=1),
}


def encoders(size: int) -> dict[str, Any]:
    """Many texts, of which two are used."""
    texts = {f"e{n}": node("CLIPTextEncode", text=f"text {n}", clip=["m", 1]) for n in range(size)}
    return {**BASE, **texts, "k": sampler("e0"), "s": node("SaveImage", images=["k", 0], filename_prefix="x")}


def combined(size: int) -> dict[str, Any]:
    """A chain of conditioning."""
    graph = encoders(size)
    for n in range(1, size):
        graph[f"c{n}"] = node(
            "ConditioningCombine", conditioning_1=[f"c{n - 1}" if n > 1 else "e0", 0], conditioning_2=[f"e{n}", 0]
        )
    return {**graph, "k": sampler(f"c{size - 1}")}


def many_samplers(size: int) -> dict[str, Any]:
    """Samplers one behind the other, which share conditioning and a seed."""
    graph = {**encoders(2), "p": node("PrimitiveInt", value=5)}
    for n in range(size):
        graph[f"k{n}"] = sampler("e0", latent_image=[f"k{n - 1}" if n else "l", 0], seed=["p", 0])
        graph[f"u{n}"] = node(
            "LatentUpscale", samples=[f"k{n}", 0], width=128, height=128, upscale_method="x", crop="x"
        )
        graph[f"i{n}"] = node("ImageScale", image=[f"k{n}", 0], width=128, height=128, upscale_method="x", crop="x")
    return graph


def rerouted(size: int) -> dict[str, Any]:
    """A value behind many reroutes, for many samplers."""
    graph = {**encoders(2), "r0": node("PrimitiveInt", value=5)}
    for n in range(1, size):
        graph[f"r{n}"] = node("Reroute", **{"": [f"r{n - 1}", 0]})
    for n in range(size):
        graph[f"k{n}"] = sampler("e0", seed=[f"r{size - 1}", 0], steps=[f"r{size - 1}", 0])
    return graph


def sigmas(size: int) -> dict[str, Any]:
    """Schedulers and splits."""
    graph = encoders(2)
    for n in range(size):
        graph[f"b{n}"] = node("BasicScheduler", model=["m", 0], scheduler="x", steps=20, denoise=1.0)
        graph[f"x{n}"] = node("SplitSigmas", sigmas=[f"x{n - 1}" if n else "b0", 0], step=10)
        graph[f"a{n}"] = node(
            "SamplerCustomAdvanced",
            noise=["m", 0],
            guider=["m", 0],
            sampler=["m", 0],
            sigmas=[f"b{n}", 0],
            latent_image=["l", 0],
        )
    return graph


def long_texts(size: int) -> dict[str, Any]:
    return {**encoders(2), "e0": node("CLIPTextEncode", text="word " * size * 100, clip=["m", 1])}


def unknown_classes(size: int) -> dict[str, Any]:
    return {**encoders(2), **{f"n{n}": node(f"Unknown{n}", **{f"input{m}": m for m in range(9)}) for n in range(size)}}


SHAPES = [encoders, combined, many_samplers, rerouted, sigmas, long_texts, unknown_classes]
OVERRIDES = [
    Overrides(prompt="p"), Overrides(negative_prompt="n"), Overrides(seed=1), Overrides(width=1024, height=512),
    Overrides(steps=40), Overrides(cfg=2.0), Overrides(denoise=0.5),
]  # fmt: skip


def checked_by_schemas(graph: dict[str, Any]) -> None:
    schemas = {
        name: read_schema(CLASSES[name]) if name in CLASSES else None
        for name in {n["class_type"] for n in graph.values()}
    }
    errors = check_nodes(Graph(graph), schemas, (), list(CLASSES))
    raise explain_problems(list_problems(errors, graph, Engine()))


def applying(overrides: Overrides) -> Callable[[dict[str, Any]], Any]:
    return lambda graph: apply_overrides(graph, overrides)


ACTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "check": check_workflow,
    "fields": overridable_fields,
    "files": lambda graph: place_files(graph, {}),
    "isolation": lambda graph: isolate_outputs(graph, "job"),
    "outline": outline_of,
    "schemas": checked_by_schemas,
    **{f"override {number}": applying(wanted) for number, wanted in enumerate(OVERRIDES)},
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS.keys())
@pytest.mark.parametrize("shape", SHAPES)
def test_a_workflow_twice_as_large_takes_about_twice_the_steps(shape: Any, action: Any) -> None:
    few, many = (shape(size) for size in (SMALL, 2 * SMALL))
    assert steps(lambda: action(many)) < MOST_GROWTH * steps(lambda: action(few)) + 100


# --- Files of the editor ---------------------------------------------------------------------------------------


def hops(kind: str) -> Callable[[int], dict[str, Any]]:
    """A chain of nodes that only pass on, and as many users at its end."""

    def make(size: int) -> dict[str, Any]:
        nodes = [saved_node(0, "EmptyImage", [64, 64, 1, 0], {}, {"IMAGE": "IMAGE"})]
        links: list[list[Any]] = []
        for n in range(1, size + 1):
            if kind == "set and get":
                nodes.append(saved_node(10_000 + n, "SetNode", [f"v{n}"], {"IMAGE": ("IMAGE", n)}, {"*": "*"}))
                nodes.append(saved_node(n, "GetNode", [f"v{n}"], outputs={"IMAGE": "IMAGE"}))
                links.append([n, n - 1, 0, 10_000 + n, 0, "IMAGE"])
            else:
                mode = 4 if kind == "bypassed" else 0
                class_type = "ImageInvert" if kind == "bypassed" else "Reroute"
                nodes.append(
                    saved_node(
                        n, class_type, None, {"image" if mode else "": ("IMAGE", n)}, {"IMAGE": "IMAGE"}, mode=mode
                    )
                )
                links.append([n, n - 1, 0, n, 0, "IMAGE"])
        for n in range(size):
            user, link = 20_000 + n, 50_000 + n
            nodes.append(saved_node(user, "SaveImage", ["x"], {"images": ("IMAGE", link)}))
            links.append([link, size, 0, user, 0, "IMAGE"])
        return saved(nodes, links)

    return make


def primitives(size: int) -> dict[str, Any]:
    """Primitives, each for one of as many inputs."""
    nodes, links = [], []
    for n in range(size):
        nodes.append(saved_node(n, "PrimitiveNode", [64, "fixed"], {}, {"INT": "INT"}))
        nodes.append(saved_node(10_000 + n, "EmptyImage", [64, 64, 1, 0], {"=width": ("INT", n)}, {"IMAGE": "IMAGE"}))
        nodes.append(saved_node(20_000 + n, "SaveImage", ["x"], {"images": ("IMAGE", 50_000 + n)}))
        links += [[n, n, 0, 10_000 + n, 0, "INT"], [50_000 + n, 10_000 + n, 0, 20_000 + n, 0, "IMAGE"]]
    return saved(nodes, links)


EDITOR_SHAPES = {
    "reroutes": hops("reroutes"), "set and get": hops("set and get"), "bypassed": hops("bypassed"), "primitives": primitives,
}  # fmt: skip


@pytest.mark.parametrize("shape", EDITOR_SHAPES.values(), ids=EDITOR_SHAPES.keys())
def test_a_file_of_the_editor_twice_as_large_takes_about_twice_the_steps(shape: Any) -> None:
    def converted(file: dict[str, Any]) -> dict[str, Any]:
        document = read_document(file)
        return convert(document, {name: read_schema(CLASSES[name]) for name in class_types(document)}).prompt

    few, many = (shape(size) for size in (SMALL, 2 * SMALL))
    assert len(converted(many)) > 2 * len(converted(few)) - 3
    assert steps(lambda: converted(many)) < MOST_GROWTH * steps(lambda: converted(few))


# --- What RunPod's queue hands out --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda size: "[" * 30 * size,
        lambda size: '{"id": "a", "input": ' + '{"a":' * 30 * size,
        lambda size: "[" + ", ".join(['{"id": "a", "input": {1}}'] * size),
        lambda size: '{"id": "a", "input": ' + "9" * 5000 * size + "}",
        lambda size: '{"id": "a", "input": "' + "\\\\" * 1000 * size,
    ],
    ids=["lists", "objects", "jobs", "digits", "escapes"],
)
def test_an_answer_of_the_queue_twice_as_large_takes_about_twice_the_steps(make: Any) -> None:
    few, many = (make(size).encode() for size in (SMALL, 2 * SMALL))
    assert steps(lambda: read_jobs(many)) < MOST_GROWTH * steps(lambda: read_jobs(few)) + 100
