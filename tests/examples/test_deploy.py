"""examples/deploy.py, against RunPod's REST API v2 on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import deploy

from .. import runpod_api
from ..runpod_api import KEY, Api


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    with runpod_api.serving() as api:
        yield api


def run(api: Api, *arguments: str) -> int:
    return deploy.main(["--name", "flux", "--api-url", api.url, *arguments])


def test_an_endpoint_is_created_with_sensible_defaults(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(api, "--image", "you/comfyui-worker:v1") == 0
    ((method, path, body),) = api.changes
    assert (method, path) == ("POST", "/v2/serverless")
    assert body == {
        "name": "flux",
        "type": "QUEUE",
        "image": "you/comfyui-worker:v1",
        "disk": 20,
        "env": {"RUNPOD_INIT_TIMEOUT": "800"},
        "gpu": {"pools": ["ADA_24", "ADA_32_PRO", "AMPERE_48", "ADA_48_PRO"], "minCudaVersion": "13.0"},
        "workers": {"min": 0, "max": 3, "idleTimeout": 10},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4.0},
        "timeout": 900_000,
        "flashboot": "FLASHBOOT",
    }
    out = capsys.readouterr().out
    assert "created: endpoint ep1" in out
    assert "https://api.runpod.ai/v2/ep1/runsync" in out


def test_everything_can_be_chosen(api: Api) -> None:
    arguments = [
        "--image",
        "i",
        "--gpu",
        "ADA_80_PRO, HOPPER_141",
        "--cuda",
        "13.0",
        "--disk",
        "60",
        "--max-workers",
        "9",
    ]
    arguments += [
        "--min-workers",
        "1",
        "--idle-timeout",
        "30",
        "--queue-delay",
        "1",
        "--timeout",
        "60",
        "--no-flashboot",
    ]
    arguments += ["--volume", "v1", "--volume", "v2", "--data-center", "EU-RO-1", "--registry", "r1"]
    arguments += ["--env", "MODELS=flux1-dev,upscalers", "--env", "COMFYUI_ARGS=--fast --x=y"]
    assert run(api, *arguments, "--secret", "HF_TOKEN", "--secret", "R2_SECRET_ACCESS_KEY=r2") == 0
    ((_, _, body),) = api.changes
    assert body["gpu"] == {"pools": ["ADA_80_PRO", "HOPPER_141"], "minCudaVersion": "13.0"}
    assert body["workers"] == {"min": 1, "max": 9, "idleTimeout": 30}
    assert (body["timeout"], body["flashboot"], body["registry"]) == (60_000, "OFF", "r1")
    assert (body["networkVolumes"], body["dataCenterIds"]) == (["v1", "v2"], ["EU-RO-1"])
    assert body["env"] == {
        "RUNPOD_INIT_TIMEOUT": "800",
        "MODELS": "flux1-dev,upscalers",
        "COMFYUI_ARGS": "--fast --x=y",
        "HF_TOKEN": "{{ RUNPOD_SECRET_HF_TOKEN }}",
        "R2_SECRET_ACCESS_KEY": "{{ RUNPOD_SECRET_r2 }}",
    }


@pytest.fixture
def deployed(api: Api) -> dict[str, Any]:
    """An endpoint that somebody set up in the console."""
    endpoint: dict[str, Any] = {
        "id": "ep1",
        "name": "flux",
        "type": "QUEUE",
        "image": "you/comfyui-worker:v1",
        "env": {"MODELS": "flux1-dev", "HF_TOKEN": "hf_1234"},
        "gpu": {"pools": ["ADA_24"], "excludedTypes": ["NVIDIA L4"], "count": 1, "allowedCudaVersions": ["12.8"]},
        "workers": {"min": 0, "max": 7, "idleTimeout": 5},
    }
    api.endpoints += [{"id": "ep0", "name": "other"}, endpoint]
    return endpoint


def test_an_endpoint_that_is_there_changes_in_what_is_given_only(api: Api, deployed: dict[str, Any]) -> None:
    assert run(api, "--image", "you/comfyui-worker:v2") == 0
    assert api.changes == [("PATCH", "/v2/serverless/ep1", {"image": "you/comfyui-worker:v2"})]
    assert (deployed["workers"]["max"], deployed["env"]["MODELS"]) == (7, "flux1-dev")


def test_what_runpod_replaces_as_a_whole_is_restated(api: Api, deployed: dict[str, Any]) -> None:
    deployed["gpu"]["pools"] = ["ADA_24", "AMPERE_48"]
    assert (
        run(api, "--env", "JOB_TIMEOUT=900", "--max-workers", "4", "--gpu", "AMPERE_48,ADA_24", "--cuda", "12.8") == 0
    )
    ((_, _, body),) = api.changes
    assert deployed["gpu"]["excludedTypes"] == ["NVIDIA L4"], "of the same pools"
    assert body["env"] == {"MODELS": "flux1-dev", "HF_TOKEN": "hf_1234", "JOB_TIMEOUT": "900"}
    assert body["workers"] == {"min": 0, "max": 4, "idleTimeout": 5}
    assert body["gpu"]["excludedTypes"] == ["NVIDIA L4"]
    assert body["gpu"]["allowedCudaVersions"] == [], "it excludes the other filter"


def test_a_model_for_runpods_cache_goes_by_the_api_that_takes_one(api: Api) -> None:
    assert run(api, "--image", "i", "--model", "https://huggingface.co/Comfy-Org/flux1-dev/tree/main") == 0
    ((method, path, sent),) = api.changes
    assert (method, path) == ("POST", "/graphql")
    assert "saveEndpoint(input: $input)" in sent["query"]
    assert sent["variables"]["input"] == {
        "name": "flux",
        "type": "QB",
        "gpuIds": "ADA_24,ADA_32_PRO,AMPERE_48,ADA_48_PRO",
        "minCudaVersion": "13.0",
        "workersMin": 0,
        "workersMax": 3,
        "idleTimeout": 10,
        "scalerType": "QUEUE_DELAY",
        "scalerValue": 4.0,
        "executionTimeoutMs": 900_000,
        "flashBootType": "FLASHBOOT",
        "modelReferences": ["Comfy-Org/flux1-dev:main"],
        "template": {
            "name": "flux",
            "imageName": "i",
            "containerDiskInGb": 20,
            "dockerArgs": "",
            "env": [{"key": "RUNPOD_INIT_TIMEOUT", "value": "800"}],
        },
    }


def test_a_model_leaves_the_rest_of_an_endpoint_as_it_is(api: Api, deployed: dict[str, Any]) -> None:
    deployed["networkVolumes"] = ["v1"]
    assert run(api, "--model", "org/name", "--max-workers", "2") == 0
    ((_, _, sent),) = api.changes
    values = sent["variables"]["input"]
    assert (values["id"], values["gpuIds"], values["gpuCount"]) == ("ep1", "ADA_24,-NVIDIA L4", 1)
    assert (values["allowedCudaVersions"], values["workersMax"], values["idleTimeout"]) == ("12.8", 2, 5)
    assert values["networkVolumeIds"] == [{"networkVolumeId": "v1"}]
    assert values["template"]["imageName"] == "you/comfyui-worker:v1"
    assert {"key": "HF_TOKEN", "value": "hf_1234"} in values["template"]["env"]


def test_a_model_that_is_refused_is_told(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(api, "--image", "i", "--model", "org/refused") == 1
    assert "RunPod's API answered: model org/refused is not accessible" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(api, "--image", "i", "--model", "no-organisation")
    assert "must be ORGANISATION/NAME or ORGANISATION/NAME:REVISION" in capsys.readouterr().err


def test_a_dry_run_prints_the_request_and_changes_nothing(
    api: Api, deployed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    deployed["env"]["DATABASE_URL"] = "postgres://u:pw@h"
    arguments = ["--env", "JOB_TIMEOUT=900", "--env", "MY_PAT=x1y2", "--secret", "R2_ACCESS_KEY_ID=r2"]
    assert run(api, "--dry-run", *arguments) == 0
    assert not api.changes
    first, _, body = capsys.readouterr().out.partition("\n")
    assert first == "PATCH /v2/serverless/ep1"
    shown = json.loads(body)["env"]
    assert (shown["MY_PAT"], shown["HF_TOKEN"], shown["DATABASE_URL"]) == ("(hidden)", "(kept)", "(kept)")
    assert body.count("hf_1234") == body.count("pw@") == body.count("x1y2") == 0
    assert shown["R2_ACCESS_KEY_ID"] == "{{ RUNPOD_SECRET_r2 }}"
    assert shown["JOB_TIMEOUT"] == "900"


ERRORS = [
    ((500, b'{"title": "Internal Server Error", "status": 500, "detail": "upstream failed"}'), "500: upstream failed"),
    ((502, b"<html>bad gateway</html>"), "answered 502, without JSON\n"),
    ((403, b'{"title": "Forbidden", "status": 403, "detail": "access denied"}'), "needs write access to Serverless"),
    ((429, b'{"title": "Too Many Requests", "status": 429, "detail": "slow down"}'), "wait a minute"),
    ((302, b"{}"), "302: no reason given"),
]


@pytest.mark.parametrize(("fault", "told"), ERRORS, ids=[str(fault[0]) for fault, _ in ERRORS])
def test_what_the_api_refuses_is_told_with_a_cure(
    api: Api, capsys: pytest.CaptureFixture[str], fault: tuple[int, bytes], told: str
) -> None:
    api.fault = fault
    assert run(api, "--image", "i") == 1
    assert told in capsys.readouterr().err


def test_what_does_not_validate_is_told_field_by_field(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    for delay in ("0.1", "0"):
        assert run(api, "--image", "i", "--queue-delay", delay) == 1
        assert "Request validation failed.; $.scaling.queueDelay: must be at least 0.5" in capsys.readouterr().err


def test_an_endpoint_of_another_kind_is_left_alone(
    api: Api, deployed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    deployed["type"] = "LOAD_BALANCER"
    assert run(api, "--image", "i") == 1
    assert "is not queue-based (LOAD_BALANCER)" in capsys.readouterr().err


def test_a_wrong_key_is_told_and_not_shown(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_wrong_key")
    assert run(api, "--image", "i") == 1
    told = capsys.readouterr()
    assert "RUNPOD_API_KEY is not accepted" in told.err
    assert "rpa_wrong_key" not in told.err + told.out


def test_no_key_no_image_nothing_to_do_and_two_of_a_name_are_told(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(api) == 1
    assert "there is no endpoint 'flux' yet: give its image" in capsys.readouterr().err
    api.endpoints += [{"id": "a", "name": "flux"}, {"id": "b", "name": "flux"}]
    assert run(api, "--image", "i") == 1
    assert "2 endpoints are called 'flux' (a, b)" in capsys.readouterr().err
    del api.endpoints[1]
    assert run(api) == 1
    assert "nothing to change" in capsys.readouterr().err
    monkeypatch.delenv("RUNPOD_API_KEY")
    assert run(api, "--image", "i") == 1
    assert "set RUNPOD_API_KEY" in capsys.readouterr().err


def test_an_api_that_does_not_answer_says_that_it_may_have_been_done(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deploy.main(["--name", "flux", "--image", "i", "--api-url", "http://127.0.0.1:1"]) == 1
    assert "does not respond (ConnectionError)\n" in capsys.readouterr().err
    runpod = deploy.RunPod("http://127.0.0.1:1", "k")
    with pytest.raises(deploy.DeployError, match="check in the console whether the change was made"):
        runpod.create({})


@pytest.mark.parametrize("text", ["MODELS", "=x", "A B=c"])
def test_a_variable_that_is_none_is_refused(api: Api, capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit):
        run(api, "--image", "i", "--env", text)
    assert "must be NAME=VALUE" in capsys.readouterr().err


def test_it_runs_as_a_script_from_anywhere(api: Api, tmp_path: Path) -> None:
    script = Path(deploy.__file__)
    command = [sys.executable, str(script), "--name", "flux", "--image", "i", "--api-url", api.url, "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.startswith("POST /v2/serverless\n")) == (0, True), done.stderr
    assert not api.changes
