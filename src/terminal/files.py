"""Files that people name in a terminal: workflows, and lists of what an installation has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ..errors import InvalidWorkflow

_MAX_BYTES = 50_000_000


def read_content(file: Path) -> object:
    """The content of a JSON or YAML file. Raises InvalidWorkflow, which says what is wrong; OSError."""
    if file.stat().st_size > _MAX_BYTES:
        raise InvalidWorkflow(f"it is larger than {_MAX_BYTES // 10**6} MB")
    is_yaml = file.suffix.lower() in (".yaml", ".yml")
    try:
        text = file.read_text(encoding="utf-8-sig")
        return yaml.load(text, _Plain) if is_yaml else json.loads(text)  # noqa: S506  a safe loader
    except UnicodeDecodeError as error:
        raise InvalidWorkflow("it is not text in UTF-8") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise InvalidWorkflow(f"it cannot be read as {'YAML' if is_yaml else 'JSON'}") from error


def read_workflow(file: Path) -> object:
    """The workflow in a file: by itself, in a request (`input`), or in a job input (`workflow`). Raises as above."""
    content = read_content(file)
    if isinstance(content, dict) and isinstance(content.get("input"), dict) and "class_type" not in content["input"]:
        content = content["input"]
    if isinstance(content, dict) and isinstance(content.get("workflow"), dict) and "nodes" not in content:
        content = content["workflow"]
    return content


class _Plain(yaml.SafeLoader):
    """Without aliases, by which a few lines can stand for any amount, or for themselves."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not accepted")
        return super().compose_node(parent, index)
