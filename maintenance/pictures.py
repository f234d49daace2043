"""`python -m maintenance.pictures` takes the README's screenshots of the playground with Debian's Chromium.

The playground is that of a local endpoint with the draft engine, which runs two jobs. It contacts nothing else.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

_ROOT = Path(__file__).resolve().parent.parent
_CHROMIUM = "/usr/bin/chromium"
_PROMPTS = ("a lighthouse at dusk, oil painting", "a fox in the snow, macro photograph")
_TIMEOUT_MILLISECONDS = 60_000  # for each action in the browser


def main() -> None:
    """Write docs/pictures/playground-light.png and -dark.png."""
    folder = _ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    with _endpoint() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for theme in ("light", "dark"):
            _take_screenshot(browser, url, theme, folder / f"playground-{theme}.png")
        browser.close()


@contextmanager
def _endpoint() -> Iterator[str]:
    """Run a local endpoint with a worker; the URL of its playground."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(_ROOT / "serverless_worker.py"), "--serve", "--draft", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # printed once the endpoint is ready
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def _take_screenshot(browser: Browser, url: str, theme: str, file: Path) -> None:
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


if __name__ == "__main__":
    main()
