"""What other tools and old exports leave in a file of the API format."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from src.errors import InvalidWorkflow
from src.workflow.leftovers import without_leftovers

from ..conftest import Bench
from ..test_growth import MOST_GROWTH, SMALL, steps
from ..workflows import Workflow, node, still

ODD = [float("nan"), float("inf"), [float("nan")], {"a": [{"b": float("-inf")}]}]


def tidied(workflow: Any) -> tuple[Any, list[str]]:
    before = repr(workflow)
    result = without_leftovers(workflow)
    assert repr(workflow) == before, "its argument was edited"
    return result


def behind(end: dict[str, Any] | None, *names: str) -> Workflow:
    """A user of a chain of reroutes: the last of them leads to what `end` holds."""
    chain = {name: node("Reroute", **{"": [after, 0]}) for name, after in pairwise(names)}
    return {**chain, names[-1]: node("Reroute", **(end or {})), "9": node("ImageInvert", image=[names[0], 0])}


@pytest.mark.parametrize("class_type", ["Note", "MarkdownNote"])
@pytest.mark.parametrize("rest", [{"inputs": {"text": "hello"}}, {"inputs": {}}, {}, {"inputs": None}])
def test_a_note_is_left_out(class_type: str, rest: dict[str, Any]) -> None:
    workflow, told = tidied({**still(), "77": {"class_type": class_type, **rest, "_meta": {"title": "Read me"}}})
    assert workflow == still()
    assert told == [f'77 ({class_type} "Read me"): the editor\'s own notes, and were left out']


@pytest.mark.parametrize("name", ["", "*", "any", "value"])
def test_a_reroute_is_followed_to_what_it_leads_to(name: str) -> None:
    workflow, told = tidied(
        {**still(), "7": node("Reroute", **{name: ["1", 0]}), "2": node("ImageInvert", image=["7", 0])}
    )
    assert workflow == still()
    assert told == ["7 (Reroute): the editor's own reroutes: what was linked to them was linked to what they lead to"]


def test_reroutes_behind_one_another_are_followed_to_the_end() -> None:
    workflow, _ = tidied(behind({"": ["1", 2]}, "a", "b", "c"))
    assert workflow == {"9": node("ImageInvert", image=["1", 2])}


@pytest.mark.parametrize("end", [{}, {"": 5}, {"": ["a", 0]}, {"": ["c", 0]}, {"": ["note", 0]}])
def test_what_a_reroute_leads_to_nothing_for_loses_its_input(end: dict[str, Any]) -> None:
    workflow, told = tidied({**behind(end, "a", "b", "c"), "note": node("Note")})
    assert workflow == {"9": node("ImageInvert")}
    assert told[-1] == "node 9 (ImageInvert): its input 'image' was left out: its link has no source"


def test_a_reroute_to_a_missing_node_is_a_link_to_a_missing_node(draft_bench: Bench) -> None:
    workflow = {**still(), "7": node("Reroute", **{"": ["99", 0]}), "2": node("ImageInvert", image=["7", 0])}
    answer = draft_bench.run(workflow=workflow)
    assert "node 2 (ImageInvert): its input 'image' is linked to node '99', which the workflow" in answer["error"]


@pytest.mark.parametrize(
    "inputs",
    [
        {"value": 64},
        {"value": 64, "control_after_generate": "fixed", "width": 1},
        {"width": 64, "control_after_generate": "randomize"},
    ],
)
def test_a_primitives_value_is_put_where_it_is_linked_to(inputs: dict[str, Any]) -> None:
    workflow = {**still(), "7": node("PrimitiveNode", **inputs)}
    workflow["1"] = node("EmptyImage", width=["7", 0], height=["r", 0], batch_size=1, color=8421504)
    changed, told = tidied({**workflow, "r": node("Reroute", **{"": ["7", 0]})})
    assert changed == still()
    assert "7 (PrimitiveNode): the editor's own primitives: their values were put where they were linked to" in told


@pytest.mark.parametrize(
    "odd",
    [node("Reroute", a=["1", 0], b=["2", 0]), node("PrimitiveNode", a=1, b=2)],
)
def test_what_could_give_two_things_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(InvalidWorkflow, match=r"node 7 \(.+\) is editor-only and passes its one input on.+'a', 'b'"):
        tidied({**still(), "7": odd})


@pytest.mark.parametrize("odd", ODD)
def test_odd_numbers_beside_the_inputs_are_dropped_with_their_key(odd: Any) -> None:
    given = {**still(), "2": {**still()["2"], "is_changed": odd, "cached": odd, "widgets": [1]}}
    changed, told = tidied(given)
    assert changed == {**still(), "2": {**still()["2"], "widgets": [1]}}
    assert told == []


def test_what_a_former_run_found_is_not_taken_for_this_one() -> None:
    assert tidied({**still(), "2": {**still()["2"], "is_changed": ["0a1b"]}})[0] == still()


@pytest.mark.parametrize("odd", [None, 5, [], "x", {"1": 5}, {"2": {"class_type": 5}}, {1: node("A")}])
def test_what_is_no_workflow_is_left_to_the_checks(odd: Any) -> None:
    assert tidied(odd) == (odd, [])


@pytest.mark.parametrize("value", [None, 5, "x", [], {}, {"author": "me"}])
def test_what_is_no_node_is_left_out_and_named(value: Any) -> None:
    assert tidied({"_metadata": value, **still(), "version": value}) == (
        still(),
        ["left out of the workflow, as they are not nodes: '_metadata', 'version'"],
    )
    broken = {**still(), "9": {"inputs": {}}, "8": {"class_type": "X"}}
    assert tidied(broken) == (broken, [])


def test_an_odd_number_in_an_input_is_still_refused(draft_bench: Bench) -> None:
    workflow = still()
    workflow["1"]["inputs"]["width"] = float("nan")
    assert "contains nan, which is not a JSON number" in draft_bench.run(workflow=workflow)["error"]


def test_a_workflow_with_all_of_them_runs(bench: Bench) -> None:
    workflow = {
        **still(),
        "1": {**node("EmptyImage", width=["70", 0], height=64, batch_size=1, color=0), "is_changed": [float("nan")]},
        "2": node("ImageInvert", image=["71", 0]),
        "70": node("PrimitiveNode", value=64),
        "71": node("Reroute", **{"": ["1", 0]}),
        "72": {"class_type": "Note"},
        "73": node("MarkdownNote", text="# hello"),
    }
    answer = bench.run(workflow=workflow)
    assert answer["status"] == "success", answer
    assert [next(n for n in ("70", "71", "72") if n in line) for line in answer["warnings"]] == ["72", "71", "70"]
    assert bench.run(workflow=workflow, action="validate")["valid"] is True


def chain(size: int) -> Workflow:
    """Many users of a long chain of reroutes, with the ends first and last."""
    users = {f"u{n}": node("ImageInvert", image=[f"r{n}", 0], mask=[f"r{size - 1}", 0]) for n in range(size)}
    return {**{f"r{n}": node("Reroute", **{"": [f"r{n - 1}", 0] if n else ["1", 0]}) for n in range(size)}, **users}


def circle(size: int) -> Workflow:
    return {**chain(size), "r0": node("Reroute", **{"": [f"r{size - 1}", 0]})}


def backwards(size: int) -> Workflow:
    return dict(reversed(chain(size).items()))


def notes(size: int) -> Workflow:
    return {f"n{n}": node("Note", text="x", more=[f"n{n - 1}", 0]) for n in range(size)}


@pytest.mark.parametrize("shape", [chain, circle, backwards, notes])
def test_twice_as_many_take_about_twice_the_steps(shape: Any) -> None:
    few, many = shape(SMALL), shape(2 * SMALL)
    assert steps(lambda: without_leftovers(many)) < MOST_GROWTH * steps(lambda: without_leftovers(few)) + 100
    assert len(without_leftovers(shape(20_000))[1]) <= 23
