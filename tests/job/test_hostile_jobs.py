"""Jobs that mean harm, and jobs that are unlucky in their neighbours: nothing leaks, nothing is lost, nobody hangs."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src import job_log
from src.comfy.record import Run
from src.deadline import Deadline
from src.errors import (
    InputFileRefused,
    InputFileUnavailable,
    InvalidWorkflow,
    JobBucketFailed,
    JobCancelled,
    WorkerError,
)
from src.inputs.input_file import InputFile
from src.job.request import read_job
from src.outputs.listing import OutputFile, list_files
from src.redaction import public_text
from src.storage.bucket import Bucket
from src.storage.web import Fetch, FetchRules
from src.workflow import check_workflow

from .. import workflows
from ..conftest import Bench, booted, settings_for
from ..inputs.test_input_files import encoded, fetch, picture
from ..outputs.test_delivery import noise, with_bucket
from ..outputs.test_kinds import real_only
from ..s3 import NAME, Storage, faulty_proxy
from ..workflows import Workflow, node

HANG = 15.0  # seconds; far above what is right, far below what the faults took

# --- Names that lead out of ComfyUI's folders ----------------------------------------------------------------


LEADS_OUT: dict[str, Workflow] = {
    "wrapped": {"1": node("LoadImage", image={"__value__": "/etc/passwd"})},
    "wrapped twice": {"1": node("LoadImage", image={"__value__": {"__value__": "x"}})},
    "in a wrapped list": {"1": node("VHS_LoadImages", images={"__value__": ["a.png", "../../x.png"]})},
    "a prefix that is wrapped": {"1": node("SaveImage", filename_prefix={"__value__": "z"})},
    "a loader that is not called so": {"1": node("WebcamCapture", image="/tmp/x.png")},
    "another one, by a way up": {"1": node("WebcamCapture", image="../../x.png")},
    "a recorder": {"1": node("RecordAudio", audio="/etc/hostname")},
    "inside an object": {"1": node("Load3D", model_file="a.glb", image={"image": "/etc/passwd", "mask": ""})},
    "a file URL": {"1": node("LoadVideo", file="file:///etc/passwd")},
    "a protocol of FFmpeg": {"1": node("LoadVideo", file="concat:/a|/b")},
    "a drive": {"1": node("LoadImage", image="C:\\secret.png")},
    "a model's file": {"1": node("Load3D", model_file="/etc/x.glb")},
    "a file of prompts": {"1": node("LoadPromptsFromFile", prompt_file="/etc/passwd", text_file="a")},
}


@pytest.mark.parametrize("workflow", LEADS_OUT.values(), ids=LEADS_OUT.keys())
def test_a_name_that_leads_out_is_refused_wherever_it_stands(workflow: Workflow) -> None:
    with pytest.raises(InvalidWorkflow):
        check_workflow(workflow)


HARMLESS: dict[str, Workflow] = {
    "what the editor adds to LoadAudio": {
        "1": node("LoadAudio", audio="a.mp3", audioUI="/api/view?filename=a.mp3&type=input")
    },
    "a preview of Video Helper Suite": {
        "1": node("VHS_VideoCombine", videopreview={"params": {"fullpath": "/home/me/a.mp4"}})
    },
    "a JPEG in base64": {"1": node("ETN_LoadImageBase64", image="/9j/4AAQ" + "A" * 5000)},
    "a prompt of a loader": {"1": node("Efficient Loader", positive="\\(masterpiece\\), girl", negative="/imagine")},
    "a prompt about pictures": {
        "1": node("X", image_prompt="/imagine ../.. a cat", model_type="a:/b", path_regex="/..")
    },
    "a web address": {"1": node("LoadImageFromUrl", url="https://example.com/a/../b.png")},
    "a prefix of nothing": {"1": node("SaveImage", filename_prefix=None)},
    "a LoRA made on Windows": {"1": node("LoraLoader", lora_name="styles\\a.safetensors")},
    "a model of a service": {"1": node("X", model="openai://gpt")},
}


@pytest.mark.parametrize("workflow", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_only_looks_like_a_path_is_fine(workflow: Workflow) -> None:
    check_workflow(workflow)


def test_prompts_and_urls_of_packs_are_no_such_names() -> None:
    check_workflow({"1": node("CLIPTextEncode", text="/imagine ../.. a cat", clip=["2", 0]), "2": node("CLIPLoader")})
    check_workflow({"1": node("LoadImageFromUrl", url="https://example.com/a.png")})


def test_what_a_caller_makes_a_node_report_is_no_way_into_the_disk(bench: Bench) -> None:
    real_only(bench)
    root = bench.engine.process.folders.root
    before = {path.name for path in root.iterdir()}
    reports = [
        {"filename": "..", "subfolder": "", "type": "output"},
        {"filename": "comfyui.db", "subfolder": "../user", "type": "output"},
        {"filename": "foo/evil.py", "subfolder": "x", "type": "input"},
        {"filename": "x", "subfolder": "/etc", "type": "output"},
    ]
    for number, report in enumerate(reports):
        evil = {"class_type": "Preview3D", "inputs": {"model_file": f"x{number}", "camera_info": report}}
        answer = bench.run(workflow={"/tmp/pwned-by-a-node-id": evil}, output={"previews": True})
        assert answer["status"] == "error" or not answer["files"], answer
    assert {path.name for path in root.iterdir()} == before
    assert not Path("/tmp/pwned-by-a-node-id").exists()
    assert bench.run(workflow=workflows.still())["status"] == "success"


def test_reports_that_are_no_files_are_passed_over() -> None:
    odd = [
        {"filename": ""},
        {"filename": "a\0b"},
        {"filename": "a", "type": "input"},
        {"filename": "a", "type": "x"},
        {"filename": 5},
    ]
    assert list_files(Run("id", {"1": {}}, {"outputs": {"1": {"images": odd}}})) == []
    assert OutputFile("1", "x.png", "sub", "temp").is_preview


# --- Files that are bombs, or open other files -------------------------------------------------------------------


def bomb(kind: str) -> bytes:
    """A small file that would take a gigabyte."""
    stream = io.BytesIO()
    if kind == "GIF":
        frames = [Image.new("P", (5000, 5000), number) for number in range(5)]
        frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    elif kind == "ICO":
        inner = io.BytesIO()
        Image.new("1", (11_000, 11_000)).save(inner, "PNG")
        content = inner.getvalue()
        stream.write(
            struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 64, 64, 0, 0, 1, 32, len(content), 22) + content
        )
    else:  # a TIFF of 64 x 64 pixels in one tile of 121 million
        packed = zlib.compress(bytes(11_000 * 11_000), 1)
        tags = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1), (322, 11_000), (323, 11_000)]
        start = 8 + 2 + 12 * (len(tags) + 2) + 4
        tags += [(324, start), (325, len(packed))]
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        stream.write(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "ICO", "TIFF"])
def test_a_bomb_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputFileRefused, match=r"million are allowed|is not a readable image"):
        fetch(tmp_path, ("x.png", encoded(bomb(kind))), max_input_megapixels=100)


PLAYLISTS = {
    "x.m3u8": b"#EXTM3U\n#EXTINF:10,\nfile:///etc/secret.ts\n",
    "x.mp4": b"\xef\xbb\xbf  #EXTM3U\n#EXT-X-MAP:URI=x\n",
    "x.ffconcat": b"ffconcat version 1.0\nfile /etc/x\n",
    "x.mpd": b"<?xml version='1.0'?><MPD/>",
    "x.sdp": b"v=0\no=x",
    "x": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "y.m3u8": b"hello",
}
HARMLESS_FILES = {
    "a.svg": b"<?xml version='1.0'?><svg/>",
    "a.dae": b"<?xml version='1.0'?><COLLADA/>",
    "a.gltf": b'{"asset": {}}',
    "a.txt": b"v=0.5 cat",
    "a.srt": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
}


@pytest.mark.parametrize(("name", "content"), HARMLESS_FILES.items())
def test_other_files_of_text_are_fine(tmp_path: Path, name: str, content: bytes) -> None:
    assert fetch(tmp_path, InputFile(name, encoded(content), "files[0]", False)) == {name: content}


def test_a_tiff_of_one_strip_is_as_large_as_it_is(tmp_path: Path) -> None:
    content = picture("TIFF", (2000, 700))  # Pillow writes one strip
    assert fetch(tmp_path, ("a.tiff", encoded(content)), max_input_megapixels=2) == {"a.tiff": content}


@pytest.mark.parametrize(("name", "content"), PLAYLISTS.items())
def test_what_opens_other_files_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(InputFileRefused, match="playlist or a program"):
        fetch(tmp_path, InputFile(name, encoded(content), "files[0]", False))


def test_a_damaged_avif_is_the_callers_to_mend(tmp_path: Path) -> None:
    content = bytearray(picture("AVIF", (64, 64)))
    for at in range(len(content) - 40, len(content) - 10):
        content[at] ^= 0x5A
    try:
        fetch(tmp_path, ("x.avif", encoded(bytes(content))))
    except WorkerError as error:
        assert error.error_type == "validation"


def test_names_of_which_one_is_a_folder_of_another_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputFileRefused, match=r"images\[1\]\.name: 'a' is the name of images\[0\], so it cannot be a folder"
    ):
        fetch(tmp_path, ("a", encoded(picture())), ("a/b", encoded(picture())))


# --- Values that break what reads them -----------------------------------------------------------------------------


def deep(levels: int) -> Any:
    """An object in an object in an object …"""
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


ODD: dict[str, dict[str, Any]] = {
    "overrides that are deep": {"overrides": {"1": {"inputs": {"width": deep(3000)}}}},
    "extra_pnginfo that is deep": {"extra_pnginfo": deep(5000)},
    "extra_pnginfo with NaN": {"extra_pnginfo": {"workflow": float("nan")}},
    "a name of 380 bytes": {"workflow": "é" * 190},
    "a name of a megabyte": {"workflow": "x" * 1_000_000},
    "an override that is wrapped": {"overrides": {"1": {"inputs": {"width": {"__value__": 5}}}}},
}


@pytest.mark.parametrize("fields", ODD.values(), ids=ODD.keys())
def test_an_odd_value_is_the_callers_to_mend(draft_bench: Bench, fields: dict[str, Any]) -> None:
    answer = draft_bench.run(**{"workflow": workflows.still(), **fields})
    assert (answer["status"], answer["error_type"]) == ("error", "validation"), answer


@pytest.mark.parametrize("name", ["..", ".", "x" * 20_000, "a/b", "?", "#"])
def test_an_odd_class_is_an_unknown_class(bench: Bench, name: str) -> None:
    workflow = {**workflows.still(), "7": node(name, image=["3", 0])}
    answer = bench.run(action="validate", workflow=workflow)
    assert [problem["reason"] for problem in answer["problems"]] == ["missing_node_type"]
    assert bench.run(workflow=workflow, overrides={"7": {"inputs": {"x": 1}}})["error_type"] == "validation"


def test_a_long_path_in_a_message_takes_no_time(draft_bench: Bench) -> None:
    workflow = workflows.still()
    workflow["1"]["inputs"]["width"] = "/" * 400_000
    started = time.monotonic()
    assert draft_bench.run(action="validate", workflow=workflow)["valid"] is False
    assert len(public_text("/a" * 500_000)) <= 500
    assert time.monotonic() - started < HANG


def test_no_text_of_a_caller_makes_a_log_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    kept = logging.getLogger().handlers[:]
    try:
        job_log.configure("INFO")
        with job_log.job("id\n2026 INFO victim"):
            logging.getLogger("worker").warning("node %s", "x\n2026-01-01 INFO victim worker: done \x1b[2J\u2028")
        assert len(capsys.readouterr().err.splitlines()) == 1
    finally:
        logging.getLogger().handlers[:] = kept


# --- Who does not answer ----------------------------------------------------------------------------------------------


@contextmanager
def tls_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Any], None]) -> Iterator[str]:
    """`127.0.0.1:port` of a TLS server whose certificate is trusted; `serve` gets each connection."""
    import socket

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    import ipaddress

    now = datetime.now(timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(address, False).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = tmp_path / "tls.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setattr("certifi.where", lambda: str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    ended = threading.Event()

    def accept(listener: socket.socket) -> None:
        while not ended.is_set():
            try:
                raw, _ = listener.accept()
                threading.Thread(target=handle, args=(raw,), daemon=True).start()
            except OSError:
                return

    def handle(raw: socket.socket) -> None:
        try:
            with context.wrap_socket(raw, server_side=True) as connection:
                serve(connection)
        except OSError:
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        ended.set()


def drip_header(connection: Any) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(200):
        connection.sendall(b".")
        time.sleep(0.2)


def stall_body(connection: Any) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    time.sleep(40)


@pytest.mark.parametrize("serve", [drip_header, stall_body])
def test_tls_is_no_shelter_for_a_server_that_stalls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Any], None]
) -> None:
    with tls_site(tmp_path, monkeypatch, serve) as host:
        download = Fetch(FetchRules(trusted_hosts=frozenset({host})), "files[0]", Deadline(1.0))
        threading.Timer(1.0, download.abort).start()
        started = time.monotonic()
        with pytest.raises(InputFileUnavailable):
            download.download(f"https://{host}/x", lambda piece: None)
        assert time.monotonic() - started < HANG


def test_tls_with_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import certifi

    real = certifi.where()
    with tls_site(tmp_path, monkeypatch, stall_body) as host:
        monkeypatch.setattr("certifi.where", lambda: real)
        with pytest.raises(InputFileUnavailable):
            Fetch(FetchRules(trusted_hosts=frozenset({host})), "f", Deadline(5)).download(
                f"https://{host}/x", lambda p: None
            )


# --- Look-ups that hang ----------------------------------------------------------------------------------


@pytest.fixture
def hanging_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A name server that does not answer, for all hosts but those of this machine."""
    answers, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".example.com"):
            answers.wait(4 * HANG)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    answers.set()


