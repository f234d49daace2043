"""The JSON schemas in docs/, generated from the code: `python -m maintenance.schemas` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from src.clients import MAY_BE_EMPTY
from src.job.fields import RULES, InputFields
from src.models.manifest import OwnManifest
from src.outputs.fields import Answer

_DOCS = Path(__file__).resolve().parent.parent / "docs"
_NEVER_ABSENT = ("workflow", "loras.name", "images.name")
_NESTED_FIELDS = {"loras": "LoraFields", "output": "OutputFields", "images": "FileFields"}


def schemas() -> dict[str, dict[str, Any]]:
    """File name to schema."""
    return {
        "input.schema.json": _input_schema(),
        "output.schema.json": _without_defaults(Answer.model_json_schema()),
        "manifest.schema.json": OwnManifest.model_json_schema(),
    }


def _input_schema() -> dict[str, Any]:
    """The schema of `input`. The description of a field is the worker's error message for invalid values."""
    schema = InputFields.model_json_schema()
    _describe(schema["properties"], "")
    for field, definition in _NESTED_FIELDS.items():
        _describe(schema["$defs"][definition]["properties"], f"{field}.")
    return schema


def _describe(properties: dict[str, dict[str, Any]], prefix: str) -> None:
    for name, field_schema in properties.items():
        if prefix + name not in _NEVER_ABSENT:
            properties[name] = _or_absent(field_schema, name in MAY_BE_EMPTY)
        properties[name]["description"] = RULES[prefix + name]


def _or_absent(schema: dict[str, Any], is_empty_a_value: bool) -> dict[str, Any]:
    """The schema of a value that may also be null or an empty text, which stand for none."""
    outer = {name: value for name, value in schema.items() if name in ("title", "default")}
    inner = {name: value for name, value in schema.items() if name not in outer}
    either = inner["anyOf"] if inner.keys() == {"anyOf"} else [inner]
    absent = [{"type": "null"}] if is_empty_a_value else [{"type": "null"}, {"const": ""}]
    return {"anyOf": [*(one for one in either if one not in absent), *absent], **outer}


def _without_defaults(schema: Any) -> Any:
    """The schema without `default`: pydantic needs one for optional fields, but in an answer they are then missing."""
    if isinstance(schema, list):
        return [_without_defaults(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _without_defaults(value) for name, value in schema.items() if name != "default"}


def main() -> None:
    """Write the schemas to docs/."""
    for name, schema in schemas().items():
        (_DOCS / name).write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
