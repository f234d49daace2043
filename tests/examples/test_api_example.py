"""The example client: against a local endpoint with a real worker, and against every failure that RunPod has."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from examples import api_example
from examples.api_example import Endpoint, JobError, generate

from .. import editor_files, workflows
from ..endpoint.test_endpoint import KEY, Client, long_job, serving
from ..s3 import Storage
from ..worker_process import ROOT


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An endpoint with a worker on the draft engine."""
    with serving(tmp_path_factory.mktemp("endpoint")) as served:
        served.wait_for_workers(1)
        yield served


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The client as a command."""
    line = [sys.executable, "examples/api_example.py", *arguments]
    clean = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(line, cwd=ROOT, env=clean, capture_output=True, text=True, check=False, timeout=90)


# --- A real worker -------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_picture_with_its_seed_in_the_name(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(workflows.generative()))
    size = ["--width", "96", "--height", "64"]
    made = ["--workflow", str(file), "--prompt", "a dog", "--seed", "7", *size, "--output", str(tmp_path / "out")]
    done = command("--local", client.url, "--key", KEY, *made, "--set", "steps=3")
    assert (done.returncode, done.stdout.split()) == (0, [str(tmp_path / "out" / "gen_00001-7.png")]), done.stderr
    assert "completed" in done.stderr
    assert "seed 7" in done.stderr
    assert Image.open(tmp_path / "out" / "gen_00001-7.png").size == (96, 64)
    again = command("--local", client.url, *made, SERVE_API_KEY=KEY)
    assert again.stdout.split() == [str(tmp_path / "out" / "gen_00001-7-2.png")], "nothing is written over"


def test_a_module_gives_files_seed_and_warnings(client: Client, tmp_path: Path) -> None:
    told: list[str] = []
    result = generate(
        Endpoint(client.url, KEY),
        editor_files.with_subgraph(),
        folder=tmp_path,
        tell=lambda status: told.append(status["status"]),
        sync=True,
        nonsense=1,
    )
    assert [file.name for file in result.files] == [f"x_00001-{result.answer['prompt_id'][:8]}.png"]
    assert (result.seed, result.answer["converted"], told[-1]) == (None, True, "COMPLETED")
    assert "nonsense" in result.warnings[0]
    assert Endpoint(client.url, KEY).health()["jobs"]["completed"] > 0


def test_pictures_are_sent_by_path_under_the_name_that_the_workflow_has(client: Client, tmp_path: Path) -> None:
    picture = tmp_path / "photo of mine.png"
    Image.new("RGB", (32, 16), "red").save(picture)
    workflow = {"1": workflows.node("LoadImage", image="in.png"), "2": workflows.node("SaveImage", images=["1", 0], filename_prefix="a/b")}  # fmt: skip
    result = generate(Endpoint(client.url, KEY), workflow, images={"in.png": picture}, folder=tmp_path / "out")
    (made,) = result.files
    assert made.parent == tmp_path / "out" / "a"
    assert Image.open(made).convert("RGB").getpixel((3, 3)) == (255, 0, 0)


def test_several_pictures_get_a_contact_sheet(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(workflows.batch_of_four("x")))
    done = command("--local", client.url, "--key", KEY, "--workflow", str(file), "--sheet", "--output", str(tmp_path))
    *pictures, sheet = done.stdout.split()
    assert len(pictures) == 4
    assert Image.open(sheet).size == (512, 512)


def test_ctrl_c_cancels_the_job(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(long_job()["workflow"]))
    line = [sys.executable, "examples/api_example.py", "--local", client.url, "--key", KEY, "--workflow", str(file)]
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    cancelled = client.get("health")["jobs"].get("failed", 0)
    end = time.monotonic() + 30
    while client.get("health")["jobs"]["inProgress"] < 1 and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.3)  # RunPod's SDK drops a stop that comes at once
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert (process.returncode, told.splitlines()[-1]) == (130, "cancelled")
    while client.get("health")["jobs"]["inProgress"] and time.monotonic() < end:
        time.sleep(0.05)
    assert not client.get("health")["jobs"]["inProgress"], cancelled


def test_a_job_over_the_timeout_is_cancelled(client: Client) -> None:
    with pytest.raises(JobError, match=r"did not end within 1 s and was cancelled"):
        Endpoint(client.url, KEY).run(long_job(), timeout=1.0)
    end = time.monotonic() + 30
    while client.get("health")["jobs"]["inProgress"] and time.monotonic() < end:
        time.sleep(0.05)
    assert not client.get("health")["jobs"]["inProgress"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--key", "wrong"], "the key is not accepted"),
        (["--key", KEY, "--workflow", "no-such-one"], "there is no stored workflow 'no-such-one'"),
        (["--key", KEY, "--workflow", "none.json"], "none.json cannot be read: No such file"),
        (["--key", KEY, "--workflow", "README.md"], "README.md"),
        (["--key", KEY, "--workflow", "smoke_workflow", "--seed", "-2"], "seed"),
        (["--key", KEY, "--image", "none.png"], "none.png cannot be read"),
    ],
)
def test_what_is_wrong_is_told_with_its_cure(client: Client, arguments: list[str], told: str) -> None:
    done = command("--local", client.url, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_without_endpoint_or_key_it_says_which_is_missing(tmp_path: Path) -> None:
    assert "--serve` running?" in command("--local", "http://127.0.0.1:9/v2/local").stderr
    if not (ROOT / ".secrets").exists():
        assert "the endpoint's id" in command().stderr
        assert "a key (RUNPOD_API_KEY) is missing" in command("--endpoint", "abc").stderr


# --- RunPod's failures ---------------------------------------------------------------------------------------


@dataclass
class Cloud:
    """An endpoint that gives the answers it was told to, one after the other; the last one again and again."""

    answers: list[tuple[int, Any]]
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def cloud(*answers: tuple[int, Any]) -> Iterator[Cloud]:
    """Such an endpoint on loopback."""
    state = Cloud(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.append(f"{self.command} {self.path}")
            status, body = state.answers[0] if len(state.answers) == 1 else state.answers.pop(0)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


QUEUED = (200, {"id": "j1", "status": "IN_QUEUE"})
FAILURES: dict[str, tuple[list[tuple[int, Any]], str]] = {
    "key": ([(401, b"")], "401: the key is not accepted"),
    "endpoint": ([(404, {"error": "endpoint not found"})], "RUNPOD_ENDPOINT_ID .*endpoint not found"),
    "fault": ([(500, b"<html>")], "500: the endpoint has an internal error"),
    "no json": ([(200, b"<html>")], "did not return valid JSON"),
    "no object": ([(200, [])], "did not return a JSON object"),
    "no id": ([(200, {"status": "IN_QUEUE"})], "no id for the job"),
    "failed": ([QUEUED, (200, {"id": "j1", "status": "FAILED", "error": "x is missing", "output": {"error_code": "missing_model", "error": "x is missing"}})], r"x is missing \[missing_model\]"),
    "died": ([QUEUED, (200, {"id": "j1", "status": "FAILED"})], "no reason was given"),
    "error in a completed job": ([QUEUED, (200, {"status": "COMPLETED", "output": {"status": "error", "error": "no"}})], "no"),
    "timed out": ([QUEUED, (200, {"id": "j1", "status": "TIMED_OUT"})], "execution timeout: raise it"),
    "cancelled": ([QUEUED, (200, {"id": "j1", "status": "CANCELLED"})], "was cancelled"),
    "result lost": ([QUEUED, (200, {"id": "j1", "status": "COMPLETED"})], "too large for RunPod"),
    "result gone": ([QUEUED, (404, {"error": "job not found"})], "404: "),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_says_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, told = FAILURES[name]
    monkeypatch.setattr("examples.api_example.time.sleep", lambda seconds: None)
    with cloud(*answers) as state, pytest.raises(JobError, match=told):
        Endpoint(state.url, "key").run({})


def test_what_passes_by_itself_is_tried_again_and_a_job_is_not_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.api_example.time.sleep", lambda seconds: None)
    done = (200, {"id": "j1", "status": "COMPLETED", "output": {"status": "success"}})
    with cloud((429, {}), (503, {}), QUEUED, (502, b""), (500, b""), done) as state:
        assert Endpoint(state.url).run({}) == {"status": "success"}
    assert state.asked == ["POST /run"] * 3 + ["GET /status/j1"] * 3
    with cloud((502, b"")) as state, pytest.raises(JobError, match="502"):
        Endpoint(state.url).run({})
    assert state.asked == ["POST /run"], "it may have arrived"


def test_a_request_over_runpods_limit_is_not_sent() -> None:
    with pytest.raises(JobError, match=r"12\.0 MB and RunPod takes 10 MB by /run: .* or use /runsync"):
        Endpoint("http://127.0.0.1:9").run({"text": "x" * 12_000_000})


def test_progress_is_a_line_with_node_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    progress = api_example.Progress()
    told = {"percent": 42, "node": "Sampler\x1b[31m", "step": 9, "steps": 20}
    for status in ({"status": "IN_QUEUE"}, {"status": "IN_PROGRESS", "output": told}, {"status": "COMPLETED"}):
        progress.tell(status)
    assert capsys.readouterr().err.splitlines() == [
        "waiting for a worker",
        "[########............] 42 % Sampler[31m, step 9 of 20",
        "completed",
    ]


def test_the_newest_preview_is_in_the_folder_for_previews(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    progress = api_example.Progress(folder)
    for jpeg in (b"first", b"newest"):
        progress.tell({"status": "IN_PROGRESS", "output": {"percent": 1, "preview": base64.b64encode(jpeg).decode()}})
        progress.tell({"status": "IN_PROGRESS", "output": {"percent": 2}})
    assert [(file.name, file.read_bytes()) for file in folder.iterdir()] == [("preview.jpg", b"newest")]


def test_previews_are_asked_for_only_if_there_is_a_folder_for_them() -> None:
    output = {"live_previews": True, "format": "webp"}
    asked = api_example._parse(["--previews", "x", "--set", 'output={"format": "webp"}'])
    assert api_example._fields(asked) == {"output": output}
    assert api_example._fields(api_example._parse([])) == {}


def test_files_from_a_bucket_are_fetched_and_names_have_no_way_out(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    with cloud((200, picture.getvalue())) as state:
        answer = {
            "images": [base64.b64encode(b"one").decode()],
            "files": [
                {"name": "../../a b.png", "image_index": 0},
                {"name": "x/y.mp4", "data": base64.b64encode(b"two").decode()},
                {"name": "far.png", "url": f"{state.url}/far.png?X-Amz-Signature=s"},
                {"name": "only-in-the-bucket.png", "bucket": "b", "key": "k"},
            ],
            "seed": 5,
        }
        saved = list(api_example._save_files(answer, tmp_path))
    assert [str(file.relative_to(tmp_path)) for file in saved] == ["a_b-5.png", "x/y-5.mp4", "far-5.png"]
    assert [file.read_bytes() for file in saved] == [b"one", b"two", picture.getvalue()]
    with cloud((403, b"")) as state, pytest.raises(JobError, match="cannot be fetched from the bucket") as raised:
        list(
            api_example._save_files(
                {"files": [{"name": "a", "url": f"{state.url}/a?X-Amz-Signature=secret"}]}, tmp_path
            )
        )
    assert "secret" not in str(raised.value)


# --- The same in other words ---------------------------------------------------------------------------------


def other(client: Client, *line: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    """Another example, against the local endpoint."""
    environment = {**os.environ, "ENDPOINT_URL": client.url, "RUNPOD_API_KEY": key}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=90)


def test_one_job_by_curl(client: Client, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"input": {"workflow": workflows.still()}}))
    done = other(client, "examples/api_example.sh", str(request), str(tmp_path / "out"))
    assert done.stdout.split() == [str(tmp_path / "out" / "still_00001_.png")], done.stderr
    assert Image.open(tmp_path / "out" / "still_00001_.png").size == (128, 96)
    refused = other(client, "examples/api_example.sh", str(request), str(tmp_path), key="wrong")
    assert refused.returncode != 0
    assert "401" in refused.stderr
    request.write_text(json.dumps({"input": {"workflow": {}}}))
    failed = other(client, "examples/api_example.sh", str(request), str(tmp_path))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "FAILED: workflow has no nodes" in failed.stderr


NODE = pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js on this machine")
OTHERS = [pytest.param(False, id="curl"), pytest.param(True, id="javascript", marks=NODE)]


def in_other_words(client: Client, is_javascript: bool, workflow: Any, folder: Path, **more: Any) -> list[str]:
    """Run a job by one of the other examples; the lines that it prints. Raises AssertionError with its errors."""
    file, out = folder / "given.json", str(folder / "out")
    file.write_text(json.dumps(workflow if is_javascript else {"input": {"workflow": workflow, **more}}))
    line = ["node", "examples/api_example.mjs", str(file), "", out] if is_javascript else [
        "examples/api_example.sh", str(file), out
    ]  # fmt: skip
    done = other(client, *line)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("is_javascript", OTHERS)
def test_nothing_that_a_job_made_is_lost_or_overwritten(client: Client, tmp_path: Path, is_javascript: bool) -> None:
    out = tmp_path / "out"
    for number in ("", "-2"):
        made = in_other_words(client, is_javascript, {**workflows.still(prefix="sub/a"), "9": workflows.node(
            "SaveAnimatedWEBP", images=["2", 0], filename_prefix="moves", fps=6.0, lossless=True, quality=80,
            method="default")}, tmp_path)  # fmt: skip
        assert sorted(made) == [str(out / f"moves_00001_{number}.webp"), str(out / "sub" / f"a_00001_{number}.png")]
        assert Image.open(out / "sub" / f"a_00001_{number}.png").size == (128, 96)
    assert in_other_words(client, is_javascript, workflows.text_only(), tmp_path)


@pytest.mark.parametrize("is_javascript", OTHERS)
def test_files_in_a_bucket_are_fetched(storage: Storage, tmp_path: Path, is_javascript: bool) -> None:
    config = storage.config
    bucket = {
        "BUCKET_ENDPOINT_URL": config.endpoint_url, "BUCKET_ACCESS_KEY_ID": "any", "BUCKET_SECRET_ACCESS_KEY": "any",
        "BUCKET_NAME": config.name, "BUCKET_REGION": "us-east-1", "OUTPUT_DELIVERY": "bucket",
        "TRUSTED_HOSTS": config.endpoint_url.partition("//")[2],
    }  # fmt: skip
    (tmp_path / "endpoint").mkdir()
    with serving(tmp_path / "endpoint", **bucket) as served:
        served.wait_for_workers(1)
        assert in_other_words(served, is_javascript, workflows.still(), tmp_path)
    assert Image.open(tmp_path / "out" / "still_00001_.png").size == (128, 96)


@pytest.mark.parametrize("is_javascript", OTHERS)
def test_without_an_endpoint_the_other_examples_say_what_to_set(tmp_path: Path, is_javascript: bool) -> None:
    file = tmp_path / "given.json"
    file.write_text("{}")
    line = ["node", "examples/api_example.mjs"] if is_javascript else ["examples/api_example.sh"]
    environment = {"PATH": os.environ["PATH"]}
    command = [*line, str(file), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "RUNPOD_ENDPOINT_ID" in done.stderr
    assert "undefined" not in done.stderr


@NODE
def test_one_job_by_javascript(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(workflows.generative()))
    done = other(client, "node", "examples/api_example.mjs", str(file), "a dog", str(tmp_path / "out"))
    assert done.stdout.split() == [str(tmp_path / "out" / "gen_00001_.png")], done.stderr
    file.write_text("{}")
    failed = other(client, "node", "examples/api_example.mjs", str(file))
    assert (failed.returncode, "failed: workflow has no nodes" in failed.stderr) == (1, True), failed.stderr


@pytest.mark.parametrize("name", ["api_example.py", "batch_example.py"])
def test_the_lines_of_the_docstrings_work(client: Client, tmp_path: Path, name: str) -> None:
    text = (ROOT / "examples" / name).read_text()
    lines = re.findall(rf"^    python examples/{name} (.*--local.*)$", text, re.MULTILINE)
    assert lines
    (tmp_path / "workflow.json").write_text(json.dumps(workflows.generative()))
    (tmp_path / "saved.json").write_text(json.dumps(editor_files.tiny_generative()))
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    for line in lines:
        words = shlex.split(line)
        words[words.index("--local")] = f"--local={client.url}"
        command = [sys.executable, str(ROOT / "examples" / name), *words, "--key", KEY]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=90)
        assert done.returncode == 0, (line, done.stderr)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("8011", "http://127.0.0.1:8011/v2/local"),
        ("desk:8011", "http://desk:8011/v2/local"),
        ("http://desk:8011/", "http://desk:8011/v2/local"),
        ("https://desk/v2/mine", "https://desk/v2/mine"),
    ],
)
def test_a_port_alone_names_an_endpoint_on_this_machine(given: str, meant: str) -> None:
    assert api_example.local_url(given) == meant


def test_many_jobs_at_a_time(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(workflows.generative()))
    line = [sys.executable, "examples/batch_example.py", "--local", client.url, "--key", KEY, "--workflow", str(file)]
    done = other(client, *line, "--seeds", "1", "-2", "--output", str(tmp_path / "out"), "--", "a cat", "a dog")
    assert sorted(done.stdout.split()) == [
        str(tmp_path / "out" / "seed-1" / "gen_00001-1-2.png"),
        str(tmp_path / "out" / "seed-1" / "gen_00001-1.png"),
    ]
    assert (done.returncode, done.stderr.count("seed -2: ")) == (2, 2), done.stderr
