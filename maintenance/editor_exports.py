"""The editor's own exports of files, from a real ComfyUI whose frontend runs in a headless Chromium.

Needs `pip install playwright` and a Chromium. Connects to loopback only.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.editor import is_editor_workflow

_BOOT_SECONDS = 180.0
_LOAD_MILLISECONDS = 120_000

_EXPORT = """async (workflow) => {
  await window.app.loadGraphData(workflow, true, false)
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
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
# Opens a file, changes it as a user would, and gives what the editor saves then, what it would queue, and what it
# would queue after it has opened that file again. `seed` decides what is changed.
_CHANGE = """async ([workflow, seed]) => {
  let state = seed >>> 0
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const one = (list) => list[Math.floor(random() * list.length)]
  const settle = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
  const app = window.app
  await app.loadGraphData(workflow, true, false)
  await settle()
  const graphs = [app.graph, ...app.graph.subgraphs.values()]
  const nodes = graphs.flatMap(graph => [...graph.nodes])
  const hosts = nodes.filter(node => node.isSubgraphNode?.())
  const done = []
  const changed = (widget) => {
    const values = widget.options?.values
    if (Array.isArray(values) && values.length) return one(values)
    if (typeof widget.value === 'number') return widget.value + (Number.isInteger(widget.value) ? 1 : 0.25)
    if (typeof widget.value === 'boolean') return !widget.value
    return typeof widget.value === 'string' ? widget.value + ' changed' : undefined
  }
  const set = (node, widget) => {
    const value = changed(widget)
    if (value === undefined || widget.options?.serialize === false || widget.type === 'button') return
    widget.value = value
    widget.callback?.(value, app.canvas, node, [0, 0], {})
    done.push(['value', node.id, widget.name])
  }
  const promote = (host) => {
    const inner = one([...host.subgraph.nodes].filter(node => !node.isSubgraphNode?.()))
    const slot = inner && one(inner.inputs.filter(input => input.widget && input.link == null))
    if (!slot) return
    let name = slot.name
    for (let number = 1; host.subgraph.inputs.some(input => input.name === name); number++)
      name = `${slot.name}_${number}`
    host.subgraph.addInput(name, String(slot.type)).connect(slot, inner)
    done.push(['promote', host.id, inner.id, slot.name])
  }
  const changes = 1 + Math.floor(random() * 4)
  for (let number = 0; number < changes; number++) {
    const kind = random()
    if (kind < 0.3 || !hosts.length) {
      const node = one(nodes)
      node.mode = random() < 0.5 ? 2 : 4
      done.push([node.mode === 2 ? 'mute' : 'bypass', node.id])
    } else if (kind < 0.65) {
      const host = one(hosts)
      const widget = one([...(host.widgets ?? [])])
      if (widget) set(host, widget)
    } else if (kind < 0.85) {
      promote(one(hosts))
    } else {
      const node = one(nodes)
      const widget = one([...(node.widgets ?? [])])
      if (widget) set(node, widget)
    }
  }
  await settle()
  const export_ = await app.graphToPrompt()
  const saved = JSON.parse(JSON.stringify(export_.workflow))
  await app.loadGraphData(JSON.parse(JSON.stringify(saved)), true, false)
  await settle()
  const again = await app.graphToPrompt()
  return { changes: done, workflow: saved, export: export_, again: again.output }
}"""


def export_files(url: str, workflows: Mapping[str, Any], chromium: str) -> dict[str, Any]:
    """The editor's export of each file: `{"files": {name: {"workflow", "export"}}, "widgets", "frontend"}`."""
    with _page(url, chromium) as page:
        exported = {}
        for name, workflow in workflows.items():
            exported[name] = {"workflow": workflow, "export": _evaluate(page, _EXPORT, workflow)}
            _show_progress(len(exported), len(workflows))
        return {"files": exported, "widgets": page.evaluate(_WIDGETS), "frontend": _version(page)}


def change_files(url: str, workflows: Mapping[str, Any], chromium: str, seed: int) -> dict[str, Any]:
    """The files changed at random and saved by the editor, as in `export_files`, with `changes` and `again`.

    `again` is the prompt after the editor has opened again what it saved.
    """
    with _page(url, chromium) as page:
        exported = {}
        for number, (name, workflow) in enumerate(workflows.items()):
            found = _evaluate(page, _CHANGE, [workflow, seed * 10_000 + number])
            exported[name] = found if "workflow" in found else {"workflow": workflow, "export": found}
            _show_progress(len(exported), len(workflows))
        return {"files": exported, "frontend": _version(page)}


def _evaluate(page: Any, script: str, argument: Any) -> Any:
    from playwright.sync_api import Error  # noqa: PLC0415  only needed here, and large

    try:
        return page.evaluate(script, argument)
    except Error as error:
        return {"error": str(error)}


def _version(page: Any) -> str:
    return str(page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__ ?? ''"))


def _show_progress(done: int, total: int) -> None:
    print(f"\r{done} of {total} exported", end="" if done < total else "\n", file=sys.stderr, flush=True)


@contextmanager
def _page(url: str, chromium: str) -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415  only needed here, and large
    except ImportError:
        raise SystemExit("playwright is not installed: run `pip install playwright`") from None
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
        yield page
        browser.close()


@contextmanager
def running_comfyui(directory: Path, python: str, frontend: Path | None) -> Iterator[str]:
    """Run the complete ComfyUI, with its own editor or that in `frontend`; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "main.py", "--cpu", "--port", str(port), "--disable-auto-launch"]
    if frontend:
        command += ["--front-end-root", str(frontend.resolve())]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _BOOT_SECONDS
        while True:
            try:
                get_json(f"{url}/system_stats")
                break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("ComfyUI did not start; start it by hand to see why") from None
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def get_json(url: str) -> Any:
    """The JSON response to a GET of that address."""
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


def editor_files(files: list[Path]) -> dict[str, Any]:
    """The files that are in the editor's format, by name."""
    workflows = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    return {name: workflow for name, workflow in workflows.items() if is_editor_workflow(workflow)}
