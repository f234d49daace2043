"""The pictures of the playground in the README: `python -m maintenance.pictures` makes them, with Debian's Chromium.

A local endpoint with the draft engine runs two jobs; nothing else is asked.
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
_LONGEST = 60_000  # milliseconds that anything may take


def main() -> None:
    """Write docs/pictures/playground-light.png and -dark.png."""
    folder = _ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    with _endpoint() as url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for theme in ("light", "dark"):
            _picture(browser, url, theme, folder / f"playground-{theme}.png")
        browser.close()


@contextmanager
def _endpoint() -> Iterator[str]:
    """The address of a playground with a worker behind it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(_ROOT / "serverless_worker.py"), "--serve", "--draft", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as served:
        assert served.stdout is not None
        served.stdout.readline()  # it answers
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            served.terminate()


def _picture(browser: Browser, url: str, theme: str, file: Path) -> None:
    context = browser.new_context(
        color_scheme="dark" if theme == "dark" else "light", viewport={"width": 1200, "height": 760}
    )
    page = context.new_page()
    page.set_default_timeout(_LONGEST)
    page.goto(url)
    page.get_by_label("or the name of one that the worker has").select_option("workflow_api_format")
    page.get_by_text("can run here").wait_for()
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
