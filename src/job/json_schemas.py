"""JSON Schemas of a job's input and of the worker's output, as pydantic generates them from the fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..clients import MAY_BE_EMPTY
from ..outputs.fields import Answer
from .fields import RULES, InputFields

_REFERENCE = "#/$defs/{model}"
_NEVER_ABSENT = ("workflow", "loras.name", "images.name")
_NESTED_FIELDS = {"loras": "LoraFields", "output": "OutputFields", "images": "FileFields"}


def input_schema() -> dict[str, Any]:
    """The schema of `input`: all that the worker accepts, also null or an empty text in place of no value."""
    schema = _described(_REFERENCE)
    _accept_absent(schema["properties"], "")
    for field, definition in _NESTED_FIELDS.items():
        _accept_absent(schema["$defs"][definition]["properties"], f"{field}.")
    return schema


def plain_input_schema(reference: str) -> dict[str, Any]:
    """The schema of `input` for programs that generate clients: every field, without rules between fields.

    `reference` is the template of references to the definitions in `$defs`.
    """
    schema = _described(reference)
    for part in (schema, *schema["$defs"].values()):
        part.pop("anyOf", None)
        part.pop("oneOf", None)
        for field_schema in part["properties"].values():
            if "anyOf" in field_schema:
                field_schema["anyOf"] = list(_alternatives(field_schema))
    return schema


def _alternatives(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a value, one level deep, constants as an `enum`: generators read nothing deeper."""
    for one in schema["anyOf"]:
        if "anyOf" in one:
            yield from _alternatives(one)
        elif "const" in one:
            yield {"type": "string" if isinstance(one["const"], str) else "integer", "enum": [one["const"]]}
        else:
            yield one


def output_schema(reference: str = _REFERENCE) -> dict[str, Any]:
    """The schema of `output`; `reference` as for the input."""
    schema: dict[str, Any] = _without_defaults(Answer.model_json_schema(ref_template=reference))
    return schema


def _described(reference: str) -> dict[str, Any]:
    """Pydantic's schema; the description of a field is the worker's error message for invalid values."""
    schema = InputFields.model_json_schema(ref_template=reference)
    schema["properties"]["workflow"].pop("default")  # null, which is no workflow
    nested = {f"{field}.": schema["$defs"][name]["properties"] for field, name in _NESTED_FIELDS.items()}
    for prefix, properties in {"": schema["properties"], **nested}.items():
        for name, field_schema in properties.items():
            field_schema["description"] = RULES[prefix + name]
    return schema


def _accept_absent(properties: dict[str, dict[str, Any]], prefix: str) -> None:
    for name, field_schema in properties.items():
        if prefix + name not in _NEVER_ABSENT:
            properties[name] = _or_absent(field_schema, name in MAY_BE_EMPTY)


def _or_absent(schema: dict[str, Any], is_empty_a_value: bool) -> dict[str, Any]:
    """The schema of a value that may also be null or an empty text, which stand for none."""
    outer = {name: value for name, value in schema.items() if name in ("title", "default", "description")}
    inner = {name: value for name, value in schema.items() if name not in outer}
    either = inner["anyOf"] if inner.keys() == {"anyOf"} else [inner]
    absent = [{"type": "null"}] if is_empty_a_value else [{"type": "null"}, {"const": ""}]
    return {"anyOf": [*(one for one in either if one not in absent), *absent], **outer}


def _without_defaults(schema: Any) -> Any:
    """The schema without `default`: pydantic needs one for optional fields, but absent ones are left out."""
    if isinstance(schema, list):
        return [_without_defaults(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _without_defaults(value) for name, value in schema.items() if name != "default"}
