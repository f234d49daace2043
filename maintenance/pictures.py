"""`python -m maintenance.pictures` takes the screenshots of the documentation with Debian's Chromium.

The playground is that of a local endpoint with the draft engine, which runs two jobs. The editor is that of a gateway
in front of a local endpoint with a real ComfyUI (`COMFYUI_PATH`), which runs examples/lighthouse.json. Nothing else is
contacted.
"""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

_ROOT = Path(__file__).resolve().parent.parent
_PICTURES = _ROOT / "docs" / "pictures"
_CHROMIUM = "/usr/bin/chromium"
_PROMPTS = ("a lighthouse at dusk, oil painting", "a fox in the snow, macro photograph")
_TIMEOUT_MILLISECONDS = 60_000  # for each action in the browser
_SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}
_PLACES = {
    "1": ([0, 0], [250, 130]),
    "2": ([0, 190], [250, 90]),
    "3": ([310, 0], [330, 370]),
    "4": ([700, 0], [560, 440]),
}
_ARRANGE = """places => {
    for (const [id, [pos, size]] of Object.entries(places)) Object.assign(app.graph.getNodeById(id), { pos, size })
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [80, 200]
    app.graph.setDirtyCanvas(true, true)
}"""


def main() -> None:
    """Write docs/pictures/playground-light.png, -dark.png and gateway.png."""
    _PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        with _serving("--serve", "--draft") as url:
            for theme in ("light", "dark"):
                _take_playground(browser, url, theme, _PICTURES / f"playground-{theme}.png")
        with (
            tempfile.TemporaryDirectory() as folder,
            _serving("--serve") as url,
            _serving("--gateway", "--local", url, "--folder", folder) as editor,
        ):
            _take_editor(browser, editor, _PICTURES / "gateway.png")
        browser.close()


@contextmanager
def _serving(*arguments: str) -> Iterator[str]:
    """Run the worker's program with these arguments; the URL at which it serves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(_ROOT / "serverless_worker.py"), *arguments, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # printed once it is ready
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _take_playground(browser: Browser, url: str, theme: str, file: Path) -> None:
    context = browser.new_context(
        color_scheme="dark" if theme == "dark" else "light", viewport={"width": 1200, "height": 760}
    )
    page = context.new_page()
    page.set_default_timeout(_TIMEOUT_MILLISECONDS)
    page.goto(url)
    page.get_by_label("or a workflow stored on the worker").select_option("workflow_api_format")
    page.get_by_text("is ready to run").wait_for()
    for number, prompt in enumerate(_PROMPTS, 1):
        page.get_by_label("prompt", exact=False).first.fill(prompt)
        page.get_by_label("seed").fill(str(41 + number))
        page.get_by_role("button", name="Run").click()
        page.locator("#gallery img").nth(number - 1).wait_for()
        page.locator("#gallery img").first.evaluate("image => image.decode()")
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=file)
    context.close()


def _take_editor(browser: Browser, url: str, file: Path) -> None:
    requests.post(f"{url}/settings", json=_SETTINGS, timeout=60).raise_for_status()
    context = browser.new_context(viewport={"width": 1400, "height": 800})
    context.route(re.compile(r"^https?://(?!127\.0\.0\.1[:/])"), lambda route: route.abort())
    page = context.new_page()
    page.set_default_timeout(_TIMEOUT_MILLISECONDS)
    page.goto(url)
    page.get_by_test_id("queue-button").wait_for()
    page.set_input_files("#comfy-file-input", _ROOT / "examples" / "lighthouse.json")
    page.wait_for_function("document.title.includes('lighthouse') && app.graph.getNodeById(4)")
    page.evaluate(_ARRANGE, _PLACES)
    page.get_by_test_id("queue-button").click()
    page.wait_for_function("app.graph.getNodeById(4).imgs?.[0].naturalWidth === 768")
    page.get_by_text("Job completed").wait_for()
    screenshot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    palette = screenshot.quantize(256, kmeans=3)
    screenshot.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(file, optimize=True)
    context.close()


if __name__ == "__main__":
    main()
