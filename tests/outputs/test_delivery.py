"""A result reaches its caller whole, as base64 or by a bucket, or the caller hears the sizes: never silence."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import requests
from PIL import Image

from src.errors import InvalidInput, WorkerError
from src.job.request import read_job
from src.settings import BucketConfig
from src.storage.bucket import Bucket

from .. import workflows
from ..conftest import Bench
from ..s3 import NAME, Storage, faulty_proxy
from ..workflows import Workflow, node


def noise(side: int, prefix: str = "noise", seed: int = 1) -> Workflow:
    """A picture that cannot be compressed: its PNG has about 3 * side * side bytes."""
    return {
        "1": node("EmptyImage", width=side, height=side, batch_size=1, color=8421504),
        "2": node("ImageAddNoise", image=["1", 0], seed=seed, strength=1.0),
        "9": node("SaveImage", images=["2", 0], filename_prefix=prefix),
    }


def large(bench: Bench) -> Workflow:
    """One whose PNG has about 40 MB; the draft engine's noise is coarser."""
    return noise(4800 if bench.name == "real" else 3700)


def with_bucket(bench: Bench, config: BucketConfig | None, **settings: Any) -> Bench:
    """The bench with a bucket."""
    runner = bench.worker.runner
    runner = replace(runner, bucket=Bucket(config) if config else None, settings=replace(runner.settings, **settings))
    return replace(bench, worker=replace(bench.worker, runner=runner))


def fetched(answer: dict[str, Any]) -> list[bytes]:
    """What the links of an answer lead to."""
    assert answer["status"] == "success", answer
    contents = []
    for entry in answer["files"]:
        reply = requests.get(entry["url"], timeout=30)
        assert reply.status_code == 200
        assert reply.headers["Content-Type"] == entry["content_type"]
        assert len(reply.content) == entry["size_bytes"]
        contents.append(reply.content)
    return contents


def test_40_megabytes_end_in_the_bucket_with_a_link_that_works(bench: Bench, storage: Storage) -> None:
    answer = with_bucket(bench, storage.config).run(workflow=large(bench))
    (content,) = fetched(answer)
    assert len(content) > 40_000_000
    assert Image.open(io.BytesIO(content)).width == large(bench)["1"]["inputs"]["width"]
    assert answer["images"] == answer["filenames"] == []
    (entry,) = answer["files"]
    assert (entry["bucket"], entry["name"], entry["type"]) == (NAME, "noise_00001_.png", "image")
    assert entry["key"].endswith("/test-job/noise_00001_.png")
    assert "as base64 the response would be" in answer["warnings"][0]
    assert answer["timings"]["upload"] > 0
    assert not bench.leftovers()


def test_without_a_bucket_40_megabytes_are_an_error_with_sizes_and_cure(bench: Bench) -> None:
    answer = bench.run(workflow=large(bench))
    assert (answer["error_code"], answer["error_type"]) == ("output_too_large", "validation")
    assert answer["size_bytes"] > 40_000_000 > answer["limit_bytes"] == 9_500_000
    assert answer["files"][0]["name"] == "noise_00001_.png"
    for cure in ("BUCKET_ENDPOINT_URL", '{"format": "webp"}', '{"may_reencode": true}'):
        assert cure in answer["error"]
    assert len(json.dumps(answer)) < 3000
    assert not bench.leftovers()


def test_a_picture_is_re_encoded_where_the_caller_allows_it(bench: Bench) -> None:
    own = with_bucket(bench, None, result_limit=1.0)
    answer = own.run(workflow=noise(700), output={"may_reencode": True})
    assert answer["filenames"] == ["noise_00001_.webp"]
    assert len(json.dumps(answer)) <= 1_000_000
    assert "re-encoded as WebP of quality" in answer["warnings"][0]
    refused = own.run(workflow=noise(3000), output={"may_reencode": True})
    assert refused["error_code"] == "output_too_large"


@pytest.mark.parametrize("wanted", ["jpeg", "webp", "avif", "png"])
def test_a_job_gets_the_format_that_it_asks_for(bench: Bench, wanted: str) -> None:
    workflow = workflows.still(color=0x336699, size=512)
    answer = bench.run(workflow=workflow, output={"format": wanted, "quality": 95, "max_side": 64})
    (picture,) = (Image.open(io.BytesIO(base64.b64decode(image))) for image in answer["images"])
    assert (picture.format, picture.size) == (wanted.upper(), (64, 48))
    assert answer["files"][0]["content_type"] == f"image/{wanted}"
    red, green, blue = picture.convert("RGB").getpixel((9, 9))  # type: ignore[misc]
    assert max(abs(red - 0xCC), abs(green - 0x99), abs(blue - 0x66)) < 5


def test_settings_are_the_default_and_a_job_may_differ(bench: Bench) -> None:
    own = with_bucket(bench, None, output_format="jpeg")
    assert own.run(workflow=workflows.still())["filenames"] == ["still_00001_.jpg"]
    assert own.run(workflow=workflows.still(), output={"format": "png"})["filenames"] == ["still_00001_.png"]


def test_a_small_result_stays_base64_although_there_is_a_bucket(bench: Bench, storage: Storage) -> None:
    answer = with_bucket(bench, storage.config).run(workflow=workflows.still())
    assert len(answer["images"]) == 1
    assert "url" not in answer["files"][0]


def test_a_job_may_want_the_bucket_or_base64(bench: Bench, storage: Storage) -> None:
    own = with_bucket(bench, storage.config, output_delivery="bucket", result_limit=0.5)
    answer = own.run(workflow=workflows.batch_of_four("sub/x"))
    assert len(fetched(answer)) == 4
    assert answer["files"][3]["key"].endswith("test-job/sub/x_00004_.png")
    assert len(own.run(workflow=workflows.still(), output={"delivery": "base64"})["images"]) == 1
    too_large = own.run(workflow=noise(700), output={"delivery": "base64"})
    assert too_large["error_code"] == "output_too_large"