S3_CONFIG = {"accessId": "a", "accessSecret": "b", "bucketName": "bucket", "endpointUrl": "https://s3.example.com"}
FROM_THE_WEB = [{"name": f"{number}.png", "image": f"https://www{number}.example.com/x.png"} for number in range(8)]


@pytest.mark.parametrize(
    "job",
    [
        {"input": {"workflow": workflows.still(), "images": FROM_THE_WEB}},
        {"input": {"workflow": workflows.still(), "images": FROM_THE_WEB, "action": "validate"}},
        {"input": {"workflow": workflows.still()}, "s3Config": S3_CONFIG},
        {"input": {"workflow": workflows.still(), "action": "validate"}, "s3Config": S3_CONFIG},
    ],
    ids=["files", "files, validate", "s3Config", "s3Config, validate"],
)
def test_a_name_server_that_does_not_answer_holds_no_job_past_its_deadline(
    draft_bench: Bench, hanging_resolver: None, job: dict[str, Any]
) -> None:
    started = time.monotonic()
    answer = with_bucket(draft_bench, None, job_timeout=1.0).handle({"id": "job", **job})
    assert answer["error_code"] == "job_timeout"
    assert time.monotonic() - started < HANG
    assert draft_bench.run(workflow=workflows.still())["status"] == "success"


