"""Is this machine fit to take jobs? Cheap checks in place of the SDK's, which import torch and dial out.

Each failure names what is wrong and what to do; RunPod then starts the worker elsewhere.
"""

from __future__ import annotations

import ctypes
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import UnfitMachine
from ..settings import Settings

log = logging.getLogger(__name__)

_MEGABYTE = 1_000_000
_NVML = "libnvidia-ml.so.1"
_DEVICE = Path("/dev/nvidiactl")
_NVML_MISMATCH = 18  # NVML_ERROR_LIB_RM_VERSION_MISMATCH in nvml.h


def check_fitness(settings: Settings) -> None:
    """Run the checks that FITNESS_CHECKS names. Raises UnfitMachine at the first that fails."""
    for name in settings.fitness_checks:
        CHECKS[name](settings)


def _check_disk(settings: Settings) -> None:
    """Room for what ComfyUI writes while a job runs."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free // _MEGABYTE
    if free < settings.min_free_disk:
        raise UnfitMachine(
            f"{free} MB are free in the temporary folder, but {settings.min_free_disk:g} are required "
            "(MIN_FREE_DISK_MB); give the endpoint a larger container disk"
        )


def _check_gpu(settings: Settings) -> None:
    """The driver answers and has a GPU. Asked through NVML, which makes no CUDA context; nothing without a driver."""
    if not _DEVICE.exists():
        return
    try:
        nvml = ctypes.CDLL(_NVML)
    except OSError as error:
        raise UnfitMachine(
            f"there is an NVIDIA device but not its driver library {_NVML}; start the container with the NVIDIA "
            "runtime (NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
        ) from error
    result = nvml.nvmlInit_v2()
    if result:
        hint = "the host's driver was updated while in use" if result == _NVML_MISMATCH else "the host's GPU is faulty"
        raise UnfitMachine(f"the NVIDIA driver does not respond (NVML error {result}): {hint}")
    try:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) or not count.value:
            raise UnfitMachine("the NVIDIA driver has no GPU for this container")
        version = ctypes.create_string_buffer(96)
        nvml.nvmlSystemGetDriverVersion(version, 96)
        log.info("%d GPU, driver %s", count.value, version.value.decode("ascii", "replace"))
    finally:
        nvml.nvmlShutdown()


CHECKS: dict[str, Callable[[Settings], None]] = {"disk": _check_disk, "gpu": _check_gpu}
"""Name to check."""
