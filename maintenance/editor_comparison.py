"""Compares our conversion of editor files with the editor's own export, for the templates that ComfyUI installs.

    COMFYUI_PATH=… python -m maintenance.editor_comparison [FILE.json …] [--frontend FOLDER] [--exports FOLDER]
        [--mutate COUNT --seed NUMBER] [--classes] [--fixtures]

Boots that ComfyUI with its editor on the CPU, opens each file in a headless Chromium and records the prompt that the
editor would queue. Then it converts the same files and prints one of these outcomes for each:

    equal                identical, except for the titles of nodes
    equal except ids     identical, except for node ids: newer editors renumber nodes in subgraphs that have equal ids
    equal except views   identical, except for inputs that only display something in the editor; no class accepts them
    cut by the editor    identical, except for links that the editor itself loses when it opens the file
    warned               different, and the conversion's own warnings name each node that differs
    different            different without a warning: prints the first difference; the exit status becomes 1
    refused              refused, with the reason
    choice missing       refused, because this ComfyUI does not offer a choice that decides which values a node has
    nothing to run       refused, and the editor itself would queue nothing: every node is muted or bypassed
    no export            the editor itself cannot open or queue the file

`--frontend` is the folder of another editor (`…/comfyui_frontend_package/static`) to compare with. `--exports` stores
the editor's exports and /object_info in a folder and reuses them if they exist; use a separate folder per editor.
`--mutate` first has the editor change that many of the files at random: it mutes and bypasses nodes, changes values on
subgraph nodes, and promotes widgets. `--classes` compares the widgets of every node class instead of files.
`--fixtures` writes the exports that the tests compare with, from the files of tests/editor_files.py, and keeps those
of other versions.

Needs `pip install playwright` and a Chromium (`--chromium`, by default /usr/bin/chromium). Connects to loopback only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from maintenance.editor_exports import change_files, editor_files, export_files, get_json, running_comfyui
from src.comfy.install import find_comfyui
from src.editor import Converted, class_types, convert, read_document
from src.editor.widgets import widgets_of
from src.errors import WorkerError
from src.settings import read_settings
from src.workflow.graph import as_link
from src.workflow.schemas import NodeSchema, read_schema
from tests.editor_files import FILES

_TESTS = Path(__file__).resolve().parent.parent / "tests"

_NODE_OF_WARNING = re.compile(r"node (\S+) \(")
_NO_CHOICE = "which its class does not offer in this ComfyUI"
_VIEWS = ("audioUI", "preview", "compare_view")
"""Inputs that display something in the editor and that no node class accepts."""


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
    known = 0
    for name, entry in exported["files"].items():
        outcome, details = _compare(entry, schemas)
        counts[outcome] += 1
        known += _is_known(entry["workflow"], schemas)
        if outcome != "equal":
            print(f"{outcome:>19}  {name}: {details}")
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())), "of", sum(counts.values()))
    offered = max(known - counts["choice missing"], 1)
    equal, with_ids = counts["equal"], counts["equal"] + counts["equal except ids"]
    print(
        f"this ComfyUI has all classes of {known} files, and all choices of {offered} of them; of these {offered}, "
        f"{equal / offered:.1%} are equal, or {with_ids / offered:.1%} when ids are ignored"
    )
    return 1 if counts["different"] else 0


# --- Comparing ------------------------------------------------------------------------------------------


def _compare(entry: Mapping[str, Any], schemas: Mapping[str, NodeSchema]) -> tuple[str, str]:
    """The outcome of one file, and its details."""
    theirs = entry["export"].get("output")
    try:
        converted = _convert_file(entry["workflow"], schemas)
    except WorkerError as error:
        if theirs == {}:
            return "nothing to run", error.message[:100]
        reason = str(error.details.get("reason") or error.message)
        return "choice missing" if _NO_CHOICE in reason else "refused", reason
    if theirs is None:
        return "no export", str(entry["export"])[:200]
    return _difference_of(converted, theirs, entry["export"].get("workflow") or {})


def _difference_of(converted: Converted, export: Mapping[str, Any], resaved: Mapping[str, Any]) -> tuple[str, str]:
    ours, theirs = _without_titles(converted.prompt), _without_titles(export)
    difference = _difference(ours, theirs, "")
    if not difference:
        return "equal", ""
    if _shape(ours) == _shape(theirs):
        return "equal except ids", difference
    if not _difference(_without_views(ours), _without_views(theirs), ""):
        return "equal except views", difference
    if _is_cut(ours, theirs, resaved):
        return "cut by the editor", difference
    if _is_told(ours, theirs, converted.warnings):
        return "warned", f"{difference}; {' / '.join(converted.warnings)}"
    return "different", difference


def _is_cut(ours: Mapping[str, Any], theirs: Mapping[str, Any], resaved: Mapping[str, Any]) -> bool:
    """Whether all that differs are links which are not in the file any more after the editor has opened it."""
    definitions = (resaved.get("definitions") or {}).get("subgraphs") or []
    nodes = [node for graph in (resaved, *definitions) for node in graph.get("nodes") or []]
    unlinked = {
        (str(node.get("id")), socket.get("name"))
        for node in nodes
        for socket in node.get("inputs") or []
        if socket.get("link") is None
    }
    if ours.keys() != theirs.keys():
        return False
    for node_id, node in ours.items():
        inputs, their_inputs = node["inputs"], theirs[node_id]["inputs"]
        cut = {name for name in inputs.keys() - their_inputs.keys() if as_link(inputs[name])}
        if not {(node_id.rpartition(":")[2], name) for name in cut} <= unlinked:
            return False
        if {name: value for name, value in inputs.items() if name not in cut} != their_inputs:
            return False
    return True


def _is_told(ours: Mapping[str, Any], theirs: Mapping[str, Any], warnings: Iterable[str]) -> bool:
    """Whether a warning names each node that differs, or a subgraph node around it."""
    told = {match[1] for warning in warnings if (match := _NODE_OF_WARNING.match(warning))}
    differing = [node_id for node_id in {**ours, **theirs} if _difference(ours.get(node_id), theirs.get(node_id), "")]
    return all(any(f"{node_id}:".startswith(f"{one}:") for one in told) for node_id in differing)


def _convert_file(workflow: Mapping[str, Any], schemas: Mapping[str, NodeSchema]) -> Converted:
    document = read_document(workflow)
    return convert(document, {name: schemas.get(name) for name in class_types(document)})


def _without_views(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Without inputs that only show something in the editor."""
    return {
        node_id: {**node, "inputs": {name: value for name, value in node["inputs"].items() if name not in _VIEWS}}
        for node_id, node in prompt.items()
    }


