"""Checks against a running engine before a prompt is queued: does it know these nodes, does it take these values?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from ..errors import PartnerKeyMissing, WorkerError
from ..workflow.graph import Graph, Workflow
from ..workflow.origins import Slot
from ..workflow.schemas import NodeSchema, check_choices, check_inputs, check_nodes
from .client import ComfyClient
from .rejection import Engine, Problem, explain_problems, list_problems


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
    raise explain_problems(list_problems(errors, workflow, engine_of(client)))


def check_dynamic_combos(client: ComfyClient, workflow: Workflow, check: Callable[[], None]) -> None:
    """Raise InvalidWorkflow for a key that a dynamic combo does not have: the node would fail when it runs.

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
        errors = check_choices(graph, schemas)
        if not errors:
            return
        classes = {graph.class_of(node_id) for node_id in errors}
    raise explain_problems(list_problems(errors, workflow, engine_of(client)))


def find_problems(
    client: ComfyClient, workflow: Workflow, files: Collection[str], changed: Sequence[Slot]
) -> list[Problem]:
    """Everything that keeps this engine from running the workflow, as far as can be known without running it."""
    graph = Graph(workflow)
    classes = {graph.class_of(node_id) for node_id in graph}
    schemas = client.schemas(classes, is_fresh=True)
    known = [] if all(schemas.values()) else list(client.all_schemas())
    errors = check_nodes(graph, schemas, files, known)
    replaced = client.node_replacements() if known else {}
    errors = {node_id: entry for node_id, entry in errors.items() if entry["class_type"] not in replaced}
    for node_id, entry in check_inputs(graph, schemas, set(changed), files).items():
        unknown = [error for error in entry["errors"] if error["type"] == "unknown_input"]
        if unknown:
            errors.setdefault(node_id, {**entry, "errors": []})["errors"].extend(unknown)
    return list_problems(errors, workflow, engine_of(client))


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
