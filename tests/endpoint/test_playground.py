"""The page that a local endpoint serves, in a real Chromium, with a real worker behind it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from .. import editor_files, workflows
from ..job.test_app_mode import app
from ..worker_process import ROOT
from .test_endpoint import KEY, Client, serving

LONG = 30_000  # milliseconds; a hang limit
SHOTS = os.environ.get("PLAYGROUND_SHOTS")
"""A folder for images of the page, for a person to look at."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An endpoint with a worker on the draft engine."""
    with serving(tmp_path_factory.mktemp("endpoint")) as served:
        served.wait_for_workers(1)
        yield served


@pytest.fixture(params=["light", "dark"])
def page(browser: Any, client: Client, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page with the key put in; nothing may go wrong in its script."""
    context = browser.new_context(
        color_scheme=request.param,
        viewport={"width": 1280, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
    )
    opened = context.new_page()
    opened.set_default_timeout(LONG)
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.theme = request.param
    opened.goto(client.url.removesuffix("/v2/local") + "/")
    opened.get_by_text("Endpoint", exact=True).click()
    opened.get_by_label("Key").fill(KEY)
    opened.get_by_label("Key").press("Tab")
    opened.get_by_text("worker ready").wait_for()
    yield opened
    context.close()
    assert problems == []


def shot(page: Any, name: str) -> None:
    """Images of the page, wide and narrow, if somebody wants to look."""
    for width in (390, 1280) if SHOTS else ():
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=f"{SHOTS}/{name}-{page.theme}-{width}.png", full_page=True)


def drop(page: Any, folder: Path, workflow: Any, name: str = "workflow.json") -> None:
    """Choose a workflow's file."""
    file = folder / name
    file.write_text(json.dumps(workflow))
    page.get_by_label("Workflow file").set_input_files(file)


def test_from_a_workflow_to_a_picture(page: Any, tmp_path: Path) -> None:
    page.get_by_text("workflow_api_format is ready to run").wait_for()
    shot(page, "arrival")
    drop(page, tmp_path, workflows.generative())
    page.get_by_text("workflow.json is ready to run").wait_for()
    assert page.get_by_label("negative prompt").input_value() == "blurry"
    page.get_by_label("prompt", exact=False).first.fill("a lighthouse at dusk")
    page.get_by_label("steps").fill("3")
    page.get_by_label("width").fill("128")
    page.get_by_label("seed").fill("7")
    page.keyboard.press("Control+Enter")
    page.get_by_text("Done in").wait_for()
    picture = page.locator("#gallery img").first
    assert picture.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])") == [
        128,
        64,
    ]
    assert page.get_by_text("seed 7").count() == 1
    with page.expect_download() as download:
        page.get_by_role("link", name="gen_00001_.png").click()
    assert Image.open(download.value.path()).size == (128, 64)
    shot(page, "result")


def test_a_file_of_the_editor_and_a_picture_of_ones_own(page: Any, tmp_path: Path) -> None:
    drop(page, tmp_path, editor_files.with_subgraph(), "saved.json")
    page.get_by_text("saved.json is ready to run, converted from the editor's format").wait_for()
    workflow = {"1": workflows.node("LoadImage", image="mine.png"), "2": workflows.node("SaveImage", images=["1", 0], filename_prefix="x")}  # fmt: skip
    drop(page, tmp_path, workflow)
    picture = tmp_path / "photo.png"
    Image.new("RGB", (24, 12), "red").save(picture)
    page.get_by_label("mine.png").set_input_files(picture)
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Done in").wait_for()
    shown = page.locator("#gallery img").first
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 24


def test_the_fields_that_a_workflows_author_chose_are_shown_and_sent(page: Any, tmp_path: Path) -> None:
    drop(page, tmp_path, app(["1", "width"], ["1", "color"]), "app.json")
    page.get_by_text("app.json is ready to run").wait_for()
    assert page.get_by_label("height").count() == 0
    page.get_by_label("How wide").fill("96")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Done in").wait_for()
    shown = page.locator("#gallery img").first
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    shot(page, "app")


