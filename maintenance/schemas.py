"""The JSON schemas in docs/, made from the code: `python -m maintenance.schemas` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.job.fields import RULES, InputFields
from src.models.manifest import OwnManifest
from src.outputs.fields import Answer

_DOCS = Path(__file__).resolve().parent.parent / "docs"
_PARTS = {"loras": "LoraFields", "output": "OutputFields", "images": "FileFields"}


def schemas() -> dict[str, dict[str, Any]]:
    """Each schema by the name of its file."""
    return {
        "input.schema.json": _input_schema(),
        "output.schema.json": _without_defaults(Answer.model_json_schema()),
        "manifest.schema.json": OwnManifest.model_json_schema(),
    }


def _input_schema() -> dict[str, Any]:
    """That of `input`, each field with what the worker says of one that does not fit."""
    schema = InputFields.model_json_schema()
    _describe(schema["properties"], "")
    for field, part in _PARTS.items():
        _describe(schema["$defs"][part]["properties"], f"{field}.")
    return schema


def _describe(properties: Mapping[str, dict[str, Any]], prefix: str) -> None:
    for name, told in properties.items():
        told["description"] = RULES[prefix + name]


def _without_defaults(schema: Any) -> Any:
    """A field that is missing from an answer has no value; pydantic wants one to know that it may be missing."""
    if isinstance(schema, list):
        return [_without_defaults(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _without_defaults(value) for name, value in schema.items() if name != "default"}


def main() -> None:
    """Write them."""
    for name, schema in schemas().items():
        (_DOCS / name).write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
