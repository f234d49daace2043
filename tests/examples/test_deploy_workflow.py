"""examples/deploy.py --workflow: an endpoint from a workflow, checked by a run on the local endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import deploy
from src.settings.stored_workflows import pack, unpack

from .. import editor_files, runpod_api, workflows
from ..endpoint.test_endpoint import KEY, Client, serving
from ..model_server import model_server, weights
from ..pack_server import NODES, pack_server
from ..runpod_api import Api

IMAGE = ("--image", "you/comfyui-worker:v1")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.setattr(runpod_api, "KEY", KEY)  # one key, as on RunPod
    monkeypatch.setattr(deploy, "_POLL_SECONDS", 0.05)
    with runpod_api.serving() as api:
        yield api


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A local endpoint in the place of RunPod's, whose worker has the workflow `still`."""
    stored = pack(
        {"still": workflows.still(), "broken": {**workflows.still(), "2": {"class_type": "ImageInvert", "inputs": {}}}}
    )
    with serving(tmp_path_factory.mktemp("endpoint"), STORED_WORKFLOWS=stored) as served:
        served.wait_for_workers(1)
        yield served


def jobs_of(client: Client) -> str:
    """What stands before the id of an endpoint."""
    return client.url.rpartition("/")[0]


def run(api: Api, *arguments: str | Path, jobs: str = "http://127.0.0.1:9/v2") -> int:
    given = ["--name", "flux", "--api-url", api.url, "--jobs-url", jobs, *map(str, arguments)]
    return deploy.main(given)


def flow(folder: Path, content: dict[str, Any], name: str = "still") -> Path:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(content))
    return file


