"""The environment: settings are read from it, and child processes get theirs; the only reader of `os.environ`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from dotenv import dotenv_values

from .. import REPOSITORY
from ..errors import InvalidSetting
from .settings import Settings, variable

_SECRETS = REPOSITORY / ".secrets"
_SDK_LEVELS = ("NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR")

# Names that a child process must not see: the platform's own variables and whatever looks like a secret.
_WITHHELD = re.compile(
    r"^(RUNPOD|R2|S3|BUCKET|AWS|HF|HUGGING_?FACE)_"
    r"|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY"
    r"|_(KEY|PAT|PASS|DSN|AUTH)$|^DATABASE_URL$|CONNECTION_STRING|^AUTHORIZATION$",
    re.IGNORECASE,
)
# Of those, the ones that are no secret and that model loaders read.
_NOT_SECRET = frozenset({"HF_HOME", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_ENDPOINT", "TOKENIZERS_PARALLELISM"})


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """`Settings` from the environment (ours with `.secrets` behind it, unless one is given).

    Raises InvalidSetting, naming the variable, its value and what would be right; also for a part of a bucket.
    """
    environment = {**_secrets(), **os.environ} if environment is None else environment
    given = {}
    for setting in fields(Settings):
        value = environment.get(variable(setting))
        if value is not None and value.strip():
            given[setting.name] = _parsed(setting, value)
    settings = Settings(**given)
    _ = settings.bucket, settings.models_bucket
    return settings


def _secrets() -> dict[str, str]:
    """What the file `.secrets` at the top of the repository says: KEY=value lines, as in `.secrets.example`."""
    return {name: value for name, value in dotenv_values(_SECRETS, interpolate=False).items() if value is not None}


def _parsed(setting: Field[Any], value: str) -> Any:
    try:
        return setting.metadata["parse"](value)
    except ValueError as error:
        told = "what it is" if "@" in value else repr(value[:80])  # an address with a password
        raise InvalidSetting(f"{variable(setting)} must be {error}, not {told}") from error


def on_runpod() -> bool:
    """Whether a RunPod queue is there to take jobs from: what the SDK itself tests."""
    return bool(os.environ.get("RUNPOD_WEBHOOK_GET_JOB"))


def tame_sdk() -> None:
    """Keep the SDK from printing every job's input and output, and from its own fitness checks.

    Its default level is DEBUG, which prints them. Its checks import torch, dial 8.8.8.8 and end a worker whose network
    is filtered; ours are in `fitness`. The SDK reads these variables when `runpod` is imported.
    """
    for name in ("RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL"):
        level = os.environ.get(name, "").upper()
        if level and level not in _SDK_LEVELS:  # the SDK would not even start
            os.environ[name] = "WARN" if level == "WARNING" else "INFO"
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    os.environ.setdefault("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true")
    os.environ.setdefault("RUNPOD_SKIP_GPU_CHECK", "true")


def own_environment() -> dict[str, str]:
    """Our environment for worker processes of our own, which are to take jobs whatever we do."""
    return {name: value for name, value in os.environ.items() if name != "MODE_TO_RUN"}


def may_be_secret(name: str) -> bool:
    """Whether a variable of that name may hold a secret, or is the platform's own."""
    return name not in _NOT_SECRET and _WITHHELD.search(name) is not None


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment for ComfyUI: ours without the platform's variables and without secrets."""
    passed = settings.comfyui_pass_env
    kept = {name: value for name, value in os.environ.items() if name in passed or not may_be_secret(name)}
    return {**kept, "PYTHONUNBUFFERED": "1"}
