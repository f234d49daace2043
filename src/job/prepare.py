"""What a job asks for besides its run: the bucket, the delivery, the encoding, and what ComfyUI hands to nodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..comfy.install import Installation, preview_method
from ..deadline import attended
from ..errors import NoBucket
from ..inputs.files import StagedFile, fetch_rules
from ..models.job_models import JobModels, NamedModel
from ..models.provisioning import ModelProvisioner
from ..needs import saved_models
from ..outputs import Encoding, Plan
from ..overrides import AppliedOverrides
from ..settings import AnswerFormat, Delivery, Settings
from ..storage.bucket import Bucket
from ..workflow import outline_of
from .request import Request


@dataclass(frozen=True)
class PreparedJob:
    """A job that is ready to be queued. `input_seconds` is how long fetching its files took.

    `on_safe` is called when the files that it made are safe.
    """

    request: Request
    applied: AppliedOverrides
    models: JobModels
    files: Mapping[str, StagedFile]
    input_seconds: float
    plan: Plan
    settings: Settings
    on_safe: Callable[[], object]

    @property
    def keeps_partial_results(self) -> bool:
        """Whether files are delivered although a node failed after they were saved: worker-comfyui does so."""
        return answer_format(self.request, self.settings) == "worker-comfyui"

    @property
    def encoding(self) -> Encoding:
        """How its images are encoded: as it asks, else as the settings say."""
        output, settings = self.request.output, self.settings
        texts: dict[str, str] | None = None
        if output.metadata is not None and output.metadata != settings.save_metadata:
            given = {"prompt": self.applied.workflow, **(self.request.extra_pnginfo or {})}
            texts = {keyword: json.dumps(value) for keyword, value in given.items() if output.metadata}
        image_format = output.format or settings.output_format or "original"
        return Encoding(
            None if image_format == "original" else image_format,
            output.quality,
            output.max_side,
            output.background,
            texts,
            settings.output_quality,
        )

    @property
    def takes_previews(self) -> bool:
        """Whether its progress shows what its samplers are at: as it asks, else as the settings say."""
        asked = self.request.output.live_previews
        return self.settings.live_previews if asked is None else asked

    @property
    def extra_data(self) -> dict[str, Any]:
        """The `extra_data` of ComfyUI's /prompt, which it hands to nodes.

        Where ComfyUI writes it into files, an outline must not stand in for the editor's own workflow.
        """
        outline = {} if self.settings.save_metadata else {"workflow": outline_of(self.applied.workflow)}
        extra: dict[str, Any] = {"extra_pnginfo": {**outline, **(self.request.extra_pnginfo or {})}}
        if self.takes_previews != (preview_method(self.settings) != "none"):
            extra["preview_method"] = "auto" if self.takes_previews else "none"  # versions that ignore it: no harm
        key = partner_key(self.request, self.settings)
        return {**extra, "api_key_comfy_org": key} if key else extra


def preview_warnings(job: PreparedJob, installation: Installation) -> list[str]:
    """A warning if the job wants previews of a version that only sends them if it was started so, and it was not."""
    if not job.takes_previews or installation.previews_by_job or preview_method(job.settings) != "none":
        return []
    return [
        f"output.live_previews: {installation.name} sends previews only if it is started with them: set "
        "LIVE_PREVIEWS=true on the endpoint, and no --preview-method none in COMFYUI_ARGS"
    ]


def answer_format(request: Request, settings: Settings) -> AnswerFormat:
    """What the job's answer is to look like: as it asks, else as the settings say."""
    return request.output.answer or settings.answer_format


def models_of(request: Request, models: ModelProvisioner) -> JobModels:
    """The models of the job: those that it asks for, and those of which its saved workflow says the URL."""
    return models.for_job(request.models, lambda: _saved_models(request))


def _saved_models(request: Request) -> list[NamedModel]:
    saved = (request.extra_pnginfo or {}).get("workflow")
    return [
        NamedModel(model.folder, model.file, model.sources[0], "the workflow", model.sha256 or None, is_wanted=False)
        for model in saved_models(saved)
        if model.sources
    ]


@contextmanager
def bucket_for(request: Request, settings: Settings, of_worker: Bucket | None) -> Iterator[Bucket | None]:
    """The caller's bucket, or else the worker's."""
    if request.bucket is None:
        yield of_worker
        return
    bucket = Bucket(request.bucket, fetch_rules(settings))
    try:
        yield bucket
    finally:
        bucket.close()


def delivery_plan(
    request: Request, job_id: str, settings: Settings, bucket: Bucket | None, check: Callable[[], None]
) -> Plan:
    """How the job's files go to the caller. `check` raises if the job has to end.

    Raises NoBucket or BucketFailed before the GPU has worked for nothing.
    """
    default: Delivery = "bucket" if request.bucket is not None else settings.output_delivery
    if default == "auto" and bucket is not None and answer_format(request, settings) == "worker-comfyui":
        default = "bucket"  # as that worker does
    delivery = request.output.delivery or default
    if delivery == "bucket":
        if bucket is None:
            raise NoBucket(
                "the job requires a bucket, but this worker has none: set BUCKET_ENDPOINT_URL and the other BUCKET_ "
                "settings, or send s3Config beside input"
            )
        attended(bucket.check, check)
    return Plan(delivery, bucket, settings.result_limit_bytes, request.output.may_reencode, job_id)


def partner_key(request: Request, settings: Settings) -> str:
    """The key for paid partner nodes, "" if there is none."""
    return request.comfy_org_api_key or settings.comfy_org_api_key