def test_a_workflow_becomes_an_endpoint_that_is_seen_to_run_it(
    api: Api, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = flow(tmp_path, workflows.still())
    assert run(api, *IMAGE, "--workflow", file, jobs=jobs_of(client)) == 0
    ((_, _, body),) = api.changes
    assert unpack(body["env"]["STORED_WORKFLOWS"]) == {"still": workflows.still()}
    out = capsys.readouterr().out
    assert "the check: COMPLETED" in out
    assert "made still_00001_.png" in out
    assert """-d '{"input": {"workflow": "still"}}'""" in out
    assert body["env"]["STORED_WORKFLOWS"] not in out or len(body["env"]["STORED_WORKFLOWS"]) < 400


def test_models_and_packs_come_with_it_and_their_sizes_choose_gpu_and_disk(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = editor_files.tiny_generative()
    for node in saved["nodes"]:
        if node["type"] == "UNETLoader":
            url = "https://huggingface.co/owner/repo/resolve/main/big.safetensors"
            node["widgets_values"][0] = "big.safetensors"
            node["properties"]["models"] = [{"name": "big.safetensors", "url": url, "directory": "diffusion_models"}]
        elif node["type"] == "VAELoader":
            node["widgets_values"] = ["ae.safetensors"]
        elif node["type"] == "CLIPLoader":
            node["widgets_values"][0] = "clip_l.safetensors"
        elif node["type"] == "SaveImage":
            node["properties"] |= {"cnr_id": "a-pack", "ver": "1.0.0"}
    with model_server() as hub, pack_server(tmp_path / "packs") as registry:
        registry.publish("a-pack", "1.0.0", {"__init__.py": NODES.format(name="SaveImage")})
        hub.files["big.safetensors"] = weights(1000)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("COMFY_REGISTRY", registry.url)
        monkeypatch.setenv("TRUSTED_HOSTS", f"{registry.host},{hub.host.replace('127.0.0.1', 'localhost')}")
        monkeypatch.setattr("src.models.fetch.fetch_info", lambda *_: _Info(40_000_000_000))
        arguments = ("--workflow", flow(tmp_path, saved, "my flow"), "--no-check")
        assert run(api, *IMAGE, *arguments) == 0
        ((_, _, body),) = api.changes
        assert body["env"]["DOWNLOAD_MODELS"] == "true"
        assert body["env"]["MODELS"] == "clip_l,ae"
        assert body["env"]["CUSTOM_NODES"] == "a-pack@1.0.0"
        assert body["gpu"]["pools"] == ["AMPERE_48", "ADA_48_PRO", "AMPERE_80", "ADA_80_PRO"]
        assert body["disk"] == 65
        assert list(unpack(body["env"]["STORED_WORKFLOWS"])) == ["my_flow"]
        out = capsys.readouterr().out
        assert "diffusion_models/big.safetensors: 40.00 GB, https://huggingface.co/owner/repo/" in out
        assert "node pack a-pack@1.0.0. The version that the workflow names." in out
        assert run(api, *arguments, "--volume", "vol1", "--packs-in-image", *IMAGE) == 0
        assert api.changes[-1][2].get("disk", 65) == 65


class _Info:
    """What a source says of a file that is too large for a test."""

    sha256 = None

    def __init__(self, size: int) -> None:
        self.size = size


def test_what_is_open_ends_it_before_anything_changes(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow = {**workflows.generative(), "99": {"class_type": "Stranger", "inputs": {}}}
    file = flow(tmp_path, workflow)
    assert run(api, *IMAGE, "--workflow", file, "--no-check") == 1
    told = capsys.readouterr()
    assert "open: no download source known for diffusion_models/tiny_sd3.safetensors" in told.out
    assert "open: no known node pack provides: Stranger" in told.out
    assert "something is unresolved" in told.err
    assert api.changes == []
    assert run(api, *IMAGE, "--workflow", file, "--dry-run") == 0
    assert run(api, *IMAGE, "--workflow", tmp_path / "nothing.json") == 1
    assert run(api, *IMAGE, "--workflow", flow(tmp_path, {"a": 1})) == 1
    assert api.changes == []


def test_an_update_whose_check_fails_is_taken_back(
    api: Api, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(api, *IMAGE, "--env", "JOB_TIMEOUT=99") == 0
    former = dict(api.endpoints[0])
    file = flow(tmp_path, workflows.still(), "broken")
    arguments = ("--image", "you/comfyui-worker:v2", "--workflow", file)
    assert run(api, *arguments, jobs=jobs_of(client)) == 1
    told = capsys.readouterr()
    assert "the check ended with status FAILED" in told.err
    assert "has its previous image and environment again" in told.err
    assert (api.endpoints[0]["image"], api.endpoints[0]["env"]) == (former["image"], former["env"])
    assert [body.get("image") for _, _, body in api.changes[1:]] == ["you/comfyui-worker:v2", "you/comfyui-worker:v1"]
    assert run(api, *arguments) == 1  # nobody answers
    assert (api.endpoints[0]["image"], api.endpoints[0]["env"]) == (former["image"], former["env"])


def test_workflows_and_models_of_an_endpoint_add_up(api: Api, tmp_path: Path) -> None:
    first = flow(tmp_path, workflows.still(), "first")
    assert run(api, *IMAGE, "--workflow", first, "--no-check", "--env", "MODELS=ae") == 0
    assert run(api, "--workflow", flow(tmp_path, workflows.flux(), "second"), "--no-check") == 0
    env = api.endpoints[0]["env"]
    assert list(unpack(env["STORED_WORKFLOWS"])) == ["first", "second"]
    assert env["MODELS"].split(",")[0] == "ae"
    assert "flux1-dev" in env["MODELS"]


def test_a_workflow_that_takes_files_is_validated(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loading = {**workflows.still(), "1": {"class_type": "LoadImage", "inputs": {"image": "face.png"}}}
    stored = pack({"loading": loading})
    with serving(tmp_path, STORED_WORKFLOWS=stored) as served:
        served.wait_for_workers(1)
        assert run(api, *IMAGE, "--workflow", flow(tmp_path, loading, "loading"), jobs=jobs_of(served)) == 0
    told = capsys.readouterr().out
    assert "files to send with a job: face.png" in told
    assert "it was not run, because it needs files sent with the job" in told
