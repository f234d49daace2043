"""Job dict -> checked, frozen `Request`; the only place that knows the names of input fields."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import InvalidInput
from .workflow import Overrides, check_workflow
from .workflow.graph import Workflow

_MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Request:
    """One job, checked: nobody re-checks it. `warnings` are told to the caller beside the result."""

    workflow: Workflow
    overrides: Overrides
    warnings: tuple[str, ...] = ()


def _as_node_id(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _encodable(value: str) -> str:
    value.encode("utf-8")  # UnicodeEncodeError, a ValueError, for half a character (a lone surrogate)
    return value


_Text = Annotated[str, AfterValidator(_encodable)]
_NodeId = Annotated[_Text, BeforeValidator(_as_node_id), Field(min_length=1, max_length=200)]
_Side = Annotated[int, Field(ge=16, le=16384, multiple_of=8)]


class _InputFields(BaseModel):
    """The fields of `input`, as they come."""

    model_config = ConfigDict(strict=True, extra="allow")

    workflow: Any = None
    prompt: _Text | None = None
    prompt_node_id: _NodeId | None = None
    seed: Annotated[int, Field(ge=0, le=_MAX_SEED)] | None = None
    seed_node_id: _NodeId | None = None
    width: _Side | None = None
    height: _Side | None = None
    size_node_id: _NodeId | None = None


# What would be right, for the message: "<field> must be <rule>, not <value>".
_RULES = {
    "prompt": "a text (a string in Unicode)",
    "seed": f"a whole number without quotes from 0 to {_MAX_SEED}",
    "width": "a multiple of 8 between 16 and 16384",
    "height": "a multiple of 8 between 16 and 16384",
    "prompt_node_id": "the id of a node in the workflow, a string",
    "seed_node_id": "the id of a node in the workflow, a string",
    "size_node_id": "the id of a node in the workflow, a string",
}


def read_job(job: object) -> Request:
    """The request in a RunPod job, `{"id": …, "input": {"workflow": …, …}}`.

    Raises InvalidInput (InvalidWorkflow for what concerns the workflow), naming the field, what it was and what
    would be right.
    """
    if not isinstance(job, dict):
        raise InvalidInput(f"the job must be an object with an input, not {_shown(job)}")
    given = job.get("input")
    if not isinstance(given, dict):
        raise InvalidInput(f'input must be an object like {{"workflow": {{…}}}}, not {_shown(given)}')
    fields = _read_fields(given)
    if fields.workflow is None:
        raise InvalidInput(f"input has no workflow (an object in ComfyUI's API format); it has {_listed(given)}")
    check_workflow(fields.workflow)
    return Request(fields.workflow, _overrides(fields), tuple(_unknown_fields(fields)))


def job_id_of(job: object) -> str:
    """The job's id for the log, `-` if it has none."""
    job_id = job.get("id") if isinstance(job, dict) else None
    return job_id[:80] if isinstance(job_id, str) and job_id else "-"


def _read_fields(given: dict[str, Any]) -> _InputFields:
    for name in given:
        if not isinstance(name, str) or not name.isprintable():
            raise InvalidInput(f"the names of input fields must be printable strings, not {_shown(name)}")
    try:
        return _InputFields.model_validate(given)
    except ValidationError as error:
        field = str(error.errors(include_url=False, include_context=False)[0]["loc"][0])
        rule = _RULES.get(field, "something else")
        raise InvalidInput(f"{field[:80]} must be {rule}, not {_shown(given.get(field))}", field=field[:80]) from error


def _overrides(fields: _InputFields) -> Overrides:
    if (fields.width is None) != (fields.height is None):
        missing = "height" if fields.height is None else "width"
        raise InvalidInput(f"width and height go together: {missing} is missing", field=missing)
    return Overrides(
        prompt=fields.prompt,
        prompt_node_id=fields.prompt_node_id,
        seed=fields.seed,
        seed_node_id=fields.seed_node_id,
        width=fields.width,
        height=fields.height,
        size_node_id=fields.size_node_id,
    )


def _unknown_fields(fields: _InputFields) -> list[str]:
    """A misspelt field would be ignored in silence; say so."""
    known = list(_InputFields.model_fields)
    warnings = []
    for name in list(fields.model_extra or {})[:20]:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        warnings.append(f"input field {_shown(name)} is not known and was ignored{hint}")
    return warnings


def _shown(value: object) -> str:
    """A value for a message: its JSON kind if it is large, else itself, always printable."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    return ascii(value)[:80] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


def _listed(given: dict[str, Any]) -> str:
    return ", ".join(_shown(name) for name in list(given)[:10]) or "no fields"
