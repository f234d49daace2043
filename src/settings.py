"""The environment, read once into one frozen object; the only reader of `os.environ`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from dotenv import dotenv_values

from . import setting_values
from .errors import InvalidSetting

_SECRETS = Path(__file__).resolve().parent.parent / ".secrets"

ImageFormat = Literal["png", "jpeg", "webp", "avif"]
Delivery = Literal["auto", "base64", "bucket"]

_AWS_BUCKET = re.compile(r"(?P<bucket>[a-z0-9.-]+)\.(?P<host>s3[.-][a-z0-9.-]*amazonaws\.com)")
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


@dataclass(frozen=True)
class BucketConfig:
    """An S3-compatible bucket and how its files are named and linked.

    `prefix` may hold `{date}` (YYYY-MM-DD, UTC) and `{job_id}`. With `public_url` links are that and the key, else
    signed ones that work for `url_seconds`. All files of a job have `upload_seconds`. Jobs may read what is below
    `input_prefix`. `is_from_job`: a caller brought it, so its endpoint is not trusted. `is_for_models`:
    it keeps models.
    """

    endpoint_url: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    name: str
    region: str = "auto"
    prefix: str = "{date}/{job_id}"
    public_url: str = ""
    url_seconds: int = 604800
    upload_seconds: float = 120.0
    input_prefix: str = ""
    is_from_job: bool = False
    is_for_models: bool = False


def _setting(name: str, default: Any, meaning: str, parse: Callable[[str], Any], is_secret: bool = False) -> Any:
    about = {"name": name, "meaning": meaning, "parse": parse, "is_secret": is_secret}
    return field(default=default, repr=not is_secret, metadata=about)


@dataclass(frozen=True)
class Settings:
    """Every setting of the worker. Each field's metadata holds its variable, meaning and parser."""

    comfyui_path: str = _setting(
        "COMFYUI_PATH",
        "",
        "ComfyUI's folder. Empty: `./ComfyUI`, `~/comfy/ComfyUI`, `/comfyui`, `/ComfyUI`",
        setting_values.text,
    )
    comfyui_python: str = _setting(
        "COMFYUI_PYTHON",
        "",
        "Python that runs ComfyUI. Empty: the `.venv` or `venv` in its folder, else ours",
        setting_values.text,
    )
    comfyui_args: str = _setting(
        "COMFYUI_ARGS",
        "",
        "More arguments for ComfyUI, as on a command line (`--cpu` where there is no GPU)",
        setting_values.text,
    )
    comfyui_port: int = _setting(
        "COMFYUI_PORT", 0, "Port of ComfyUI on 127.0.0.1. 0: any free one", setting_values.port
    )
    comfyui_cache: str = _setting(
        "COMFYUI_CACHE",
        "classic",
        "What ComfyUI keeps between jobs: `classic`, `lru:N` or `none`",
        setting_values.cache,
    )
    comfyui_pass_env: tuple[str, ...] = _setting(
        "COMFYUI_PASS_ENV",
        (),
        "Names of withheld variables that ComfyUI may see after all, comma-separated",
        setting_values.names,
    )
    boot_timeout: float = _setting(
        "COMFYUI_BOOT_TIMEOUT",
        300.0,
        "Seconds that ComfyUI may take to answer after its start",
        setting_values.seconds,
    )
    job_timeout: float = _setting("JOB_TIMEOUT", 600.0, "Seconds that one job may take", setting_values.seconds)
    job_retries: int = _setting(
        "JOB_RETRIES",
        1,
        "How often a job runs again after ComfyUI died or hung, within its `JOB_TIMEOUT`",
        setting_values.whole(0, 10),
    )
    stall_timeout: float = _setting(
        "STALL_TIMEOUT",
        300.0,
        "Seconds that a running job may show no progress; loading a model is silent",
        setting_values.seconds,
    )
    concurrency: int = _setting(
        "CONCURRENCY",
        1,
        "Jobs that the worker takes at a time; ComfyUI runs one after the other",
        setting_values.whole(1, 16),
    )
    interrupt_grace: float = _setting(
        "INTERRUPT_GRACE",
        10.0,
        "Seconds that an interrupted prompt may take to stop before ComfyUI is restarted",
        setting_values.seconds,
    )
    result_limit: float = _setting(
        "RESULT_LIMIT_MB",
        9.5,
        "Largest answer in megabytes (10^6 bytes); RunPod loses larger ones",
        setting_values.number(1000, "megabytes"),
    )
    fitness_checks: tuple[str, ...] = _setting(
        "FITNESS_CHECKS",
        ("disk", "gpu"),
        "What a worker checks before it takes jobs, comma-separated; `none` for nothing",
        setting_values.checks,
    )
    min_free_disk: float = _setting(
        "MIN_FREE_DISK_MB",
        500.0,
        "Megabytes that the `disk` check wants free in the temporary folder",
        setting_values.number(1_000_000_000, "megabytes"),
    )
    workflows_dir: str = _setting(
        "WORKFLOWS_DIR",
        "",
        "Folder of stored workflows, looked into before `/runpod-volume/workflows`, `/workspace/workflows` and "
        "`examples/`",
        setting_values.text,
    )
    max_input_files: int = _setting(
        "MAX_INPUT_FILES", 50, "Files that one job may bring", setting_values.whole(0, 1000)
    )
    max_input_file: float = _setting(
        "MAX_INPUT_FILE_MB",
        512.0,
        "Largest file that a job may bring, in megabytes",
        setting_values.number(100_000, "megabytes"),
    )
    max_input_total: float = _setting(
        "MAX_INPUT_TOTAL_MB",
        1024.0,
        "All files of a job together, in megabytes",
        setting_values.number(100_000, "megabytes"),
    )
    max_input_megapixels: int = _setting(
        "MAX_INPUT_MEGAPIXELS",
        150,
        "Largest picture that a job may bring, all its frames together, in millions of pixels",
        setting_values.whole(1, 1000),
    )
    input_timeout: float = _setting(
        "INPUT_TIMEOUT", 120.0, "Seconds that fetching all files of a job may take", setting_values.seconds
    )
    allow_http_urls: bool = _setting(
        "ALLOW_HTTP_URLS",
        False,
        "Whether URLs of input files may be `http://`, which anybody on the way can read",
        setting_values.flag,
    )
    trusted_hosts: tuple[str, ...] = _setting(
        "TRUSTED_HOSTS",
        (),
        "Hosts (`name` or `name:port`) that jobs may reach by URL although they are private, comma-separated",
        setting_values.names,
    )
    output_format: ImageFormat | Literal[""] = _setting(
        "OUTPUT_FORMAT",
        "",
        "`png`, `jpeg`, `webp` or `avif`: what images are delivered as. Empty: as they were saved",
        setting_values.one_of(*get_args(ImageFormat)),
    )
    output_quality: int = _setting(
        "OUTPUT_QUALITY", 90, "Quality of images that are re-encoded, 1 to 100", setting_values.whole(1, 100)
    )
    output_delivery: Delivery = _setting(
        "OUTPUT_DELIVERY",
        "auto",
        "`base64`, `bucket`, or `auto`: base64 as long as the answer is small enough",
        setting_values.one_of(*get_args(Delivery)),
    )
    bucket_endpoint_url: str = _setting(
        "BUCKET_ENDPOINT_URL",
        "",
        "S3-compatible storage, like `https://ACCOUNT.r2.cloudflarestorage.com`",
        setting_values.url,
    )
    bucket_access_key_id: str = _setting(
        "BUCKET_ACCESS_KEY_ID", "", "Its access key id", setting_values.text, is_secret=True
    )
    bucket_secret_access_key: str = _setting(
        "BUCKET_SECRET_ACCESS_KEY", "", "Its secret access key", setting_values.text, is_secret=True
    )
    bucket_name: str = _setting(
        "BUCKET_NAME", "", "The bucket. Empty: the one at the end of the endpoint URL", setting_values.text
    )
    bucket_region: str = _setting("BUCKET_REGION", "auto", "Its region (`auto` for R2)", setting_values.text)
    bucket_prefix: str = _setting(
        "BUCKET_PREFIX",
        "{date}/{job_id}",
        "Folder in the bucket; `{date}` and `{job_id}` are filled in",
        setting_values.prefix,
    )
    bucket_public_url: str = _setting(
        "BUCKET_PUBLIC_URL",
        "",
        "Where the bucket can be read by everybody. Empty: links are signed",
        setting_values.url,
    )
    bucket_url_seconds: int = _setting(
        "BUCKET_URL_SECONDS",
        604800,
        "Seconds that a signed link works, at most 7 days",
        setting_values.whole(1, 604800),
    )
    bucket_input_prefix: str = _setting(
        "BUCKET_INPUT_PREFIX",
        "",
        "Folder of the bucket that jobs may read by `s3://`. Empty: all of it",
        setting_values.text,
    )
    upload_timeout: float = _setting(
        "UPLOAD_TIMEOUT", 120.0, "Seconds that all files of a job may take to the bucket", setting_values.seconds
    )
    comfy_org_api_key: str = _setting(
        "COMFY_ORG_API_KEY",
        "",
        "Key for paid partner nodes, for jobs that bring none",
        setting_values.text,
        is_secret=True,
    )
    save_metadata: bool = _setting(
        "SAVE_METADATA", False, "Whether saved files carry the workflow", setting_values.flag
    )
    enable_api_nodes: bool = _setting(
        "ENABLE_API_NODES", False, "Whether ComfyUI loads its paid partner (API) nodes", setting_values.flag
    )
    models: tuple[str, ...] = _setting(
        "MODELS",
        (),
        "Sets of models, or single ones, that the worker needs, comma-separated: `flux1-dev`, … "
        "(`python -m src.models sets` lists them)",
        setting_values.names,
    )
    download_models: bool = _setting(
        "DOWNLOAD_MODELS",
        False,
        "Whether models that are missing are fetched: those of `MODELS` and `WARMUP_WORKFLOW` while ComfyUI boots, "
        "others when a job names them",
        setting_values.flag,
    )
    models_dir: str = _setting(
        "MODELS_DIR",
        "",
        "Folder with ComfyUI's model folders, looked into first, where models are fetched to. Empty: the network "
        "volume if there is one, else ComfyUI's own `models`",
        setting_values.text,
    )
    models_manifest: str = _setting(
        "MODELS_MANIFEST",
        "",
        "JSON file with models and sets of your own, which go before those that the worker knows",
        setting_values.text,
    )
    hf_token: str = _setting(
        "HF_TOKEN",
        "",
        "Token of Hugging Face, for models whose licence has to be accepted, and for higher limits",
        setting_values.text,
        is_secret=True,
    )
    hf_endpoint: str = _setting(
        "HF_ENDPOINT", "https://huggingface.co", "Where the Hugging Face hub is, or a mirror", setting_values.url
    )
    download_stall_timeout: float = _setting(
        "DOWNLOAD_STALL_TIMEOUT",
        60.0,
        "Seconds that a download of a model may bring nothing before it is tried in another way",
        setting_values.seconds,
    )
    read_ahead: bool = _setting(
        "READ_AHEAD",
        True,
        "Whether the models of `MODELS` and `WARMUP_WORKFLOW` are read into memory while ComfyUI boots",
        setting_values.flag,
    )
    model_cache_dir: str = _setting(
        "MODEL_CACHE_DIR",
        "",
        "Folder on a fast disk that those models are copied to where the volume is slow. Empty: none",
        setting_values.text,
    )
    model_cache: float = _setting(
        "MODEL_CACHE_GB",
        50.0,
        "Most gigabytes (10^9 bytes) in that folder; what was used longest ago goes",
        setting_values.number(100_000, "gigabytes"),
    )
    warmup_workflow: str = _setting(
        "WARMUP_WORKFLOW",
        "",
        "Stored workflow (name) or file that runs before the first job is taken, so that its models are loaded",
        setting_values.text,
    )
    r2_endpoint: str = _setting(
        "R2_ENDPOINT",
        "",
        "Storage of models, S3-compatible: `https://ACCOUNT.r2.cloudflarestorage.com`",
        setting_values.url,
    )
    r2_access_key_id: str = _setting("R2_ACCESS_KEY_ID", "", "Its access key id", setting_values.text, is_secret=True)
    r2_secret_access_key: str = _setting(
        "R2_SECRET_ACCESS_KEY", "", "Its secret access key", setting_values.text, is_secret=True
    )
    r2_bucket: str = _setting("R2_BUCKET", "comfyui-models", "The bucket of models", setting_values.text)
    serve_api_key: str = _setting(
        "SERVE_API_KEY",
        "",
        "Key that callers of `--serve` must send. Empty: none",
        setting_values.text,
        is_secret=True,
    )
    mode_to_run: str = _setting(
        "MODE_TO_RUN",
        "",
        "`test` does what `--test` does; `pod` is for the image's start script; else `serverless`",
        setting_values.one_of("test", "serverless", "pod"),
    )
    log_level: str = _setting(
        "LOG_LEVEL",
        "",
        "`DEBUG`, `INFO`, `WARNING` or `ERROR`. Empty: `INFO`, and `ERROR` with `--test`",
        setting_values.log_level,
    )

    @property
    def result_limit_bytes(self) -> int:
        """`result_limit` in bytes."""
        return int(self.result_limit * 1_000_000)

    @property
    def bucket(self) -> BucketConfig | None:
        """The bucket, None if none is set. Raises InvalidSetting if only a part of it is."""
        if not self.bucket_endpoint_url:
            return None
        endpoint, in_url = endpoint_and_bucket(self.bucket_endpoint_url)
        name = self.bucket_name or in_url
        if in_url and in_url != name:
            raise InvalidSetting(f"BUCKET_ENDPOINT_URL is of the bucket {in_url!r}, but BUCKET_NAME is {name!r}")
        given = {
            "BUCKET_ACCESS_KEY_ID": self.bucket_access_key_id,
            "BUCKET_SECRET_ACCESS_KEY": self.bucket_secret_access_key,
            "BUCKET_NAME": name,
        }
        missing = [variable for variable, value in given.items() if not value]
        if missing:
            raise InvalidSetting(f"BUCKET_ENDPOINT_URL is set, so these must be too: {', '.join(missing)}")
        return BucketConfig(
            endpoint,
            self.bucket_access_key_id,
            self.bucket_secret_access_key,
            name,
            self.bucket_region,
            self.bucket_prefix,
            self.bucket_public_url,
            self.bucket_url_seconds,
            self.upload_timeout,
            self.bucket_input_prefix,
        )

    @property
    def models_bucket(self) -> BucketConfig | None:
        """The bucket that keeps models, None if none is set. Raises InvalidSetting if only a part of it is."""
        if not self.r2_endpoint:
            return None
        endpoint, in_url = endpoint_and_bucket(self.r2_endpoint)
        given = {"R2_ACCESS_KEY_ID": self.r2_access_key_id, "R2_SECRET_ACCESS_KEY": self.r2_secret_access_key}
        if in_url and self.r2_bucket not in (in_url, Settings.r2_bucket):
            raise InvalidSetting(f"R2_ENDPOINT is of the bucket {in_url!r}, but R2_BUCKET is {self.r2_bucket!r}")
        missing = [variable for variable, value in given.items() if not value]
        if missing:
            raise InvalidSetting(f"R2_ENDPOINT is set, so these must be too: {', '.join(missing)}")
        return BucketConfig(
            endpoint,
            self.r2_access_key_id,
            self.r2_secret_access_key,
            in_url or self.r2_bucket,
            prefix="",
            is_for_models=True,
        )

    def public(self) -> dict[str, Any]:
        """Each setting under its variable, for whoever may see the worker from outside: secrets only as `set`."""
        return {
            variable(setting): ("set" if getattr(self, setting.name) else "")
            if setting.metadata["is_secret"]
            else getattr(self, setting.name)
            for setting in fields(self)
        }


def endpoint_and_bucket(url: str) -> tuple[str, str]:
    """The endpoint and the bucket in a URL that may have it: in its path, as Cloudflare's console shows it, or in
    front of the host, as RunPod's documentation has it for AWS.
    """
    place = urlsplit(url)
    in_host = _AWS_BUCKET.fullmatch(place.netloc)
    if in_host:
        return f"{place.scheme}://{in_host['host']}", in_host["bucket"]
    in_path = place.path.strip("/")
    return (f"{place.scheme}://{place.netloc}", in_path) if in_path and "/" not in in_path else (url, "")


def written(value: object) -> str:
    """The value of a setting as a person would write it into a variable."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def variable(setting: Field[Any]) -> str:
    """The environment variable of a field of `Settings`."""
    return str(setting.metadata["name"])


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
