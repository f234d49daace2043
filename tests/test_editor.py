"""The editor's own save format, converted: as the editor itself exports it, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from src.editor import class_types, convert, read_document
from src.workflow.schemas import read_schema

from .editor_files import FILES

HERE = Path(__file__).parent
TOLD = json.loads((HERE / "editor_object_info.json").read_text())
EXPORTS = json.loads((HERE / "editor_exports.json").read_text())["exports"]


def converted(file: dict[str, Any], told: dict[str, Any] = TOLD) -> dict[str, Any]:
    """The file in API format, without titles."""
    document = read_document(file)
    schemas = {name: read_schema(told[name]) if name in told else None for name in class_types(document)}
    prompt = convert(document, schemas)
    return {node_id: {k: v for k, v in node.items() if k != "_meta"} for node_id, node in prompt.items()}


@pytest.mark.parametrize("name", FILES)
def test_a_file_becomes_what_the_editor_itself_exports(name: str) -> None:
    assert converted(FILES[name]()) == EXPORTS[name]