def test_without_a_bucket_its_delivery_is_refused_before_the_gpu_works(bench: Bench) -> None:
    answer = bench.run(workflow=workflows.still(), output={"delivery": "bucket"})
    assert (answer["error_code"], answer["error_type"]) == ("no_bucket", "validation")
    assert "BUCKET_ENDPOINT_URL" in answer["error"]


Change = Callable[[BucketConfig], BucketConfig]
WRONG: dict[str, tuple[Change, str]] = {
    "wrong key": (lambda config: replace(config, access_key_id="AKIANOBODY"), "BUCKET_ACCESS_KEY_ID"),
    "wrong secret": (lambda config: replace(config, secret_access_key="no"), "BUCKET_SECRET_ACCESS_KEY"),
    "missing bucket": (lambda config: replace(config, name="absent-bucket"), "BUCKET_NAME"),
    "nobody there": (lambda config: replace(config, endpoint_url="http://127.0.0.1:9"), "BUCKET_ENDPOINT_URL"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_bucket_that_is_wrong_is_found_before_the_gpu_works(
    draft_bench: Bench, strict_storage: Storage, change: Change, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = with_bucket(draft_bench, change(strict_storage.config))
    answer = own.run(workflow=workflows.still(), output={"delivery": "bucket"})
    assert answer["error_code"] == "bucket_failed"
    assert said in answer["error"]
    assert "prompt_id" not in answer
    assert own.run(workflow=workflows.still())["status"] == "success", "jobs that need no bucket go on"
    caplog.clear()
    own.worker.runner.check_bucket()  # what a worker does when it boots
    assert any(said in record.message and record.levelname == "ERROR" for record in caplog.records)
    assert strict_storage.config.secret_access_key not in caplog.text


def test_an_upload_that_fails_falls_back_on_base64_if_that_fits(draft_bench: Bench, storage: Storage) -> None:
    with faulty_proxy(storage.config.endpoint_url) as proxy:
        own = with_bucket(draft_bench, replace(storage.config, endpoint_url=proxy.url), result_limit=1.0)
        own.worker.runner.check_bucket()
        proxy.cut = 10**6
        answer = own.run(workflow=workflows.still(), output={"delivery": "bucket"})
        assert len(answer["images"]) == 1
        assert "the files are returned as base64 instead" in answer["warnings"][0]
        lost = own.run(workflow=noise(700))
        assert lost["error_code"] == "bucket_failed"


@pytest.mark.parametrize("faults", [{"refuse": 2}, {"cut": 2}, {"pause": 0.5}])
def test_a_bad_line_costs_no_result(draft_bench: Bench, storage: Storage, faults: dict[str, Any]) -> None:
    with faulty_proxy(storage.config.endpoint_url) as proxy:
        own = with_bucket(draft_bench, replace(storage.config, endpoint_url=proxy.url))
        own.worker.runner.check_bucket()
        for name, value in faults.items():
            setattr(proxy, name, value)
        answer = own.run(workflow=workflows.batch_of_four(), output={"delivery": "bucket"})
        assert [entry["name"] for entry in answer["files"]] == [f"batch_0000{n}_.png" for n in (1, 2, 3, 4)]
        assert all("url" in entry for entry in answer["files"])


def test_a_caller_may_bring_a_bucket_of_their_own(draft_bench: Bench, storage: Storage) -> None:
    host = storage.config.endpoint_url.removeprefix("http://")
    theirs = {"endpointUrl": storage.config.endpoint_url, "accessId": "any", "accessSecret": "any", "bucketName": NAME}
    job = {"id": "their-job", "input": {"workflow": workflows.still()}, "s3Config": theirs}
    refused = draft_bench.handle(job)
    assert refused["error_code"] == "bucket_failed"
    assert "s3Config.endpointUrl: the URL must begin with https://" in refused["error"]
    answer = with_bucket(draft_bench, None, trusted_hosts=(host,)).handle(job)
    assert len(fetched(answer)) == 1
    assert "/their-job/" in answer["files"][0]["key"]
    for broken in ({}, "x", {**theirs, "accessId": 5}):
        with pytest.raises(InvalidInput, match="s3Config must have the strings endpointUrl"):
            read_job({**job, "s3Config": broken})


def test_metadata_is_as_the_job_wants_it(bench: Bench) -> None:
    def texts(**output: Any) -> dict[str, str]:
        answer = bench.run(workflow=workflows.still(), extra_pnginfo={"workflow": {"nodes": []}}, output=output)
        picture = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
        picture.load()
        return dict(picture.text)  # type: ignore[attr-defined]

    assert texts() == {}
    told = texts(metadata=True)
    assert json.loads(told["prompt"]) == workflows.still(), "as it came, without any folder of the worker"
    assert json.loads(told["workflow"]) == {"nodes": []}


def test_secrets_of_a_job_are_in_no_message(draft_bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    theirs = {
        "endpointUrl": "https://127.0.0.1:9",
        "accessId": "IDSECRET",
        "accessSecret": "KEYSECRET",
        "bucketName": "b",
    }
    fields = {"workflow": workflows.still(), "comfy_org_api_key": "ORGSECRET"}
    answer = draft_bench.handle({"id": "x", "input": fields, "s3Config": theirs})
    request = read_job({"id": "x", "input": fields, "s3Config": theirs})
    seen = json.dumps(answer) + caplog.text + repr(request)
    for secret in ("KEYSECRET", "ORGSECRET"):
        assert secret not in seen
    assert isinstance(answer["error"], str)
    assert WorkerError("x").error_code == "internal_error"
