"""On a real ComfyUI: packs of CUSTOM_NODES and of a volume run, with their libraries; of others the job is told why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from src.packs import beside
from src.settings.node_packs import read_sources

from .. import workflows
from ..conftest import REAL_ARGS, booted, installation, settings_for
from ..pack_server import NODES, pack_server
from ..workflows import node
from .test_install import wheel


def using(class_type: str) -> dict[str, Any]:
    """A workflow whose picture goes through a node of that class."""
    workflow = workflows.still()
    workflow["8"] = node(class_type, image=["2", 0])
    saver = next(entry for entry in workflow.values() if entry["class_type"] == "SaveImage")
    saver["inputs"]["images"] = ["8", 0]
    return workflow


def test_packs_run_and_of_those_that_could_not_be_installed_jobs_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation("real")
    volume = tmp_path / "volume"
    (volume / "custom_nodes" / "mine").mkdir(parents=True)
    (volume / "custom_nodes" / "mine" / "__init__.py").write_text(NODES.format(name="FromVolume"))
    monkeypatch.setattr(beside, "VOLUMES", (volume,))
    wheel(tmp_path / "wheels", "tiny_library", "1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    with pack_server(tmp_path / "server") as server:
        files = {"__init__.py": "import tiny_library\n" + NODES.format(name="FromRegistry")}
        server.publish("a-pack", "1.0.0", {**files, "requirements.txt": "tiny_library\nnumpy\n"})
        commit = server.commit("other", {"__init__.py": NODES.format(name="FromGit")})
        wanted = f"a-pack@1.0.0,{server.repository('other')}@{commit},gone@1.0.0"
        settings = settings_for("real", comfy_registry=server.url, trusted_hosts=(server.host,))
        settings = replace(settings, comfyui_args=REAL_ARGS, custom_nodes=read_sources(wanted))
        with booted("real", settings) as bench:
            for class_type in ("FromRegistry", "FromGit", "FromVolume"):
                answer = bench.run(workflow=using(class_type))
                assert answer["status"] == "success", answer
            answer = bench.run(workflow=using("Gone"))
            assert answer["error_code"] == "missing_node_type"
            assert (
                "the node pack gone could not be installed: gone: not found in ComfyUI's registry" in answer["error"]
            )
            info = bench.run(action="info")
            assert list(info["failed_node_packs"]) == ["gone"]
    assert {path.name for path in volume.iterdir()} == {"custom_nodes", "node-packs"}
