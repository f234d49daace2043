"""The events of a prompt: which previews are taken from the websocket, and which of them are kept."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest

from src.comfy.events import Event, Listener

from .. import workflows
from ..conftest import Bench

LONG = 60.0  # a hang limit, no measure


def events_of(bench: Bench, takes_previews: bool, workflow: dict[str, Any]) -> list[Event]:
    """The events of a prompt whose sampler sends previews."""
    prompt_id, engine = str(uuid.uuid4()), bench.engine
    with engine.events.listen(prompt_id, takes_previews) as listener:
        client_id = engine.events.client_id(LONG)
        engine.client.queue_prompt(workflow, prompt_id, client_id, {"preview_method": "auto"})
        events = []
        while (event := listener.next(LONG)) and not event.is_last:
            events.append(event)
    engine.forget(prompt_id)
    return events


def two_samplers(seed: int) -> dict[str, Any]:
    workflow = workflows.generative()
    workflow["8"]["inputs"]["seed"] = seed
    workflow["88"] = {**workflow["8"], "inputs": {**workflow["8"]["inputs"], "latent_image": ["8", 0]}}
    workflow["10"]["inputs"]["samples"] = ["88", 0]
    return workflow


def test_a_preview_belongs_to_the_sampler_whose_step_came_before_it(bench: Bench) -> None:
    if not bench.engine.process.installation.previews_by_job:
        pytest.skip("this ComfyUI sends previews only if it is started so")
    events = events_of(bench, True, two_samplers(1))
    senders = [str(event.node_id) for event in events if event.jpeg]
    assert set(senders) == {"8", "88"}
    assert senders == sorted(senders)
    for before, event in itertools.pairwise(events):
        assert not event.jpeg or (before.node_id, before.steps) == (event.node_id, 2)
        assert not event.jpeg or event.jpeg.startswith(b"\xff\xd8\xff")


def test_previews_that_nobody_wants_go_no_further_than_the_websocket(bench: Bench) -> None:
    events = events_of(bench, False, two_samplers(2))
    assert {event.node_id for event in events} >= {"8", "88"}
    assert not any(event.jpeg for event in events)


def test_of_previews_that_wait_only_the_newest_is_kept_and_nothing_else_is_lost() -> None:
    listener = Listener(takes_previews=True)
    given = [Event(node_id=name, jpeg=jpeg) for name, jpeg in (("1", b""), ("1", b"a"), ("1", b"b"), ("2", b""))]
    for put in (*given, Event(node_id="2", jpeg=b"c"), Event(is_last=True)):
        listener.put(put)
    taken = [event for _ in range(4) if (event := listener.next(0.0))]
    assert [(event.node_id, event.jpeg) for event in taken] == [("1", b""), ("2", b""), ("2", b"c"), (None, b"")]
    assert listener.next(0.0) is None
    listener.put(Event(node_id="2", jpeg=b"d"))
    assert listener.next(0.0) == Event(node_id="2", jpeg=b"d")
