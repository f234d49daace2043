"""What ComfyUI's log says of a boot, in the words of its versions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maintenance.upstream_checks import linked
from src.comfy.boot_log import BootLog, FailedPack, FastPath
from src.comfy.engine import ComfyEngine
from src.job.handler import Worker
from src.job.run import JobRunner

from .. import workflows
from ..conftest import Bench, installation, settings_for

CPU = """\
Found comfy_kitchen backend cuda: {'available': False, 'disabled': False, 'unavailable_reason': 'CUDA not available on this system', 'capabilities': []}
Total VRAM 24106 MB, total RAM 24106 MB
Set vram state to: DISABLED
Device: cpu
Using sub quadratic optimization for attention, if you have memory or speed issues try using: --use-split-cross-attention
Starting server"""
GPU = """\
Found comfy_kitchen backend cuda: {'available': True, 'disabled': False, 'unavailable_reason': None, 'capabilities': ['adaln']}
Device: cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync
Enabled pinned memory 30000
Using pytorch attention
DynamicVRAM support detected and enabled
Starting server"""
OLD_CUDA = GPU.replace("'available': True, 'disabled': False", "'available': True, 'disabled': True")
OLD_CUDA = f"WARNING: You need pytorch with cu130 or higher to use optimized CUDA operations.\n{OLD_CUDA}"
BY_HAND = GPU.replace("DynamicVRAM support detected and enabled\n", "").replace("Enabled pinned memory 30000\n", "")
OLD_TORCH = GPU.replace(
    "DynamicVRAM support detected and enabled", "Unsupported Pytorch detected. DynamicVRAM support"
)
NO_AIMDO = GPU.replace("DynamicVRAM support detected and enabled", "No working comfy-aimdo install detected. Dynamic")
OLD_COMFYUI = "Device: cuda:0 NVIDIA L4\nUsing pytorch attention\nPython version: 3.11"

ALL_ON = {"CUDA kernels": "", "dynamic VRAM": "", "pinned memory": "", "fast attention": ""}
GPU_WANTED = "an NVIDIA GPU"
# The log and COMFYUI_ARGS, and what turns each fast path on; nothing if it is.
LOGS: dict[str, tuple[str, str, dict[str, str]]] = {
    "a GPU": (GPU, "", ALL_ON),
    "the CPU": (CPU, "--cpu", dict.fromkeys(ALL_ON, GPU_WANTED)),
    "torch for an old CUDA": (OLD_CUDA, "", {**ALL_ON, "CUDA kernels": "torch for CUDA 13.0 or later: "}),
    "an old torch": (OLD_TORCH, "", {**ALL_ON, "dynamic VRAM": "torch 2.8 or later"}),
    "without aimdo": (NO_AIMDO, "", {**ALL_ON, "dynamic VRAM": "the package comfy-aimdo"}),
    "turned off by hand": (
        BY_HAND,
        "--highvram --disable-pinned-memory",
        {
            **ALL_ON,
            "dynamic VRAM": "COMFYUI_ARGS without --highvram",
            "pinned memory": "COMFYUI_ARGS without --disable-pinned-memory",
        },
    ),
    "a version that tells little": (OLD_COMFYUI, "", {"fast attention": ""}),
    "none": ("", "", {}),
}


def read(text: str) -> BootLog:
    log = BootLog()
    for line in text.splitlines():
        log.read(line)
    return log


@pytest.mark.parametrize(("text", "arguments", "remedies"), LOGS.values(), ids=LOGS.keys())
def test_each_fast_path_is_on_or_has_what_would_turn_it_on(
    text: str, arguments: str, remedies: dict[str, str]
) -> None:
    paths = {path.name: path for path in read(text).fast_paths(arguments)}
    assert paths.keys() == remedies.keys()
    for name, remedy in remedies.items():
        assert paths[name].is_on == (not remedy), paths[name]
        assert paths[name].remedy.startswith(remedy) and bool(paths[name].remedy) == bool(remedy)


def test_a_line_tells_why() -> None:
    kernels, *_, attention = read(CPU).fast_paths("--cpu")
    assert str(kernels) == "CUDA kernels off (CUDA not available on this system)"
    assert str(attention) == "fast attention off (sub quadratic)"
    assert str(FastPath("dynamic VRAM", True, "")) == "dynamic VRAM on"


def test_a_pack_that_could_not_be_imported_is_known_by_its_classes(tmp_path: Path) -> None:
    pack, single, fine = tmp_path / "ComfyUI-Waves", tmp_path / "ripples.py", tmp_path / "fine"
    (pack / "nodes").mkdir(parents=True)
    (pack / "nodes" / "all.py").write_text("import pywt\nNODE_CLASS_MAPPINGS = {'WaveMaker': 1, \"WaveSaver\": 2}\n")
    single.write_text("NODE_CLASS_MAPPINGS = {'Ripple': 1}\n")
    fine.mkdir()
    log = read(
        f"Cannot import {pack} module for custom nodes: No module named 'pywt'\n"
        f"Error while calling comfy_entrypoint in {single}: 'NoneType' has no {tmp_path}/x\n"
        "Starting server\n"
        f"Cannot import {fine} module for custom nodes: a job wrote this"
    )
    assert log.failed_packs == [
        FailedPack("ComfyUI-Waves", "No module named 'pywt'"),
        FailedPack("ripples.py", "'NoneType' has no …/x"),
    ]
    assert log.pack_of("WaveMaker") == log.pack_of("WaveSaver") == log.failed_packs[0]
    assert log.pack_of("Ripple") == log.failed_packs[1]
    assert log.pack_of("Wave") is log.pack_of("pywt") is None


def test_a_pack_that_was_imported_is_known_by_its_classes(tmp_path: Path) -> None:
    for name in ("Fine", "Waves"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"NODE_CLASS_MAPPINGS = {{'{name}Maker': 1}}\n")
    log = read(
        f"Import times for custom nodes:\n   0.0 seconds: {tmp_path}/Fine\n  12.1 seconds: {tmp_path}/Waves\n"
        f"   0.1 seconds (IMPORT FAILED): {tmp_path}/Gone\nStarting server"
    )
    assert [log.origin_of(name) for name in ("WavesMaker", "FineMaker", "Maker")] == ["Waves", "Fine", ""]
    assert log.failed_packs == []


@pytest.mark.slow
def test_a_real_comfyui_that_could_not_import_a_pack_says_so_to_callers() -> None:
    real = installation("real")
    settings = replace(settings_for("real"), comfyui_args="--cpu")
    graph = {**workflows.still(), "9": workflows.node("WaveMaker", image=["3", 0])}
    with linked(real.directory) as folder:
        pack = folder / "custom_nodes" / "ComfyUI-Waves"
        pack.mkdir(parents=True)
        (pack / "__init__.py").write_text("import no_such_library\nNODE_CLASS_MAPPINGS = {'WaveMaker': None}\n")
        with ComfyEngine(replace(real, directory=folder), settings) as engine:
            engine.wait_ready()
            bench = Bench("real", Worker(JobRunner.make(engine, settings)))
            refused, info = bench.run(workflow=graph), bench.run(action="info")
            ran = bench.run(workflow={**workflows.still(), "9": workflows.node("WaveMaker")})
    assert "its node pack ComfyUI-Waves is installed, but ComfyUI" in refused["error"]
    assert "could not import it: No module named 'no_such_library'" in refused["error"]
    said = "the node pack ComfyUI-Waves is installed, but could not be imported: No module named 'no_such_library'"
    assert ran["warnings"][1:] == [said]
    assert info["failed_node_packs"] == {"ComfyUI-Waves": "No module named 'no_such_library'"}
    assert "fast attention" in {path["name"] for path in info["fast_paths"]}