def test_a_cancel_is_heard_while_a_name_server_does_not_answer(draft_bench: Bench, hanging_resolver: None) -> None:
    request = read_job({"input": {"workflow": workflows.still()}, "s3Config": S3_CONFIG})
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(JobCancelled):
        draft_bench.worker.runner.run(request, "job", stop, lambda event: None)


def test_a_storage_that_stalls_is_not_waited_for(draft_bench: Bench, storage: Storage) -> None:
    url = storage.put("stall.png", picture())
    with faulty_proxy(storage.config.endpoint_url) as proxy:
        config = replace(storage.config, endpoint_url=proxy.url, upload_seconds=1.0)
        own = with_bucket(draft_bench, config, input_timeout=1.0)
        own.worker.runner.check_bucket()
        proxy.pause = 25.0
        started = time.monotonic()
        workflow = {
            "1": node("LoadImage", image="a.png"),
            "9": node("SaveImage", images=["1", 0], filename_prefix="x"),
        }
        answer = own.run(workflow=workflow, images=[{"name": "a.png", "url": url}])
        assert answer["error_code"] == "input_file_unavailable"
        answer = own.run(workflow=workflows.still(), output={"delivery": "bucket"})
        assert len(answer["images"]) == 1
        assert "UPLOAD_TIMEOUT" in answer["warnings"][0]
        assert time.monotonic() - started < HANG


