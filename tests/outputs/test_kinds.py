"""Every kind of input by every way, every kind of output byte for byte: on a real ComfyUI where there is one.

What is expected is the file that ComfyUI itself wrote, noted before the worker touched it; and, where the encoder is
the same each time, what ComfyUI writes for the same workflow without the worker.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import time
import uuid
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from src import outputs
from src.comfy.events import _ENDINGS, EventStream
from src.outputs.gathering import LocalFile
from src.storage.bucket import Bucket

from ..conftest import Bench
from ..s3 import Storage
from ..storage.test_web import Site, site
from ..workflows import Workflow, node


def photo() -> bytes:
    """A picture whose every pixel differs, half transparent."""
    stream = io.BytesIO()
    picture = Image.new("RGBA", (64, 48))
    picture.putdata([(x * 4, y * 5, 128, 255 if x < 32 else 0) for y in range(48) for x in range(64)])
    picture.save(stream, "PNG")
    return stream.getvalue()


def sound() -> bytes:
    """Half a second of a saw-tooth, WAV."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(16000)
        written.writeframes(b"".join(struct.pack("<h", n * 400 % 30000) for n in range(8000)))
    return stream.getvalue()


FRAMES: Workflow = {
    "1": node("LoadImage", image="in.png"),
    "2": node("ImageInvert", image=["1", 0]),
    "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
    "4": node("RepeatImageBatch", image=["3", 0], amount=4),
}
VIDEO: Workflow = {**FRAMES, "5": node("CreateVideo", images=["4", 0], fps=8.0)}

# Name: workflow that reads in.png, type, content type, ending; whether the engine writes the same bytes each time.
KINDS: dict[str, tuple[Workflow, str, str, str, bool]] = {
    "png": ({**FRAMES, "9": node("SaveImage", images=["1", 0], filename_prefix="a/x")}, "image", "image/png", "_00001_.png", True),
    "mask": (
        {
            "1": node("LoadImageMask", image="in.png", channel="alpha"), "2": node("MaskToImage", mask=["1", 0]),
            "9": node("SaveImage", images=["2", 0], filename_prefix="a/x"),
        }, "image", "image/png", "_00001_.png", True,
    ),
    "animated webp": (
        {**FRAMES, "9": node("SaveAnimatedWEBP", images=["4", 0], filename_prefix="a/x", fps=8.0, lossless=True, quality=80, method="default")},
        "image", "image/webp", "_00001_.webp", True,
    ),
    "animated png": (
        {**FRAMES, "9": node("SaveAnimatedPNG", images=["4", 0], filename_prefix="a/x", fps=8.0, compress_level=4)},
        "image", "image/png", "_00001_.png", True,
    ),
    "websocket": ({**FRAMES, "9": node("SaveImageWebsocket", images=["3", 0])}, "image", "image/png", "websocket_00002_.png", True),
    "mp4": ({**VIDEO, "9": node("SaveVideo", video=["5", 0], filename_prefix="a/x", format="auto", codec="auto")}, "video", "video/mp4", "_00001_.mp4", True),
    "webm": ({**FRAMES, "9": node("SaveWEBM", images=["4", 0], filename_prefix="a/x", codec="vp9", fps=8.0, crf=32.0)}, "video", "video/webm", "_00001_.webm", False),
    "gif of Video Helper Suite": ({**FRAMES, "9": node("WorkerTestGifs", images=["4", 0], filename_prefix="a/x")}, "image", "image/gif", "_00001.gif", True),
    "latent": (
        {
            **FRAMES, "5": node("VAELoader", vae_name="pixel_space"), "6": node("VAEEncode", pixels=["1", 0], vae=["5", 0]),
            "9": node("SaveLatent", samples=["6", 0], filename_prefix="a/x"),
        }, "latent", "application/octet-stream", "_00001_.latent", True,
    ),
    "3d": (
        {**FRAMES, "8": node("PreviewImage", images=["1", 0]), "9": node("SaveGLB", mesh=["7", 0], filename_prefix="a/x"), "7": node("WorkerTestMesh")},
        "file", "model/gltf-binary", "_00001_.glb", True,
    ),
    "svg": (
        {**FRAMES, "8": node("PreviewImage", images=["1", 0]), "9": node("SaveSVGNode", svg=["7", 0], filename_prefix="a/x"), "7": node("WorkerTestDrawing")},
        "image", "image/svg+xml", "_00001_.svg", False,
    ),
}  # fmt: skip
DRAFTED = {"png", "mask", "animated webp", "animated png", "websocket"}

