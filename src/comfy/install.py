"""Where an engine is, what its version accepts, and the command that starts it.

An engine is a ComfyUI checkout, or the draft engine that stands in for one on machines without.
"""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .. import REPOSITORY
from ..errors import ComfyNotFound, InvalidSetting
from ..settings import Settings
from .folders import Folders

_USUAL_PLACES = ("./ComfyUI", "~/comfy/ComfyUI", "/comfyui", "/ComfyUI")
_MODEL_PATHS_FLAG = "--extra-model-paths-config"
_PREVIEW_FLAG = "--preview-method"
_DRAFT_FLAGS = frozenset({"--disable-metadata", "--cache-classic", "--cache-none", "--cache-lru", _PREVIEW_FLAG})


@dataclass(frozen=True)
class Installation:
    """An engine on this machine. `accepted` holds the flags of its version: an unknown one would end it at once.

    `previews_by_job`: a prompt can say whether its samplers send previews. Others do what they were started with.
    """

    name: str
    directory: Path
    start: tuple[str, ...]
    accepted: frozenset[str]
    previews_by_job: bool = False

    def command(self, settings: Settings, folders: Folders, port: int) -> list[str]:
        """The command that starts it as a headless server on 127.0.0.1, to be run in `directory`."""
        return [
            *self.start,
            *("--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"),
            *("--input-directory", str(folders.input), "--output-directory", str(folders.output)),
            *("--temp-directory", str(folders.root), "--user-directory", str(folders.user)),
            *self._optional_flags(settings, folders),
            *_split(settings.comfyui_args),
        ]

    @property
    def loads_models(self) -> bool:
        """Whether it takes a file with the model folders: the draft engine, which needs no models, does not."""
        return _MODEL_PATHS_FLAG in self.accepted

    def _optional_flags(self, settings: Settings, folders: Folders) -> list[str]:
        """Flags that depend on settings, as far as this version accepts them."""
        flags = []
        if not settings.save_metadata:
            flags.append(["--disable-metadata"])
        if not settings.enable_api_nodes:  # newer versions mean more than the nodes by --disable-api-nodes
            partner = "--disable-partner-nodes"
            flags.append([partner if partner in self.accepted else "--disable-api-nodes"])
        kind, _, bound = settings.comfyui_cache.partition(":")
        flags.append([f"--cache-{kind}", *([bound] if bound else [])])
        # In a file: with a database in memory ComfyUI 0.3.64 logs a traceback when it closes the connection.
        flags.append(["--database-url", f"sqlite:///{folders.user / 'comfyui.db'}"])
        flags.append(["--disable-assets"])
        if settings.live_previews and not _given_preview_method(settings):
            flags.append([_PREVIEW_FLAG, "auto"])
        flags.append(["--front-end-root", str(folders.editor)])  # else it does not start without the editor's package
        flags.append([_MODEL_PATHS_FLAG, str(folders.model_paths)])
        return [word for flag in flags if flag[0] in self.accepted for word in flag]


def draft_installation(any_class: bool = False) -> Installation:
    """The draft engine of this repository. With `any_class` it stands in for classes that it does not know, too."""
    start = (sys.executable, "-m", "src.draft", *(["--any-class"] if any_class else []))
    return Installation("draft engine", REPOSITORY, start, _DRAFT_FLAGS, previews_by_job=True)


def find_comfyui(settings: Settings) -> Installation:
    """The ComfyUI that COMFYUI_PATH names, else the first of the usual places.

    Raises ComfyNotFound, saying where we looked and what to do.
    """
    places = (settings.comfyui_path,) if settings.comfyui_path else _USUAL_PLACES
    for place in places:
        directory = Path(place).expanduser().absolute()
        if (directory / "main.py").is_file() and (directory / "comfy").is_dir():
            return _installation(directory, settings)
    raise ComfyNotFound(
        f"no ComfyUI at {', '.join(places)}. Set COMFYUI_PATH to the folder that holds its main.py, "
        "or install it: git clone https://github.com/Comfy-Org/ComfyUI and install its requirements.txt into a .venv "
        "in that folder. To try the worker without ComfyUI, add --draft"
    )


def _installation(directory: Path, settings: Settings) -> Installation:
    version_file = directory / "comfyui_version.py"
    version = re.search(r'__version__\s*=\s*"([^"]+)"', _text(version_file))
    accepted = frozenset(re.findall(r"[\"'](--[\w-]+)[\"']", _text(directory / "comfy" / "cli_args.py")))
    return Installation(
        f"ComfyUI {version.group(1) if version else '(unknown version)'}",
        directory,
        (_python(directory, settings), "main.py"),
        accepted,
        "preview_method" in _text(directory / "execution.py"),
    )


def preview_method(settings: Settings) -> str:
    """How an engine with these settings makes previews of a sampler's work if a prompt says nothing; "none": not."""
    return _given_preview_method(settings) or ("auto" if settings.live_previews else "none")


def _given_preview_method(settings: Settings) -> str:
    """The one in COMFYUI_ARGS, "" if there is none."""
    words = [part for word in _split(settings.comfyui_args) for part in word.split("=", 1)]
    given = [value for flag, value in itertools.pairwise(words) if flag == _PREVIEW_FLAG]
    return given[-1] if given else ""


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _python(directory: Path, settings: Settings) -> str:
    if settings.comfyui_python:
        if shutil.which(settings.comfyui_python) is None:
            raise InvalidSetting(f"COMFYUI_PYTHON must be a Python interpreter, not {settings.comfyui_python}")
        return settings.comfyui_python
    for environment in (".venv", "venv"):
        python = directory / environment / "bin" / "python"
        if python.exists():
            return str(python)
    return sys.executable


def _split(arguments: str) -> list[str]:
    try:
        return shlex.split(arguments)
    except ValueError as error:
        raise InvalidSetting(
            f"COMFYUI_ARGS must be arguments as on a command line ({error}), not {arguments!r}"
        ) from error