def _without_titles(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Without `_meta`, which holds the titles of nodes."""
    return {
        node_id: {name: value for name, value in node.items() if name != "_meta"} for node_id, node in prompt.items()
    }


def _shape(prompt: Mapping[str, Any]) -> Counter[str]:
    """The nodes without their ids: each as a hash of its class, its values and the nodes that it is linked to."""
    found: dict[str, str] = {}

    def of(node_id: str) -> str:
        if node_id not in found:
            found[node_id] = ""  # a circle ends here
            node = prompt.get(node_id, {})
            inputs = {}
            for name, value in sorted(node.get("inputs", {}).items()):
                link = as_link(value)
                inputs[name] = [of(link.node_id), link.slot] if link else {"value": value}
            text = json.dumps([node.get("class_type"), inputs], sort_keys=True)
            found[node_id] = hashlib.sha256(text.encode()).hexdigest()
        return found[node_id]

    return Counter(of(node_id) for node_id in prompt)


def _difference(ours: Any, theirs: Any, path: str) -> str:
    """The first difference, as text; empty if there is none. `path` is where in the prompt both values are."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            key_path = f"{path}/{key}"
            if key not in ours:
                return f"{key_path} is only in the editor's export: {str(theirs[key])[:200]}"
            if key not in theirs:
                return f"{key_path} is only in our conversion: {str(ours[key])[:200]}"
            if found := _difference(ours[key], theirs[key], key_path):
                return found
        return ""
    is_same = ours == theirs and isinstance(ours, bool) == isinstance(theirs, bool)
    return "" if is_same else f"{path}: ours {str(ours)[:200]!r}, the editor's {str(theirs)[:200]!r}"


def _compare_classes(widgets: Mapping[str, Any], schemas: Mapping[str, NodeSchema]) -> int:
    different = 0
    for name, schema in sorted(schemas.items()):
        found = widgets.get(name, {"error": "the editor does not have this class"})
        theirs = found.get("error") or [[w[0], w[1]] for w in found["widgets"]]
        ours = [[widget.name, widget.is_sent] for widget in widgets_of(name, schema, []) if widget.is_saved]
        if ours != theirs:
            different += 1
            print(f"{name}: ours {ours}, the editor's {found.get('error') or found['widgets']}")
    print(f"{different} different of {len(schemas)} classes")
    return 1 if different else 0


# --- The editor's side ----------------------------------------------------------------------------------


def _write_fixtures(options: argparse.Namespace, comfyui: Path, python: str) -> int:
    workflows = {name: make() for name, make in FILES.items()}
    with running_comfyui(comfyui, python, options.frontend) as url:
        object_info, files = get_json(f"{url}/object_info"), export_files(url, workflows, options.chromium)["files"]
        version = get_json(f"{url}/system_stats")["system"]["comfyui_version"]
    used = {name for workflow in workflows.values() for name in class_types(read_document(workflow))}
    known = {name: entry for name, entry in files.items() if _is_known(entry["workflow"], object_info)}
    exports = {name: _without_titles(entry["export"]["output"]) for name, entry in known.items()}
    for file, content in (
        ("editor_exports.json", exports),
        ("editor_object_info.json", {name: object_info[name] for name in sorted(used) if name in object_info}),
    ):
        path = _TESTS / file
        versions = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**versions, version: content}, indent=1) + "\n", encoding="utf-8")
    return 0


