"""A workflow and a running engine, before a prompt is queued: does it know these nodes, does it take these values?"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from ..errors import MissingNodeType, PartnerKeyMissing, UnexpectedAnswer, WorkerError
from ..redaction import public_text
from ..workflow.graph import Graph, Slot, Workflow
from ..workflow.pruning import without_unneeded
from ..workflow.schemas import InputSchema, NodeErrors, NodeSchema, check_inputs, check_nodes, check_pitfalls
from ..workflow.spelling import respell
from ..workflow.typed import TypedGraph
from .client import ComfyClient
from .refusal import public_refusal, within
from .rejection import Engine, Problem, explain_problems, list_problems

_SHOWN_CLASSES = 20
_MAX_NODES, _MAX_CHARACTERS = 100, 20_000  # of nodes whose class is missing
_FOREIGN_SEPARATOR = "\\" if os.sep == "/" else "/"


def engine_of(client: ComfyClient) -> Engine:
    """What explanations may ask; an engine that does not answer knows nothing: they only improve a message."""

    def options(class_type: str, name: str) -> list[str]:
        with suppress(WorkerError):
            return client.options(class_type, name)
        return []

    def is_core(class_type: str) -> bool:
        with suppress(WorkerError):
            schema = client.schemas([class_type])[class_type]
            return schema is not None and schema.is_core
        return False

    return Engine(client.name, options, is_core, client.boot_log.pack_of)


def fit(client: ComfyClient, workflow: Workflow, check: Callable[[], None]) -> tuple[Workflow, list[str]]:
    """The workflow as this engine can take it, and warnings: see `pruning` and `spelling`.

    `check` raises if the job has to end. A model that is not there yet keeps its name.
    """
    schemas = schemas_of(client, workflow, check)
    told = list[str]()
    if not all(schemas.values()):
        fitted, told = without_unneeded(workflow, schemas, client.node_replacements())
        gone = {workflow[node_id]["class_type"] for node_id in workflow.keys() - fitted.keys()}
        told.extend(failed_packs(client, {name for name in gone if schemas[name] is None}))
        workflow = fitted
    for is_last in (False, True):
        respelled = respell(workflow, schemas, _FOREIGN_SEPARATOR)
        workflow = respelled.workflow
        told.extend(respelled.warnings)
        if is_last or not respelled.lacking:
            break
        schemas.update(client.schemas(respelled.lacking, is_fresh=True))  # a list of files may have grown
    return workflow, told


def mend(client: ComfyClient, workflow: Workflow, check: Callable[[], None]) -> tuple[Workflow, list[str]]:
    """The same workflow without the nodes that no output needs and that have links to missing nodes, and warnings.

    Raises InvalidWorkflow for a list where the class takes a link. `check` raises if the job has to end.
    """
    schemas = schemas_of(client, workflow, check)
    replaced = [] if all(schemas.values()) else client.node_replacements()
    workflow, told = without_unneeded(workflow, schemas, replaced)
    _refuse(client, workflow, check_pitfalls(Graph(workflow), schemas))
    return workflow, told


def with_all_classes(client: ComfyClient, error: MissingNodeType, workflow: Workflow) -> MissingNodeType:
    """The same error with all classes that ComfyUI lacks, and the nodes that have them: it tells only the first."""
    schemas = client.schemas({node["class_type"] for node in workflow.values()})
    lacking = {name for name, schema in schemas.items() if schema is None} - client.node_replacements().keys()
    others = [name for name in sorted(lacking) if public_text(name, 100) != error.details.get("class_type")]
    shown = [public_text(name, 100) for name in others[:_SHOWN_CLASSES]]
    nodes = (
        {"node_id": node_id, "class_type": public_text(node["class_type"], 100)}
        for node_id, node in workflow.items()
        if node["class_type"] in lacking
    )
    message = f"{error.message}. Also missing: {', '.join(shown)}" if shown else error.message
    details = {**error.details, "missing_nodes": within(nodes, _MAX_NODES, _MAX_CHARACTERS)}
    return MissingNodeType(message, **details, **({"also_missing": shown} if shown else {}))


def stand_in_warnings(schemas: Mapping[str, NodeSchema | None]) -> list[str]:
    """That the draft engine only stands in for some of the classes, if so."""
    names = sorted(public_text(name, 100) for name, schema in schemas.items() if schema and schema.is_stand_in)
    if not names:
        return []
    more = f" and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else ""
    shown = ", ".join(names[:_SHOWN_CLASSES])
    return [f"draft: these node classes are not installed, so their outputs are stand-ins: {shown}{more}"]


def failed_packs(client: ComfyClient, unknown: Iterable[str]) -> list[str]:
    """A sentence for each installed node pack that has one of these classes, and that could not be imported."""
    failed = {client.boot_log.pack_of(class_type) for class_type in unknown}
    return [str(pack) for pack in failed if pack is not None]


def schemas_of(client: ComfyClient, workflow: Workflow, check: Callable[[], None]) -> dict[str, NodeSchema | None]:
    """The schemas of all classes of a workflow, asked for one by one: `check` is heard between."""
    schemas: dict[str, NodeSchema | None] = {}
    for class_type in {node["class_type"] for node in workflow.values()}:
        check()
        schemas.update(client.schemas([class_type]))
    return schemas


def _refuse(client: ComfyClient, workflow: Workflow, errors: NodeErrors) -> None:
    """Raise InvalidWorkflow if there are any."""
    if errors:
        error = explain_problems(list_problems(errors, workflow, engine_of(client)))
        error.details["comfyui_error"] = public_refusal(None, errors)
        raise error


def check_changes(client: ComfyClient, workflow: Workflow, changed: Sequence[Slot], files: Collection[str]) -> None:
    """Raise InvalidWorkflow (MissingModel) if a value that the job put into the workflow does not fit its input.

    ComfyUI runs a prompt in spite of some of them: an input that the class does not have, a value that is not in the
    list of a V3 node.
    `files` are the names of the job's files.
    """
    graph = Graph(workflow)
    sources = [link.node_id for slot in changed if (link := graph.link(*slot))]
    classes = {graph.class_of(node_id) for node_id in (*sources, *(slot.node_id for slot in changed))}
    for is_fresh in (False, True):  # a list of files may have grown
        schemas = client.schemas(classes, is_fresh)
        errors = check_inputs(graph, schemas, set(changed), files)
        if not errors:
            return
    _refuse(client, workflow, errors)


def check_values(client: ComfyClient, workflow: Workflow, check: Callable[[], None]) -> None:
    """Raise InvalidWorkflow for what ComfyUI finds too late, or says too little of: see `check_pitfalls`.

    `check` raises if the job has to end.
    """
    graph = Graph(workflow)
    classes = {graph.class_of(node_id) for node_id in graph}
    schemas: dict[str, NodeSchema | None] = {}
    for is_fresh in (False, True):  # keys may be files, of which there may be more now
        for class_type in classes:
            check()
            schemas.update(client.schemas([class_type], is_fresh))
            if schemas[class_type] is None:  # ComfyUI refuses or replaces it
                return
        errors = check_pitfalls(graph, schemas)
        if not errors:
            return
        classes = {graph.class_of(node_id) for node_id in errors}
    _refuse(client, workflow, errors)


def find_problems(
    client: ComfyClient, workflow: Workflow, files: Collection[str], changed: Sequence[Slot]
) -> list[Problem]:
    """Everything that keeps this engine from running the workflow, as far as can be known without running it."""
    graph = Graph(workflow)
    classes = {graph.class_of(node_id) for node_id in graph}
    schemas = client.schemas(classes, is_fresh=True)
    is_whole = all(schemas.values())
    errors = check_nodes(graph, schemas, files, [] if is_whole else _known_classes(client))
    replaced = {} if is_whole else client.node_replacements()
    errors = {node_id: entry for node_id, entry in errors.items() if entry["class_type"] not in replaced}
    for node_id, entry in check_inputs(graph, schemas, set(changed), files).items():
        unknown = [error for error in entry["errors"] if error["type"] == "unknown_input"]
        if unknown:
            errors.setdefault(node_id, {**entry, "errors": []})["errors"].extend(unknown)
    return list_problems(errors, workflow, engine_of(client))


def _known_classes(client: ComfyClient) -> list[str]:
    """The names of all classes, to find similar ones; none where a broken class keeps ComfyUI from telling them."""
    with suppress(UnexpectedAnswer):
        return list(client.all_schemas())
    return []


def input_files_of(client: ComfyClient, workflow: Workflow) -> list[Slot]:
    """The inputs that name a file in ComfyUI's input folder."""
    graph = Graph(workflow)
    schemas = client.schemas({graph.class_of(node_id) for node_id in graph})
    return [
        Slot(node_id, name)
        for node_id in graph
        if (schema := schemas[graph.class_of(node_id)])
        for name, config in schema.inputs.items()
        if config.is_file and isinstance(graph.inputs(node_id).get(name), str)
    ]


