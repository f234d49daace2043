"""Clients of worker-comfyui, Salad's and ashleykleynhans' workers against a local endpoint, as their contracts say.

worker-comfyui: `output.images[0]` is read on every poll of /status, then `filename`, `type` and `data`; a failed job has
a text in `error` and a list in `details`. The other two: `images` is a list of base64.
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.clients import in_answer_format

from .. import workflows
from ..conftest import Bench, booted, settings_for
from ..endpoint.test_endpoint import Client, long_job, serving
from ..s3 import Storage, storage
from ..workflows import node

__all__ = ["storage"]  # a fixture
LONG = 45.0  # a hang limit
PIXEL = "data:image/png;base64," + base64.b64encode(workflows.png(8)).decode()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An endpoint whose answers are in the format of worker-comfyui."""
    with serving(tmp_path_factory.mktemp("endpoint"), ANSWER_FORMAT="worker-comfyui") as served:
        served.wait_for_workers(1)
        yield served


def first_image(client: Client, job_input: Any) -> dict[str, Any]:
    """As a client that reads `output.images[0]` of every poll, whatever the status."""
    job_id, end = client.run(job_input), time.monotonic() + LONG
    while time.monotonic() < end:
        output = client.get(f"status/{job_id}").get("output")
        if output and (image := next(iter(output["images"]), None)):
            return dict(image)
        time.sleep(0.1)
    raise AssertionError("no image came")


def opened(image: dict[str, Any]) -> Any:
    """The picture in an entry of `images`."""
    assert image.keys() == {"filename", "type", "data"}
    assert image["type"] == "base64"
    return Image.open(io.BytesIO(base64.b64decode(image["data"], validate=True)))


def test_a_client_that_polls_for_images_gets_its_picture(client: Client) -> None:
    image = first_image(client, {"workflow": workflows.still(prefix="sd3/sd3")})
    assert image["filename"] == "sd3_00001_.png"
    assert opened(image).size == (128, 96)


def test_it_survives_the_polls_of_a_job_that_takes_a_while(client: Client) -> None:
    assert opened(first_image(client, long_job(60))).size == (64, 64)
    job_id = client.run(long_job())
    progress = client.until(job_id, lambda status: "output" in status)
    assert progress["output"]["images"] == []
    client.post(f"cancel/{job_id}")
    assert client.ended(job_id)["status"] == "CANCELLED"


@pytest.mark.parametrize("shape", ["text", "prompt", "body", "workflow text"])
def test_a_job_of_any_shape_may_ask_for_the_format(draft_bench: Bench, shape: str) -> None:
    output = {"answer": "worker-comfyui"}
    given: Any = {
        "text": json.dumps({"workflow": workflows.still(), "output": output}),
        "prompt": {"workflow": {"prompt": workflows.still(), "output": output}},
        "body": {"input": {"workflow": workflows.still(), "output": output}},
        "workflow text": {"workflow": json.dumps({"workflow": workflows.still(), "output": output})},
    }[shape]
    assert draft_bench.handle({"id": "x", "input": given})["images"][0].keys() == {"filename", "type", "data"}


def test_the_input_may_be_a_json_text(client: Client) -> None:
    assert opened(first_image(client, json.dumps({"workflow": workflows.still()}))).size == (128, 96)


def test_what_fails_has_an_error_and_details(client: Client) -> None:
    broken = workflows.generative()
    (sampler,) = (part for part in broken.values() if part["class_type"] == "KSampler")
    sampler["inputs"]["steps"] = 0
    sampler["inputs"]["cfg"] = "many"
    status = client.ended(client.run({"workflow": broken}))
    assert status["status"] == "FAILED"
    assert "steps must be at least 1" in status["error"]
    assert len(status["output"]["details"]) == 2
    assert all(isinstance(detail, str) for detail in status["output"]["details"])
    assert "images" not in status["output"]
    status = client.ended(client.run({"workflow": {}}))
    assert "no nodes" in status["error"]
    assert status["output"]["details"] == [status["error"]]


def test_a_run_without_pictures_says_so(client: Client) -> None:
    output = client.ended(client.run({"workflow": workflows.text_only()}))["output"]
    assert (output["status"], output["images"], output["text"]) == ("success_no_images", [], ["HELLO WORLD"])


def test_files_of_all_kinds_are_images_there(client: Client) -> None:
    output = client.ended(client.run({"workflow": workflows.animated_webp()}))["output"]
    (animation,) = output["images"]
    assert opened(animation).n_frames == 8
    assert "files" not in output


def test_a_job_may_ask_for_the_format(client: Client, draft_bench: Bench) -> None:
    still = workflows.still()
    own = client.ended(client.run({"workflow": still, "output": {"answer": "standard"}}))["output"]
    assert isinstance(own["images"][0], str)
    theirs = draft_bench.run(workflow=still, output={"answer": "worker-comfyui"})
    assert theirs["images"][0].keys() == {"filename", "type", "data"}
    assert draft_bench.run(workflow=5, output={"answer": "worker-comfyui"}).keys() >= {"error", "details"}
    assert "output.answer must be one of" in draft_bench.run(workflow=still, output={"answer": "salad"})["error"]
    assert draft_bench.run(workflow=still, action="validate", output={"answer": "worker-comfyui"})["valid"]


