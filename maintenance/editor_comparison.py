"""Our conversion of editor files beside the editor's own export, on the templates that ComfyUI installs.

    COMFYUI_PATH=… python -m maintenance.editor_comparison [FILE.json …] [--exports FOLDER] [--classes] [--fixtures]

Boots that ComfyUI with its editor on the CPU, opens each file in a headless Chromium and takes what the editor would
queue; then converts the same files and says of each: equal, failed (with the reason) or different (with the first
difference). "Equal but for views" is but for inputs that show something in the editor and that no class takes. "Equal
as saved" is the file as this version of the editor saves it: newer ones give nodes in subgraphs new ids when two have
the same.

`--exports` keeps the editor's exports and /object_info, or takes them from there if they are there. `--classes`
compares the widgets of every node class in place of files. `--fixtures` writes what the tests compare with, from the
files of tests/editor_files.py, beside what was written with other versions. Ends with 1 if anything is different.

Needs `pip install playwright` and a Chromium (`--chromium`, else /usr/bin/chromium). Talks to loopback only.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.comfy.install import find_comfyui
from src.editor import class_types, convert, is_editor_workflow, read_document
from src.editor.widgets import widgets_of
from src.errors import WorkerError
from src.settings import read_settings
from src.workflow.schemas import NodeSchema, read_schema
from tests.editor_files import FILES

_TESTS = Path(__file__).resolve().parent.parent / "tests"
_BOOT_SECONDS = 180.0
_LOAD_MILLISECONDS = 120_000

_VIEWS = ("audioUI", "preview", "compare_view")
"""Inputs that show something in the editor and that no node class takes."""
_EXPORT = """async (workflow) => {
  await window.app.loadGraphData(workflow, true, false)
  return await window.app.graphToPrompt()
}"""
_WIDGETS = """() => {
  const found = {}
  for (const type of Object.keys(window.LiteGraph.registered_node_types)) {
    try {
      const node = window.LiteGraph.createNode(type)
      if (!node?.comfyClass) continue
      found[node.comfyClass] = {
        widgets: (node.widgets ?? []).filter(w => w.serialize !== false)
          .map(w => [w.name, w.options?.serialize !== false, w.type, String(w.serializeValue ?? '').slice(0, 60)]),
      }
    } catch (error) { found[type] = { error: String(error) } }
  }
  return found
}"""


def main() -> int:
    """Compare, and print a line for each file that is not equal and a count of each outcome."""
    options = _parse()
    installation = find_comfyui(read_settings())
    if options.fixtures:
        return _write_fixtures(options, installation.directory, installation.start[0])
    exported = _exports(options, installation.directory, installation.start[0])
    schemas = {name: read_schema(info) for name, info in exported["object_info"].items()}
    if options.classes:
        return _compare_classes(exported["widgets"], schemas)
    counts: Counter[str] = Counter()
    for name, entry in exported["files"].items():
        outcome, details = _compare(entry["workflow"], entry["export"], schemas)
        counts[outcome] += 1
        if outcome != "equal":
            print(f"{outcome:>9}  {name}: {details}")
    total = sum(counts.values())
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())), f"of {total} files")
    return 1 if counts["different"] else 0


def _compare(
    workflow: Mapping[str, Any], export: Mapping[str, Any], schemas: Mapping[str, NodeSchema]
) -> tuple[str, str]:
    theirs = export.get("output")
    try:
        ours = _convert_file(workflow, schemas)
        if theirs is None:
            return "different", f"converted, but the editor says {str(export)[:300]}"
        difference = _difference(_without_titles(ours), _without_titles(theirs), "")
        if not difference:
            return "equal", ""
        if not _difference(_without_views(ours), _without_views(theirs), ""):
            return "equal but for views", difference
        saved = _convert_file(export["workflow"], schemas)
        if not _difference(_without_views(saved), _without_views(theirs), ""):
            return "equal as saved", difference
    except WorkerError as error:
        return "failed", error.message
    return "different", difference


def _convert_file(workflow: Mapping[str, Any], schemas: Mapping[str, NodeSchema]) -> dict[str, Any]:
    document = read_document(workflow)
    return convert(document, {name: schemas.get(name) for name in class_types(document)})


def _without_views(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Without titles and without inputs that only show something in the editor."""
    return {
        node_id: {**node, "inputs": {name: value for name, value in node["inputs"].items() if name not in _VIEWS}}
        for node_id, node in _without_titles(prompt).items()
    }


