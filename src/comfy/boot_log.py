"""What ComfyUI's log says of its boot: which node packs it could not import, and which fast paths run.

The words are those of ComfyUI 0.33 (main.py, nodes.py, comfy/quant_ops.py, comfy/model_management.py,
comfy/ldm/modules/attention.py). Older versions say less: of what they do not tell nothing is claimed.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from ..packs.classes import has_class
from ..redaction import public_text

_FAILED_IMPORT = re.compile(
    r"Cannot import (?P<path>.+) module for custom nodes: (?P<error>.*)"
    r"|Error while calling comfy_entrypoint in (?P<v3_path>.+?): (?P<v3_error>.*)"
)
_IMPORTED = re.compile(r"\s*\d+\.\d seconds: (?P<path>/.+)")
_KERNELS = re.compile(r"Found comfy_kitchen backend cuda: (?P<state>\{.*\})")
_ATTENTION = re.compile(r"Using (?P<kind>.+?)(?: optimization for)? attention(?P<hint>,.*)?$", re.IGNORECASE)
_OLD_TORCH = "You need pytorch with cu130 or higher"
_VRAM_ON = "DynamicVRAM support detected and enabled"
_VRAM_OFF = re.compile(r"(?P<why>Unsupported Pytorch detected|No working comfy-aimdo install detected)")
_PINNED = "Enabled pinned memory"
_LAST_LINE = "Starting server"
_DEVICE = re.compile(r"Device: (?P<name>.+)")
_VRAM_BY_HAND = ("--highvram", "--gpu-only", "--novram", "--disable-dynamic-vram")  # each turns dynamic VRAM off

_GPU = "an NVIDIA GPU"


class FailedPack(NamedTuple):
    """A node pack that could not be installed, or that ComfyUI could not import: its name, and why."""

    name: str
    error: str
    is_installed: bool = True

    def __str__(self) -> str:
        state = "is installed, but could not be imported" if self.is_installed else "could not be installed"
        return f"the node pack {self.name} {state}: {self.error}"


class FastPath(NamedTuple):
    """One of ComfyUI's fast paths: whether it runs, why or how, and what would turn it on."""

    name: str
    is_on: bool
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.name} {'on' if self.is_on else 'off'}" + (f" ({self.detail})" if self.detail else "")