WAYS = ("base64", "data URI", "URL", "bucket")


@contextmanager
def sent(content: bytes, storage: Storage) -> Iterator[dict[str, str]]:
    """Way to source, for one content."""
    Site._content = lambda self, argument: self._answer(content)  # type: ignore[attr-defined]
    encoded = base64.b64encode(content).decode()
    with site() as host:
        yield {
            "base64": encoded,
            "data URI": f"data:application/octet-stream;base64,{encoded}",
            "URL": f"http://{host}/content",
            "bucket": storage.put(f"in/{uuid.uuid4().hex}", content),
            "host": host,
        }


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name to digest of every file as ComfyUI wrote it, noted when it is gathered."""
    digests: dict[str, str] = {}

    def gather(*arguments: Any) -> Sequence[LocalFile]:
        files = original(*arguments)
        digests.update({file.name: hashlib.sha256(file.path.read_bytes()).hexdigest() for file in files})
        return files

    original = outputs.gather_files
    monkeypatch.setattr("src.job.turn.gather_files", gather)
    return digests


def with_input(bench: Bench, storage: Storage, host: str) -> Bench:
    """The bench with a bucket, and trust in the site."""
    settings = replace(bench.worker.runner.settings, trusted_hosts=(host,))
    runner = replace(bench.worker.runner, settings=settings, bucket=Bucket(storage.config))
    return replace(bench, worker=replace(bench.worker, runner=runner))


def contents(answer: dict[str, Any]) -> dict[str, bytes]:
    """Name to bytes of every file of an answer that must be a success."""
    assert answer["status"] == "success", answer
    found = {}
    for entry in answer["files"]:
        data = entry["data"] if "data" in entry else answer["images"][entry["image_index"]]
        found[entry["name"]] = base64.b64decode(data)
        assert len(found[entry["name"]]) == entry["size_bytes"]
    return found


def by_comfyui_alone(bench: Bench, workflow: Workflow, content: bytes) -> bytes:
    """What the engine writes for node 9 of the workflow, asked without the worker."""
    folders, client = bench.engine.process.folders, bench.engine.client
    (folders.input / "in.png").write_bytes(content)
    alone = json.loads(json.dumps(workflow))
    alone["9"]["inputs"]["filename_prefix"] = f"alone-{uuid.uuid4().hex}/x"
    prompt_id = str(uuid.uuid4())
    assert client.queue_prompt(alone, prompt_id, "nobody", {}).is_whole
    deadline = time.monotonic() + 60
    while (entry := client.history(prompt_id)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.forget(prompt_id)
    (folders.input / "in.png").unlink()
    (item,) = next(value for value in entry["outputs"]["9"].values() if isinstance(value[0], dict))
    file = folders.output / item["subfolder"] / item["filename"]
    found: bytes = file.read_bytes()
    file.unlink()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_comes_back_byte_for_byte_however_the_input_came(
    bench: Bench, storage: Storage, written: dict[str, str], kind: str
) -> None:
    workflow, of_type, content_type, ending, is_steady = KINDS[kind]
    if bench.name == "draft" and kind not in DRAFTED:
        pytest.skip("the draft engine has no such node")
    content = photo()
    expected = by_comfyui_alone(bench, workflow, content) if is_steady and kind != "websocket" else None
    with sent(content, storage) as sources:
        for way in WAYS:
            written.clear()
            own = with_input(bench, storage, sources["host"])
            answer = own.run(workflow=workflow, images=[{"name": "in.png", "image": sources[way]}])
            found = contents(answer)
            assert {name: hashlib.sha256(got).hexdigest() for name, got in found.items()} == written
            entry = answer["files"][-1]
            assert (entry["node_id"], entry["type"], entry["content_type"]) == ("9", of_type, content_type)
            assert entry["name"].endswith(ending)
            assert expected in (None, found[entry["name"]])
    assert not bench.leftovers()


def test_pixels_that_came_go_back_as_they_were(bench: Bench, storage: Storage) -> None:
    with sent(photo(), storage) as sources:
        answer = bench.run(workflow=KINDS["png"][0], images=[{"name": "in.png", "data": sources["base64"]}])
    (picture,) = (Image.open(io.BytesIO(content)) for content in contents(answer).values())
    assert picture.tobytes() == Image.open(io.BytesIO(photo())).convert("RGB").tobytes()


def real_only(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("the draft engine has no such nodes")


SOUNDS = {"SaveAudio": "audio/flac", "SaveAudioMP3": "audio/mpeg", "SaveAudioOpus": "audio/ogg"}


@pytest.mark.parametrize("way", WAYS)
def test_a_sound_goes_in_and_comes_out_in_every_format(
    bench: Bench, storage: Storage, written: dict[str, str], way: str
) -> None:
    real_only(bench)
    workflow: Workflow = {"1": node("LoadAudio", audio="voice.wav")}
    for number, saver in enumerate(SOUNDS):
        quality = {} if saver == "SaveAudio" else {"quality": "128k"}
        workflow[f"9{number}"] = node(saver, audio=["1", 0], filename_prefix=saver, **quality)
    with sent(sound(), storage) as sources:
        own = with_input(bench, storage, sources["host"])
        answer = own.run(workflow=workflow, files=[{"name": "voice.wav", "url": sources[way]}])
    assert [entry["content_type"] for entry in answer["files"]] == list(SOUNDS.values())
    assert {entry["type"] for entry in answer["files"]} == {"audio"}
    assert answer["images"] == []
    assert {name: hashlib.sha256(got).hexdigest() for name, got in contents(answer).items()} == written


@pytest.mark.parametrize("way", WAYS)
def test_a_video_and_a_latent_that_were_made_here_go_in_again(bench: Bench, storage: Storage, way: str) -> None:
    real_only(bench)
    made = {}
    for kind in ("mp4", "latent"):
        with sent(photo(), storage) as sources:
            answer = bench.run(workflow=KINDS[kind][0], images=[{"name": "in.png", "data": sources["base64"]}])
            (made[kind],) = contents(answer).values()
    readers: dict[str, Workflow] = {
        "mp4": {
            "1": node("LoadVideo", file="clips/in.mp4"),
            "2": node("GetVideoComponents", video=["1", 0]),
            "9": node("SaveImage", images=["2", 0], filename_prefix="frame"),
            "3": node("VHS_WorkerTestPath", video="clips/in.mp4"),
            "4": node("PreviewAny", source=["3", 0]),
        },
        "latent": {
            "1": node("LoadLatent", latent="clips/in.latent"),
            "2": node("VAELoader", vae_name="pixel_space"),
            "3": node("VAEDecode", samples=["1", 0], vae=["2", 0]),
            "9": node("SaveImage", images=["3", 0], filename_prefix="frame"),
        },
    }
    for kind, workflow in readers.items():
        with sent(made[kind], storage) as sources:
            own = with_input(bench, storage, sources["host"])
            answer = own.run(workflow=workflow, files=[{"name": f"clips/in.{kind}", "data": sources[way]}])
            assert len(contents(answer)) == (8 if kind == "mp4" else 1)
            if kind == "mp4":
                assert answer["text"] == [str(len(made[kind]))]
    assert not bench.leftovers()


def test_texts_and_files_come_together(bench: Bench, storage: Storage) -> None:
    workflow = {
        "1": node("LoadImage", image="in.png"),
        "2": node("GetImageSize", image=["1", 0]),
        "3": node("PreviewAny", source=["2", 0]),
        "4": node("PreviewAny", source=["2", 1]),
        "9": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    with sent(photo(), storage) as sources:
        answer = bench.run(workflow=workflow, images=[{"name": "in.png", "data": sources["base64"]}])
    assert answer["text"] == ["64", "48"]
    assert answer["filenames"] == ["x_00001_.png"]


def test_previews_come_on_request_and_are_marked(bench: Bench) -> None:
    workflow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=1),
        "2": node("PreviewImage", images=["1", 0]),
        "9": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    answer = bench.run(workflow=workflow, output={"previews": True})
    assert [(entry["node_id"], entry.get("preview")) for entry in answer["files"]] == [("2", True), ("9", None)]
    assert len(answer["images"]) == 2
    assert [entry["node_id"] for entry in bench.run(workflow=workflow)["files"]] == ["9"]


def test_frames_over_the_websocket_come_each_time(bench: Bench) -> None:
    workflow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=2, color=255),
        "9": node("SaveImageWebsocket", images=["1", 0]),
    }
    for _ in range(2):
        answer = bench.run(workflow=workflow)
        assert answer["filenames"] == ["websocket_00001_.png", "websocket_00002_.png"]
        first = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
        assert (first.size, first.getpixel((0, 0))) == ((64, 64), (0, 0, 255))


# --- What nodes are told beside their inputs -----------------------------------------------------------------


def test_a_node_that_looks_itself_up_in_the_editors_workflow_finds_itself(bench: Bench) -> None:
    real_only(bench)
    looked_up = {**node("WorkerTestWantsWorkflow"), "_meta": {"title": "It is me"}}
    workflow = {"7": looked_up, "8": node("PreviewAny", source=["7", 0])}
    assert bench.run(workflow=workflow)["text"] == ["It is me"]
    workflow = {"70": looked_up, "8": node("PreviewAny", source=["70", 0])}  # another id: the cache knows the first
    own = {"workflow": {"nodes": [{"id": 70, "title": "as the editor has it"}]}}
    assert bench.run(workflow=workflow, extra_pnginfo=own)["text"] == ["as the editor has it"]


def test_the_same_picture_sent_twice_is_known_to_the_cache(bench: Bench, storage: Storage) -> None:
    workflow = {
        "1": node("LoadImage", image="in.png"),
        "2": node("ImageInvert", image=["1", 0]),
        "9": node("SaveImage", images=["2", 0], filename_prefix="x"),
    }
    with sent(photo(), storage) as sources:
        images = [{"name": "in.png", "data": sources["base64"]}]
        first, second = (bench.run(workflow=workflow, images=images) for _ in range(2))
    assert first["images"] == second["images"]
    assert set(second["cached_nodes"]) == {"1", "2"}


def test_a_file_that_no_node_names_is_a_hint_and_one_that_was_not_sent_is_asked_for(
    bench: Bench, storage: Storage
) -> None:
    workflow = {"1": node("LoadImage", image="in.png"), "9": node("SaveImage", images=["1", 0], filename_prefix="x")}
    with sent(photo(), storage) as sources:
        images = [{"name": name, "data": sources["base64"]} for name in ("in.png", "other.png")]
        answer = bench.run(workflow=workflow, images=images)
        assert answer["warnings"] == ["images[1] (other.png) was not used: no node uses this name"]
        taken = bench.run(workflow=workflow, images=images[1:])
        two = {
            **workflow,
            "2": node("LoadImage", image="b.png"),
            "8": node("SaveImage", images=["2", 0], filename_prefix="y"),
        }
        asked = bench.run(workflow=two, images=images[1:])
    assert taken["images"] == answer["images"]
    assert (
        "1 (LoadImage) uses 'in.png'; the only file that was sent, 'other.png', was used for it"
        in taken["warnings"][0]
    )
    assert asked["error_type"] == "validation"
    assert "send it with the job under that name" in asked["error"]


def test_timings_tell_where_the_time_went(bench: Bench) -> None:
    if bench.name == "draft":
        workflow = {
            "1": node("EmptyImage", width=64, height=64, batch_size=1, color=3),
            "9": node("SaveImage", images=["1", 0], filename_prefix="x"),
        }
        answer = bench.run(workflow=workflow)
        assert answer["timings"].keys() == {"inputs", "queue", "execution", "encode", "upload", "nodes"}
        return
    workflow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=4242),
        "2": node("WorkerTestSleep", image=["1", 0], seconds=0.5, steps=5),
        "9": node("SaveImage", images=["2", 0], filename_prefix="x"),
    }
    answer = bench.run(workflow=workflow)
    timings = answer["timings"]
    assert 0.45 < timings["execution"] < 5
    assert 0.45 < timings["nodes"]["2"] < 5  # its end is told late if ComfyUI collects its garbage just then
    assert 0 <= timings["queue"] < 5
    assert answer["versions"]["comfyui"] == bench.engine.version


def test_a_node_whose_end_was_not_told_has_its_time_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history entry may be found before the last events came."""
    dispatch = EventStream._dispatch

    def dispatch_until_saved(stream: EventStream, message: Any) -> None:
        if message["type"] not in ("executed", *_ENDINGS) and message["data"].get("node") not in ("9", None):
            dispatch(stream, message)

    monkeypatch.setattr(EventStream, "_dispatch", dispatch_until_saved)
    workflow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=4243),
        "9": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    answer = bench.run(workflow=workflow)
    assert answer["status"] == "success"
    assert answer["timings"]["nodes"].keys() == {"1"}
