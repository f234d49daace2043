"""Which model file is meant by what a workflow needs."""

from __future__ import annotations

from ..errors import ModelRefused
from ..models.job_models import JobModels, NamedModel
from ..models.manifest import Model
from ..needs import ModelNeed


def known_model(job: JobModels, need: ModelNeed) -> Model | None:
    """The model that this worker knows and would fetch for it: pinned, or of the same source as the file says."""
    found = job.manifest.find_by_path(need.file, need.folder)
    is_meant = bool(found) and (found[0].is_pinned or need.origin == "catalog" or found[0].source.page in need.sources)
    return found[0] if is_meant else None


def model_of(job: JobModels, need: ModelNeed) -> Model:
    """The model that is fetched for it. Raises ModelRefused if nothing says where it is, or it may not be fetched."""
    known, where = known_model(job, need), f"{need.folder or '?'}/{need.file}"
    if known is not None:
        return known
    if not need.sources:
        raise ModelRefused(f"no download source known for {where}")
    return job.as_model(NamedModel(need.folder, need.file, need.sources[0], where, need.sha256 or None))
