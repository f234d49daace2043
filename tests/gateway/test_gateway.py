"""Prompts that come by ComfyUI's own API run on an endpoint, and everything about them is as a ComfyUI would have it."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path

import pytest
import requests
from PIL import Image

from .. import workflows
from ..endpoint.test_endpoint import Client
from ..worker_process import running
from .conftest import LONG, GatewayClient, gateway


def long_workflow(steps: int) -> workflows.Workflow:
    """A sampler with so many steps, of 20 ms each on the draft engine."""
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = steps
    return workflow


def test_a_prompt_runs_as_a_job_and_its_picture_is_served(served: GatewayClient) -> None:
    entry = served.ran(workflows.still())
    assert entry["status"]["status_str"] == "success"
    (file,) = entry["outputs"]["4"]["images"]
    picture = Image.open(io.BytesIO(served.content(file)))
    assert (picture.format, picture.size) == ("PNG", (128, 96))
    assert (served.folder / "output" / file["subfolder"] / file["filename"]).is_file()


def test_a_picture_can_be_opened_as_the_workflow_that_made_it(served: GatewayClient) -> None:
    saved = {"id": "w", "nodes": [], "links": [], "version": 0.4}
    entry = served.ran(workflows.still(), extra_data={"extra_pnginfo": {"workflow": saved}})
    (file,) = entry["outputs"]["4"]["images"]
    told = Image.open(io.BytesIO(served.content(file))).info
    assert json.loads(told["workflow"]) == saved
    assert json.loads(told["prompt"])["4"]["class_type"] == "SaveImage"


def test_texts_are_reported_by_the_node_that_shows_them(served: GatewayClient) -> None:
    outputs = served.ran(workflows.text_only())["outputs"]
    assert [ui["text"] for ui in outputs.values()]


def test_an_image_that_was_uploaded_is_used(served: GatewayClient) -> None:
    red = Image.new("RGB", (32, 16), (255, 0, 0))
    content = io.BytesIO()
    red.save(content, "PNG")
    response = requests.post(
        f"{served.url}/upload/image", files={"image": ("red.png", content.getvalue())}, timeout=LONG
    )
    name = response.json()["name"]
    workflow = {
        "1": workflows.node("LoadImage", image=name),
        "2": workflows.node("SaveImage", images=["1", 0], filename_prefix="loaded"),
    }
    (file,) = served.ran(workflow)["outputs"]["2"]["images"]
    assert Image.open(io.BytesIO(served.content(file))).convert("RGB").getpixel((5, 5)) == (255, 0, 0)
    listed = served.get("/object_info/LoadImage").json()["LoadImage"]["input"]["required"]["image"]
    assert name in str(listed)
    workflow["1"]["inputs"]["image"] = "no-such.png"
    refused = served.post("/prompt", {"prompt": workflow})
    assert refused.status_code == 400
    assert refused.json()["node_errors"]["1"]["errors"][0]["type"] == "custom_validation_failed"


def test_an_error_of_a_node_is_reported_at_the_node(served: GatewayClient) -> None:
    workflow = {**workflows.still(), "9": workflows.raising("draft")}
    with served.listening() as heard:
        entry = served.ran(workflow)
    kind, error = entry["status"]["messages"][-1]
    assert (kind, error["node_id"], error["node_type"]) == ("execution_error", "9", "SaveImage")
    assert error["exception_message"]
    assert ("execution_error", error) in heard


def test_an_interrupt_ends_the_job_on_the_endpoint_too(served: GatewayClient) -> None:
    prompt_id = served.queue(long_workflow(10_000))
    end = time.monotonic() + LONG
    while prompt_id not in str(served.get("/queue").json()["queue_running"]):
        assert time.monotonic() < end, served.process.log
        time.sleep(0.05)
    assert served.post("/interrupt", {"prompt_id": prompt_id}).status_code == 200
    entry = served.entry(prompt_id)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    while served.endpoint.get("health")["jobs"]["inProgress"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_previews_go_to_clients_that_show_them(served: GatewayClient) -> None:
    with served.listening(supports_preview_metadata=True) as heard:
        end = time.monotonic() + LONG
        while "feature_flags" not in [event[0] for event in heard]:
            assert time.monotonic() < end
            time.sleep(0.05)
        served.ran(long_workflow(100))
    frames = [frame for frame in heard if isinstance(frame, bytes)]
    assert frames
    assert all(frame[:4] == b"\0\0\0\4" and b'"node_id": "8"' in frame and b"\xff\xd8" in frame for frame in frames)
    with served.listening() as heard:
        served.ran(long_workflow(80))
    assert not [frame for frame in heard if isinstance(frame, bytes)]


def test_a_gateway_that_is_killed_in_the_middle_of_a_job_shows_its_result_later(
    endpoint: Client, tmp_path: Path
) -> None:
    with gateway(tmp_path, endpoint) as first:
        prompt_id = first.queue(long_workflow(150))
        end = time.monotonic() + LONG
        while prompt_id not in str(first.get("/queue").json()["queue_running"]):
            assert time.monotonic() < end, first.process.log
            time.sleep(0.05)
        os.kill(first.process.process.pid, signal.SIGKILL)
        first.process.process.wait()
    with gateway(tmp_path, endpoint) as second:
        entry = second.entry(prompt_id)
        assert entry["status"]["status_str"] == "success"
        (file,) = next(iter(entry["outputs"].values()))["images"]
        assert second.content(file)
        assert prompt_id not in second.process.log  # it was not run again
        assert second.get(f"/api/jobs/{prompt_id}").json()["status"] == "completed"


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--gateway"], {}, "the endpoint's id"),
        (["--gateway", "--endpoint", "abc"], {}, "RUNPOD_API_KEY is missing"),
    ],
)
def test_what_is_missing_to_start_is_told(
    arguments: list[str], environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    with running(arguments, environment, tmp_path) as process:
        assert process.process.wait(LONG) == 1
        assert said in process.log


def test_a_gateway_without_its_endpoint_says_so_and_serves_what_it_has(tmp_path: Path, served: GatewayClient) -> None:
    away = Client("http://127.0.0.1:9/v2/local", served.process)
    with gateway(tmp_path, away) as client:
        assert client.get("/settings").status_code == 200
        refused = client.get("/object_info")
        assert refused.status_code == 502
        assert "did not answer" in refused.text
