"""ComfyUI's own editor, in a real Chromium, works on a gateway as on a ComfyUI: each on two versions of it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .. import workflows
from ..endpoint.test_endpoint import Client, serving
from .conftest import GatewayClient, gateway
from .editor_page import SETTINGS, EditorPage, editor_folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An endpoint with one worker: of two jobs one waits."""
    with serving(tmp_path_factory.mktemp("endpoint")) as served:
        served.wait_for_workers(1)
        yield served


@dataclass
class Desk:
    """A gateway and a window with the editor that it serves."""

    browser: Any
    endpoint: Client
    folder: Path
    editor: Path | None
    name: str

    def __post_init__(self) -> None:
        self._open = ExitStack()
        self.client: GatewayClient
        self.window: EditorPage

    def start(self) -> None:
        """Start the gateway."""
        environment = {"PYTHONPATH": str(self.editor)} if self.editor else {}
        self.client = self._open.enter_context(gateway(self.folder, self.endpoint, **environment))

    def sit_down(self) -> None:
        """Open the editor in a browser that knows nothing of it."""
        self.window = EditorPage(self.browser, self.client, self.name)
        self._open.callback(self.window.close)

    def stop(self) -> None:
        """Close the window and end the gateway."""
        self._open.close()


@pytest.fixture(scope="module", params=["installed", pytest.param("1.49.6", marks=pytest.mark.slow)])
def desk(
    browser: Any, single: Client, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    """A gateway and its editor."""
    folder = tmp_path_factory.mktemp("gateway")
    served = Desk(browser, single, folder, editor_folder(request.param, folder / "editor"), request.param)
    try:
        served.start()
        served.client.post("/settings", SETTINGS)
        served.sit_down()
        yield served
    finally:
        served.stop()


@pytest.fixture
def window(desk: Desk, request: pytest.FixtureRequest) -> Iterator[EditorPage]:
    """The window; nothing may go wrong in it."""
    desk.window.problems.clear()
    yield desk.window
    desk.window.shot(f"end-of-{request.node.originalname}")
    assert desk.window.problems == []


def slow(steps: int) -> workflows.Workflow:
    """A picture that takes a while; some 30 steps are a second."""
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = steps
    return workflow


def test_the_editor_has_the_node_classes_of_the_endpoint(window: EditorPage) -> None:
    window.shot("arrival")
    if window.name != "installed":
        assert f"has the editor {window.name} " in window.client.process.log
    endpoint = window.client.endpoint
    answer = endpoint.ended(endpoint.run({"action": "info", "parts": ["object_info"]}))["output"]
    classes = json.loads(gzip.decompress(base64.b64decode(answer["object_info"])))
    assert len(classes) > 500
    assert classes.keys() <= set(window.page.evaluate("Object.keys(LiteGraph.registered_node_types)"))
    assert window.page.evaluate("app.extensions.some((extension) => extension.name === 'gateway.refresh')")
    assert not window.page.get_by_role("dialog").count()


def test_a_stock_template_runs_and_its_picture_is_on_its_node(window: EditorPage) -> None:
    page = window.page
    page.get_by_role("button", name="Templates").first.click()
    page.get_by_text("All Templates").first.click()
    page.get_by_placeholder("Search").fill("Z-Image-Turbo: Text")
    page.get_by_test_id("template-workflow-image_z_image_turbo").wait_for()
    window.shot("templates")
    page.get_by_test_id("template-workflow-image_z_image_turbo").click()
    page.get_by_test_id("template-workflows-content").wait_for(state="detached")
    window.wait("() => app.graph.getNodeById(9)?.type === 'SaveImage'")
    window.run()
    assert "z-image-turbo_00001_.png" in window.wait_for_picture("9", 1024)
    window.shot("template")


def test_progress_and_live_previews_are_shown_on_the_sampler_while_it_runs(window: EditorPage, tmp_path: Path) -> None:
    window.open(slow(150), tmp_path, "slow")
    window.run()
    window.wait("() => app.graph.getNodeById(8).progress > 0")
    assert window.wait_for_picture("8", 256).startswith("blob:")
    first = window.wait("() => app.graph.getNodeById(8).imgs?.[0].src")
    window.wait(
        "seen => { const shown = app.graph.getNodeById(8).imgs?.[0].src; return shown && shown !== seen }", first
    )
    window.page.get_by_test_id("queue-progress-overlay").get_by_text("KSampler").first.wait_for()
    window.shot("running")
    assert "gen_00001_.png" in window.wait_for_picture("9", 64)
    window.wait("() => !app.graph.getNodeById(8).progress")
    window.shot("ran")


def test_what_the_gateway_refuses_is_shown_at_the_input_at_fault(window: EditorPage, tmp_path: Path) -> None:
    workflow = workflows.still()
    del workflow["2"]["inputs"]["image"]
    window.open(workflow, tmp_path, "unlinked")
    with window.refused("/api/prompt"):
        window.page.get_by_test_id("queue-button").click()
        window.page.get_by_text("is missing a required input: image").first.wait_for()
    window.shot("refused")
    script = "() => app.graph.nodes.filter((node) => node.has_errors).map((node) => [node.id, node.inputs.find((input) => input.hasErrors)?.name])"
    assert window.page.evaluate(script) == [["2", "image"]]


def test_what_a_worker_refuses_is_told_at_the_node_at_fault(window: EditorPage, tmp_path: Path) -> None:
    workflow = workflows.generative()
    workflow["8"]["inputs"]["sampler_name"] = "eulr"
    window.open(workflow, tmp_path, "misspelt")
    window.run()
    window.page.get_by_test_id("error-overlay-see-errors").click()
    window.page.get_by_text("sampler_name must be one of 'euler'").first.wait_for()
    window.shot("misspelt")
    window.wait_for_mark("8")


def test_a_file_is_chosen_for_a_node_and_a_broken_one_is_told_there(window: EditorPage, tmp_path: Path) -> None:
    workflow = {"1": workflows.node("LoadImage", image="old.png"), "2": workflows.node("PreviewImage", images=["1", 0])}  # fmt: skip
    broken, photo = tmp_path / "broken.png", tmp_path / "photo.png"
    broken.write_bytes(b"no picture")
    Image.new("RGB", (240, 160), "red").save(photo)
    window.put("old.png", workflows.png(64))
    window.open(workflow, tmp_path, "load")
    window.upload("1", broken)
    window.run()
    window.page.get_by_test_id("error-overlay-see-errors").click()
    window.page.get_by_text("cannot identify image file").first.wait_for()
    window.wait_for_mark("1")
    window.shot("broken")
    window.upload("1", photo)
    window.run()
    assert "type=temp" in window.wait_for_picture("2", 240)
    window.shot("uploaded")


def test_a_mask_is_painted_in_the_editor_and_runs(window: EditorPage, tmp_path: Path) -> None:
    window.put("face.png", workflows.png(256))
    workflow = {
        "1": workflows.node("LoadImage", image="face.png"),
        "2": workflows.node("MaskToImage", mask=["1", 1]),
        "3": workflows.node("PreviewImage", images=["2", 0]),
    }
    window.open(workflow, tmp_path, "mask")
    window.wait_for_picture("1", 256)
    window.click_title("1")
    window.click_title("1", button="right")
    page = window.page
    page.get_by_text("Open in MaskEditor").first.click()
    window.paint_mask()
    window.shot("mask")
    page.get_by_role("button", name="Save").first.click()
    window.wait("() => /^clipspace-painted-masked.* \\[input\\]$/.test(app.graph.getNodeById(1).widgets[0].value)")
    prompt_id = window.run()
    window.wait_for_picture("3", 256)
    (picture,) = window.client.entry(prompt_id)["outputs"]["3"]["images"]
    painted = Image.open(window.client.folder / "temp" / picture["filename"]).convert("L")
    assert painted.getextrema() == (0, 255)


def test_a_job_that_runs_is_interrupted_and_one_that_waits_is_cancelled(window: EditorPage, tmp_path: Path) -> None:
    window.open(slow(10_000), tmp_path, "long")
    page, client = window.page, window.client
    running, waiting = window.run(), window.run()
    window.wait("() => app.graph.getNodeById(8).progress > 0")
    page.get_by_test_id("queue-overlay-toggle").click()
    row = page.locator(f'[data-job-id="{waiting}"]')
    row.hover()
    window.shot("queue")
    row.get_by_label("Cancel").click()
    row.wait_for(state="detached")
    page.get_by_label("Cancel current run").first.click()
    assert dict(client.entry(running)["status"]["messages"])["execution_interrupted"]["node_id"] == "8"
    assert client.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert waiting not in client.get("/history").json()
    for prompt_id in (running, waiting):
        (job_id,) = re.findall(f"prompt {prompt_id} is job (.+)", client.process.log)
        assert client.endpoint.ended(job_id)["status"] == "CANCELLED"
    window.wait("() => !app.graph.getNodeById(8).progress")
    page.get_by_test_id("queue-overlay-toggle").click()


def test_only_a_persons_refresh_asks_the_endpoint(window: EditorPage) -> None:
    page = window.page
    assert (
        window.times_asked() == 1
    )  # at the start, as there were no classes; all that the tests before did asked nothing
    with page.expect_response("**/api/gateway/refresh") as answered:
        window.press("r")
        page.get_by_text("Asking the endpoint for its node classes and models").first.wait_for()
        window.shot("asking")
    assert answered.value.json() == {"error": ""}
    page.get_by_text("Node definitions updated").first.wait_for()
    page.get_by_text("Asking the endpoint for its node classes and models").first.wait_for(state="detached")
    assert window.times_asked() == 2
    for language, run in (("fr", "Exécuter"), ("en", "Run")):
        with page.expect_response("**/api/object_info"):
            page.evaluate("language => app.extensionManager.setting.set('Comfy.Locale', language)", language)
        page.get_by_test_id("queue-button").get_by_text(run).wait_for()
    assert window.times_asked() == 2


def test_a_workflow_is_saved_and_renamed(window: EditorPage, tmp_path: Path) -> None:
    page = window.page
    window.open(workflows.still(prefix="renamed"), tmp_path, "unsaved")
    window.save("first name")
    window.press("w")
    window.choose(page.get_by_test_id("workflows-sidebar").get_by_text("first name"), "Rename")
    page.get_by_test_id("workflows-sidebar").get_by_role("textbox").last.fill("other name")
    window.shot("renaming")
    with page.expect_response("**/move/**"):
        page.keyboard.press("Enter")
    window.press("w")
    assert window.client.get("/userdata", dir="workflows").json() == ["other name.json"]
    kept = window.client.get("/userdata/workflows%2Fother name.json").json()
    assert "renamed" in [value for node in kept["nodes"] for value in node.get("widgets_values", [])]


def test_workflows_settings_and_results_outlast_the_browser_and_the_gateway(
    desk: Desk, window: EditorPage, tmp_path: Path
) -> None:
    window.open(workflows.still(prefix="kept"), tmp_path, "draft")
    prompt_id = window.run()
    window.wait_for_picture("4", 128)
    page = window.page
    window.save("my picture")
    page.evaluate("app.extensionManager.setting.set('Comfy.LinkRenderMode', 0)")
    window.wait("async () => (await (await fetch('/api/settings')).json())['Comfy.LinkRenderMode'] === 0")
    window.shot("saved")
    assert window.problems == []
    desk.stop()
    desk.start()
    desk.sit_down()
    window, page = desk.window, desk.window.page
    assert page.evaluate("app.extensionManager.setting.get('Comfy.LinkRenderMode')") == 0
    window.press("w")
    page.get_by_test_id("workflows-sidebar").get_by_text("my picture").first.click()
    window.wait("() => app.graph.nodes.some((node) => node.widgets?.some((widget) => widget.value === 'kept'))")
    window.shot("reopened")
    window.press("w")
    page.get_by_test_id("queue-overlay-toggle").click()
    row = page.locator(f'[data-job-id="{prompt_id}"]')
    row.get_by_text("kept_00001_.png").wait_for()
    window.wait_for_images(row)
    window.shot("jobs")
    page.get_by_test_id("queue-overlay-toggle").click()
    window.press("a")
    page.get_by_text("kept_00001_", exact=True).wait_for()
    window.wait("() => document.querySelector('img[src*=kept_00001_]')?.naturalWidth === 128")
    window.shot("media")
    assert window.times_asked() == 0  # the classes were kept
    assert window.problems == []
