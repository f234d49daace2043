"""What workflows and lists need, as their files say it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from src.models.manifest import shipped_manifest
from src.needs import Needs, as_json, as_table, is_list_of_needs, needs_of_workflow, read_list
from src.needs.facts import ModelNeed, PackNeed
from src.workflow.core_classes import core_schemas

from ..editor_files import saved, saved_node
from ..worker_process import ROOT
from ..workflows import flux, node, still

WAN = (
    "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/vae/wan_2.1_vae.safetensors"
)


def needs(content: Any) -> Needs:
    return needs_of_workflow("file", content, shipped_manifest())


def loader(node_id: int, file: str, mode: int = 0, **properties: Any) -> dict[str, Any]:
    """A VAELoader as the editor saves it."""
    made = saved_node(node_id, "VAELoader", [file], outputs={"VAE": "VAE"})
    return {**made, "mode": mode, "properties": {"cnr_id": "comfy-core", "ver": "0.3.40", **properties}}


def named(file: str, url: str = WAN, **more: str) -> dict[str, Any]:
    return {"models": [{"name": file, "url": url, "directory": "vae", **more}]}


def test_a_file_says_where_its_models_are_from() -> None:
    found = needs(
        saved([loader(1, "wan_2.1_vae.safetensors", **named("wan_2.1_vae.safetensors", f"{WAN}?download=true"))], [])
    )
    assert found.core_version == "0.3.40"
    (model,) = found.models
    assert (model.folder, model.file, model.sources, model.origin) == (
        "vae",
        "wan_2.1_vae.safetensors",
        (WAN,),
        "file",
    )
    assert (model.nodes, model.is_needed, found.open) == (("1 (VAELoader)",), True, ())


@pytest.mark.parametrize("mode", [2, 4])
def test_what_only_nodes_need_that_do_not_run_is_told_apart(mode: int) -> None:
    unused = loader(1, "a.safetensors", mode, **named("a.safetensors"))
    found = needs(saved([unused, loader(2, "b.safetensors", **named("b.safetensors"))], []))
    assert [(model.file, model.is_needed) for model in found.models] == [
        ("a.safetensors", False),
        ("b.safetensors", True),
    ]


def test_a_digest_is_taken_and_a_source_that_is_no_https_is_none() -> None:
    digest = "A" * 64
    (model,) = needs(
        saved([loader(1, "a.safetensors", **named("a.safetensors", hash=digest, hash_type="SHA256"))], [])
    ).models
    assert model.sha256 == digest.lower()
    found = needs(saved([loader(1, "a.safetensors", **named("a.safetensors", "http://example.com/a"))], []))
    assert (found.models[0].sources, found.open) == ((), ("no download source known for a.safetensors",))


def test_what_the_file_does_not_say_is_looked_up_by_name_and_folder() -> None:
    found = needs(flux())
    by_file = {model.file: model for model in found.models}
    ae = by_file["ae.safetensors"]
    assert (ae.folder, ae.origin, ae.licence) == ("vae", "catalog", "Apache-2.0")
    assert ae.sources[0].startswith("https://huggingface.co/") and ae.size and len(ae.sha256) == 64
    stranger = needs({**still(), "7": node("LoraLoaderModelOnly", lora_name="sub\\mine.safetensors", model=["1", 0])})
    assert stranger.models == (ModelNeed("loras", "sub/mine.safetensors", nodes=("7 (LoraLoaderModelOnly)",)),)
    assert stranger.open == ("no download source known for sub/mine.safetensors",)


def test_packs_are_named_by_registry_and_repository() -> None:
    nodes = [
        {**saved_node(1, "PackA", []), "properties": {"cnr_id": "pack-a", "ver": "1.2.0"}},
        {**saved_node(2, "PackA2", []), "properties": {"cnr_id": "pack-a", "ver": "1.3.0"}},
        {**saved_node(3, "PackB", []), "properties": {"aux_id": "me/pack-b", "ver": "c" * 40}, "mode": 4},
        {**saved_node(4, "Stranger", []), "properties": {}},
        {**saved_node(5, "SaveImage", ["x"]), "properties": {}},
        {**saved_node(6, "PackC", []), "properties": {"aux_id": "../../etc"}},
    ]
    found = needs(saved(nodes, []))
    assert found.packs == (
        PackNeed("pack-a", "", ("1.2.0", "1.3.0"), ("PackA", "PackA2")),
        PackNeed("", "https://github.com/me/pack-b", ("c" * 40,), ("PackB",), is_needed=False),
    )
    assert found.open == ("no known node pack provides: Stranger, PackC",)


def test_files_that_a_job_brings_are_listed() -> None:
    workflow = {
        "1": node("LoadImage", image="face.png [input]"),
        "2": node("LoadAudio", audio="https://a.example/b.mp3"),
    }
    assert needs(workflow).inputs == ("face.png",)


def test_a_snapshot_of_the_manager_is_read() -> None:
    snapshot = {
        "comfyui": "a" * 40,
        "git_custom_nodes": {
            "https://github.com/me/one.git": {"hash": "b" * 40, "disabled": False},
            "https://github.com/me/two": {"hash": "c" * 40, "disabled": True},
        },
        "cnr_custom_nodes": {"pack-a": "1.2.0"},
        "file_custom_nodes": [{"filename": "mine.py", "disabled": False}, {"filename": "off.py", "disabled": True}],
        "pips": {"numpy==2.0.0": ""},
    }
    assert is_list_of_needs(snapshot)
    found = read_list("snapshot.json", snapshot)
    assert found.packs == (
        PackNeed("", "https://github.com/me/one", ("b" * 40,)),
        PackNeed("", "https://github.com/me/two", ("c" * 40,), is_needed=False),
        PackNeed("pack-a", "", ("1.2.0",)),
    )
    assert (found.core_version, found.libraries) == ("a" * 40, ("numpy==2.0.0",))
    assert found.open == ("a single file with no known source: mine.py",)


def test_a_comfy_build_is_read() -> None:
    build = {
        "definition": {
            "baseComfyVersion": "v0.3.40",
            "models": [
                {"type": "unet", "filename": "a.safetensors", "sourceUri": "https://h.example/a", "sha256": "d" * 64},
                {"type": "loras", "filename": "b.safetensors", "blobId": "x"},
                {"filename": "c.safetensors"},
            ],
            "customNodes": [
                {"name": "one", "repository": "https://github.com/me/one.git", "gitRef": "e" * 40},
                {"name": "pack-a", "registryVersion": "1.2.0"},
                {"source": "local"},
            ],
            "pipDependencies": "# pins\neinops==0.8.0\n\nnumpy==2.0.0\n",
        }
    }
    found = read_list("comfy-build.yaml", build)
    assert found.models[0] == ModelNeed(
        "diffusion_models", "a.safetensors", ("https://h.example/a",), "file", "d" * 64
    )
    assert found.packs == (PackNeed("", "https://github.com/me/one", ("e" * 40,)), PackNeed("pack-a", "", ("1.2.0",)))
    assert found.libraries == ("einops==0.8.0", "numpy==2.0.0")
    assert len(found.open) == 3


@pytest.mark.parametrize("content", [{}, {"a": 1}, [], {"1": node("SaveImage")}, {"nodes": [], "links": []}])
def test_a_workflow_is_no_list(content: Any) -> None:
    assert not is_list_of_needs(content)


def command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "src.workflow", "needs", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)


def test_the_command_tells_people_and_programs(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "flux.json").write_text(json.dumps({"input": {"workflow": flux(), "seed": 1}}))
    (folder / "build.yaml").write_text("baseComfyVersion: v0.3.40\nmodels: []\ncustomNodes: []\n")
    done = command(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "build.yaml   (ComfyUI v0.3.40 or later)" in done.stdout
    assert "ae.safetensors" in done.stdout and "from the catalog" in done.stdout
    (folder / "open.json").write_text(json.dumps({"1": node("Stranger")}))
    done = command("--json", folder / "flux.json", folder / "open.json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert [entry["name"] for entry in told] == ["flux.json", "open.json"]
    assert told[1]["questions"] == ["no known node pack provides: Stranger"]
    (folder / "broken.json").write_text("{")
    done = command(folder, tmp_path / "nowhere.json")
    assert done.returncode == 1
    assert "broken.json: it cannot be read as JSON" in done.stderr and "nowhere.json: No such file" in done.stderr
    assert "flux.json" in done.stdout


def test_nothing_is_needed_of_a_workflow_of_comfyuis_own_nodes() -> None:
    found = needs(still())
    assert as_table([found]) == "file\n  nothing but ComfyUI"
    assert as_json([found])[0]["models"] == ()


# --- The stock templates -------------------------------------------------------------------------------


def stock_graphs() -> list[Path]:
    """The files of ComfyUI's packages of templates and of blueprints."""
    found = []
    for name, folder in (
        ("comfyui_workflow_templates_json", "templates"),
        ("comfyui_subgraph_blueprints", "blueprints"),
    ):
        package = pytest.importorskip(name, reason="the stock templates are not installed")
        found += sorted((Path(str(resources.files(package))) / folder).glob("*.json"))
    return found


