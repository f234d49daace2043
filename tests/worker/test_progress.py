"""What RunPod is sent while a job runs, and the previews in it."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from src.comfy.events import Event
from src.pictures import preview
from src.pictures.helper import HELPERS
from src.worker import progress
from src.worker.progress import ProgressSender

from .. import workflows
from ..workflows import node

LONG = 60.0  # a hang limit, no measure
WORKFLOW = {**workflows.generative(), "88": node("KSampler", latent_image=["8", 0])}


def jpeg(width: int = 64, height: int = 64, colour: str = "red") -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(encoded, "JPEG")
    return encoded.getvalue()


def noise(width: int, height: int) -> bytes:
    encoded = io.BytesIO()
    Image.frombytes("RGB", (width, height), os.urandom(width * height * 3)).save(encoded, "JPEG", quality=100)
    return encoded.getvalue()


def bomb() -> bytes:
    """A few hundred bytes that say they are a picture of 4 billion pixels."""
    content = bytearray(jpeg())
    start = content.index(b"\xff\xc0") + 5  # the frame header: marker, length, bits per value; then the two sides
    content[start : start + 4] = b"\xff\xdc\xff\xdc"
    return bytes(content)


def picture_in(update: dict[str, Any]) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(update["preview"])))
    picture.load()
    return picture


class Receiver:
    """RunPod's side: what was sent, in order. `gate` holds back what is being sent."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self._came = threading.Condition()

    def send(self, job: dict[str, Any], update: dict[str, Any]) -> None:
        with self._came:
            self.updates.append(update)
            self._came.notify_all()
        assert self.gate.wait(LONG)

    def wait_for(self, is_last: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the last update is such a one."""
        with self._came:
            assert self._came.wait_for(lambda: self.updates and is_last(self.updates[-1]), LONG)


def has_preview(update: dict[str, Any]) -> bool:
    return "preview" in update


def is_of_step(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda update: bool(update["step"] == number)


def step(number: int, node_id: str = "8") -> Event:
    return Event(node_id=node_id, step=number, steps=9)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates without a pause between them."""
    monkeypatch.setattr(progress, "_INTERVAL_SECONDS", 0.0)


def test_each_preview_is_sent_once_with_the_step_it_shows(at_once: None) -> None:
    receiver = Receiver()
    with ProgressSender({}, WORKFLOW, receiver.send) as report:
        for number in (1, 2, 3):
            report(step(number))
            receiver.wait_for(is_of_step(number))
        report(Event(node_id="8", jpeg=jpeg()))
        receiver.wait_for(has_preview)
        report(step(4))
        receiver.wait_for(is_of_step(4))
    with_preview = [update["step"] for update in receiver.updates if "preview" in update]
    assert with_preview == [3]
    (shown,) = [update for update in receiver.updates if "preview" in update]
    assert picture_in(shown).size == (64, 64)
    assert shown.keys() == {"percent", "node_id", "node", "images", "step", "steps", "preview"}
    assert shown["images"] == []


def test_of_the_previews_that_come_while_one_is_sent_only_the_newest_is_kept(at_once: None) -> None:
    receiver = Receiver()
    receiver.gate.clear()
    with ProgressSender({}, WORKFLOW, receiver.send) as report:
        report(step(1))
        receiver.wait_for(is_of_step(1))
        for colour in ("red", "lime", "blue"):
            report(Event(node_id="8", jpeg=jpeg(colour=colour)))
        receiver.gate.set()
        receiver.wait_for(has_preview)
    assert len(receiver.updates) == 2
    red, green, blue = picture_in(receiver.updates[1]).getpixel((5, 5))  # type: ignore[misc]
    assert (red < 50, green < 50, blue > 200) == (True, True, True)


@pytest.mark.parametrize("size", [(512, 512), (2000, 900), (3, 4000), (4000, 3)])
def test_a_preview_is_small_whatever_the_node_sent(size: tuple[int, int]) -> None:
    small = preview.small_jpeg(noise(*size))
    picture = Image.open(io.BytesIO(small))
    picture.load()
    assert picture.format == "JPEG"
    assert max(picture.size) <= 512
    assert len(small) <= 32_000


UNFIT = {"no picture": b"no picture", "cut off": jpeg()[:300], "a bomb": bomb(), "a png": workflows.png(32)}


@pytest.mark.parametrize("sent", UNFIT.values(), ids=UNFIT)
def test_a_broken_or_huge_preview_is_left_out_and_the_progress_is_sent(sent: bytes, at_once: None) -> None:
    receiver = Receiver()
    with ProgressSender({}, WORKFLOW, receiver.send) as report:
        report(step(1))
        report(Event(node_id="8", jpeg=sent))
        report(step(2))
        receiver.wait_for(is_of_step(2))
        report(Event(node_id="8", jpeg=jpeg()))
        receiver.wait_for(has_preview)
    assert [picture_in(update).size for update in receiver.updates if "preview" in update] == [(64, 64)]


def test_a_huge_preview_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ValueError, match="65500 x 65500 pixels"):
        preview.small_jpeg(bomb())


def test_a_preview_is_not_shown_for_another_node(at_once: None) -> None:
    receiver = Receiver()
    receiver.gate.clear()
    with ProgressSender({}, WORKFLOW, receiver.send) as report:
        report(step(9))
        receiver.wait_for(is_of_step(9))
        report(Event(node_id="8", jpeg=jpeg()))
        report(step(1, "88"))
        receiver.gate.set()
        receiver.wait_for(lambda update: bool(update["node_id"] == "88"))
        report(Event(node_id="88", jpeg=jpeg(32, 32)))
        receiver.wait_for(has_preview)
    assert [picture_in(update).size for update in receiver.updates if "preview" in update] == [(32, 32)]


def test_the_thread_that_reports_never_encodes(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, call, callers = Receiver(), HELPERS.call, list[str]()

    def watched(*arguments: Any) -> Any:
        callers.append(threading.current_thread().name)
        return call(*arguments)

    monkeypatch.setattr(HELPERS, "call", watched)
    with ProgressSender({}, WORKFLOW, receiver.send) as report:
        report(step(1))
        report(Event(node_id="8", jpeg=jpeg()))
        receiver.wait_for(has_preview)
    assert callers == ["progress_0"]


def test_a_job_that_ends_sends_no_preview_any_more_and_waits_for_none() -> None:
    receiver = Receiver()
    with ProgressSender({}, WORKFLOW, receiver.send) as report:
        report(step(1))
        report(Event(node_id="8", jpeg=jpeg()))  # which has to wait until a second has passed
    assert receiver.updates == []


def test_a_log_line_about_an_update_has_no_base64() -> None:
    update = progress._Update(percent=5, preview="A" * 1000)
    assert f"{update}" == str(update) == "{'percent': 5, 'preview': '…'}"
    assert json.loads(json.dumps(update))["preview"] == "A" * 1000
