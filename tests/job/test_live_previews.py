"""The samplers' previews in the progress of a job: who gets them, and what tells ComfyUI to make them."""

from __future__ import annotations

import base64
import io
import itertools
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.comfy.events import Event
from src.comfy.folders import Folders
from src.comfy.install import Installation, preview_method
from src.job.prepare import PreparedJob
from src.job.request import OutputOptions, Request
from src.settings import Settings, read_settings
from src.worker import progress
from src.worker.progress import ProgressSender

from .. import workflows
from ..conftest import ENGINES, Bench, booted, installation, settings_for

_seeds = itertools.count(1000)


def long_enough() -> dict[str, Any]:
    """Twenty steps that come from no cache."""
    workflow = workflows.generative()
    workflow["8"]["inputs"].update(steps=20, seed=next(_seeds))
    return workflow


def run(bench: Bench, output: dict[str, Any]) -> tuple[list[Event], dict[str, Any]]:
    """The events of a job, and its answer."""
    events: list[Event] = []
    watched = replace(bench.worker, progress=lambda job, workflow: nullcontext(events.append))
    answer = Bench(bench.name, watched).run(workflow=long_enough(), output=output)
    assert answer["status"] == "success", answer
    assert any(event.steps == 20 for event in events if event.node_id == "8")
    return events, answer


def test_a_job_that_asks_for_them_gets_the_previews_of_its_sampler(bench: Bench) -> None:
    events, answer = run(bench, {"live_previews": True})
    if not bench.engine.process.installation.previews_by_job:
        assert "LIVE_PREVIEWS=true" in answer["warnings"][0]
        return
    assert "warnings" not in answer
    assert {event.node_id for event in events if event.jpeg} == {"8"}


@pytest.mark.parametrize("output", [{}, {"live_previews": False}, {"live_previews": "false"}], ids=repr)
def test_a_job_that_does_not_ask_gets_none(bench: Bench, output: dict[str, Any]) -> None:
    events, answer = run(bench, output)
    assert not any(event.jpeg for event in events)
    assert "warnings" not in answer


@pytest.mark.parametrize("name", ENGINES)
def test_with_the_setting_every_job_gets_them_but_one_that_wants_none(name: str, model_paths: Path) -> None:
    installation(name)
    with booted(name, settings_for(name, model_paths, live_previews=True)) as bench:
        for output, gets_previews in (({}, True), ({"live_previews": False}, False), ({"live_previews": True}, True)):
            events, answer = run(bench, output)
            assert any(event.jpeg for event in events) == gets_previews
            assert "warnings" not in answer


def test_the_progress_that_runpod_is_sent_has_the_preview(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    if not bench.engine.process.installation.previews_by_job:
        pytest.skip("this ComfyUI sends previews only if it is started so")
    monkeypatch.setattr(progress, "_INTERVAL_SECONDS", 0.0)
    sent: list[dict[str, Any]] = []
    sender = replace(
        bench.worker,
        progress=lambda job, workflow: ProgressSender(job, workflow, lambda job, update: sent.append(update)),
    )
    for output in ({"live_previews": True}, {"live_previews": True, "answer": "worker-comfyui"}):
        sent.clear()
        Bench(bench.name, sender).run(workflow=long_enough(), output=output)
        shown = [update for update in sent if "preview" in update]
        assert shown
        for update in shown:
            assert (update["node_id"], update["images"]) == ("8", [])
            content = base64.b64decode(update["preview"])
            assert len(content) <= 32_000
            assert max(Image.open(io.BytesIO(content)).size) <= 512
    sent.clear()
    Bench(bench.name, sender).run(workflow=long_enough())
    assert sent
    assert not any("preview" in update for update in sent)


ASKED: list[tuple[dict[str, str], bool | None, str | None]] = [
    ({}, None, None),
    ({}, False, None),
    ({}, True, "auto"),
    ({"LIVE_PREVIEWS": "true"}, None, None),
    ({"LIVE_PREVIEWS": "true"}, True, None),
    ({"LIVE_PREVIEWS": "true"}, False, "none"),
    ({"COMFYUI_ARGS": "--preview-method taesd"}, True, None),
    ({"COMFYUI_ARGS": "--preview-method=taesd"}, None, "none"),
    ({"COMFYUI_ARGS": "--preview-method none", "LIVE_PREVIEWS": "true"}, None, "auto"),
]


@pytest.mark.parametrize(("variables", "asked", "told"), ASKED)
def test_comfyui_is_told_where_a_job_differs_from_its_start(
    variables: dict[str, str], asked: bool | None, told: str | None
) -> None:
    settings: Any = read_settings({**variables, "SAVE_METADATA": "true"})
    nothing: Any = None
    request = Request(output=OutputOptions(live_previews=asked))
    job = PreparedJob(request, nothing, nothing, {}, 0.0, nothing, settings, lambda: None)
    assert job.extra_data.get("preview_method") == told


STARTED = {
    "": ("none", []),
    "--cpu": ("none", []),
    "--preview-method taesd": ("taesd", ["--preview-method", "taesd"]),
    "--preview-method=latent2rgb": ("latent2rgb", ["--preview-method=latent2rgb"]),
}


@pytest.mark.parametrize("arguments", STARTED)
@pytest.mark.parametrize("setting", [True, False])
def test_comfyui_is_started_with_previews_by_the_setting_unless_its_arguments_say_how(
    arguments: str, setting: bool
) -> None:
    method, words = STARTED[arguments]
    settings = replace(Settings(), comfyui_args=arguments, live_previews=setting)
    engine = Installation("x", Path(), ("python",), frozenset({"--preview-method"}))
    command = engine.command(settings, Folders(Path("/t")), 1)
    by_setting = ["--preview-method", "auto"] if setting and not words else []
    first = next((command.index(word) for word in command if word.startswith("--preview-method")), len(command))
    assert [word for word in command[first:] if word != "--cpu"] == [*by_setting, *words]
    assert preview_method(settings) == ("auto" if by_setting else method)
