"""The page that a local endpoint serves, in a real Chromium, with a real worker behind it."""

from __future__ import annotations

import json
import os
import re
import shutil
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

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

LONG = 30_000  # milliseconds; a hang limit
SHOTS = os.environ.get("PLAYGROUND_SHOTS")
"""A folder for pictures of the page, for a person to look at."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An endpoint with a worker on the draft engine."""
    with serving(tmp_path_factory.mktemp("endpoint")) as served:
        served.wait_for_workers(1)
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium that talks to nobody else."""
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=[*arguments, "--disable-sync"])
        yield chromium
        chromium.close()


@pytest.fixture(params=["light", "dark"])
def page(browser: Any, client: Client, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page with the key put in; nothing may go wrong in its script."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1280, "height": 900})
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
    """A picture of the page, if somebody wants to look."""
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}-{page.theme}.png", full_page=True)


def drop(page: Any, folder: Path, workflow: Any, name: str = "workflow.json") -> None:
    """Choose a workflow's file."""
    file = folder / name
    file.write_text(json.dumps(workflow))
    page.get_by_label("Workflow file").set_input_files(file)


def test_from_a_workflow_to_a_picture(page: Any, tmp_path: Path) -> None:
    shot(page, "idle")
    drop(page, tmp_path, workflows.generative())
    page.get_by_text("workflow.json can run here").wait_for()
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
    page.get_by_text("saved.json can run here, converted from the editor's format").wait_for()
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
    page.get_by_text("app.json can run here").wait_for()
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
    page.get_by_text("switch.json can run here").wait_for()
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.url.endswith("/run") else None)
    page.get_by_label("lossless").uncheck()
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Done in").wait_for()
    assert sent[0]["input"]["inputs"] == {"lossless": False}
    page.get_by_label("quality").fill("")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("quality: it is empty").wait_for()
    assert len(sent) == 1


def test_what_is_wrong_is_told_where_a_screen_reader_hears_it(page: Any, tmp_path: Path) -> None:
    broken = workflows.generative()
    broken["8"]["class_type"] = "KSamplr"
    drop(page, tmp_path, broken)
    page.get_by_text("cannot run here yet").wait_for()
    page.get_by_role("button", name="Run").click()
    alert = page.get_by_role("alert")
    page.get_by_text("[missing_node_type]").wait_for()
    assert "KSamplr" in alert.inner_text()
    shot(page, "error")
    (tmp_path / "bad.json").write_text("{")
    page.get_by_label("Workflow file").set_input_files(tmp_path / "bad.json")
    page.get_by_text("bad.json is not valid JSON").wait_for()


def test_a_running_job_shows_its_steps_and_can_be_cancelled(page: Any, tmp_path: Path) -> None:
    slow = workflows.generative()
    slow["8"]["inputs"]["steps"] = 10_000
    drop(page, tmp_path, slow)
    page.get_by_text("can run here").wait_for()
    page.get_by_role("button", name="Run").click()
    page.get_by_text("of 10000").wait_for()
    assert page.get_by_role("progressbar", name="Progress of the job").is_visible()
    assert page.get_by_role("button", name="Run").is_disabled()
    shot(page, "running")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The job was cancelled.").wait_for()


def test_a_wrong_key_opens_the_place_where_it_belongs(browser: Any, client: Client) -> None:
    page = browser.new_page()
    page.goto(client.url.removesuffix("/v2/local") + "/")
    page.get_by_text("The key is not accepted").wait_for(timeout=LONG)
    assert page.get_by_label("Key").is_visible()
    page.close()


def test_the_page_works_as_a_file_too(browser: Any, client: Client) -> None:
    page = browser.new_page()
    page.set_default_timeout(LONG)
    page.goto((ROOT / "src" / "endpoint" / "playground.html").as_uri())
    page.get_by_label("URL").fill(client.url)
    page.get_by_label("Key").fill(KEY)
    page.get_by_label("Key").press("Tab")
    page.get_by_text("worker ready").wait_for()
    page.get_by_label("or the name of one that the worker has").select_option("smoke_workflow")
    page.get_by_text("smoke_workflow can run here").wait_for()
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Done in").wait_for()
    page.close()


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page: Any, tmp_path: Path) -> None:
    drop(page, tmp_path, workflows.generative())
    page.get_by_text("can run here").wait_for()
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
    page.get_by_text("workflow.json can run here").wait_for()
    assert page.get_by_label("seed").input_value() == str(2**64 - 3)
    page.get_by_label("steps").fill("")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("steps: it is empty").wait_for()
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
    page.get_by_text("workflow.json can run here").wait_for()
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
    page.evaluate(
        "fail(Object.assign(new Error('missing'), {missing: [{name: 'a.safetensors', folder: 'loras'}], notes: []}))"
    )
    assert page.locator("#table td").all_inner_texts() == ["a.safetensors", "loras"]


def test_a_dropped_file_takes_the_place_of_a_stored_workflow(page: Any, tmp_path: Path) -> None:
    page.get_by_text("workflow_api_format can").wait_for()  # the example that is there on arrival
    assert page.locator("#stored").input_value() == "workflow_api_format"
    drop(page, tmp_path, workflows.still())
    page.get_by_text("workflow.json can run here").wait_for()
    assert page.locator("#stored").input_value() == ""


def test_pictures_are_enlarged_settings_used_again_and_the_json_shown(page: Any, tmp_path: Path) -> None:
    drop(page, tmp_path, workflows.generative())
    page.get_by_text("workflow.json can run here").wait_for()
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
