"""The JSON schemas in docs/, generated from the code: `python -m maintenance.schemas` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from src.job.json_schemas import input_schema, output_schema
from src.models.manifest import OwnManifest

_DOCS = Path(__file__).resolve().parent.parent / "docs"


def schemas() -> dict[str, dict[str, Any]]:
    """File name to schema."""
    return {
        "input.schema.json": input_schema(),
        "output.schema.json": output_schema(),
        "manifest.schema.json": OwnManifest.model_json_schema(),
    }


def main() -> None:
    """Write the schemas to docs/."""
    for name, schema in schemas().items():
        (_DOCS / name).write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
