"""Whatever is in an answer, JSON in UTF-8 can carry it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.outputs import serialisable

CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
ODD = st.recursive(
    st.none()
    | st.floats()
    | st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010))
    | st.binary()
    | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
)


@given(ODD)
def test_anything_becomes_json(value: Any) -> None:
    text = json.dumps(serialisable(value), ensure_ascii=False, allow_nan=False).encode()
    assert json.loads(text) == serialisable(value)


@pytest.mark.parametrize(
    "value", [CIRCLE, Path("/x"), {1, 2}, {"a": object()}], ids=["circle", "path", "set", "object"]
)
def test_what_is_no_json_value_is_named_by_its_type(value: Any) -> None:
    json.dumps(serialisable(value))


def test_what_json_can_carry_stays_as_it_is() -> None:
    value = {"a": [1, 2.5, None, True, "ü 漢"], "b": {}}
    assert serialisable(value) == value
