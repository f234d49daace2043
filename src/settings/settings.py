"""The table of settings: each field of `Settings` is an environment variable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, get_args

from ..errors import InvalidSetting
from . import values
from .bucket import BucketConfig, endpoint_and_bucket
from .node_packs import PackSource, read_sources
from .stored_workflows import packed

ImageFormat = Literal["png", "jpeg", "webp", "avif"]
Delivery = Literal["auto", "base64", "bucket"]
AnswerFormat = Literal["standard", "worker-comfyui"]


def _setting(name: str, default: Any, meaning: str, parse: Callable[[str], Any], is_secret: bool = False) -> Any:
    metadata = {"name": name, "meaning": meaning, "parse": parse, "is_secret": is_secret}
    return field(default=default, repr=not is_secret, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Every setting of the worker. The metadata of a field holds its variable, meaning and parser."""

    comfyui_path: str = _setting(
        "COMFYUI_PATH",
        "",
        "ComfyUI's folder. Empty: `./ComfyUI`, `~/comfy/ComfyUI`, `/comfyui`, `/ComfyUI`",
        values.text,
    )
    comfyui_python: str = _setting(
        "COMFYUI_PYTHON",
        "",
        "Python that runs ComfyUI. Empty: the `.venv` or `venv` in its folder, else the worker's own",
        values.text,
    )
    comfyui_args: str = _setting(
        "COMFYUI_ARGS",
        "",
        "Additional arguments for ComfyUI, as on a command line (`--cpu` where there is no GPU)",
        values.text,
    )
    comfyui_port: int = _setting("COMFYUI_PORT", 0, "Port of ComfyUI on 127.0.0.1. 0: any free port", values.port)
    comfyui_cache: str = _setting(
        "COMFYUI_CACHE",
        "ram",
        "What ComfyUI keeps between jobs: `classic` (the node results of the last job), `ram` (the same, but evicts "
        "results while memory is short: `ram:GB` sets how much to keep free; a ComfyUI without it uses `classic`), "
        "`lru:N` (N results) or `none`",
        values.cache,
    )
    comfyui_pass_env: tuple[str, ...] = _setting(
        "COMFYUI_PASS_ENV",
        (),
        "Names of withheld variables to pass to ComfyUI anyway, comma-separated",
        values.names,
    )
    comfyui_confined: bool = _setting(
        "COMFYUI_CONFINED",
        False,
        "Deny ComfyUI and its node packs access to the worker's memory, `.secrets` and program files, if the kernel "
        "supports it (Linux 5.19). The image sets it",
        values.flag,
    )
    comfyui_defer_imports: bool = _setting(
        "COMFYUI_DEFER_IMPORTS",
        True,
        "Let ComfyUI's own modules import large libraries (scipy, kornia, transformers, …) once the worker takes "
        "jobs instead of at startup. Only in the image, whose build has checked that they import",
        values.flag,
    )
    boot_timeout: float = _setting(
        "COMFYUI_BOOT_TIMEOUT",
        300.0,
        "Seconds that ComfyUI may take to start up",
        values.seconds,
    )
    job_timeout: float = _setting("JOB_TIMEOUT", 600.0, "Seconds that one job may take", values.seconds)
    job_retries: int = _setting(
        "JOB_RETRIES",
        1,
        "How often a job is retried after ComfyUI crashed or hung, within its `JOB_TIMEOUT`",
        values.whole_number(0, 10),
    )
    refresh_worker: bool = _setting(
        "REFRESH_WORKER",
        False,
        "Whether RunPod replaces the worker after each job that ran, so that nothing of it remains: each job pays "
        "for a cold start",
        values.flag,
    )
    stall_timeout: float = _setting(
        "STALL_TIMEOUT",
        300.0,
        "Seconds that a running job may go without progress; loading a model reports none",
        values.seconds,
    )
    concurrency: int = _setting(
        "CONCURRENCY",
        1,
        "Jobs that the worker takes at a time; ComfyUI runs them one by one",
        values.whole_number(1, 16),
    )
    interrupt_grace: float = _setting(
        "INTERRUPT_GRACE",
        10.0,
        "Seconds that an interrupted prompt may take to stop before ComfyUI is restarted",
        values.seconds,
    )
    result_limit: float = _setting(
        "RESULT_LIMIT_MB",
        9.5,
        "Largest response in megabytes (10^6 bytes); RunPod loses larger ones",
        values.number(1000, "megabytes"),
    )
    fitness_checks: tuple[str, ...] = _setting(
        "FITNESS_CHECKS",
        ("disk", "gpu"),
        "What a worker checks before it takes jobs, comma-separated; `none` for nothing",
        values.checks,
    )
    min_free_disk: float = _setting(
        "MIN_FREE_DISK_MB",
        500.0,
        "Free megabytes that the `disk` check requires in the temporary folder",
        values.number(1_000_000_000, "megabytes"),
    )
    workflows_dir: str = _setting(
        "WORKFLOWS_DIR",
        "",
        "Folder of stored workflows, searched before `/runpod-volume/workflows`, `/workspace/workflows` and "
        "`examples/`",
        values.text,
    )
    stored_workflows: str = _setting(
        "STORED_WORKFLOWS",
        "",
        "Stored workflows, packed; written by `examples/deploy.py --workflow`",
        packed,
        is_secret=True,
    )
    default_workflow: str = _setting(
        "DEFAULT_WORKFLOW",
        "",
        "Name of the stored workflow for jobs that have none, only fields like a prompt",
        values.text,
    )
    max_input_files: int = _setting("MAX_INPUT_FILES", 50, "Most input files of one job", values.whole_number(0, 1000))
    max_input_file: float = _setting(
        "MAX_INPUT_FILE_MB",
        512.0,
        "Largest input file of a job, in megabytes",
        values.number(100_000, "megabytes"),
    )
    max_input_total: float = _setting(
        "MAX_INPUT_TOTAL_MB",
        1024.0,
        "All input files of a job together, in megabytes",
        values.number(100_000, "megabytes"),
    )
    max_input_megapixels: int = _setting(
        "MAX_INPUT_MEGAPIXELS",
        150,
        "Largest input image of a job, all its frames together, in millions of pixels",
        values.whole_number(1, 1000),
    )
    input_timeout: float = _setting(
        "INPUT_TIMEOUT", 120.0, "Seconds that fetching all input files of a job may take", values.seconds
    )
    allow_http_urls: bool = _setting(
        "ALLOW_HTTP_URLS",
        False,
        "Whether URLs of input files may be `http://`, which is not encrypted",
        values.flag,
    )
    trusted_hosts: tuple[str, ...] = _setting(
        "TRUSTED_HOSTS",
        (),
        "Hosts (`name` or `name:port`) that jobs may reach by URL although they are private, comma-separated",
        values.names,
    )
    output_format: ImageFormat | Literal[""] = _setting(
        "OUTPUT_FORMAT",
        "",
        "`png`, `jpeg`, `webp` or `avif`: format in which images are delivered. Empty: as they were saved",
        values.one_of(*get_args(ImageFormat)),
    )
    output_quality: int = _setting(
        "OUTPUT_QUALITY", 90, "Quality of images that are re-encoded, 1 to 100", values.whole_number(1, 100)
    )
    output_delivery: Delivery = _setting(
        "OUTPUT_DELIVERY",
        "auto",
        "`base64`, `bucket`, or `auto`: base64 as long as the response is small enough",
        values.one_of(*get_args(Delivery)),
    )
    answer_format: AnswerFormat = _setting(
        "ANSWER_FORMAT",
        "standard",
        "`standard`, or `worker-comfyui`: the response as clients of that worker expect it",
        values.one_of(*get_args(AnswerFormat)),
    )
    live_previews: bool = _setting(
        "LIVE_PREVIEWS",
        False,
        "Whether the progress of a job contains the sampler's preview, a small JPEG in base64; a job may differ",
        values.flag,
    )
    bucket_endpoint_url: str = _setting(
        "BUCKET_ENDPOINT_URL",
        "",
        "S3-compatible storage, like `https://ACCOUNT.r2.cloudflarestorage.com`",
        values.url,
    )
    bucket_access_key_id: str = _setting("BUCKET_ACCESS_KEY_ID", "", "Its access key id", values.text, is_secret=True)
    bucket_secret_access_key: str = _setting(
        "BUCKET_SECRET_ACCESS_KEY", "", "Its secret access key", values.text, is_secret=True
    )
    bucket_name: str = _setting(
        "BUCKET_NAME", "", "The bucket. Empty: the one at the end of the endpoint URL", values.text
    )
    bucket_region: str = _setting("BUCKET_REGION", "auto", "Its region (`auto` for R2)", values.text)
    bucket_prefix: str = _setting(
        "BUCKET_PREFIX",
        "{date}/{job_id}",
        "Folder in the bucket; `{date}` and `{job_id}` are filled in",
        values.prefix,
    )
    bucket_public_url: str = _setting(
        "BUCKET_PUBLIC_URL",
        "",
        "Public URL of the bucket. Empty: links are signed",
        values.url,
    )
    bucket_url_seconds: int = _setting(
        "BUCKET_URL_SECONDS",
        604800,
        "Seconds until a signed link expires, at most 7 days",
        values.whole_number(1, 604800),
    )
    bucket_input_prefix: str = _setting(
        "BUCKET_INPUT_PREFIX",
        "",
        "Folder of the bucket that jobs may read by `s3://`. Empty: all of it",
        values.text,
    )
    upload_timeout: float = _setting(
        "UPLOAD_TIMEOUT", 120.0, "Seconds that uploading all files of a job may take", values.seconds
    )
    comfy_org_api_key: str = _setting(
        "COMFY_ORG_API_KEY",
        "",
        "Key for paid partner nodes, for jobs that send none",
        values.text,
        is_secret=True,
    )
    save_metadata: bool = _setting("SAVE_METADATA", False, "Whether saved files carry the workflow", values.flag)
    enable_api_nodes: bool = _setting(
        "ENABLE_API_NODES", False, "Whether ComfyUI loads its paid partner (API) nodes", values.flag
    )
    custom_nodes: tuple[PackSource, ...] = _setting(
        "CUSTOM_NODES",
        (),
        "Node packs to install in addition to the image's, once for all workers of a volume, comma-separated: "
        "`id@1.2.3` of "
        "ComfyUI's registry, or `https://…@commit`",
        read_sources,
    )
    custom_nodes_dir: str = _setting(
        "CUSTOM_NODES_DIR",
        "",
        "Folder to install them in. Empty: `node-packs` on the network volume, else a folder of the container",
        values.text,
    )
    comfy_registry: str = _setting("COMFY_REGISTRY", "https://api.comfy.org", "URL of the Comfy Registry", values.url)
    models: tuple[str, ...] = _setting(
        "MODELS",
        (),
        "Model sets, or single models, that the worker needs, comma-separated: `flux1-dev`, `template:NAME`, … "
        "(`python -m src.models sets` lists them)",
        values.names,
    )
    download_models: bool = _setting(
        "DOWNLOAD_MODELS",
        False,
        "Whether missing models are downloaded: those of `MODELS` and `WARMUP_WORKFLOW` while ComfyUI boots, "
        "others when a job needs them",
        values.flag,
    )
    models_dir: str = _setting(
        "MODELS_DIR",
        "",
        "Folder that contains ComfyUI's model folders, searched first; models are downloaded to it. Empty: the "
        "network volume if there is one, else ComfyUI's own `models`",
        values.text,
    )
    models_manifest: str = _setting(
        "MODELS_MANIFEST",
        "",
        "JSON file with models and sets of your own, which override the worker's catalog",
        values.text,
    )
    model_revision: str = _setting(
        "MODEL_REVISION",
        "",
        "Which revision in RunPod's model cache to use, if there are several; RunPod sets it",
        values.text,
    )
    hf_token: str = _setting(
        "HF_TOKEN",
        "",
        "Hugging Face access token, for gated models and higher rate limits",
        values.text,
        is_secret=True,
    )
    hf_endpoint: str = _setting(
        "HF_ENDPOINT", "https://huggingface.co", "URL of the Hugging Face Hub or of a mirror", values.url
    )
    model_hosts: tuple[str, ...] = _setting(
        "MODEL_HOSTS",
        ("huggingface.co", "civitai.com"),
        "Hosts (`name` or `name:port`) from which a job, or its saved workflow, may have models downloaded by URL",
        values.names,
    )
    civitai_token: str = _setting(
        "CIVITAI_TOKEN", "", "Civitai API token, for models that require a login", values.text, is_secret=True
    )
    civitai_endpoint: str = _setting("CIVITAI_ENDPOINT", "https://civitai.com", "URL of Civitai", values.url)
    max_job_models: float = _setting(
        "MAX_JOB_MODEL_GB",
        50.0,
        "Most gigabytes (10^9 bytes) of models to download for one job",
        values.number(100_000, "gigabytes"),
    )
    kept_models: int = _setting(
        "KEPT_MODELS_GB",
        0,
        "Most gigabytes of models downloaded for jobs to keep on a container disk; the least recently used are "
        "removed first. 0: as many as fit. On a network volume all are kept",
        values.whole_number(0, 100_000),
    )
    download_stall_timeout: float = _setting(
        "DOWNLOAD_STALL_TIMEOUT",
        60.0,
        "Seconds that a model download may receive no data before another method is tried",
        values.seconds,
    )
    read_ahead: bool = _setting(
        "READ_AHEAD",
        True,
        "Whether the models of `MODELS` and `WARMUP_WORKFLOW` are read into memory while ComfyUI boots",
        values.flag,
    )
    model_cache_dir: str = _setting(
        "MODEL_CACHE_DIR",
        "",
        "Folder on a fast disk to copy those models to if the volume is slow. Empty: none",
        values.text,
    )
    model_cache: float = _setting(
        "MODEL_CACHE_GB",
        50.0,
        "Most gigabytes (10^9 bytes) in that folder; the least recently used models are removed first",
        values.number(100_000, "gigabytes"),
    )
    warmup_workflow: str = _setting(
        "WARMUP_WORKFLOW",
        "",
        "Name of a stored workflow, or a file, that runs before the first job is taken, so that its models are loaded",
        values.text,
    )
    r2_endpoint: str = _setting(
        "R2_ENDPOINT",
        "",
        "S3-compatible storage for models, like `https://ACCOUNT.r2.cloudflarestorage.com`",
        values.url,
    )
    r2_access_key_id: str = _setting("R2_ACCESS_KEY_ID", "", "Its access key id", values.text, is_secret=True)
    r2_secret_access_key: str = _setting(
        "R2_SECRET_ACCESS_KEY", "", "Its secret access key", values.text, is_secret=True
    )
    r2_bucket: str = _setting("R2_BUCKET", "comfyui-models", "The models bucket", values.text)
    serve_api_key: str = _setting(
        "SERVE_API_KEY",
        "",
        "API key that callers of `--serve` must send. Empty: none",
        values.text,
        is_secret=True,
    )
    runpod_endpoint_id: str = _setting(
        "RUNPOD_ENDPOINT_ID", "", "The endpoint on which `--gateway` runs its prompts", values.text
    )
    runpod_api_key: str = _setting(
        "RUNPOD_API_KEY", "", "The key with which `--gateway` uses that endpoint", values.text, is_secret=True
    )
    mode_to_run: str = _setting(
        "MODE_TO_RUN",
        "",
        "`test` does what `--test` does; `pod` is for the image's start script; else `serverless`",
        values.one_of("test", "serverless", "pod"),
    )
    log_level: str = _setting(
        "LOG_LEVEL",
        "",
        "`DEBUG`, `INFO`, `WARNING` or `ERROR`. Empty: `INFO`, and `ERROR` with `--test`",
        values.log_level,
    )

    log_format: Literal["text", "json"] = _setting(
        "LOG_FORMAT",
        "text",
        "`text`, or `json`: one JSON object per line of the worker's log, on stderr",
        values.one_of("text", "json"),
    )

    @property
    def result_limit_bytes(self) -> int:
        """`result_limit` in bytes."""
        return int(self.result_limit * 1_000_000)

    @property
    def bucket(self) -> BucketConfig | None:
        """The bucket for results, None if none is set. Raises InvalidSetting if only some of its variables are set."""
        if not self.bucket_endpoint_url:
            return None
        endpoint, in_url = endpoint_and_bucket(self.bucket_endpoint_url)
        name = self.bucket_name or in_url
        if in_url and in_url != name:
            raise InvalidSetting(f"BUCKET_ENDPOINT_URL names the bucket {in_url!r}, but BUCKET_NAME is {name!r}")
        given = {
            "BUCKET_ACCESS_KEY_ID": self.bucket_access_key_id,
            "BUCKET_SECRET_ACCESS_KEY": self.bucket_secret_access_key,
            "BUCKET_NAME": name,
        }
        missing = [variable for variable, value in given.items() if not value]
        if missing:
            in_url = " (the name may also be in BUCKET_ENDPOINT_URL)" if "BUCKET_NAME" in missing else ""
            raise InvalidSetting(f"BUCKET_ENDPOINT_URL is set, so these must be too: {', '.join(missing)}{in_url}")
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
        """The bucket for models, None if none is set. Raises InvalidSetting if only some of its variables are set."""
        if not self.r2_endpoint:
            return None
        endpoint, in_url = endpoint_and_bucket(self.r2_endpoint)
        given = {"R2_ACCESS_KEY_ID": self.r2_access_key_id, "R2_SECRET_ACCESS_KEY": self.r2_secret_access_key}
        if in_url and self.r2_bucket not in (in_url, Settings.r2_bucket):
            raise InvalidSetting(f"R2_ENDPOINT names the bucket {in_url!r}, but R2_BUCKET is {self.r2_bucket!r}")
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
        """Variable name -> value, fit to show to callers: of a secret only `"set"`, or `""` if it is not set."""
        return {
            variable(setting): ("set" if getattr(self, setting.name) else "")
            if setting.metadata["is_secret"]
            else getattr(self, setting.name)
            for setting in fields(self)
        }


def format_value(value: object) -> str:
    """The value of a setting as text, as one would write it into its environment variable."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def variable(setting: Field[Any]) -> str:
    """The name of the environment variable of a field of `Settings`."""
    return str(setting.metadata["name"])
