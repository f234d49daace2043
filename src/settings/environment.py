"""Reads the settings from the environment and builds that of child processes; the only reader of `os.environ`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import Field, fields
from typing import Any

from dotenv import dotenv_values

from .. import REPOSITORY
from ..errors import InvalidSetting
from .peer_variables import PEER_VARIABLES
from .settings import Settings, variable

LOCAL_ENDPOINT = "WORKER_OF_LOCAL_ENDPOINT"
"""The variable that tells a worker that it is one of `--serve`."""
_SYSTEM_FOLDERS = ("/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64")
SECRETS_FILE = REPOSITORY / ".secrets"
_SDK_LOG_LEVELS = ("NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR")

# Names that a child process must not see: RunPod's own variables and every name that looks like a secret.
_WITHHELD = re.compile(
    r"^(RUNPOD|R2|S3|BUCKET|AWS|HF|HUGGING_?FACE)_"
    r"|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY"
    r"|_(KEY|PAT|PASS|DSN|AUTH)$|^DATABASE_URL$|CONNECTION_STRING|^AUTHORIZATION$",
    re.IGNORECASE,
)
# Names that match the pattern but are no secrets, and that model loaders read.
_NOT_SECRET = frozenset({"HF_HOME", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_ENDPOINT", "TOKENIZERS_PARALLELISM"})


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """`Settings` from `environment`; by default `os.environ`, with `.secrets` for variables that are not set there.

    Raises InvalidSetting, naming the variable, its value and what would be valid; also for a bucket of which only
    some variables are set.
    """
    environment = {**_secrets(), **os.environ} if environment is None else environment
    given = {}
    for setting in fields(Settings):
        value = environment.get(variable(setting))
        if value is not None and value.strip():
            given[setting.name] = _parsed(setting, value)
    settings = Settings(**given)
    _ = settings.bucket, settings.models_bucket  # raises InvalidSetting for an incomplete bucket
    return settings


def _secrets() -> dict[str, str]:
    """The variables in the file `.secrets` at the top of the repository: KEY=value lines, as in `.secrets.example`."""
    return {name: value for name, value in dotenv_values(SECRETS_FILE, interpolate=False).items() if value is not None}


def _parsed(setting: Field[Any], value: str) -> Any:
    try:
        return setting.metadata["parse"](value)
    except ValueError as error:
        shown = "what it is" if "@" in value else repr(value[:80])  # a URL may contain a password
        raise InvalidSetting(f"{variable(setting)} must be {error}, not {shown}") from error


def warnings_about_variables() -> list[str]:
    """A sentence for each variable of other workers that is set."""
    return [
        f"{name} is a setting of another worker: {told}"
        for name, told in PEER_VARIABLES.items()
        if os.environ.get(name)
    ]


def guarded_programs() -> list[str]:
    """The folders with programs that the worker runs, which ComfyUI and its node packs must not change."""
    return [str(REPOSITORY), sys.prefix, sys.base_prefix, *_SYSTEM_FOLDERS]


def on_local_endpoint() -> bool:
    """Whether this is a worker of `--serve`, where a person waits for its start."""
    return bool(os.environ.get(LOCAL_ENDPOINT))


def on_runpod() -> bool:
    """Whether there is a RunPod queue to take jobs from: the same variable that the SDK tests."""
    return bool(os.environ.get("RUNPOD_WEBHOOK_GET_JOB"))


def configure_sdk_environment() -> None:
    """Keep the SDK from printing every job's input and output, and from running its own fitness checks.

    Its default log level is DEBUG, which prints inputs and outputs. Its checks import torch, connect to 8.8.8.8 and
    end a worker whose network is filtered; this worker's own are in `fitness`. The SDK reads these variables when
    `runpod` is imported.
    """
    for name in ("RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL"):
        level = os.environ.get(name, "").upper()
        if level and level not in _SDK_LOG_LEVELS:  # the SDK would fail at import
            os.environ[name] = "WARN" if level == "WARNING" else "INFO"
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    os.environ.setdefault("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true")
    os.environ.setdefault("RUNPOD_SKIP_GPU_CHECK", "true")


def local_worker_environment() -> dict[str, str]:
    """The environment for worker processes started by this one: its own without `MODE_TO_RUN`, so they take jobs."""
    return {name: value for name, value in os.environ.items() if name != "MODE_TO_RUN"}


def may_be_secret(name: str) -> bool:
    """Whether a variable of that name may hold a secret or is one of RunPod's own."""
    return name not in _NOT_SECRET and _WITHHELD.search(name) is not None


def harmless_environment(allowed: Collection[str] = ()) -> dict[str, str]:
    """This process's environment without RunPod's variables and without secrets, except for the allowed names."""
    return {name: value for name, value in os.environ.items() if name in allowed or not may_be_secret(name)}


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment for ComfyUI: this process's own, without RunPod's variables and without secrets."""
    return {**harmless_environment(settings.comfyui_pass_env), "PYTHONUNBUFFERED": "1"}