def test_a_callers_storage_is_connected_to_where_it_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    answers = iter(["93.184.216.34"] * 2 + ["127.0.0.1"] * 20)
    connected: list[Any] = []
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))],
    )

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    theirs = {"endpointUrl": "https://rebind.example", "accessId": "a", "accessSecret": "b", "bucketName": "bbb"}
    request = read_job({"input": {"workflow": workflows.still()}, "s3Config": theirs})
    assert request.bucket is not None
    with pytest.raises(WorkerError) as raised:
        Bucket(request.bucket).check()
    assert raised.value.error_type == "validation"
    assert "127.0.0.1" not in connected
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **_: [(socket.AF_INET, 1, 6, "", ("8.8.8.8", port))])
    for name in ("arn:aws:s3:us-west-2:123456789012:accesspoint/ap", "bkt--usw2-az1--x-s3", "a/b"):
        with pytest.raises(JobBucketFailed, match="plain bucket name"):
            Bucket(replace(request.bucket, endpoint_url="https://8.8.8.8", name=name)).check()


def test_different_names_are_different_keys(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    bucket = Bucket(storage.config)
    keys = {bucket.upload(tmp_path / "x", name, "text/plain", "same-job").key for name in ("a?b", "a*b", "a_b", "a~b")}
    assert len(keys) == 4
    assert keys <= set(storage.keys())


def test_texts_count_too_when_an_answer_is_measured(draft_bench: Bench, storage: Storage) -> None:
    workflow = noise(300)
    workflow["20"] = node("PreviewAny", source=["21", 0])
    workflow["21"] = node("PrimitiveString", value="word " * 60_000)
    own = with_bucket(draft_bench, storage.config, result_limit=0.5)
    answer = own.run(workflow=workflow)
    assert answer["files"][0]["bucket"] == NAME, answer
    assert len(json.dumps(answer)) < 500_000


def test_a_picture_too_long_for_webp_stays_as_it_is(bench: Bench) -> None:
    workflow = {
        "1": node("EmptyImage", width=16384, height=16, batch_size=1, color=1),
        "9": node("SaveImage", images=["1", 0], filename_prefix="long"),
    }
    answer = bench.run(workflow=workflow, output={"format": "webp"})
    assert answer["filenames"] == ["long_00001_.png"]
    assert "webp allows at most 16383" in answer["warnings"][0]


# --- Neighbours ------------------------------------------------------------------------------------------------------


def test_many_large_frames_over_the_websocket_all_arrive(bench: Bench) -> None:
    workflow = {
        "1": node("EmptyImage", width=1500, height=1500, batch_size=6, color=8421504),
        "2": node("ImageAddNoise", image=["1", 0], seed=3, strength=0.3),
        "9": node("SaveImageWebsocket", images=["2", 0]),
    }
    answer = with_bucket(bench, None, result_limit=200.0).run(workflow=workflow)
    assert answer["filenames"] == [f"websocket_0000{number}_.png" for number in range(1, 7)], answer
    assert Image.open(io.BytesIO(base64.b64decode(answer["images"][5]))).size == (1500, 1500)


def at_once(bench: Bench, jobs: list[dict[str, Any]], threads: int) -> list[dict[str, Any]]:
    """The answers to jobs that run at the same time."""
    from src.job import handler as job_handler

    job_handler.set_worker(bench.worker)
    with ThreadPoolExecutor(threads) as pool:
        answer = job_handler.answer_job
        return list(pool.map(lambda job: answer({"id": "x", "input": job}, threading.Event()), jobs))


def test_jobs_at_the_same_time_take_nothing_from_each_other(bench: Bench) -> None:
    previewed: Workflow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=7),
        "2": node("PreviewImage", images=["1", 0]),
    }
    shared = {"workflow": previewed, "output": {"previews": True, "format": "webp"}}
    own = [{"workflow": workflows.still(color=number)} for number in range(20)]
    answers = at_once(bench, [job for number in range(20) for job in (shared, own[number])], threads=3)
    assert [answer.get("error") for answer in answers if answer["status"] != "success"] == []
    assert all(len(answer["images"]) == 1 for answer in answers)


