"""The description of the API that a local endpoint serves: valid, complete, and good enough to make a client from."""

from __future__ import annotations

import base64
import importlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
from openapi_spec_validator import validate
from PIL import Image

from src.endpoint.openapi import openapi
from src.job.examples import example_inputs
from src.settings import Settings

from .. import editor_files, workflows
from .test_endpoint import KEY, LONG, Client, serving

HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An endpoint with a stored workflow of its own."""
    folder = tmp_path_factory.mktemp("endpoint")
    (folder / "stored").mkdir()
    (folder / "stored" / "still.json").write_text(json.dumps(workflows.still()))
    with serving(folder, WORKFLOWS_DIR=str(folder / "stored")) as served:
        served.wait_for_workers(1)
        yield served


def document_of(client: Client) -> dict[str, Any]:
    """What it serves."""
    response = requests.get(client.url.replace("/v2/local", "/openapi.json"), headers=HEADERS, timeout=LONG)
    document: dict[str, Any] = response.json()
    return document


@pytest.fixture(scope="module")
def generated(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A client that openapi-python-client has made from the description."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(document_of(client)))
    command = ["generate", "--path", "openapi.json", "--output-path", "generated_client", "--meta", "none"]
    made = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *command, "--fail-on-warning"],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    yield importlib.import_module("generated_client")
    sys.path.remove(str(folder))


def test_the_description_is_valid_and_has_each_stored_workflow_as_an_example(client: Client) -> None:
    document = document_of(client)
    validate(document)
    for route in ("/run", "/runsync"):
        examples = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]["examples"]
        assert examples["still"]["value"]["input"] == {"workflow": "still", **EDITABLE_OF_STILL}
        assert examples["workflow_api_format"]["value"]["input"]["seed"] == 1001


EDITABLE_OF_STILL = {"width": 64, "height": 64, "batch_size": 1}


def test_every_example_runs_as_it_stands(client: Client) -> None:
    for example in document_of(client)["paths"]["/run"]["post"]["requestBody"]["content"]["application/json"][
        "examples"
    ].values():
        status = client.post("runsync", example["value"]).json()
        assert status["status"] == "COMPLETED", status


def test_every_route_of_clients_is_described(client: Client) -> None:
    described = {path.split("/")[1] for path in document_of(client)["paths"]}
    assert described == {"run", "runsync", "status", "cancel", "retry", "stream", "health", "purge-queue"}


def test_stored_workflows_are_shown_only_to_who_has_the_key(client: Client) -> None:
    url = client.url.replace("/v2/local", "/openapi.json")
    assert requests.get(url, timeout=LONG).status_code == 401
    assert requests.get(url, headers={"Authorization": "Bearer wrong"}, timeout=LONG).status_code == 401


def test_workflows_of_the_editor_are_examples_too_and_unreadable_ones_are_only_named(tmp_path: Path) -> None:
    (tmp_path / "saved.json").write_text(json.dumps(editor_files.generative()))
    (tmp_path / "broken.json").write_text("{")
    examples = example_inputs(Settings(workflows_dir=str(tmp_path)))
    assert examples["broken"] == {"workflow": "broken"}
    assert examples["saved"].keys() > {"workflow", "prompt", "seed"}
    validate(openapi(examples))


def test_a_generated_client_runs_a_job(client: Client, generated: ModuleType) -> None:
    models = importlib.import_module("generated_client.models")
    runsync = importlib.import_module("generated_client.api.jobs.runsync")
    with generated.AuthenticatedClient(base_url=client.url, token=KEY, timeout=LONG) as api:
        wanted = models.JobInput.from_dict(
            {"workflow": "workflow_api_format", "prompt": "a cat", "width": 256, "height": 256}
        )
        job = runsync.sync(client=api, body=models.JobRequest(input_=wanted))
        assert job.status is models.JobStatus.COMPLETED
        assert isinstance(job.output, models.Success)
        with Image.open(io.BytesIO(base64.b64decode(job.output.images[0]))) as image:
            assert image.size == (256, 256)


def test_a_generated_client_queues_a_job_and_reads_why_it_failed(client: Client, generated: ModuleType) -> None:
    models = importlib.import_module("generated_client.models")
    run, status = (importlib.import_module(f"generated_client.api.jobs.{name}") for name in ("run", "status"))
    with generated.AuthenticatedClient(base_url=client.url, token=KEY, timeout=LONG) as api:
        wanted = models.JobInput.from_dict({"workflow": "nowhere", "seed": 5})
        queued = run.sync(client=api, body=models.JobRequest(input_=wanted))
        client.ended(queued.id)
        job = status.sync(queued.id, client=api)
        assert job.status is models.JobStatus.FAILED
        assert job.output.error_code == "workflow_not_found"
        refused = status.sync("nobody", client=api)
        assert isinstance(refused, models.Refusal)
        assert "no job" in refused.error


def test_a_generated_client_reads_progress(client: Client, generated: ModuleType) -> None:
    models = importlib.import_module("generated_client.models")
    run, status, cancel = (
        importlib.import_module(f"generated_client.api.jobs.{name}") for name in ("run", "status", "cancel")
    )
    with generated.AuthenticatedClient(base_url=client.url, token=KEY, timeout=LONG) as api:
        wanted = models.JobInput.from_dict({"workflow": "workflow_api_format", "steps": 5000, "seed": "random"})
        queued = run.sync(client=api, body=models.JobRequest(input_=wanted))
        output: Any = None
        for _ in range(600):
            output = status.sync(queued.id, client=api).output
            if isinstance(output, models.Progress) and isinstance(output.steps, int):
                break
            time.sleep(0.05)
        assert output.steps == 5000
        cancel.sync(queued.id, client=api)


def test_the_page_asks_for_the_key_and_says_what_to_do_without_swagger_ui(client: Client, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.route("https://**", lambda route: route.abort())
    page.goto(client.url.replace("/v2/local", "/docs"))
    page.get_by_label("SERVE_API_KEY").fill("wrong")
    page.get_by_role("button", name="Show the API").click()
    page.get_by_text("The key is wrong.").wait_for()
    page.get_by_label("SERVE_API_KEY").fill(KEY)
    page.get_by_role("button", name="Show the API").click()
    page.get_by_text("could not be loaded from cdn.jsdelivr.net").wait_for()
    assert page.get_by_role("link", name="openapi.json").is_visible()
    context.close()
