"""What a workflow needs is locked: packs by commit or archive, with their classes and exact requirements; models too."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from src.models.manifest import read_manifest, shipped_manifest

from ..editor_files import saved, saved_node
from ..model_server import model_server, weights
from ..pack_server import NODES, PackServer, pack_server
from ..worker_process import ROOT
from .test_install import wheel


@dataclass
class Place:
    """A folder with workflows, and a server of packs."""

    folder: Path
    server: PackServer
    environment: dict[str, str] = field(default_factory=dict)

    def workflow(self, **properties: dict[str, Any]) -> Path:
        """A workflow with a node of each class, with these properties."""
        nodes = [
            {**saved_node(number, name, [], {}, {"IMAGE": "IMAGE"}), "properties": said}
            for number, (name, said) in enumerate(properties.items(), 1)
        ]
        file = self.folder / "flow.json"
        file.write_text(json.dumps(saved(nodes, [])))
        return file

    def lock(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """`python -m src.workflow needs --lock`."""
        environment = {
            **os.environ, "COMFY_REGISTRY": self.server.url, "TRUSTED_HOSTS": self.server.host, "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder / "wheels"), "COMFYUI_PATH": "/nonexistent", **self.environment,
        }  # fmt: skip
        command = [sys.executable, "-m", "src.workflow", "needs", "--lock", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with pack_server(tmp_path / "server") as server:
        wheel(tmp_path / "wheels", "tiny_library", "1.0")
        wheel(tmp_path / "wheels", "tiny_library", "2.0")
        server.publish(
            "a-pack", "1.0.0", {"__init__.py": NODES.format(name="FromRegistry"), "requirements.txt": "tiny_library<2"}
        )
        yield Place(tmp_path, server)


def entries(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return {entry["name"]: entry for entry in json.loads(done.stdout)}


def test_packs_are_locked_by_commit_or_archive_with_exact_requirements(place: Place) -> None:
    commit = place.server.commit("other", {"__init__.py": NODES.format(name="FromGit"), "requirements.txt": "numpy\n"})
    newest = place.server.commit("other", {"__init__.py": NODES.format(name="FromGit") + "# newer\n"})
    place.server.answers["/nodes/by-id"] = (200, {"id": "by-id", "repository": place.server.repository("other")})
    place.server.classes["FromRegistry"] = "a-pack"
    file = place.workflow(FromGit={"cnr_id": "by-id", "ver": commit}, FromRegistry={})
    (constraints,) = (ROOT / "docker" / "constraints" / "comfyui").glob("*.txt")
    numpy = re.search(r"^numpy==(.+)$", constraints.read_text(), re.MULTILINE)
    assert numpy
    wheel(place.folder / "wheels", "numpy", numpy[1])
    found = entries(place.lock(file))
    assert (found["other"]["commit"], found["other"]["classes"], found["other"]["requirements"]) == (
        *(commit, ["FromGit"], []),
    )
    assert found["a-pack"]["registry"] == "a-pack@1.0.0"
    assert found["a-pack"]["requirements"] == ["tiny_library==1.0"]
    assert found["a-pack"]["state"].startswith("The newest version")
    assert len(found["a-pack"]["sha256"]) == 64
    assert commit != newest


def test_the_image_can_be_built_from_what_is_locked(place: Place, tmp_path: Path) -> None:
    """By docker/sources.py, as the Dockerfile does."""
    lock = tmp_path / "custom_nodes.lock"
    lock.write_text(
        json.dumps(
            {
                "custom_nodes": [
                    {
                        "name": "A-Pack",
                        "commit": "x",
                        "group": "mine",
                        "system_packages": ["libgl1"],
                        "classes": ["Old"],
                    },
                    {"name": "kept"},
                ]
            }
        )
    )
    file = place.workflow(FromRegistry={"cnr_id": "a-pack", "ver": "1.0.0"})
    done = place.lock("--write", lock, file)
    assert (done.returncode, done.stdout) == (0, "a-pack\n"), done.stderr
    content = json.loads(lock.read_text())
    assert [entry["name"] for entry in content["custom_nodes"]] == ["A-Pack", "kept"]
    entry = content["custom_nodes"][0]
    assert (entry["group"], entry["system_packages"], entry["classes"]) == (
        "mine",
        ["libgl1"],
        ["FromRegistry", "Old"],
    )
    content["custom_nodes"] = [{**entry, "name": "a-pack", "system_packages": []}]
    lock.write_text(json.dumps(content))
    spec = importlib.util.spec_from_file_location("sources", ROOT / "docker" / "sources.py")
    assert spec is not None
    command = [sys.executable, str(spec.origin), "custom-nodes", "--lock", str(lock), "--wanted", "a-pack"]
    subprocess.run([*command, str(tmp_path / "packs")], check=True)
    assert "FromRegistry" in (tmp_path / "packs" / "a-pack" / "__init__.py").read_text()
    assert (tmp_path / "packs" / "requirements.txt").read_text() == "tiny_library==1.0\n"
    place.server.publish("a-pack", "1.0.0", {"__init__.py": "evil"})
    failed = subprocess.run([*command, str(tmp_path / "other")], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "has the SHA-256" in failed.stderr


def test_what_cannot_be_locked_is_told_and_nothing_is_written(place: Place, tmp_path: Path) -> None:
    place.server.classes["Guessed"] = "a-pack"
    place.server.publish("breaks", "1.0.0", {"__init__.py": '"Breaks"', "requirements.txt": "torch==1.0\n"})
    file = place.workflow(
        Guessed={}, Nowhere={}, Gone={"cnr_id": "gone", "ver": "1.0.0"}, Breaks={"cnr_id": "breaks", "ver": "1.0.0"}
    )
    lock = tmp_path / "custom_nodes.lock"
    lock.write_text("{}")
    done = place.lock("--write", lock, file)
    assert (done.returncode, done.stdout, lock.read_text()) == (1, "", "{}")
    for said in (
        "a-pack: these classes were not found in a-pack@1.0.0: Guessed",
        "no known node pack provides: Nowhere",
        "gone: gone: not found in ComfyUI's registry",
        "breaks: pip: ",
    ):
        assert said in done.stderr


def test_models_are_locked_too(place: Place, tmp_path: Path) -> None:
    with model_server() as hub:
        hub.files["x.safetensors"] = weights(5000)
        place.environment = {"HF_ENDPOINT": hub.url, "TRUSTED_HOSTS": f"{place.server.host},{hub.host}"}
        place.environment["TRUSTED_HOSTS"] += f",{hub.host.replace('127.0.0.1', 'localhost')}"
        url = "https://huggingface.co/owner/repo/resolve/main/x.safetensors"
        saved_by_editor = {"models": [{"name": "x.safetensors", "url": url, "directory": "vae"}]}
        file = place.workflow(VAELoader={"cnr_id": "comfy-core", **saved_by_editor})
        manifest = tmp_path / "models.json"
        manifest.write_text(json.dumps({"sets": {"mine": ["ae"]}}))
        done = place.lock("--write", tmp_path / "unused.lock", "--write-models", manifest, file)
        assert done.returncode == 1  # there is no such lock
        (tmp_path / "packs.lock").write_text('{"custom_nodes": []}')
        done = place.lock("--write", tmp_path / "packs.lock", "--write-models", manifest, file)
        assert done.returncode == 0, done.stderr
        own = read_manifest(json.loads(manifest.read_text()), shipped_manifest())
        (model,) = own.expand(["workflow"])
        assert (model.sha256, model.size) == (hub.sha256("x.safetensors"), len(hub.files["x.safetensors"]))
        assert own.expand(["mine"])
        saved_by_editor["models"][0]["url"] = "https://example.com/x.safetensors"
        file = place.workflow(VAELoader={"cnr_id": "comfy-core", **saved_by_editor})
        done = place.lock("--write", tmp_path / "packs.lock", "--write-models", manifest, file)
        assert "vae/x.safetensors: models are not downloaded from 'example.com'" in done.stderr


def test_what_a_comfyui_here_has_is_locked(place: Place, tmp_path: Path) -> None:
    comfyui = tmp_path / "ComfyUI"
    (comfyui / "comfy").mkdir(parents=True)
    (comfyui / "main.py").write_text("")
    (comfyui / "comfyui_version.py").write_text('__version__ = "0.33.0"\n')
    commit = place.server.commit("other", {"__init__.py": NODES.format(name="FromGit")})
    packs = comfyui / "custom_nodes"
    clone = ["git", "clone", "--quiet", place.server.repository("other"), str(packs / "renamed")]
    subprocess.run(clone, check=True, capture_output=True)
    for name in ("a-pack", "unknown", "off.disabled"):
        (packs / name).mkdir()
        (packs / name / "__init__.py").write_text("")
    (packs / "a-pack" / "pyproject.toml").write_text('[project]\nname = "a-pack"\nversion = "1.0.0"\n')
    (packs / "a-pack" / ".tracking").write_text("__init__.py\n")
    place.environment = {"COMFYUI_PYTHON": sys.executable}
    command = [sys.executable, "-m", "src.workflow", "needs", "--from", str(comfyui), "--json"]
    environment = {**os.environ, **place.environment}
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    (found,) = json.loads(told.stdout)
    assert found["core_version"] == "0.33.0"
    assert {(pack["id"], pack["repository"], *pack["versions"]) for pack in found["packs"]} == {
        ("a-pack", "", "1.0.0"),
        ("", place.server.repository("other"), commit),
    }
    assert found["questions"] == ["no source known for the node pack unknown"]
    assert any(line.startswith("pydantic==") for line in found["libraries"])
    locked = entries(place.lock("--from", comfyui))
    assert (locked["other"]["commit"], locked["a-pack"]["registry"]) == (commit, "a-pack@1.0.0")