def test_files_of_a_job_survive_a_restart_that_another_job_caused() -> None:
    workflow = {"1": node("LoadImage", image="a.png"), "9": node("SaveImage", images=["1", 0], filename_prefix="x")}
    with booted("draft", settings_for("draft", job_retries=0)) as own:
        jobs = [{"workflow": workflow, "images": [{"name": "a.png", "data": encoded(picture())}]} for _ in range(12)]
        ended = threading.Event()

        def restart() -> None:
            for _ in range(2):
                time.sleep(0.15)
                with own.engine.stopping:
                    own.engine.restart(own.engine.generation)
            ended.set()

        threading.Thread(target=restart, daemon=True).start()
        answers = at_once(own, jobs, threads=2)
        assert ended.wait(HANG)
        assert [answer.get("error") for answer in answers if answer["status"] != "success"] == []


@pytest.mark.slow
def test_a_job_behind_one_that_will_not_stop_is_not_lost(model_paths: Path) -> None:
    slow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=99),
        "2": node("WorkerTestSleep", image=["1", 0], seconds=60.0, steps=0),
        "9": node("SaveImage", images=["2", 0], filename_prefix="x"),
    }
    from src.job import handler as job_handler

    with booted("real", settings_for("real", model_paths, job_retries=0, interrupt_grace=2.0)) as own:
        job_handler.set_worker(own.worker)
        stops = [threading.Event(), threading.Event()]
        job = {"id": "a", "input": {"workflow": slow}}
        cancelled = [threading.Thread(target=job_handler.answer_job, args=(job, stop)) for stop in stops]
        for thread in cancelled:
            thread.start()
        time.sleep(2)
        for stop in stops:
            stop.set()
            time.sleep(0.2)
        assert own.run(workflow=workflows.still())["status"] == "success"
        for thread in cancelled:
            thread.join(60)
        assert own.engine.generation == 1, "one restart is enough for both"


