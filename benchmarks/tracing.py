"""The time to check a workflow and place its overrides, compared with reading its JSON.

    python -m benchmarks.tracing [--nodes 300] [--rounds 50]

Measures two workflows of about that size: stock templates of ComfyUI, joined as they are; and a hard one, in which
every branch has two sampler passes, texts behind primitives and switches, and the same values. It needs no ComfyUI,
because it uses the stored node classes, but the package comfyui-workflow-templates-json for the templates.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from maintenance.override_report import read_workflow
from src.overrides import Overrides, apply_overrides, overridable_fields
from src.workflow import check_workflow
from src.workflow.core_classes import core_schemas
from src.workflow.graph import Graph, as_link
from src.workflow.schemas import check_nodes

_ALL = Overrides(
    prompt="a fox", negative_prompt="blurry", seed=9, width=768, height=512, batch_size=2, steps=30, cfg=4.0,
    guidance=3.0, denoise=0.9, sampler_name="euler", scheduler="normal",
)  # fmt: skip


def main() -> None:
    """Print a row for each step of the work on each workflow."""
    options = _parse()
    _measure("stock templates", joined_templates(options.nodes), options.rounds)
    _measure("hard", branched_workflow(options.nodes // 12), options.rounds)


def _measure(name: str, workflow: dict[str, Any], rounds: int) -> None:
    schemas, text = core_schemas(), json.dumps(workflow)
    steps: dict[str, Callable[[], Any]] = {
        "read the JSON": lambda: json.loads(text),
        "check the workflow": lambda: check_workflow(workflow),
        "place a seed": lambda: apply_overrides(workflow, Overrides(seed=9), schemas),
        "find all fields": lambda: overridable_fields(workflow, schemas),
        "check by the schemas": lambda: check_nodes(Graph(workflow), schemas),
    }
    if name == "hard":  # elsewhere most overrides are ambiguous
        usual = Overrides(prompt="a fox", seed=9, width=768, height=512)
        steps["place prompt, seed and size"] = lambda: apply_overrides(workflow, usual, schemas)
        steps["place all overrides"] = lambda: apply_overrides(workflow, _ALL, schemas)
    took = {step: _milliseconds(work, rounds) for step, work in steps.items()}
    print(f"{name}: {len(workflow)} nodes, medians of {rounds}")
    for step, milliseconds in took.items():
        print(f"{step:>28} {milliseconds:>7.2f} ms {milliseconds / took['read the JSON']:>6.1f} x")
    print(f"{'check and find':>28} {took['check the workflow'] + took['find all fields']:>7.2f} ms")


def joined_templates(nodes: int) -> dict[str, Any]:
    """Every twelfth stock template that can be converted, until there are so many nodes."""
    folder = Path(str(resources.files("comfyui_workflow_templates_json"))) / "templates"
    joined: dict[str, Any] = {}
    for number, file in enumerate(sorted(folder.glob("*.json"))[::12]):
        workflow = read_workflow(file, core_schemas()) or {}
        for node_id, node in workflow.items():
            inputs = {name: _renamed(value, workflow, number) for name, value in node["inputs"].items()}
            joined[f"{number}.{node_id}"] = {**node, "inputs": inputs}
        if len(joined) >= nodes:
            break
    return joined


def _renamed(value: Any, workflow: dict[str, Any], number: int) -> Any:
    link = as_link(value)
    return [f"{number}.{link.node_id}", link.slot] if link and link.node_id in workflow else value


def _milliseconds(step: Callable[[], Any], rounds: int) -> float:
    measured = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()
        measured.append((time.perf_counter() - began) * 1000)
    return statistics.median(measured)


def branched_workflow(branches: int) -> dict[str, Any]:
    """A workflow of `12 * branches + 8` nodes; every branch has the same prompt, size and numbers."""
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "ckpt": ("CheckpointLoaderSimple", {"ckpt_name": "model.safetensors"}),
        "text": ("PrimitiveStringMultiline", {"value": "a cat"}),
        "steps": ("PrimitiveInt", {"value": 20}),
        "few": ("PrimitiveInt", {"value": 4}),
        "turbo": ("PrimitiveBoolean", {"value": False}),
        "chosen": ("ComfySwitchNode", {"switch": ["turbo", 0], "on_true": ["few", 0], "on_false": ["steps", 0]}),
        "all": ("ImageBatch", {"image1": ["0.image", 0], "image2": [f"{branches - 1}.joined", 0]}),
        "save": ("SaveImage", {"images": ["all", 0], "filename_prefix": "branches"}),
    }
    for number in range(branches):
        nodes.update(_branch(f"{number}.", f"{number - 1}.joined" if number else "0.image"))
    return {name: {"class_type": class_type, "inputs": inputs} for name, (class_type, inputs) in nodes.items()}


def _branch(own: str, before: str) -> dict[str, tuple[str, dict[str, Any]]]:
    sampling = {
        "seed": 1, "steps": ["chosen", 0], "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        "model": [f"{own}shift", 0], "positive": [f"{own}guided", 0], "negative": [f"{own}bad", 0],
    }  # fmt: skip
    lora = {"lora_name": "style.safetensors", "strength_model": 1.0, "strength_clip": 1.0}
    shift = {"max_shift": 1.15, "base_shift": 0.5, "width": 512, "height": 512}
    larger = {"samples": [f"{own}first", 0], "upscale_method": "bislerp", "scale_by": 2.0}
    return {
        f"{own}lora": ("LoraLoader", {"model": ["ckpt", 0], "clip": ["ckpt", 1], **lora}),
        f"{own}shift": ("ModelSamplingFlux", {"model": [f"{own}lora", 0], **shift}),
        f"{own}shown": ("PreviewAny", {"source": ["text", 0]}),
        f"{own}good": ("CLIPTextEncode", {"clip": [f"{own}lora", 1], "text": [f"{own}shown", 0]}),
        f"{own}guided": ("FluxGuidance", {"conditioning": [f"{own}good", 0], "guidance": 3.5}),
        f"{own}bad": ("CLIPTextEncode", {"clip": [f"{own}lora", 1], "text": "bad"}),
        f"{own}empty": ("EmptyLatentImage", {"width": 512, "height": 512, "batch_size": 1}),
        f"{own}first": ("KSampler", {**sampling, "latent_image": [f"{own}empty", 0]}),
        f"{own}larger": ("LatentUpscaleBy", larger),
        f"{own}second": ("KSampler", {**sampling, "latent_image": [f"{own}larger", 0]}),
        f"{own}image": ("VAEDecode", {"samples": [f"{own}second", 0], "vae": ["ckpt", 2]}),
        f"{own}joined": ("ImageBatch", {"image1": [before, 0], "image2": [f"{own}image", 0]}),
    }  # fmt: skip


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=50)
    return parser.parse_args()


if __name__ == "__main__":
    main()
