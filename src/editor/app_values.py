"""Values for the inputs that a workflow's author chose for App Mode, put into the prompt."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInput
from ..workflow.graph import Slot
from ..workflow.schemas import CUSTOM_COMBO
from .app_mode import App
from .values import wrap_list
from .widgets import index_of_choice

_MAX_NAME_LENGTH, _MAX_LISTED = 200, 30


def set_app_inputs(
    prompt: Mapping[str, Any], app: App | None, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[Slot, str]]:
    """A copy of a prompt with values under the names that its author chose, and for each input set what it is called.

    None leaves the input as it is. Raises InvalidInput for a name that there is not.
    """
    inputs = {entry.name: entry.targets for entry in app.inputs} if app else {}
    changed = {node_id: {**node, "inputs": {**node["inputs"]}} for node_id, node in prompt.items()}
    called: dict[Slot, str] = {}
    for name, value in given.items():
        if name not in inputs:
            raise _unknown_input(name, list(inputs))
        for slot in inputs[name] if value is not None else ():
            if slot.node_id in changed:
                changed[slot.node_id]["inputs"][slot.name] = wrap_list(value)
                called[slot] = f"inputs[{name!a}]"
    for node_id in {slot.node_id for slot in called}:
        inputs_of_node = changed[node_id]["inputs"]
        if changed[node_id]["class_type"] == CUSTOM_COMBO and not isinstance(inputs_of_node.get("choice"), list):
            inputs_of_node["index"] = index_of_choice(inputs_of_node, inputs_of_node.get("choice"))
    return changed, called


def _unknown_input(name: str, known: list[str]) -> InvalidInput:
    if not known:
        return InvalidInput(
            "inputs: this workflow has no App Mode inputs (chosen in the editor's App Mode and saved in its own "
            "format); overrides can set any input of any node",
            field="inputs",
        )
    near = difflib.get_close_matches(name[:_MAX_NAME_LENGTH], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    names = ", ".join(repr(known_name) for known_name in known[:_MAX_LISTED])
    return InvalidInput(f"inputs: the workflow's author chose {names}, not {name[:80]!a}{hint}", field="inputs")