def _without_titles(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Without `_meta`, which holds the titles of nodes."""
    return {
        node_id: {name: value for name, value in node.items() if name != "_meta"} for node_id, node in prompt.items()
    }


def _difference(ours: Any, theirs: Any, path: str) -> str:
    """The first difference, as text; empty if there is none. `path` is where in the prompt both values are."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            key_path = f"{path}/{key}"
            if key not in ours:
                return f"{key_path} is only in the editor's: {str(theirs[key])[:200]}"
            if key not in theirs:
                return f"{key_path} is only in ours: {str(ours[key])[:200]}"
            if found := _difference(ours[key], theirs[key], key_path):
                return found
        return ""
    is_same = ours == theirs and isinstance(ours, bool) == isinstance(theirs, bool)
    return "" if is_same else f"{path}: ours {str(ours)[:200]!r}, the editor's {str(theirs)[:200]!r}"


def _compare_classes(widgets: Mapping[str, Any], schemas: Mapping[str, NodeSchema]) -> int:
    different = 0
    for name, schema in sorted(schemas.items()):
        found = widgets.get(name, {"error": "the editor has no such class"})
        theirs = found.get("error") or [[w[0], w[1]] for w in found["widgets"]]
        ours = [[widget.name, widget.is_sent] for widget in widgets_of(name, schema, []) if widget.is_saved]
        if ours != theirs:
            different += 1
            print(f"{name}: ours {ours}, the editor's {found.get('error') or found['widgets']}")
    print(f"{different} different of {len(schemas)} classes")
    return 1 if different else 0


def _write_fixtures(options: argparse.Namespace, comfyui: Path, python: str) -> int:
    workflows = {name: make() for name, make in FILES.items()}
    with _comfyui(comfyui, python) as url:
        object_info, files = _get(f"{url}/object_info"), _from_editor(url, workflows, options.chromium)["files"]
        version = _get(f"{url}/system_stats")["system"]["comfyui_version"]
    used = {name for workflow in workflows.values() for name in class_types(read_document(workflow))}
    known = {name: entry for name, entry in files.items() if _is_known(entry, object_info)}
    exports = {name: _without_titles(entry["export"]["output"]) for name, entry in known.items()}
    for file, content in (
        ("editor_exports.json", exports),
        ("editor_object_info.json", {name: object_info[name] for name in sorted(used) if name in object_info}),
    ):
        path = _TESTS / file
        versions = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**versions, version: content}, indent=1) + "\n", encoding="utf-8")
    return 0


def _is_known(entry: Mapping[str, Any], object_info: Mapping[str, Any]) -> bool:
    """Whether that ComfyUI has all node classes of a file: the editor exports unknown nodes without a class."""
    return class_types(read_document(entry["workflow"])) <= object_info.keys()


# --- The editor's side ----------------------------------------------------------------------------------


def _exports(options: argparse.Namespace, comfyui: Path, python: str) -> dict[str, Any]:
    cache = options.exports / f"{comfyui.parent.name}.json" if options.exports else None
    if cache and cache.exists():
        found: dict[str, Any] = json.loads(cache.read_text(encoding="utf-8"))
        return found
    files = options.files or _templates(comfyui)
    workflows = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    with _comfyui(comfyui, python) as url:
        exported = {"object_info": _get(f"{url}/object_info"), **_from_editor(url, workflows, options.chromium)}
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(exported), encoding="utf-8")
    return exported


def _templates(comfyui: Path) -> list[Path]:
    folders = sorted(comfyui.glob(".venv/lib/python*/site-packages/comfyui_workflow_templates*/templates"))
    if not folders:
        raise SystemExit(f"no templates in {comfyui}/.venv; give files, or install ComfyUI's requirements there")
    return [file for folder in folders for file in sorted(folder.glob("*.json")) if not file.name.startswith("index")]


def _from_editor(url: str, workflows: Mapping[str, Any], chromium: str) -> dict[str, Any]:
    try:
        from playwright.sync_api import Error, sync_playwright  # noqa: PLC0415  only needed here, and large
    except ImportError:
        raise SystemExit("pip install playwright") from None
    exported: dict[str, Any] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_page()
        page.set_default_timeout(_LOAD_MILLISECONDS)
        page.goto(url)
        page.wait_for_function("() => window.app?.graph && window.app.vueAppReady !== false && window.LiteGraph")
        page.wait_for_timeout(3000)
        widgets = page.evaluate(_WIDGETS)
        for name, workflow in workflows.items():
            if not is_editor_workflow(workflow):
                continue
            try:
                export = page.evaluate(_EXPORT, workflow)
            except Error as error:
                export = {"error": str(error)}
            exported[name] = {"workflow": workflow, "export": export}
            print(f"\r{len(exported)} of {len(workflows)} exported", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        browser.close()
    return {"files": exported, "widgets": widgets}


@contextmanager
def _comfyui(directory: Path, python: str) -> Iterator[str]:
    """Run the complete ComfyUI, with its editor; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "main.py", "--cpu", "--port", str(port), "--disable-auto-launch"]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _BOOT_SECONDS
        while True:
            try:
                _get(f"{url}/system_stats")
                break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("ComfyUI did not start; start it by hand to see why") from None
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE.json", help="else ComfyUI's templates")
    parser.add_argument("--exports", type=Path, metavar="FOLDER")
    parser.add_argument("--classes", action="store_true")
    parser.add_argument("--fixtures", action="store_true")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
