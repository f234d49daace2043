"""docs/migrating.md says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from src.clients import FOREIGN_FIELDS, PARTLY_USED, SAME_FIELDS
from src.job.fields import InputFields
from src.outputs.fields import FailureOfWorkerComfyui, SuccessOfWorkerComfyui
from src.settings import Settings, variable, warnings_about_variables
from src.settings.peer_variables import PEER_VARIABLES

from ..worker_process import ROOT

PAGE = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
OURS = {variable(setting) for setting in fields(Settings)}


def table(head: str) -> dict[str, str]:
    """The rows of the table with that head: each name in the first column, and the second column."""
    rows = PAGE.split(f"| {head} |", 1)[1].split("\n\n")[0].splitlines()[2:]
    return {name: row.split(" | ", 1)[1] for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])}


def test_every_field_of_others_that_is_known_is_in_the_table_and_no_other() -> None:
    told = table("their field")
    assert told.keys() == {*FOREIGN_FIELDS, *PARTLY_USED, *SAME_FIELDS}
    for name, ours in SAME_FIELDS.items():
        assert f"`{ours}`" in told[name]
        assert ours in InputFields.model_fields
    for name in FOREIGN_FIELDS:
        assert "ignored, with a warning" in told[name]


def test_every_variable_of_others_that_is_known_is_in_the_table_and_no_other() -> None:
    told = table("their variable")
    assert told.keys() == PEER_VARIABLES.keys() | (told.keys() & OURS)
    for row in told.values():
        for name in re.findall(r"`([A-Z_]+)(?:=[^`]*)?`", row):
            assert name in OURS, name


def test_the_answers_in_the_table_are_those_of_the_schema() -> None:
    part = PAGE.split("## Responses")[1].split("## Settings")[0]
    for model in (SuccessOfWorkerComfyui, FailureOfWorkerComfyui):
        for name in model.model_fields.keys() - {"refresh_worker"}:
            assert name in part, name


def test_variables_of_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [line for line in warnings_about_variables() if line.startswith("COMFY_LOG_LEVEL")] == []
    monkeypatch.setenv("COMFY_LOG_LEVEL", "DEBUG")
    (line,) = warnings_about_variables()
    assert line.startswith("COMFY_LOG_LEVEL is a setting of another worker: LOG_LEVEL sets")