def test_only_what_was_changed_is_sent_and_in_its_own_type(page: Any, tmp_path: Path) -> None:
    picture = editor_files.saved_node(1, "EmptyImage", [64, 64, 1, 255], outputs={"IMAGE": "IMAGE"})
    values = ["a\r\nb", 6, True, 80, "default"]
    saver = editor_files.saved_node(2, "SaveAnimatedWEBP", values, {"images": ("IMAGE", 1)})
    chosen = {"inputs": [["2", name] for name in ("filename_prefix", "lossless", "quality")], "outputs": []}
    file = editor_files.saved([picture, saver], [[1, 1, 0, 2, 0, "IMAGE"]], extra={"linearData": chosen})
    drop(page, tmp_path, file, "switch.json")
    page.get_by_text("switch.json is ready to run").wait_for()
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.url.endswith("/run") else None)
    page.get_by_label("lossless").uncheck()
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Done in").wait_for()
    assert sent[0]["input"]["inputs"] == {"lossless": False}
    page.get_by_label("quality").fill("")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("quality is empty").wait_for()
    assert len(sent) == 1


def test_what_is_wrong_is_told_where_a_screen_reader_hears_it(page: Any, tmp_path: Path) -> None:
    broken = workflows.generative()
    broken["8"]["inputs"]["sampler_name"] = "eulr"
    drop(page, tmp_path, broken)
    page.get_by_text("cannot run here").wait_for()
    page.get_by_role("button", name="Run").click()
    alert = page.get_by_role("alert")
    page.get_by_text("[invalid_workflow]").wait_for()
    assert "eulr" in alert.inner_text()
    shot(page, "error")
    (tmp_path / "bad.json").write_text("{")
    page.get_by_label("Workflow file").set_input_files(tmp_path / "bad.json")
    page.get_by_text("bad.json is not valid JSON").wait_for()


def test_the_result_is_in_view_when_the_job_runs(page: Any, tmp_path: Path) -> None:
    drop(page, tmp_path, workflows.generative())
    page.get_by_text("is ready to run").wait_for()
    page.set_viewport_size({"width": 1280, "height": 600})
    page.get_by_role("button", name="Run").click()  # which scrolls down to it
    page.get_by_text("Done in").wait_for()
    box = page.get_by_text("Done in").bounding_box()
    assert 0 <= box["y"] < 600


def test_a_running_job_shows_its_steps_and_can_be_cancelled(page: Any, tmp_path: Path) -> None:
    slow = workflows.generative()
    slow["8"]["inputs"]["steps"] = 10_000
    drop(page, tmp_path, slow)
    page.get_by_text("is ready to run").wait_for()
    page.get_by_role("button", name="Run").click()
    page.get_by_text("of 10000").wait_for()
    assert page.get_by_role("progressbar", name="Job progress").is_visible()
    assert page.get_by_role("button", name="Run").is_disabled()
    shot(page, "running")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The job was cancelled.").wait_for()


def test_a_running_job_shows_its_previews_if_they_are_switched_on(page: Any, tmp_path: Path) -> None:
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = 250
    drop(page, tmp_path, workflow)
    page.get_by_text("is ready to run").wait_for()
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.url.endswith("/run") else None)
    page.get_by_label("Live previews").check()
    page.get_by_role("button", name="Run").click()
    shown = page.get_by_role("img", name="Preview of KSampler")
    shown.wait_for()
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
    shot(page, "live-preview")
    page.get_by_text("Done in").wait_for()
    assert shown.count() == 0
    assert page.locator("#live-picture").is_hidden()
    page.get_by_label("Live previews").uncheck()
    page.get_by_label("seed", exact=False).first.fill("5")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("of 250").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The job was cancelled.").wait_for()
    assert [body["input"]["output"].get("live_previews") for body in sent] == [True, None]
    page.get_by_role("button", name="Use these settings").click()
    page.get_by_text("The settings of that job are in the form.").wait_for()
    assert page.get_by_label("Live previews").is_checked()