def test_a_3d_file_is_where_comfyuis_3d_nodes_look(bench: Bench) -> None:
    real_only(bench)
    names = dict.fromkeys(("image", "mask", "normal", "lineart"), "in.png")
    workflow = {
        "1": node(
            "Load3D", model_file="a.glb", image={**names, "recording": "", "camera_info": {}}, width=64, height=64
        ),
        "9": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    answer = bench.run(
        workflow=workflow,
        images=[{"name": "in.png", "data": encoded(picture("PNG", (40, 30)))}],
        files=[{"name": "a.glb", "data": encoded(b"glTF" + b"\0" * 40)}],
    )
    assert answer["status"] == "success", answer
    assert Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).size == (40, 30)


def test_the_seed_that_was_put_in_is_told_whatever_else_the_workflow_holds(draft_bench: Bench) -> None:
    workflow = workflows.generative()
    workflow["81"] = {**workflow["8"], "inputs": {**workflow["8"]["inputs"], "latent_image": ["8", 0], "seed": 5}}
    workflow["10"]["inputs"]["samples"] = ["81", 0]
    answer = draft_bench.run(workflow=workflow, seed="random", seed_node_id="8")
    assert isinstance(answer["seed"], int), answer


def test_two_overrides_for_one_place_are_an_error(draft_bench: Bench) -> None:
    answer = draft_bench.run(workflow=workflows.flux(), prompt="a", negative_prompt="b", negative_prompt_node_id="6")
    assert "prompt and negative_prompt would both go into text of node 6" in answer["error"]


def test_a_callers_storage_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr("src.storage.bucket._CHECK_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    drip_header(connection)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        theirs = {"endpointUrl": f"http://{host}", "accessId": "a", "accessSecret": "b", "bucketName": "bbb"}
        request = read_job({"input": {"workflow": workflows.still()}, "s3Config": theirs})
        assert request.bucket is not None
        bucket = Bucket(request.bucket, FetchRules(trusted_hosts=frozenset({host})))
        started = time.monotonic()
        with pytest.raises(WorkerError):
            bucket.check()
        assert time.monotonic() - started < HANG
        bucket.close()
