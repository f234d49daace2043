"""ComfyUI's own editor in a browser, used as a person uses it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from .conftest import GatewayClient

LONG = 60_000  # milliseconds; a hang limit
SHOTS = os.environ.get("EDITOR_SHOTS")
"""A folder for images of the editor, for a person to look at."""

_PACKAGE = "comfyui_frontend_package"
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}
# Asked for by the editor whether or not they are there: a style sheet, folders, templates and bookmarks of the user, which
# nobody has made yet, and the pictures of the stock templates.
_MAY_BE_MISSING = re.compile(
    r"/user\.css$|/userdata\?dir=|/comfy\.templates\.json$|%2F\.index\.json$|/templates/.*\.(webp|jpg|png|svg)$"
)
_PICTURE_LAYER, _MASK_LAYER = 0, 2  # canvases of the mask editor
_IS_READY = "() => window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 100"


def _timeout_error() -> type[Exception]:
    """What a wait of the browser raises."""
    error: type[Exception] = pytest.importorskip("playwright.sync_api").TimeoutError
    return error


def editor_folder(version: str, folder: Path) -> Path | None:
    """A folder with that version of the editor, from PyPI; None for the one that is installed."""
    if version == "installed":
        if find_spec(_PACKAGE) is None:
            pytest.skip("ComfyUI's editor is not installed")
        return None
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--retries",
        "1",
        "--no-deps",
        "--target",
        str(folder),
    ]
    done = subprocess.run(
        [*command, f"comfyui-frontend-package=={version}"], check=False, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        pytest.skip(f"the editor {version} could not be had: {done.stderr.strip()[-200:]}")
    return folder


class EditorPage:
    """One browser window with the editor. `problems` are script errors, and requests that failed."""

    def __init__(self, browser: Any, client: GatewayClient, name: str) -> None:
        self.client = client
        self.name = name
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._context = browser.new_context(viewport={"width": 1400, "height": 900})
        self._context.route(re.compile(r"^https?://(?!127\.0\.0\.1[:/])"), lambda route: route.abort())
        self.page = self._context.new_page()
        self.page.set_default_timeout(LONG)
        self.page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        self.page.on("console", self._note_message)
        self.page.on("response", self._note_response)
        self.page.on("request", lambda request: self.requests.append(f"{request.method} {request.url}"))
        self.page.goto(client.url)
        self.page.wait_for_function(_IS_READY)
        self.page.get_by_test_id("queue-button").wait_for()

    def close(self) -> None:
        """Close the window, and forget what the browser keeps of it."""
        self._context.close()

    # --- What a person does ----------------------------------------------------------------------------

    def open(self, workflow: Mapping[str, Any], folder: Path, name: str) -> None:
        """Open a file."""
        file = folder / f"{name}.json"
        file.write_text(json.dumps(workflow))
        self.page.set_input_files("#comfy-file-input", file)
        self.page.wait_for_function("name => document.title.includes(name)", arg=name)
        self.page.wait_for_function("count => app.graph.nodes.length === count", arg=len(workflow))

    def run(self) -> str:
        """Click on Run; the id of the prompt that the gateway accepted."""
        with self.page.expect_response("**/api/prompt") as answered:
            self.page.get_by_test_id("queue-button").click()
        assert answered.value.status == 200
        return str(answered.value.json()["prompt_id"])

    def click_widget(self, node: str, widget: str) -> None:
        """Click on a widget of a node in the graph."""
        self.page.mouse.click(*self.page.evaluate(
            """([id, name]) => {
                const node = app.graph.getNodeById(id), widget = node.widgets.find((each) => each.name === name)
                return app.canvasPosToClientPos([node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10])
            }""",
            [node, widget],
        ))  # fmt: skip

    def click_title(self, node: str, **how: Any) -> None:
        """Click on the title of a node."""
        script = (
            "id => { const [x, y] = app.graph.getNodeById(id).pos; return app.canvasPosToClientPos([x + 60, y - 12]) }"
        )
        self.page.mouse.click(*self.page.evaluate(script, node), **how)

    def press(self, key: str) -> None:
        """Press a key while the graph has the focus."""
        self.page.locator("#graph-canvas").focus()
        self.page.keyboard.press(key)

    def save(self, name: str) -> None:
        """Save the workflow that has no name yet."""
        self.press("Control+s")
        self.page.get_by_role("dialog").get_by_role("textbox").fill(name)
        with self.page.expect_response("**/api/userdata/**"):
            self.page.keyboard.press("Enter")

    def choose(self, item: Any, entry: str) -> None:
        """Choose an entry of the menu of an item, which does not open while the list is drawn anew."""
        choice = self.page.get_by_role("menuitem", name=entry)
        end = time.monotonic() + LONG / 1000
        while not choice.is_visible():
            assert time.monotonic() < end, f"no {entry} in the menu"
            item.click(button="right")
            with contextlib.suppress(_timeout_error()):
                choice.wait_for(timeout=2000)
        choice.click()

    def put(self, name: str, content: bytes) -> None:
        """Put a file into the input folder, past the editor."""
        assert self.client.post("/upload/image", files={"image": (name, content)}).status_code == 200

    def upload(self, node: str, file: Path) -> None:
        """Choose a file for a LoadImage node."""
        with self.page.expect_file_chooser() as chooser, self.page.expect_response("**/api/upload/image"):
            self.click_widget(node, "upload")
            chooser.value.set_files(file)

    def paint_mask(self) -> None:
        """Paint in the mask editor, once it is there, until there is something in the middle."""
        layer = """number => {
            const canvas = document.querySelectorAll('[data-testid=mask-editor-root] canvas')[number]
            return canvas?.getContext('2d').getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[3] === 255
        }"""
        self.wait(layer, _PICTURE_LAYER)
        while not self.page.evaluate(layer, _MASK_LAYER):
            self.page.mouse.move(620, 450)
            self.page.mouse.down()
            self.page.mouse.move(760, 450, steps=5)
            self.page.mouse.up()
            self.page.wait_for_timeout(100)

    # --- What a person sees ----------------------------------------------------------------------------

    def wait(self, script: str, argument: Any = None) -> Any:
        """What a script returns, once that is true."""
        return self.page.wait_for_function(script, arg=argument).json_value()

    def wait_for_picture(self, node: str, width: int) -> str:
        """The URL of the picture on a node, once it is shown."""
        script = """([id, width]) => {
            const shown = app.graph.getNodeById(id).imgs?.[0]
            return shown?.complete && shown.naturalWidth === width && shown.src
        }"""
        return str(self.wait(script, [node, width]))

    def wait_for_mark(self, node: str) -> None:
        """Wait until a node is marked as the one at fault."""
        self.wait("id => app.graph.getNodeById(id).strokeStyles.executionError.call(app.graph.getNodeById(id))", node)

    def wait_for_images(self, place: Any) -> None:
        """Wait until there are images in a part of the page, all of them with a content."""
        place.locator("img").first.wait_for()
        handle = place.element_handle()
        script = "part => [...part.querySelectorAll('img')].every((image) => image.complete && image.naturalWidth)"
        self.page.wait_for_function(script, arg=handle)

    def times_asked(self) -> int:
        """How often the gateway asked the endpoint for its node classes since it was started."""
        return self.client.process.log.count("asking the endpoint for its node classes")

    def shot(self, name: str) -> None:
        """An image of the page, if somebody wants to look."""
        if SHOTS:
            self.page.screenshot(path=f"{SHOTS}/{self.name}-{name}.png")

    @contextmanager
    def refused(self, path: str) -> Iterator[None]:
        """Meanwhile the gateway refuses requests of that path, as it must."""
        yield
        assert [problem for problem in self.problems if path in problem]
        self.problems[:] = [problem for problem in self.problems if path not in problem]

    def _note_response(self, response: Any) -> None:
        if response.status >= 400 and not _MAY_BE_MISSING.search(response.url.partition("&")[0]):
            self.problems.append(f"HTTP {response.status}: {response.request.method} {response.url}")

    def _note_message(self, message: Any) -> None:
        """The console is the editor's own affair, but for what it says of the gateway's script."""
        if message.type in ("error", "warning") and "gateway" in f"{message.text} {message.location.get('url', '')}":
            self.problems.append(f"console: {message.text}")