def _is_known(workflow: Mapping[str, Any], classes: Mapping[str, Any]) -> bool:
    """Whether that ComfyUI has all node classes of a file: the editor exports unknown nodes without a class."""
    try:
        return class_types(read_document(workflow)) <= classes.keys()
    except WorkerError:
        return False


def _exports(options: argparse.Namespace, comfyui: Path, python: str) -> dict[str, Any]:
    kind = f"-mutated-{options.mutate}-{options.seed}" if options.mutate else ""
    cache = options.exports / f"{comfyui.parent.name}{kind}.json" if options.exports else None
    if cache and cache.exists():
        found: dict[str, Any] = json.loads(cache.read_text(encoding="utf-8"))
        return found
    workflows = editor_files(options.files or _templates(comfyui))
    with running_comfyui(comfyui, python, options.frontend) as url:
        object_info = get_json(f"{url}/object_info")
        if options.mutate:
            known = sorted(name for name, workflow in workflows.items() if _is_known(workflow, object_info))
            chosen = random.Random(options.seed).sample(known, min(options.mutate, len(known)))
            exported = change_files(url, {name: workflows[name] for name in chosen}, options.chromium, options.seed)
        else:
            exported = export_files(url, workflows, options.chromium)
    exported["object_info"] = object_info
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(exported), encoding="utf-8")
    return exported


def _templates(comfyui: Path) -> list[Path]:
    folders = sorted(comfyui.glob(".venv/lib/python*/site-packages/comfyui_workflow_templates*/templates"))
    if not folders:
        raise SystemExit(f"no templates in {comfyui}/.venv; name files, or install ComfyUI's requirements there")
    return [file for folder in folders for file in sorted(folder.glob("*.json")) if not file.name.startswith("index")]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE.json", help="default: ComfyUI's templates")
    parser.add_argument("--frontend", type=Path, metavar="FOLDER")
    parser.add_argument("--exports", type=Path, metavar="FOLDER")
    parser.add_argument("--mutate", type=int, default=0, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=1, metavar="NUMBER")
    parser.add_argument("--classes", action="store_true")
    parser.add_argument("--fixtures", action="store_true")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
