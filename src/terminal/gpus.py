"""RunPod's pools of GPUs: their memory, and what a second of a flex worker costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuPool:
    """A pool by its id: its GPUs, their memory in gigabytes, and dollars a second, None if not published."""

    id: str
    gpus: tuple[str, ...]
    memory: int
    price: float | None


PRICES_FROM = "RunPod's price list of 2026-06-08"
# Pools: https://docs.runpod.io/references/gpu-types#gpu-pools, and the list of RunPod's SDK 2.0.
# Prices: https://docs.runpod.io/serverless/pricing of that day; today's are at https://www.runpod.io/pricing.
POOLS = (
    GpuPool("AMPERE_16", ("A4000", "A4500", "RTX 4000", "RTX 2000"), 16, 0.00016),
    GpuPool("AMPERE_24", ("L4", "A5000", "3090"), 24, 0.00019),
    GpuPool("ADA_24", ("4090",), 24, 0.00031),
    GpuPool("ADA_32_PRO", ("5090",), 32, None),
    GpuPool("AMPERE_48", ("A6000", "A40"), 48, 0.00034),
    GpuPool("ADA_48_PRO", ("L40", "L40S", "6000 Ada"), 48, 0.00053),
    GpuPool("AMPERE_80", ("A100",), 80, 0.00076),
    GpuPool("ADA_80_PRO", ("H100",), 80, 0.00116),
    GpuPool("BLACKWELL_96", ("RTX PRO 6000",), 96, 0.00111),
    GpuPool("HOPPER_141", ("H200",), 141, 0.00155),
    GpuPool("BLACKWELL_180", ("B200",), 180, 0.00240),
)


def find_pool(name: str) -> GpuPool:
    """The pool of a GPU, by the GPU's name or the pool's id, in any case. Raises ValueError, listing the names."""
    wanted = name.strip().lower()
    for pool in POOLS:
        if wanted in (pool.id.lower(), *(gpu.lower() for gpu in pool.gpus)):
            return pool
    known = ", ".join(gpu for pool in POOLS for gpu in pool.gpus)
    raise ValueError(f"unknown GPU {name!r}; use one of {known}, or the id of a pool")
