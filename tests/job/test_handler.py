"""Bad input gets a clean answer: validation, no traceback, no path, and fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from src.job import handler as job_handler

from .. import workflows
from ..conftest import Bench, booted, settings_for
from ..workflows import node

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
STILL = workflows.still()
FLUX = workflows.flux()


def deep(levels: int) -> dict[str, Any]:
    """An object in an object in an object …"""
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


# Job, and a part of the message that it must get.
BAD_JOBS: dict[str, tuple[Any, str]] = {
    "no job": (None, "the job must be an object"),
    "an empty job": ({}, "input must be an object"),
    "input null": ({"input": None}, "not null"),
    "input a list": ({"input": []}, "not a list"),
    "input a string of JSON": ({"input": '{"workflow": {}}'}, "has no nodes"),
    "input a string of garbage": ({"input": "\x00{{"}, "input is a string that is not valid JSON"),
    "input a string of a list": ({"input": "[]"}, "input must be an object"),
    "no workflow": ({"input": {"prompt": "x"}}, "no workflow"),
    "workflow empty": ({"input": {"workflow": {}}}, "has no nodes"),
    "workflow a list": ({"input": {"workflow": [1]}}, "not a list"),
    "workflow a number": ({"input": {"workflow": 7}}, "not a number"),
    "GUI format, old export": (
        {"input": {"workflow": {"last_node_id": 9, "last_link_id": 9, "nodes": [], "links": [], "version": 0.4}}},
        "Export (API)",
    ),
    "GUI format, new export": (
        {"input": {"workflow": {"id": "0b", "revision": 0, "last_node_id": 9, "nodes": [{"id": 1}], "links": []}}},
        "Export (API)",
    ),
    "the body of /prompt, of no nodes": ({"input": {"workflow": {"prompt": {}}}}, "has no nodes"),
    "node not an object": ({"input": {"workflow": {"1": "EmptyImage"}}}, "node '1' must be an object"),
    "node without class_type": ({"input": {"workflow": {"1": {"inputs": {}}}}}, "no class_type"),
    "node without inputs": ({"input": {"workflow": {"1": {"class_type": "EmptyImage"}}}}, "no inputs"),
    "node id not a string": ({"input": {"workflow": {1: node("EmptyImage")}}}, "node ids must be strings"),
    "link to a missing node": (
        {"input": {"workflow": {**STILL, "4": node("SaveImage", images=["99", 0], filename_prefix="x")}}},
        "'99', which the workflow does not have",
    ),
    "link to a missing node, undeclared": ({"input": {"workflow": {**STILL, "5": node("X", any=["99", 0])}}}, "'99'"),
    "self link": ({"input": {"workflow": {"1": node("ImageInvert", image=["1", 0])}}}, "cycle"),
    "cycle": (
        {"input": {"workflow": {"1": node("A", image=["2", 0]), "2": node("B", image=["1", 0])}}},
        "1 (A), 2 (B)",
    ),
    "a chain too long for ComfyUI": (
        {"input": {"workflow": {"0": node("A"), **{str(n): node("A", a=[str(n - 1), 0]) for n in range(1, 1500)}}}},
        "in one chain",
    ),
    "prompt not a string": ({"input": {"workflow": FLUX, "prompt": 5}}, "prompt must be a string"),
    "prompt a lone surrogate": ({"input": {"workflow": FLUX, "prompt": "\ud83d"}}, "prompt must be a string"),
    "a field name with a lone surrogate": ({"input": {"workflow": FLUX, "\ud800": 1}}, "printable strings"),
    "a link whose node id is a number": ({"input": {"workflow": {**STILL, "2": node("ImageInvert", image=[1, 0])}}}, '["1", 0]'),
    "an absolute file name in a pack's loader": ({"input": {"workflow": {"1": node("VHS_LoadAudio", audio_file="/etc/passwd")}}}, "inside"),
    "an action that is none": ({"input": {"workflow": FLUX, "action": "dance"}}, "action must be one of run, validate, info"),
    "steps zero": ({"input": {"workflow": FLUX, "steps": 0}}, "steps must be a whole number from 1 to 10000, not 0"),
    "steps a float": ({"input": {"workflow": FLUX, "steps": 1.5}}, "not 1.5"),
    "cfg NaN": ({"input": {"workflow": FLUX, "cfg": float("nan")}}, "cfg must be a number from 0 to 100, not nan"),
    "denoise over one": ({"input": {"workflow": FLUX, "denoise": 1.1}}, "denoise must be a number from 0 to 1, not 1.1"),
    "sampler_name a number": ({"input": {"workflow": FLUX, "sampler_name": 1}}, "sampler_name must be the name of a sampler"),
    "loras no list": ({"input": {"workflow": FLUX, "loras": "a"}}, "loras must be a list"),
    "a lora without a name": ({"input": {"workflow": FLUX, "loras": [{"strength": 1}]}}, "loras[0].name is missing"),
    "a lora with a text for its strength": ({"input": {"workflow": FLUX, "loras": [{"name": "a", "strength": "strong"}]}}, "loras[0].strength must be a number from -100 to 100, not 'strong'"),
    "a lora with a part that is none": ({"input": {"workflow": FLUX, "loras": [{"name": "a", "weight": 1}]}}, "loras[0] has no field 'weight'; it has name, strength, strength_clip"),
    "21 loras": ({"input": {"workflow": FLUX, "loras": [{"name": "a"}] * 21}}, "at most 20"),
    "overrides no object": ({"input": {"workflow": FLUX, "overrides": []}}, "overrides must be an object like"),
    "overrides of a node that is none": ({"input": {"workflow": FLUX, "overrides": {"99": {"inputs": {}}}}}, "no node '99'"),
    "images no list": ({"input": {"workflow": FLUX, "images": {}}}, "images must be a list; each entry"),
    "an image that is a text": ({"input": {"workflow": FLUX, "images": ["abc"]}}, "images[0] must be"),
    "an image without a name": ({"input": {"workflow": FLUX, "images": [{"image": "AAAA"}]}}, "images[0].name is missing"),
    "an image without content": ({"input": {"workflow": FLUX, "images": [{"name": "a.png"}]}}, "images[0] ('a.png') must have one of image, data or url, not none of them"),
    "an image with two contents": ({"input": {"workflow": FLUX, "images": [{"name": "a.png", "data": "AAAA", "url": "https://x"}]}}, "not several"),
    "an image whose content is a number": ({"input": {"workflow": FLUX, "images": [{"name": "a.png", "image": 5}]}}, "images[0].image must be a string"),
    "an image that is none": ({"input": {"workflow": FLUX, "images": [{"name": "a.png", "image": "%%%"}]}}, "not base64, a data URI or a URL"),
    "an image by a private URL": ({"input": {"workflow": FLUX, "images": [{"name": "a.png", "url": "https://169.254.169.254/"}]}}, "private address"),
    "output no object": ({"input": {"workflow": FLUX, "output": "png"}}, "output must be an object like"),
    "a format that is none": ({"input": {"workflow": FLUX, "output": {"format": "bmp"}}}, "output.format must be one of png, jpeg, webp, avif, original, not 'bmp'"),
    "a quality that is none": ({"input": {"workflow": FLUX, "output": {"quality": 0}}}, "output.quality must be a whole number from 1 to 100, not 0"),
    "a background that is none": ({"input": {"workflow": FLUX, "output": {"background": "white"}}}, "output.background must be a colour like"),
    "a delivery that is none": ({"input": {"workflow": FLUX, "output": {"delivery": "mail"}}}, "output.delivery must be one of auto, base64, bucket"),
    "an option that is none": ({"input": {"workflow": FLUX, "output": {"formatt": "png"}}}, "output has no field 'formatt'; it has format, quality"),
    "metadata no boolean": ({"input": {"workflow": FLUX, "output": {"metadata": "yes"}}}, "output.metadata must be true or false"),
    "a node id that is a list": ({"input": {"workflow": FLUX, "steps": 3, "steps_node_id": ["17"]}}, "steps_node_id must be the id of a node"),
    "extra_pnginfo no object": ({"input": {"workflow": FLUX, "extra_pnginfo": []}}, "extra_pnginfo must be an object like"),
    "s3Config without keys": ({"input": {"workflow": FLUX}, "s3Config": {"bucketName": "x"}}, "s3Config must have the strings endpointUrl"),
    "a stored workflow that is none": ({"input": {"workflow": "nope"}}, "there is no stored workflow 'nope'"),
    "seed 2^64": ({"input": {"workflow": FLUX, "seed": 2**64}}, "seed must be a whole number from 0 to 18446744073709551615"),
    "seed of 5,000 digits": ({"input": {"workflow": FLUX, "seed": 10**5000}}, "more than 60 digits"),
    "seed a float": ({"input": {"workflow": FLUX, "seed": 1.5}}, "not 1.5"),
    "seed a bool": ({"input": {"workflow": FLUX, "seed": True}}, "not true"),
    "seed a string": ({"input": {"workflow": FLUX, "seed": "seven"}}, "not 'seven'"),
    "seed in quotes, too large": ({"input": {"workflow": FLUX, "seed": str(2**64)}}, "not 18446744073709551616"),
    "seed NaN": ({"input": {"workflow": FLUX, "seed": float("nan")}}, "not nan"),
    "width 0": ({"input": {"workflow": FLUX, "width": 0, "height": 64}}, "width must be a multiple of 8 between 16 and 16384, not 0"),
    "width 7": ({"input": {"workflow": FLUX, "width": 7, "height": 64}}, "not 7"),
    "width 1001": ({"input": {"workflow": FLUX, "width": 1001, "height": 64}}, "not 1001"),
    "width 10^9": ({"input": {"workflow": FLUX, "width": 10**9, "height": 64}}, "not 1000000000"),
    "width without height": ({"input": {"workflow": FLUX, "width": 512}}, "height is missing"),
    "height without width": ({"input": {"workflow": FLUX, "height": 512}}, "width is missing"),
    "prompt node that does not exist": ({"input": {"workflow": FLUX, "prompt": "x", "prompt_node_id": "99"}}, "no node '99'"),
    "prompt node that does not fit": ({"input": {"workflow": FLUX, "prompt": "x", "prompt_node_id": "9"}}, "9 (SaveImage) does not accept a prompt"),
    "seed node that does not fit": ({"input": {"workflow": FLUX, "seed": 1, "seed_node_id": "6"}}, "25 (RandomNoise)"),
    "size node that does not fit": ({"input": {"workflow": FLUX, "width": 64, "height": 64, "size_node_id": 6}}, "27 (EmptySD3LatentImage)"),
    "a 50 MB workflow": ({"input": {"workflow": {"1": node("A", text="x" * 50_000_000)}}}, "larger than 20 MB"),
    "a workflow 10,000 levels deep": ({"input": {"workflow": {"1": node("A", a=deep(10_000))}}}, "nested deeper"),
    "a workflow with a lone surrogate": ({"input": {"workflow": {"1": node("A", text="\udc00")}}}, "surrogate"),
    "a node id with a lone surrogate": ({"input": {"workflow": {"\udc00": node("A")}}}, "surrogate"),
    "a workflow with NaN": ({"input": {"workflow": {"1": node("A", x=float("nan"))}}}, "not a JSON number"),
    "a workflow with a huge number": ({"input": {"workflow": {"1": node("A", x=10**100)}}}, "64 bits"),
    "a file name that leaves the folder": ({"input": {"workflow": {"1": node("LoadImage", image="../../etc/passwd")}}}, "inside ComfyUI's own folder"),
    "an input's name that is none": ({"input": {"workflow": {"1": node("LoadImage", **{"a" * 1001: 1})}}}, "longer than 1000 characters"),
    "an absolute file name": ({"input": {"workflow": {"1": node("LoadImage", image="/etc/passwd")}}}, "inside ComfyUI's own folder"),
    "a prefix that leaves the folder": ({"input": {"workflow": {"1": node("SaveImage", filename_prefix="../x")}}}, "filename_prefix must be"),
}  # fmt: skip


@pytest.mark.parametrize(("job", "said"), BAD_JOBS.values(), ids=BAD_JOBS.keys())
def test_bad_input_gets_a_clean_validation_answer(draft_bench: Bench, job: Any, said: str) -> None:
    answer = draft_bench.handle(job)
    encoded = json.dumps(answer, allow_nan=False).encode("utf-8")
    assert (answer["status"], answer["error_type"]) == ("error", "validation")
    assert said in answer["error"]
    assert isinstance(answer["execution_time_seconds"], float)
    assert len(encoded) < 10_000
    for secret in ("Traceback", str(Path(__file__).parents[2]), str(Path.home())):
        assert secret not in encoded.decode()


def test_deep_json_in_a_field_nobody_reads_is_ignored(draft_bench: Bench) -> None:
    answer = draft_bench.run(workflow=STILL, extra=deep(10_000))
    assert answer["status"] == "success"


def test_an_unknown_field_is_ignored_with_a_warning_that_names_the_near_one(draft_bench: Bench) -> None:
    answer = draft_bench.run(workflow=STILL, widht=64)
    assert answer["warnings"] == ["input field 'widht' is not known and was ignored; did you mean 'width'?"]


def test_null_is_as_good_as_nothing_and_odd_parts_of_files_are_told(draft_bench: Bench) -> None:
    nothing = dict.fromkeys(("prompt", "seed", "images", "files", "output", "loras", "overrides", "steps"))
    assert "warnings" not in draft_bench.run(workflow=STILL, **nothing)
    odd = [{"name": "a.png", "image": PNG, "type": "input"}]
    answer = draft_bench.run(workflow=STILL, images=odd, steps_node_id="4")
    assert answer["warnings"] == [
        "images[0] also has 'type', which was ignored",
        "steps_node_id was not used: the job has no steps",
        "images[0] (a.png) was not used: no node uses this name",
    ]


def test_a_workflow_that_only_previews_says_why_there_is_no_image(draft_bench: Bench) -> None:
    answer = draft_bench.run(workflow={"1": STILL["1"], "2": node("PreviewImage", images=["1", 0])})
    assert answer["images"] == []
    assert answer["warnings"] == [
        "the workflow ran, but none of its nodes saved a file; its previews (1) are left out: output.previews returns them"
    ]


def test_a_handler_without_engine_says_how_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setattr(job_handler, "_worker", None)
    answer = asyncio.run(job_handler.handler({"input": {"workflow": STILL}}))
    assert "python serverless_worker.py" in answer["error"]


def test_an_answer_over_the_limit_is_an_error_that_names_sizes_and_remedy(draft_bench: Bench) -> None:
    noisy = workflows.still(size=64)
    noisy["3"] = node("ImageAddNoise", image=["5", 0], seed=1, strength=1.0)
    noisy["5"] = node("EmptyImage", width=512, height=512, batch_size=1, color=0)
    with booted("draft", settings_for("draft", result_limit=0.5)) as bench:
        answer = bench.run(workflow=noisy)
        assert answer["error_code"] == "output_too_large"
        assert "over the limit of 0.5 MB" in answer["error"]
        assert answer["size_bytes"] > answer["limit_bytes"] == 500_000
        assert bench.run(workflow=workflows.still())["status"] == "success"
        assert not [file for file in bench.leftovers() if file.endswith(".png")]


def test_an_unexpected_error_tells_the_caller_nothing_of_the_inside(
    draft_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job: object) -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr(job_handler, "read_job", fail)
    answer = draft_bench.run(workflow=STILL)
    assert (answer["error_type"], answer["error_code"]) == ("internal", "internal_error")
    assert "secret" not in json.dumps(answer)