def test_everything_goes_to_the_bucket_where_one_is_set(storage: Storage) -> None:
    config = storage.config
    of_storage = {
        "bucket_endpoint_url": config.endpoint_url, "bucket_access_key_id": config.access_key_id,
        "bucket_secret_access_key": config.secret_access_key, "bucket_name": config.name,
        "answer_format": "worker-comfyui",
    }  # fmt: skip
    with booted("draft", settings_for("draft", None, **of_storage)) as bench:
        answer = bench.run(workflow=workflows.still())
        (image,) = answer["images"]
        assert (image["type"], image["filename"]) == ("s3_url", "still_00001_.png")
        assert image["data"].startswith(f"{config.endpoint_url}/")
        inline = bench.run(workflow=workflows.still(), output={"delivery": "base64"})
        assert inline["images"][0]["type"] == "base64"


def test_what_was_saved_before_a_node_failed_comes_with_errors(bench: Bench) -> None:
    workflow = {**workflows.still(), "9": workflows.raising(bench.name)}
    if bench.name == "real":  # so long a way that the picture is saved first
        workflow["8"] = node("ImageScaleBy", image=["2", 0], upscale_method="bicubic", scale_by=1.5)
        workflow["9"]["inputs"]["image"] = ["8", 0]
        workflow["10"] = node("SaveImage", images=["9", 0], filename_prefix="never")
    failed = bench.run(workflow=workflow)
    assert failed["error_code"] == "node_execution_error"
    if bench.name == "real":
        workflow["8"]["inputs"]["scale_by"] = 2.0  # not from ComfyUI's cache
    partial = bench.run(workflow=workflow, output={"answer": "worker-comfyui"})
    assert opened(partial["images"][0]).size == (128, 96)
    assert "NOPE" in partial["errors"][0]
    alone = {number: entry for number, entry in workflow.items() if entry["inputs"].get("filename_prefix") != "still"}
    assert bench.run(workflow=alone, output={"answer": "worker-comfyui"})["error"]


def test_salads_and_ashleykleynhans_clients_read_a_list_of_base64(tmp_path: Path) -> None:
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "txt2img.json").write_text(json.dumps(workflows.generative()))
    fields = {
        "prompt": "a cat",
        "negative_prompt": "",
        "seed": 5,
        "steps": 2,
        "cfg_scale": 1,
        "width": 64,
        "height": 96,
    }
    by_url = {"1": node("LoadImage", image=PIXEL), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    with serving(tmp_path, WORKFLOWS_DIR=str(folder)) as served:
        served.wait_for_workers(1)
        for job_input, size in (
            (
                {
                    "prompt": workflows.still(),
                    "id": "a",
                    "convert_output": {"format": "jpg", "options": {"quality": 80}},
                },
                (128, 96),
            ),
            ({"prompt": by_url, "client_id": "c"}, (8, 8)),
            ({"workflow": "custom", "payload": workflows.still()}, (128, 96)),
            ({"workflow": "txt2img", "payload": fields}, (64, 96)),
        ):
            output = served.post("runsync", {"input": job_input}).json()["output"]
            pictures = [Image.open(io.BytesIO(base64.b64decode(image))) for image in output["images"]]
            assert [picture.size for picture in pictures] == [size], output
            assert len(output["filenames"]) == 1
        status = served.post("runsync", {"input": {"prompt": {}, "id": "a"}}).json()
        assert (status["status"], "no nodes" in status["error"]) == ("FAILED", True)


def test_a_video_is_an_image_there(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("the draft engine makes no videos")
    frames = {"1": node("EmptyImage", width=64, height=64, batch_size=4, color=255)}
    saver = node("SaveWEBM", images=["1", 0], filename_prefix="v/clip", codec="vp9", fps=4, crf=40)
    answer = bench.run(workflow={**frames, "2": saver}, output={"answer": "worker-comfyui"})
    (video,) = answer["images"]
    assert video["filename"].startswith("clip_") and video["filename"].endswith(".webm")
    assert base64.b64decode(video["data"]).startswith(b"\x1a\x45\xdf\xa3")


def test_an_answer_that_is_not_of_a_run_stays_as_it_is() -> None:
    info = {"status": "success", "engine": "x"}
    assert in_answer_format(info, "worker-comfyui") == info
    retiring = {"status": "error", "error": "e", "error_code": "c", "error_type": "internal", "refresh_worker": True}
    assert in_answer_format(retiring, "worker-comfyui")["refresh_worker"] is True


def test_a_worker_may_be_new_for_each_job(tmp_path: Path) -> None:
    with serving(tmp_path, REFRESH_WORKER="true") as served:
        served.wait_for_workers(1)
        refused = [served.run({"workflow": {}}) for _ in range(2)]
        jobs = [*refused, *(served.run({"workflow": workflows.still(size=256)}) for _ in range(3))]
        ended = [served.ended(job_id) for job_id in jobs]
    assert [status["status"] for status in ended] == ["FAILED"] * 2 + ["COMPLETED"] * 3
    workers = [status["workerId"] for status in ended]
    assert workers[0] == workers[1] == workers[2], "a job that is refused leaves nothing"
    assert len(set(workers[2:])) == 3


def test_an_answer_says_that_the_worker_is_to_be_new(draft_bench: Bench) -> None:
    runner = draft_bench.worker.runner
    settings = replace(runner.settings, refresh_worker=True)
    worker = replace(draft_bench.worker, runner=replace(runner, settings=settings))
    renewed = replace(draft_bench, worker=worker)
    still = workflows.still()
    assert renewed.run(workflow=still)["refresh_worker"] is True
    assert renewed.run(workflow=still, output={"answer": "worker-comfyui"})["refresh_worker"] is True
    refused: list[dict[str, Any]] = [{"action": "info"}, {"workflow": {}}, {"workflow": still, "action": "validate"}]
    for fields in refused:
        assert "refresh_worker" not in renewed.run(**fields)