@dataclass
class BootLog:
    """What was read so far. Lines are without colours and level; those after the boot, of jobs, are ignored."""

    not_installed: Mapping[str, str] = field(default_factory=dict)
    """Packs of CUSTOM_NODES that could not be installed, and why."""
    _failed: dict[Path, str] = field(default_factory=dict)
    _imported: dict[Path, None] = field(default_factory=dict)
    _origins: dict[str, str] = field(default_factory=dict)
    _kernels: Mapping[str, object] = field(default_factory=dict)
    _has_old_torch: bool = False
    _dynamic_vram: str = ""
    _is_pinning: bool = False
    _attention: str = ""
    _device: str = ""
    _is_over: bool = False

    def read(self, line: str) -> None:
        """Take what the line tells."""
        if self._is_over or line == _LAST_LINE:
            self._is_over = True
        elif found := _FAILED_IMPORT.match(line):
            path, error = found["path"] or found["v3_path"], found["error"] or found["v3_error"]
            self._failed[Path(path)] = public_text(error or "", 300)
        elif found := _IMPORTED.match(line):
            self._imported[Path(found["path"])] = None
        elif found := _KERNELS.match(line):
            with contextlib.suppress(ValueError, SyntaxError, TypeError):
                self._kernels = dict(ast.literal_eval(found["state"]))
        elif _OLD_TORCH in line:
            self._has_old_torch = True
        elif line.startswith(_VRAM_ON):
            self._dynamic_vram = "on"
        elif found := _VRAM_OFF.match(line):
            self._dynamic_vram = found["why"]
        elif line.startswith(_PINNED):
            self._is_pinning = True
        elif found := _DEVICE.match(line):
            self._device = found["name"]
        elif (found := _ATTENTION.match(line)) and not self._attention:
            self._attention = found["kind"]

    @property
    def failed_packs(self) -> list[FailedPack]:
        """The node packs that could not be installed or imported."""
        imports = [FailedPack(PurePath(path).name, error) for path, error in self._failed.items()]
        return [*imports, *self._not_installed()]

    def pack_of(self, class_type: str) -> FailedPack | None:
        """The pack among those that has this node class: its files have the class's name as a text.

        Else the first of those that could not be installed, which may have it.
        """
        found = (FailedPack(path.name, error) for path, error in self._failed.items() if has_class(path, class_type))
        return next(found, next(iter(self._not_installed()), None))

    def _not_installed(self) -> list[FailedPack]:
        return [FailedPack(name, error, is_installed=False) for name, error in self.not_installed.items()]

    def origin_of(self, class_type: str) -> str:
        """The name of the imported pack that has this node class, '' if none is found."""
        if class_type not in self._origins:
            found = (path.name for path in self._imported if has_class(path, class_type))
            self._origins[class_type] = next(found, "")
        return self._origins[class_type]

    def fast_paths(self, arguments: str = "") -> list[FastPath]:
        """The fast paths that this version of ComfyUI has. `arguments` are those of COMFYUI_ARGS."""
        given = arguments.split()
        on_cpu = self._device == "cpu"
        paths = []
        if self._kernels:
            paths.append(self._kernel_path(on_cpu))
        if self._kernels or self._dynamic_vram:
            paths.append(self._vram_path(given, on_cpu))
            remedy = _without(given, ("--disable-pinned-memory",)) or ("" if on_cpu else "an NVIDIA or AMD GPU")
            why = "" if self._is_pinning else _cause(on_cpu, remedy)
            paths.append(FastPath("pinned memory", self._is_pinning, why, "" if self._is_pinning else remedy or _GPU))
        if self._attention:
            is_fast = not re.match(r"sub quadratic|split", self._attention)
            remedy = "" if is_fast else _GPU if on_cpu else "COMFYUI_ARGS=--use-pytorch-cross-attention"
            paths.append(FastPath("fast attention", is_fast, self._attention, remedy))
        return paths

    def _kernel_path(self, on_cpu: bool) -> FastPath:
        is_on = self._kernels.get("available") is True and not self._kernels.get("disabled")
        if is_on:
            return FastPath("CUDA kernels", True, "")
        if self._has_old_torch or (self._kernels.get("disabled") and not on_cpu):
            remedy = "torch for CUDA 13.0 or later: an image of the variant cu130, on hosts with CUDA 13.0"
            return FastPath("CUDA kernels", False, "torch is built for an older CUDA", remedy)
        reason = self._kernels.get("unavailable_reason") or "turned off"
        return FastPath("CUDA kernels", False, public_text(reason, 200), _GPU if on_cpu else "")

    def _vram_path(self, given: list[str], on_cpu: bool) -> FastPath:
        if self._dynamic_vram == "on":
            return FastPath("dynamic VRAM", True, "")
        remedies = {"Unsupported Pytorch detected": "torch 2.8 or later", "": _without(given, _VRAM_BY_HAND)}
        remedy = remedies.get(self._dynamic_vram, "the package comfy-aimdo of ComfyUI's requirements.txt")
        detail = self._dynamic_vram or _cause(on_cpu, remedy)
        return FastPath("dynamic VRAM", False, detail, remedy or (_GPU if on_cpu else ""))


def _without(given: list[str], flags: tuple[str, ...]) -> str:
    found = [flag for flag in flags if flag in given]
    return f"COMFYUI_ARGS without {', '.join(found)}" if found else ""


def _cause(on_cpu: bool, remedy: str) -> str:
    if remedy.startswith("COMFYUI_ARGS"):
        return "turned off by COMFYUI_ARGS"
    return "on the CPU" if on_cpu else ""