def test_the_switch_for_previews_begins_as_the_worker_is_set(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path, LIVE_PREVIEWS="true") as served:
        served.wait_for_workers(1)
        page = browser.new_page()
        page.set_default_timeout(LONG)
        page.goto(served.url.removesuffix("/v2/local") + "/")
        page.get_by_text("Endpoint", exact=True).click()
        page.get_by_label("Key").fill(KEY)
        page.get_by_label("Key").press("Tab")
        page.get_by_text("workflow_api_format is ready to run").wait_for()
        assert page.get_by_label("Live previews").is_checked()
        sent: list[Any] = []
        page.on("request", lambda request: sent.append(request.post_data_json) if "/run" in request.url else None)
        page.get_by_label("Live previews").uncheck()
        page.get_by_role("button", name="Run").click()
        page.get_by_text("Done in").wait_for()
        assert sent[0]["input"]["output"]["live_previews"] is False
        page.close()


def test_a_wrong_key_opens_the_place_where_it_belongs(browser: Any, client: Client) -> None:
    page = browser.new_page()
    page.goto(client.url.removesuffix("/v2/local") + "/")
    page.get_by_text("The API key was rejected").wait_for(timeout=LONG)
    assert page.get_by_label("Key").is_visible()
    page.close()


def test_the_page_works_as_a_file_too(browser: Any, client: Client) -> None:
    page = browser.new_page()
    page.set_default_timeout(LONG)
    page.goto((ROOT / "src" / "endpoint" / "playground.html").as_uri())
    page.get_by_role("textbox", name="URL").fill(client.url)
    page.get_by_label("Key").fill(KEY)
    page.get_by_label("Key").press("Tab")
    page.get_by_text("worker ready").wait_for()
    page.get_by_label("or a workflow stored on the worker").select_option("smoke_workflow")
    page.get_by_text("smoke_workflow is ready to run").wait_for()
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Done in").wait_for()
    page.close()


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page: Any, tmp_path: Path) -> None:
    drop(page, tmp_path, workflows.generative())
    page.get_by_text("is ready to run").wait_for()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, select, button, progress")]
            .filter(e => !e.labels?.length && !e.getAttribute("aria-label") && !e.textContent.trim())
            .map(e => e.outerHTML)"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"choose", "stored", "field-prompt", "field-seed", "run", "curl"} <= reached


def test_the_page_asks_nobody_but_the_endpoint(client: Client) -> None:
    answer = requests.get(client.url.removesuffix("/v2/local") + "/", timeout=10)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "http://" not in answer.text
    assert set(re.findall(r"https://[\w.]+", answer.text)) == {"https://api.runpod.ai"}


# --- What went wrong once ------------------------------------------------------------------------------------------


def sent_jobs(page: Any) -> list[dict[str, Any]]:
    """The inputs of the jobs that the page sends, as they are on the wire; the list grows."""
    found: list[dict[str, Any]] = []

    def on_request(request: Any) -> None:
        if request.url.endswith("/run") and request.method == "POST":
            found.append(json.loads(request.post_data)["input"])

    page.on("request", on_request)
    return found


def test_only_a_key_that_was_typed_is_sent_and_it_outlives_a_reload(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path, SERVE_API_KEY="") as served:
        context = browser.new_context()
        opened = context.new_page()
        keys: list[str | None] = []
        opened.on("request", lambda request: keys.append(request.headers.get("authorization")))
        opened.goto(served.url.removesuffix("/v2/local") + "/")
        opened.get_by_text("worker ready").wait_for(timeout=LONG)
        assert opened.get_by_label("Key").input_value() == ""
        assert set(keys) == {None}
        opened.get_by_text("Endpoint", exact=True).click()
        opened.get_by_label("Key").fill("mine")
        opened.get_by_label("Key").press("Tab")
        opened.reload()
        assert opened.get_by_label("Key").input_value() == "mine"
        context.close()


def test_large_seeds_emptied_numbers_and_values_are_sent_as_they_are_written(page: Any, tmp_path: Path) -> None:
    jobs = sent_jobs(page)
    workflow = workflows.generative()
    workflow["8"]["inputs"]["seed"] = 2**64 - 3
    drop(page, tmp_path, workflow)
    page.get_by_text("workflow.json is ready to run").wait_for()
    assert page.get_by_label("seed").input_value() == str(2**64 - 3)
    page.get_by_label("steps").fill("")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("steps is empty").wait_for()
    assert jobs == []
    page.get_by_label("steps").fill("2")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Done in").wait_for()
    assert jobs[0]["workflow"]["8"]["inputs"]["seed"] == 2**64 - 3
    page.get_by_label("seed").fill(str(2**64 - 1))
    page.get_by_role("button", name="Run").click()
    page.get_by_text(f"seed {2**64 - 1}").wait_for()
    assert int(jobs[1]["seed"]) == 2**64 - 1