def saved_nodes(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Every node of a file, by its plain JSON."""
    graphs = [content, *(content.get("definitions") or {}).get("subgraphs", [])]
    return [saved_one for graph in graphs for saved_one in graph.get("nodes", [])]


def saved_models(content: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Folder, file and URL of every model that a file names."""
    entries = [
        entry
        for saved_one in saved_nodes(content)
        for entry in (saved_one.get("properties") or {}).get("models") or []
    ]
    return {(entry["directory"], entry["name"], entry["url"].partition("?")[0]) for entry in entries}


def saved_packs(content: dict[str, Any]) -> set[tuple[str, str]]:
    """Id and class of every node of a pack, as a file says it."""
    of_packs = [
        ((saved_one.get("properties") or {}).get("cnr_id"), saved_one["type"]) for saved_one in saved_nodes(content)
    ]
    virtual = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}
    return {(pack, kind) for pack, kind in of_packs if pack not in (None, "", "comfy-core") and kind not in virtual}


@pytest.mark.slow
def test_every_model_that_a_stock_template_names_has_its_source_and_no_node_is_a_strangers() -> None:
    counted = files = 0
    for file in stock_graphs():
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "nodes" not in content:
            continue
        found = needs_of_workflow(file.name, content, shipped_manifest())
        told = {(model.folder, model.file, source) for model in found.models for source in model.sources}
        assert told >= saved_models(content), file.name
        names = {name for _, name, _ in saved_models(content)}
        assert not [model.file for model in found.models if not model.sources and model.file in names], file.name
        assert all(model.sources or model.file in " ".join(found.open) for model in found.models if model.is_needed)
        packs = {(pack.id, name) for pack in found.packs for name in pack.classes}
        assert packs >= saved_packs(content), file.name
        assert not {name for _, name in packs} & core_schemas().keys() - {kind for _, kind in saved_packs(content)}
        counted += len(told)
        files += 1
    assert counted > 500
    assert files > 600


# --- Files that are not what they should be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.json", "[" * 100_000),
        ("odd.json", '{"nodes": {"a": 1}, "links": 5}'),
        ("latin.json", "é".encode("latin-1")),
        ("loop.yaml", "a: &a [*a]\n"),
        ("bomb.yaml", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
        ("folder.json", {"directory": ".", "name": "x.safetensors"}),
        ("root.json", {"directory": "/", "name": "etc/passwd.safetensors"}),
        ("digits.json", {"ver": "1." + "9" * 5000}),
        ("list.json", "[1]"),
        ("list.yaml", "customNodes: 5\nmodels: {a: 1}\n"),
    ],
)
def test_any_file_is_read_or_refused_in_words(tmp_path: Path, name: str, content: Any) -> None:
    if isinstance(content, dict):
        model = {"url": "https://huggingface.co/a/b/resolve/main/x.safetensors", **content}
        properties = {"models": [model], "ver": content.get("ver", ""), "cnr_id": "comfy-core"}
        nodes = [{**saved_node(1, "VAELoader", ["x.safetensors"], {}, {"VAE": "VAE"}), "properties": properties}]
        content = json.dumps(saved(nodes, []))
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    command = [sys.executable, "-m", "src.workflow", "needs", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout or name in done.stderr