def missing_files_of(client: ComfyClient, workflow: Workflow) -> dict[Slot, InputSchema]:
    """The inputs of needed nodes that name a file which ComfyUI's input folder does not have, with their schemas."""
    graph = Graph(workflow)
    schemas = client.schemas({graph.class_of(node_id) for node_id in graph}, is_fresh=True)  # files come and go
    return {
        Slot(node_id, name): config
        for node_id in TypedGraph(workflow, schemas).live
        if (schema := schemas[graph.class_of(node_id)])
        for name, config in schema.inputs.items()
        if config.is_file and isinstance(value := graph.inputs(node_id).get(name), str) and value
        if value.removesuffix(" [input]") not in (config.options or ())
    }


def check_partner_nodes(client: ComfyClient, workflow: Workflow) -> None:
    """Raise PartnerKeyMissing if the workflow has a node that costs money, for a job without a key."""
    graph = Graph(workflow)
    schemas = client.schemas({graph.class_of(node_id) for node_id in graph})
    paid = [node_id for node_id in graph if _is_paid(schemas[graph.class_of(node_id)])]
    if paid:
        nodes = ", ".join(graph.describe(node_id) for node_id in paid[:10])
        raise PartnerKeyMissing(
            f"paid partner nodes need a key from platform.comfy.org: send it as comfy_org_api_key, or set "
            f"COMFY_ORG_API_KEY for the worker; they are {nodes}",
            node_ids=paid[:10],
        )


def _is_paid(schema: NodeSchema | None) -> bool:
    return schema is not None and schema.is_partner
