"""The environment, read once into one frozen object; the only reader of `os.environ`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from .errors import InvalidSetting

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_SDK_LEVELS = ("NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR")
_CACHE = re.compile(r"classic|none|lru:[1-9]\d*")

# Names that a child process must not see: the platform's own variables and whatever looks like a secret.
_WITHHELD = re.compile(
    r"^(RUNPOD|R2|S3|BUCKET|AWS|HF|HUGGING_?FACE)_"
    r"|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY",
    re.IGNORECASE,
)
# Of those, the ones that are no secret and that model loaders read.
_NOT_SECRET = frozenset({"HF_HOME", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_ENDPOINT", "TOKENIZERS_PARALLELISM"})


def _setting(name: str, default: Any, meaning: str, parse: Callable[[str], Any]) -> Any:
    return field(default=default, metadata={"name": name, "meaning": meaning, "parse": parse})


def _text(value: str) -> str:
    return value.strip()


def _flag(value: str) -> bool:
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("true or false")


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 7 * 86400:
        raise ValueError("a number of seconds above 0 and at most 604800 (7 days)")
    return seconds


def _megabytes(value: str) -> float:
    try:
        megabytes = float(value)
    except ValueError:
        megabytes = -1.0
    if not 0 < megabytes <= 1000:
        raise ValueError("a number of megabytes above 0 and at most 1000")
    return megabytes


def _megabytes_of_disk(value: str) -> float:
    if not value.strip().isdecimal() or int(value) > 10**9:
        raise ValueError("a whole number of megabytes")
    return float(value)


def _checks(value: str) -> tuple[str, ...]:
    names = () if value.strip().lower() == "none" else _names(value.lower())
    if set(names) - {"disk", "gpu"}:
        raise ValueError("disk, gpu, both with a comma between them, or none")
    return names


def _port(value: str) -> int:
    if not value.strip().isdecimal() or int(value) > 65535:
        raise ValueError("a port from 1 to 65535, or 0 for any free one")
    return int(value)


def _mode(value: str) -> str:
    word = value.strip().lower()
    if word not in ("test", "serverless"):
        raise ValueError("test or serverless")
    return word


def _count(value: str) -> int:
    if not value.strip().isdecimal() or int(value) > 10:
        raise ValueError("a whole number from 0 to 10")
    return int(value)


def _concurrency(value: str) -> int:
    if not value.strip().isdecimal() or not 1 <= int(value) <= 16:
        raise ValueError("a whole number from 1 to 16")
    return int(value)


def _cache(value: str) -> str:
    word = value.strip().lower()
    if not _CACHE.fullmatch(word):
        raise ValueError("classic, none or lru:N (N results kept)")
    return word


def _log_level(value: str) -> str:
    word = value.strip().upper()
    if word not in _LOG_LEVELS:
        raise ValueError(f"one of {', '.join(_LOG_LEVELS)}")
    return word


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


@dataclass(frozen=True)
class Settings:
    """Every setting of the worker. Each field's metadata holds its variable, meaning and parser."""

    comfyui_path: str = _setting(
        "COMFYUI_PATH", "", "ComfyUI's folder. Empty: `./ComfyUI`, `~/comfy/ComfyUI`, `/comfyui`, `/ComfyUI`", _text
    )
    comfyui_python: str = _setting(
        "COMFYUI_PYTHON", "", "Python that runs ComfyUI. Empty: the `.venv` or `venv` in its folder, else ours", _text
    )
    comfyui_args: str = _setting(
        "COMFYUI_ARGS", "", "More arguments for ComfyUI, as on a command line (`--cpu` where there is no GPU)", _text
    )
    comfyui_port: int = _setting("COMFYUI_PORT", 0, "Port of ComfyUI on 127.0.0.1. 0: any free one", _port)
    comfyui_cache: str = _setting(
        "COMFYUI_CACHE", "classic", "What ComfyUI keeps between jobs: `classic`, `lru:N` or `none`", _cache
    )
    comfyui_pass_env: tuple[str, ...] = _setting(
        "COMFYUI_PASS_ENV", (), "Names of withheld variables that ComfyUI may see after all, comma-separated", _names
    )
    boot_timeout: float = _setting(
        "COMFYUI_BOOT_TIMEOUT", 300.0, "Seconds that ComfyUI may take to answer after its start", _seconds
    )
    job_timeout: float = _setting("JOB_TIMEOUT", 600.0, "Seconds that one job may take", _seconds)
    job_retries: int = _setting(
        "JOB_RETRIES", 1, "How often a job runs again after ComfyUI died or hung, within its `JOB_TIMEOUT`", _count
    )
    stall_timeout: float = _setting(
        "STALL_TIMEOUT", 300.0, "Seconds that a running job may show no progress; loading a model is silent", _seconds
    )
    concurrency: int = _setting(
        "CONCURRENCY", 1, "Jobs that the worker takes at a time; ComfyUI runs one after the other", _concurrency
    )
    interrupt_grace: float = _setting(
        "INTERRUPT_GRACE",
        10.0,
        "Seconds that an interrupted prompt may take to stop before ComfyUI is restarted",
        _seconds,
    )
    result_limit: float = _setting(
        "RESULT_LIMIT_MB", 9.5, "Largest answer in megabytes (10^6 bytes); RunPod loses larger ones", _megabytes
    )
    fitness_checks: tuple[str, ...] = _setting(
        "FITNESS_CHECKS",
        ("disk", "gpu"),
        "What a worker checks before it takes jobs, comma-separated; `none` for nothing",
        _checks,
    )
    min_free_disk: float = _setting(
        "MIN_FREE_DISK_MB",
        500.0,
        "Megabytes that the `disk` check wants free in the temporary folder",
        _megabytes_of_disk,
    )
    save_metadata: bool = _setting("SAVE_METADATA", False, "Whether saved images carry the workflow", _flag)
    enable_api_nodes: bool = _setting(
        "ENABLE_API_NODES", False, "Whether ComfyUI loads its paid partner (API) nodes", _flag
    )
    serve_api_key: str = _setting("SERVE_API_KEY", "", "Key that callers of `--serve` must send. Empty: none", _text)
    mode_to_run: str = _setting("MODE_TO_RUN", "", "`test` does what `--test` does; else `serverless`", _mode)
    log_level: str = _setting(
        "LOG_LEVEL",
        "",
        "`DEBUG`, `INFO`, `WARNING` or `ERROR`. Empty: `INFO`, and `ERROR` with `--test`",
        _log_level,
    )

    @property
    def result_limit_bytes(self) -> int:
        """`result_limit` in bytes."""
        return int(self.result_limit * 1_000_000)


def variable(setting: Field[Any]) -> str:
    """The environment variable of a field of `Settings`."""
    return str(setting.metadata["name"])


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """`Settings` from the environment (ours, unless one is given).

    Raises InvalidSetting, naming the variable, its value and what would be right.
    """
    environment = os.environ if environment is None else environment
    given = {}
    for setting in fields(Settings):
        value = environment.get(variable(setting))
        if value is not None and value.strip():
            given[setting.name] = _parsed(setting, value)
    return Settings(**given)


def _parsed(setting: Field[Any], value: str) -> Any:
    try:
        return setting.metadata["parse"](value)
    except ValueError as error:
        raise InvalidSetting(f"{variable(setting)} must be {error}, not {value[:80]!r}") from error


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


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment for ComfyUI: ours without the platform's variables and without secrets."""
    passed = _NOT_SECRET.union(settings.comfyui_pass_env)
    kept = {name: value for name, value in os.environ.items() if name in passed or not _WITHHELD.search(name)}
    return {**kept, "PYTHONUNBUFFERED": "1"}
