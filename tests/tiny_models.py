"""Generates models that are small enough for a CPU: a one-layer SD3, a CLIP-L and a TAESD that a real ComfyUI loads.

The shapes are those from which ComfyUI 0.3.64 detects the model. The numbers are random but the same each time. CLIP-L
is mostly zeros (holes in a sparse file), with embeddings and norms such that its output still depends on the prompt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.generic] | tuple[int, ...]]
"""Name of a tensor to its array, or to the shape of a half-precision tensor of zeros."""

_SEED = 7


def make_paths(root: Path) -> Path:
    """Write the models below `root`; a file for --extra-model-paths-config with their paths and that of the test nodes."""
    make_models(root)
    config = root / "paths.yaml"
    folders = "\n".join(f"  {name}: {name}" for name in ("diffusion_models", "text_encoders", "vae"))
    nodes = Path(__file__).parent / "comfyui_nodes"
    config.write_text(f"tiny:\n  base_path: {root}\n{folders}\nnodes:\n  custom_nodes: {nodes}\n")
    return config


def make_models(root: Path) -> None:
    """Write the three model files to the folders of a models directory."""
    random = np.random.default_rng(_SEED)
    _write(root / "diffusion_models" / "tiny_sd3.safetensors", _sd3(random))
    _write(root / "text_encoders" / "tiny_clip_l.safetensors", _clip_l(random))
    _write(root / "vae" / "tiny_taesd.safetensors", _taesd(random))


def _write(file: Path, weights: Weights) -> None:
    """Write a safetensors file: eight bytes with the length of the JSON header, the header, the tensors."""
    header: dict[str, dict[str, Any]] = {}
    position = 0
    for name, array in weights.items():
        shape = array if isinstance(array, tuple) else array.shape
        dtype = "F16" if isinstance(array, tuple) or array.dtype == np.float16 else "F32"
        size = math.prod(shape) * (2 if dtype == "F16" else 4)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    encoded = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.write(len(encoded).to_bytes(8, "little") + encoded)
        start = opened.tell()
        opened.truncate(start + position)
        for name, array in weights.items():
            if not isinstance(array, tuple):
                opened.seek(start + header[name]["data_offsets"][0])
                opened.write(array.tobytes())


def _normal(random: np.random.Generator, *shape: int, scale: float = 0.1) -> NDArray[np.float32]:
    return (random.standard_normal(shape) * scale).astype(np.float32)


def _linear(random: np.random.Generator, name: str, *shape: int) -> dict[str, NDArray[np.float32]]:
    return {f"{name}.weight": _normal(random, *shape), f"{name}.bias": _normal(random, shape[0])}


def _sd3(random: np.random.Generator) -> Weights:
    weights: dict[str, NDArray[np.float32]] = {"pos_embed": _normal(random, 1, 4096, 64)}
    weights |= _linear(random, "x_embedder.proj", 64, 16, 2, 2)
    weights |= _linear(random, "context_embedder", 64, 4096)
    for embedder, inputs in (("t_embedder", 256), ("y_embedder", 2048)):
        weights |= _linear(random, f"{embedder}.mlp.0", 64, inputs) | _linear(random, f"{embedder}.mlp.2", 64, 64)
    block = "joint_blocks.0.x_block"
    for name, shape in (
        ("adaLN_modulation.1", (384, 64)),
        ("attn.qkv", (192, 64)),
        ("attn.proj", (64, 64)),
        ("mlp.fc1", (256, 64)),
        ("mlp.fc2", (64, 256)),
    ):
        weights |= _linear(random, f"{block}.{name}", *shape)
    context = "joint_blocks.0.context_block"
    weights |= _linear(random, f"{context}.adaLN_modulation.1", 128, 64)
    weights |= _linear(random, f"{context}.attn.qkv", 192, 64)
    weights |= _linear(random, "final_layer.linear", 64, 64)
    weights |= _linear(random, "final_layer.adaLN_modulation.1", 128, 64)
    return {f"model.diffusion_model.{name}": array for name, array in weights.items()}


def _clip_l(random: np.random.Generator) -> Weights:
    ones = np.ones(768, np.float16)
    weights: dict[str, NDArray[np.generic] | tuple[int, ...]] = {
        "text_model.embeddings.token_embedding.weight": _normal(random, 49408, 768).astype(np.float16),
        "text_model.embeddings.position_embedding.weight": (77, 768),
        "text_model.final_layer_norm.weight": ones,
        "text_model.final_layer_norm.bias": (768,),
        "text_projection.weight": _normal(random, 768, 768).astype(np.float16),
    }
    for layer in range(12):
        prefix = f"text_model.encoder.layers.{layer}"
        for norm in ("layer_norm1", "layer_norm2"):
            weights |= {f"{prefix}.{norm}.weight": ones, f"{prefix}.{norm}.bias": (768,)}
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            name = f"{prefix}.self_attn.{part}"
            weights |= {f"{name}.weight": (768, 768), f"{name}.bias": (768,)}
        weights |= {f"{prefix}.mlp.fc1.weight": (3072, 768), f"{prefix}.mlp.fc1.bias": (3072,)}
        weights |= {f"{prefix}.mlp.fc2.weight": (768, 3072), f"{prefix}.mlp.fc2.bias": (768,)}
    return weights


def _taesd(random: np.random.Generator) -> Weights:
    """TAESD for 16 channels: decoder layers 1 to 19 and encoder layers 0 to 14, of which some are blocks of three."""
    plain = {
        "taesd_decoder": {
            1: (64, 16, True),
            7: (64, 64, False),
            12: (64, 64, False),
            17: (64, 64, False),
            19: (3, 64, True),
        },
        "taesd_encoder": {
            0: (64, 3, True),
            2: (64, 64, False),
            6: (64, 64, False),
            10: (64, 64, False),
            14: (16, 64, True),
        },
    }
    blocks = {"taesd_decoder": (3, 4, 5, 8, 9, 10, 13, 14, 15, 18), "taesd_encoder": (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)}
    weights: dict[str, NDArray[np.generic] | tuple[int, ...]] = {}
    for part, layers in plain.items():
        for index, (outputs, inputs, has_bias) in layers.items():
            weights[f"{part}.{index}.weight"] = _normal(random, outputs, inputs, 3, 3, scale=0.08).astype(np.float16)
            if has_bias:
                weights[f"{part}.{index}.bias"] = _normal(random, outputs).astype(np.float16)
        for index in blocks[part]:
            for conv in (0, 2, 4):
                name = f"{part}.{index}.conv.{conv}"
                weights[f"{name}.weight"] = _normal(random, 64, 64, 3, 3, scale=0.02).astype(np.float16)
                weights[f"{name}.bias"] = (64,)
    return {**weights, "vae_scale": np.array(0.3611, np.float32), "vae_shift": np.array(0.1159, np.float32)}
