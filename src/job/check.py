"""Checks of a job without running it: what keeps ComfyUI from running it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..comfy.client import ComfyClient
from ..comfy.engine import ComfyEngine
from ..comfy.preflight import (
    check_changes,
    check_partner_nodes,
    check_values,
    find_problems,
    fit,
    schemas_of,
    stand_in_warnings,
)
from ..deadline import attended
from ..errors import WorkerError
from ..inputs.files import check_sources
from ..models.job_models import JobModels
from ..models.manifest import where_to_get
from ..models.provisioning import ModelProvisioner
from ..needs import as_json, needs_of_workflow, with_presence
from ..overrides import apply_overrides
from ..settings import Settings
from ..storage.bucket import Bucket
from ..workflow.graph import Slot, Workflow
from .one_file import with_the_one_file
from .prepare import bucket_for, delivery_plan, models_of, partner_key
from .request import Request


def check_before_queueing(
    client: ComfyClient,
    request: Request,
    settings: Settings,
    workflow: Workflow,
    changed: Sequence[Slot],
    files: Collection[str],
    check: Callable[[], None],
) -> None:
    """Raise InvalidWorkflow for a value on which ComfyUI would fail only when it runs, PartnerKeyMissing."""
    check_values(client, workflow, check)
    changed = [slot for slot in changed if slot.node_id in workflow]
    if changed:
        check_changes(client, workflow, changed, files)
    _check_partner_key(client, request, settings, workflow)


@dataclass(frozen=True)
class JobChecker:
    """Looks at jobs for `action: validate`. `bucket` is the worker's own."""

    engine: ComfyEngine
    settings: Settings
    bucket: Bucket | None
    models: ModelProvisioner

    def problems(self, request: Request, check: Callable[[], None]) -> tuple[list[dict[str, Any]], list[str]]:
        """What would keep ComfyUI from running a job, and warnings; a missing model that would be fetched does not.

        `check` raises if the job has to end. Raises WorkerError for overrides that have no place.
        """
        schemas = schemas_of(self.engine.client, request.workflow, check)
        applied = apply_overrides(request.workflow, request.overrides, schemas)
        changed = [*applied.changed, *request.set_inputs]
        names = [file.name for file in request.files]
        workflow, told = fit(self.engine.client, applied.workflow, check)
        workflow, matched = with_the_one_file(self.engine.client, request, workflow, changed)
        changed = [slot for slot in changed if slot.node_id in workflow]
        models = models_of(request, self.models)
        problems = self._problems_of_workflow(workflow, changed, names, models, check)
        checks: tuple[Callable[[], None], ...] = (
            lambda: self._check_delivery(request, check),
            lambda: _check_partner_key(self.engine.client, request, self.settings, workflow),
            models.check_wanted,
            lambda: attended(lambda: check_sources(request.files, self.settings), check),
        )
        for check_part in checks:
            check()
            try:
                check_part()
            except WorkerError as error:
                check()  # it may be the end of the job
                problems.append({"reason": error.error_code, "message": error.message, **error.details})
        return problems, [*applied.hints, *stand_in_warnings(schemas), *told, *matched]

    def needs(self, request: Request) -> dict[str, Any]:
        """What a job's workflow needs besides ComfyUI, where it is from, and what of it is there."""
        saved = (request.extra_pnginfo or {}).get("workflow") if request.is_converted else request.workflow
        needs = needs_of_workflow("", saved, self.models.manifest)
        schemas = self.engine.client.schemas({name for pack in needs.packs for name in pack.classes})
        looked_up = with_presence(
            needs, self.models.places, lambda pack: all(schemas[name] is not None for name in pack.classes)
        )
        return {name: value for name, value in as_json([looked_up])[0].items() if name != "name" and value}

    def _problems_of_workflow(
        self,
        workflow: Workflow,
        changed: Sequence[Slot],
        files: Collection[str],
        models: JobModels,
        check: Callable[[], None],
    ) -> list[dict[str, Any]]:
        problems: list[dict[str, Any]] = []
        check()
        for problem in find_problems(self.engine.client, workflow, files, changed):
            check()
            entry: dict[str, Any] = {**problem.details, "message": problem.text}
            if problem.is_missing_model:
                name, folder = str(problem.received), problem.missing_model["folder"]
                if models.to_fetch(name, folder):
                    continue
                entry["sources"] = where_to_get(name, models.manifest, folder)
                entry["missing_model"] = models.describe(name, folder)
            problems.append(entry)
        return problems

    def _check_delivery(self, request: Request, check: Callable[[], None]) -> None:
        with bucket_for(request, self.settings, self.bucket) as bucket:
            delivery_plan(request, "validate", self.settings, bucket, check)


def _check_partner_key(client: ComfyClient, request: Request, settings: Settings, workflow: Workflow) -> None:
    if settings.enable_api_nodes and not partner_key(request, settings):
        check_partner_nodes(client, workflow)
