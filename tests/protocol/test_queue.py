"""The queue: what runs, what waits, and what an interrupt is meant for."""

from __future__ import annotations

from src.protocol.queue import PromptQueue, QueuedPrompt


def prompt(number: int) -> QueuedPrompt:
    """A prompt of that number, which is its id too."""
    return QueuedPrompt(number, str(number), {}, {}, [])


def test_an_interrupt_is_for_what_runs_or_for_what_comes_first() -> None:
    queue = PromptQueue()
    for number in (1, 2, 3):
        queue.put(prompt(number))
    assert queue.current == []
    queue.take()
    queue.take()
    assert [queued.prompt_id for queued in queue.current] == ["1"]
    queue.begin("2")
    assert [queued.prompt_id for queued in queue.current] == ["2"]
    queue.begin("1")
    assert [queued.prompt_id for queued in queue.current] == ["1", "2"]


def test_a_prompt_that_was_taken_is_pending_until_it_begins() -> None:
    queue = PromptQueue()
    for number in (2, 1):
        queue.put(prompt(number))
    taken = queue.take()
    assert (taken.prompt_id, [queued.prompt_id for queued in queue.pending], queue.running) == ("1", ["1", "2"], [])
    assert queue.delete(["1", "2"]) == ["1"]
    assert queue.remaining == 1
    queue.finish("1", None)
    assert (queue.remaining, queue.history) == (0, {})


def test_a_queue_shows_no_key_of_its_callers() -> None:
    queued = QueuedPrompt(
        1, "1", {}, {"api_key_comfy_org": "key", "auth_token_comfy_org": "key", "client_id": "a"}, []
    )
    assert queued.as_json() == [1, "1", {}, {"client_id": "a"}, []]
