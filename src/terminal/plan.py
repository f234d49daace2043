"""What an endpoint for a workflow takes: its environment, GPUs and disk, and how models and node packs come to it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import PackFailed, WorkerError
from ..models.job_models import JobModels
from ..models.manifest import Model
from ..models.provisioning import ModelProvisioner
from ..needs import ModelNeed, Needs, needs_of_workflow
from ..packs.lock import PackLocker, Target
from ..packs.registry import Registry
from ..settings import Settings
from ..settings.stored_workflows import pack, unpack
from ..storage.web import FetchRules
from .gpus import POOLS
from .need_models import known_model, model_of

_SHOWN_POOLS = 4
_SLOW = ("AMPERE_16", "AMPERE_24")  # a diffusion model takes several times as long there as on a 4090
_LARGE = ("diffusion_models", "checkpoints")  # the kinds of models that have to fit into the GPU while they sample
_ROOM = 4.0  # gigabytes of a GPU for what sampling and decoding need besides
_SMALLEST = 24.0  # gigabytes: with less ComfyUI moves parts of any larger model in and out
_DISK_STEP = 5  # gigabytes
OWN_DISK = 20
"""Gigabytes of a container disk besides models."""
_FETCH_SPEED = 0.2  # gigabytes a second that a worker may count on from a hub


@dataclass
class Plan:
    """What an endpoint for a workflow takes. `lines` say it to people; `open` is what nothing says.

    `disk` is in gigabytes. Not `can_run`: a job has to bring files, so it can only be validated.
    """

    name: str
    env: dict[str, str] = field(default_factory=dict)
    pools: list[str] = field(default_factory=list)
    disk: int = OWN_DISK
    can_run: bool = True
    lines: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)


def plan_endpoint(
    file: Path, content: object, settings: Settings, has_volume: bool, packs_in_image: bool, stored: str = ""
) -> Plan:
    """The plan for a workflow, which is stored under the name of its file, beside those that are stored already.

    Sizes are asked for at the models' sources, versions of packs at the registry. Raises WorkerError for a file that
    is no workflow, ValueError for one that is too large to be stored in a variable.
    """
    plan = Plan(re.sub(r"[^\w.-]", "_", file.stem))
    with TemporaryDirectory() as nowhere:
        models = ModelProvisioner.make(replace(settings, download_models=True), Path(nowhere))
        needs = needs_of_workflow(file.name, content, models.manifest)
        _plan_models(plan, needs, models.for_job(), has_volume)
    _plan_packs(plan, needs, settings, packs_in_image)
    if needs.partner_classes:
        plan.env["ENABLE_API_NODES"] = "true"
        plan.lines.append("paid partner nodes: set a key with --secret COMFY_ORG_API_KEY, or send one with each job")
    if needs.inputs:
        plan.can_run = False
        plan.lines.append(f"files to send with a job: {', '.join(needs.inputs)}")
    plan.env["STORED_WORKFLOWS"] = pack({**unpack(stored), plan.name: content})
    plan.lines.append(f'stored as {plan.name!r}: {{"input": {{"workflow": "{plan.name}"}}}} runs it')
    plan.open += filter(None, [needs.unknown_classes])
    return plan


# --- Models -------------------------------------------------------------------------------------------------


def _plan_models(plan: Plan, needs: Needs, job: JobModels, has_volume: bool) -> None:
    wanted = [need for need in needs.models if need.is_needed]
    if not wanted:
        return
    found = list(_sized(plan, wanted, job))
    total = sum(model.size or 0 for _, model in found) / 1e9
    names = [known.name for need, _ in found if (known := known_model(job, need)) is not None]
    plan.env["DOWNLOAD_MODELS"] = "true"
    if names:
        plan.env["MODELS"] = ",".join(dict.fromkeys(names))
    if total > Settings.max_job_models:
        plan.env["MAX_JOB_MODEL_GB"] = str(int(total) + 10)
    if not has_volume:
        plan.disk = -(-int(OWN_DISK + total * 1.05) // _DISK_STEP) * _DISK_STEP
    _choose_gpu(plan, [model for need, model in found if need.folder in _LARGE])
    where = "kept on the volume" if has_volume else "each new worker downloads them; a volume keeps them"
    at_least = "" if all(model.size for _, model in found) else "at least "
    seconds = max(1, round(total / _FETCH_SPEED))
    size = f"{at_least}{total:.1f} GB, downloaded at the first start in {at_least}about {seconds} s"
    unknown = "sizes unknown, so choose --gpu and --disk yourself; downloaded at the first start"
    plan.lines.append(f"models: {size if total else unknown}; {where}")


def _sized(plan: Plan, wanted: Sequence[ModelNeed], job: JobModels) -> Iterator[tuple[ModelNeed, Model]]:
    """Each model with its size, as far as its source tells; a line of the plan for each."""
    for need in wanted:
        shown = f"{need.folder or '?'}/{need.file}"
        try:
            model = model_of(job, need)
        except WorkerError as error:
            plan.open.append(error.message)
            continue
        try:
            (model,) = job.fetcher.sized([model], lambda: None)
        except WorkerError as error:
            plan.lines.append(f"  its size is unknown: {error.message}")
        size = f"{model.size / 1e9:.2f} GB" if model.size else "?"
        plan.lines.append(f"  {shown}: {size}, {model.source.page}")
        yield need, model


def _choose_gpu(plan: Plan, large: Sequence[Model]) -> None:
    sizes = [model.size / 1e9 for model in large if model.size]
    if not sizes:
        return
    needed = max(_SMALLEST, max(sizes) + _ROOM)
    fast = [pool for pool in POOLS if pool.id not in _SLOW]
    pools = [pool for pool in fast if pool.memory >= needed][:_SHOWN_POOLS] or fast[-1:]
    plan.pools = [pool.id for pool in pools]
    prices = [pool.price for pool in pools if pool.price is not None]
    price = f", from ${min(prices):.5f} a second" if prices else ""
    plan.lines.append(
        f"GPU: {needed:.0f} GB or more ({', '.join(plan.pools)}){price}, by the largest model, {max(sizes):.1f} GB"
    )


# --- Node packs ---------------------------------------------------------------------------------------------


def _plan_packs(plan: Plan, needs: Needs, settings: Settings, packs_in_image: bool) -> None:
    wanted = [pack for pack in needs.packs if pack.is_needed]
    if not wanted:
        return
    if packs_in_image:
        plan.lines.append(f"node packs, in the image: {', '.join(pack.id or pack.repository for pack in wanted)}")
        return
    rules = FetchRules(settings.allow_http_urls, frozenset(settings.trusted_hosts))
    locker = PackLocker(Registry(settings.comfy_registry, rules), rules, sys.executable, Target((), ()))
    sources = []
    for wanted_pack in wanted:
        try:
            source, state = locker.source_of(wanted_pack)
        except PackFailed as error:
            plan.open.append(error.message)
            continue
        sources.append(str(source))
        plan.lines.append(f"  node pack {source}. {state}")
    if sources:
        plan.env["CUSTOM_NODES"] = ",".join(sources)
        plan.lines.append(
            "node packs: installed at the first start; docker/build.sh --workflow bakes them into the image"
        )