def test_a_field_with_candidates_sends_a_number(page: Any, tmp_path: Path) -> None:
    jobs = sent_jobs(page)
    workflow = workflows.generative()
    workflow["18"] = json.loads(json.dumps(workflow["8"]))
    workflow["18"]["inputs"] |= {"steps": 4, "latent_image": ["8", 0]}
    saver = next(entry for entry in workflow.values() if entry["class_type"] == "VAEDecode")
    saver["inputs"]["samples"] = ["18", 0]
    drop(page, tmp_path, workflow)
    page.get_by_text("workflow.json is ready to run").wait_for()
    box = page.get_by_label("steps").last
    box.fill("3")
    page.get_by_role("button", name="Run").click()
    page.wait_for_function("document.getElementById('state').textContent !== ''")
    page.wait_for_timeout(300)
    assert jobs[0]["steps"] == 3


def test_a_long_error_and_missing_models_fit_into_the_window(page: Any, tmp_path: Path) -> None:
    drop(page, tmp_path, {"1": workflows.node("A" * 3000)}, "long.json")
    page.locator("#error:not(:empty), #notes li").first.wait_for()
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot(page, "long-error")
    known = {
        "source": "https://huggingface.co/owner/repo/resolve/main/ae.safetensors",
        "size": 335_304_388,
        "model": "ae",
    }
    models = [{"name": "ae.safetensors", "folder": "vae", **known}, {"name": "a" * 300, "folder": "loras"}]
    page.evaluate("missing => showError(Object.assign(new Error('missing'), {missing}))", models)
    rows = [row.locator("td").all_inner_texts() for row in page.locator("#missing tbody tr").all()]
    assert rows[0] == ["ae.safetensors", "vae", "huggingface.co/owner/repo", "335.3 MB"]
    assert rows[1][1:] == ["loras", "unknown", "unknown"]
    assert page.get_by_role("link", name="huggingface.co/owner/repo").get_attribute("href") == known["source"]
    page.get_by_role("button", name="Copy command").click()
    page.get_by_text("Copied to the clipboard.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "python -m src.models fetch ae"
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot(page, "missing-models")


def test_a_dropped_file_takes_the_place_of_a_stored_workflow(page: Any, tmp_path: Path) -> None:
    page.get_by_text("workflow_api_format is ready to run").wait_for()  # the example that is there on arrival
    assert page.locator("#stored").input_value() == "workflow_api_format"
    drop(page, tmp_path, workflows.still())
    page.get_by_text("workflow.json is ready to run").wait_for()
    assert page.locator("#stored").input_value() == ""


def test_pictures_are_enlarged_settings_used_again_and_the_json_shown(page: Any, tmp_path: Path) -> None:
    drop(page, tmp_path, workflows.generative())
    page.get_by_text("workflow.json is ready to run").wait_for()
    page.get_by_label("steps").fill("3")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Done in").wait_for()
    page.get_by_label("steps").fill("5")
    page.get_by_role("button", name="Use these settings").click()
    assert page.get_by_label("steps").input_value() == "3"
    page.get_by_role("button", name=re.compile("Enlarge")).click()
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("Request and response as JSON").click()
    assert '"steps": 3' in page.get_by_label("Request", exact=True).inner_text()
    assert "characters)" in page.get_by_label("Response", exact=True).inner_text()


# --- Fields by the schemas of ComfyUI --------------------------------------------------------------------------------


def run_to_the_end(page: Any) -> None:
    page.get_by_role("button", name="Run").click()
    page.locator("#state", has_text="Done in").wait_for()


def test_fields_have_the_bounds_and_choices_of_their_inputs(page: Any, tmp_path: Path) -> None:
    jobs = sent_jobs(page)
    drop(page, tmp_path, workflows.generative())
    page.get_by_text("workflow.json is ready to run").wait_for()
    cfg = page.get_by_label("cfg")
    assert {name: cfg.get_attribute(name) for name in ("type", "min", "max", "step")} == {
        "type": "number",
        "min": "0",
        "max": "100",
        "step": "0.1",
    }
    sampler = page.get_by_role("combobox", name="sampler name")
    assert sampler.input_value() == "euler"
    sampler.select_option("heun")
    page.get_by_role("combobox", name="scheduler").select_option("karras")
    page.get_by_label("steps").fill("0")
    page.get_by_role("button", name="Run").click()
    page.get_by_role("alert").filter(has_text="steps: ").wait_for()
    assert page.evaluate("document.activeElement.id") == "field-steps"
    assert page.get_by_label("steps").get_attribute("aria-invalid") == "true"
    assert jobs == []
    page.get_by_label("steps").fill("2")
    assert page.get_by_label("steps").get_attribute("aria-invalid") is None
    cfg.fill("1.55")  # between two steps of the editor's arrows
    run_to_the_end(page)
    assert {name: jobs[0][name] for name in ("sampler_name", "scheduler", "cfg")} == {
        "sampler_name": "heun",
        "scheduler": "karras",
        "cfg": 1.55,
    }


def test_a_choice_that_the_worker_does_not_have_stays_until_another_is_made(page: Any, tmp_path: Path) -> None:
    workflow = workflows.generative()
    workflow["8"]["inputs"]["sampler_name"] = "of_tomorrow"
    drop(page, tmp_path, workflow)
    page.get_by_text("workflow.json cannot run here").wait_for()
    sampler = page.get_by_role("combobox", name="sampler name")
    assert sampler.input_value() == "of_tomorrow"
    assert sampler.locator("option:checked").inner_text() == "of_tomorrow (not on this worker)"
    sampler.select_option("euler")
    run_to_the_end(page)


# --- LoRAs, output format, input files -------------------------------------------------------------------------------


def test_loras_and_the_output_format_are_sent(page: Any, tmp_path: Path) -> None:
    def with_loras(route: Any) -> None:
        answer = route.fetch()
        content = answer.json()
        if "models" in (content.get("output") or {}):
            content["output"]["models"] = {"loras": ["style.safetensors", "sub/other.safetensors"]}
        route.fulfill(response=answer, json=content)

    page.route("**/runsync", with_loras)
    page.reload()
    page.locator("#lora-names option").first.wait_for(state="attached")
    suggested = page.locator("#lora-names option").evaluate_all("all => all.map(option => option.value)")
    assert suggested == ["style.safetensors", "sub/other.safetensors"]
    jobs = sent_jobs(page)
    drop(page, tmp_path, workflows.generative())
    page.get_by_text("workflow.json is ready to run").wait_for()
    for name, strength in (("style.safetensors", "0.8"), ("sub/other.safetensors", "-1")):
        page.get_by_role("button", name="Add LoRA").click()
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "LoRA file"
        page.keyboard.type(name)
        page.get_by_label("Strength").last.fill(strength)
    page.get_by_role("button", name="Add LoRA").click()  # left empty
    page.get_by_label("Output format").select_option("webp")
    run_to_the_end(page)
    assert jobs[0]["loras"] == [
        {"name": "style.safetensors", "strength": 0.8},
        {"name": "sub/other.safetensors", "strength": -1},
    ]
    assert jobs[0]["output"] == {"answer": "standard", "format": "webp"}
    assert page.get_by_role("link", name="gen_00001_.webp").count() == 1
    shot(page, "loras")
    page.get_by_label("Strength").first.fill("1000")
    page.get_by_role("button", name="Run").click()
    page.get_by_role("alert").filter(has_text="LoRA strength").wait_for()
    for _ in range(3):
        page.get_by_role("button", name="Remove LoRA").first.click()
    assert page.evaluate("document.activeElement.id") == "add-lora"
    page.get_by_label("Output format").select_option("")
    page.get_by_text("More parameters", exact=True).click()
    page.locator("#more").fill('{"output": {"format": "png"}}')
    run_to_the_end(page)
    assert "loras" not in jobs[1]
    assert jobs[1]["output"] == {"answer": "standard", "format": "png"}


def test_selected_input_files_are_shown_beside_their_pickers(page: Any, tmp_path: Path) -> None:
    workflow = {"1": workflows.node("LoadImage", image="mine.png"), "2": workflows.node("SaveImage", images=["1", 0], filename_prefix="x")}  # fmt: skip
    drop(page, tmp_path, workflow)
    page.get_by_text("workflow.json is ready to run. Choose its input files first.").wait_for()
    photo, other = tmp_path / "photo.png", tmp_path / "clip.mp4"
    Image.new("RGB", (24, 12), "red").save(photo)
    other.write_bytes(b"x" * 2500)
    page.get_by_label("mine.png").set_input_files(photo)
    thumbnail = page.get_by_role("img", name="Selected: photo.png")
    assert thumbnail.evaluate("image => image.decode().then(() => image.naturalWidth)") == 24
    shot(page, "input-file")
    page.get_by_label("mine.png").set_input_files(other)
    page.get_by_text("clip.mp4 (2 kB)").or_(page.get_by_text("clip.mp4 (3 kB)")).wait_for()
    assert thumbnail.count() == 0


# --- The history -----------------------------------------------------------------------------------------------------


def stored_jobs(page: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate("withJobs('readonly', jobs => jobs.getAll())")
    return found


def test_the_history_outlives_a_reload_and_gives_settings_back(page: Any, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (24, 12), "red").save(photo)
    load = {"1": workflows.node("LoadImage", image="mine.png"), "2": workflows.node("SaveImage", images=["1", 0], filename_prefix="mine")}  # fmt: skip
    drop(page, tmp_path, load, "load.json")
    page.get_by_label("mine.png").set_input_files(photo)
    run_to_the_end(page)
    drop(page, tmp_path, workflows.generative(), "generative.json")
    page.get_by_text("generative.json is ready to run").wait_for()
    page.get_by_label("steps").fill("3")
    page.get_by_label("sampler name").select_option("heun")
    page.get_by_label("Randomize").check()
    page.get_by_role("button", name="Add LoRA").click()
    page.get_by_label("LoRA file").fill("style.safetensors")
    page.locator("#more").evaluate('box => { box.value = \'{"comfy_org_api_key": "secret-of-mine", "cfg": 2}\' }')
    run_to_the_end(page)
    page.locator("#gallery figure").nth(1).wait_for()
    page.wait_for_function("withJobs('readonly', jobs => jobs.count()).then(count => count === 2)")
    seed = json.loads(stored_jobs(page)[1]["response"])["output"]["seed"]

    page.reload()
    page.locator("#gallery figure").nth(1).wait_for()
    image = page.get_by_role("img", name="gen_00001_.png from generative.json")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    page.get_by_text("workflow_api_format is ready to run").wait_for()
    shot(page, "history")
    everything = json.dumps(stored_jobs(page))
    assert "secret-of-mine" not in everything
    assert KEY not in everything
    newest, oldest = (page.locator("#gallery figure").nth(number) for number in (0, 1))
    newest.get_by_role("button", name="Use these settings").click()
    page.get_by_text("The settings of that job are in the form.").wait_for()
    assert page.locator("#name").inner_text() == "generative.json"
    assert page.get_by_label("steps").input_value() == "3"
    assert page.get_by_label("sampler name").input_value() == "heun"
    assert page.get_by_label("seed").input_value() == str(seed)
    assert page.get_by_label("LoRA file").input_value() == "style.safetensors"
    assert json.loads(page.locator("#more").input_value()) == {"cfg": 2}
    oldest.get_by_role("button", name="Use these settings").click()
    page.get_by_role("img", name="Selected: photo.png").wait_for()
    assert page.get_by_label("LoRA file").count() == 0
    jobs = sent_jobs(page)
    run_to_the_end(page)
    assert [file["name"] for file in jobs[0]["files"]] == ["mine.png"]
    newest.get_by_role("button", name="Show JSON").click()
    assert '"mine.png"' in page.get_by_label("Request", exact=True).inner_text()

    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Clear history").click()
    page.get_by_text("The history is empty.").wait_for()
    page.reload()
    page.get_by_text("Images, videos and audio appear here").wait_for()
    assert stored_jobs(page) == []
    assert page.locator("#gallery figure").count() == 0


def test_the_history_is_bounded_in_jobs_and_bytes(page: Any) -> None:
    add = """async ([count, bytes]) => {
        for (let number = 0; number < count; number++) {
            const blob = new Blob([new Uint8Array(bytes)])
            await remember({ time: number, request: "{}", response: "{}", files: [{ blob }], sent: [], texts: [] })
        }
        const jobs = await withJobs("readonly", jobs => jobs.getAll())
        return jobs.map(job => job.time)
    }"""
    assert page.evaluate(add, [53, 10]) == list(range(3, 53))
    page.evaluate("HISTORY.bytes = 3500")
    assert page.evaluate(add, [5, 1000]) == [2, 3, 4]


# --- The request as code ---------------------------------------------------------------------------------------------


def test_the_copied_code_runs_and_never_has_the_key(page: Any, tmp_path: Path) -> None:
    workflow = workflows.still()
    workflow["3"]["inputs"]["seed"] = 2**64 - 3
    drop(page, tmp_path, workflow, "it's.json")
    page.get_by_text("it's.json is ready to run").wait_for()
    node = shutil.which("node")
    commands = {"curl": ["sh"], "Python": [sys.executable, "-"], "JavaScript": [str(node), "--input-type=module", "-"]}
    for language, command in commands.items():
        page.get_by_role("button", name=f"Copy as {language}").click()
        page.wait_for_function("word => navigator.clipboard.readText().then(text => text.includes(word))", arg={"curl": "curl -s", "Python": "import requests", "JavaScript": "await fetch"}[language])  # fmt: skip
        code = page.evaluate("navigator.clipboard.readText()")
        assert KEY not in code
        assert "RUNPOD_API_KEY" in code
        assert str(2**64 - 3) in code
        if language == "JavaScript" and node is None:
            continue
        environment = {**os.environ, "RUNPOD_API_KEY": KEY}
        ran = subprocess.run(
            command, check=False, input=code, capture_output=True, text=True, env=environment, timeout=LONG / 1000
        )
        assert "COMPLETED" in ran.stdout, (language, ran.stderr)


def test_without_a_key_none_is_in_the_copied_code(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path, SERVE_API_KEY="") as served:
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        opened = context.new_page()
        opened.set_default_timeout(LONG)
        opened.goto(served.url.removesuffix("/v2/local") + "/")
        opened.get_by_text("workflow_api_format is ready to run").wait_for()
        for language in ("curl", "python", "javascript"):
            code = opened.evaluate("language => codeIn(language)", language)
            assert "Authorization" not in code
            assert "RUNPOD_API_KEY" not in code
        opened.evaluate("document.getElementById('url').value = 'https://api.runpod.ai/v2/abc'")
        assert "Authorization" in opened.evaluate("codeIn('curl')")
        context.close()


def test_the_page_is_never_wider_than_the_window(page: Any, tmp_path: Path) -> None:
    def fits() -> bool:
        widths = []
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            widths.append(page.evaluate("document.documentElement.scrollWidth") <= width)
        return all(widths)

    drop(page, tmp_path, workflows.generative(), f"{'a' * 200}.json")
    page.get_by_text("is ready to run").wait_for()
    page.get_by_role("button", name="Add LoRA").click()
    page.get_by_label("LoRA file").fill("b" * 200)
    assert fits()
    run_to_the_end(page)
    page.get_by_text("Request and response as JSON").click()
    page.locator("#gallery img").wait_for()
    assert fits()
    shot(page, "everything")


def test_missing_models_are_listed_before_the_first_run(page: Any, tmp_path: Path) -> None:
    """The draft engine takes any model, so the answer of a worker that lacks one stands in for its own."""
    missing = {"name": "x.safetensors", "folder": "vae", "source": "https://example.com/x.safetensors", "size": 2_500_000_000}  # fmt: skip

    def lacking(route: Any) -> None:
        answer = route.fetch()
        content = answer.json()
        if "problems" in (content.get("output") or {}):
            problem = {"reason": "value_not_in_list", "message": "x was not found", "missing_model": missing}
            content["output"] |= {"valid": False, "problems": [problem]}
        route.fulfill(response=answer, json=content)

    page.route("**/runsync", lacking)
    drop(page, tmp_path, workflows.generative())
    page.get_by_text("workflow.json cannot run here").wait_for()
    row = page.get_by_role("region", name="Missing models").locator("tbody td").all_inner_texts()
    assert row == ["x.safetensors", "vae", "example.com/x.safetensors", "2.5 GB"]
    assert page.get_by_role("button", name="Copy command").count() == 0
