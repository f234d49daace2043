"""SIGTERM while a job waits for the network: the job is answered, the worker ends, and nothing is left running."""

from __future__ import annotations

import io
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .. import workflows
from ..conftest import REAL_ARGS, installation
from ..loopback_queue import serving
from ..model_server import ModelServer, entry, model_server
from ..models.test_provisioning import draft_checkout
from ..s3 import Storage, faulty_proxy
from ..tiny_models import make_models
from ..worker_process import WorkerProcess, running

LONG = 60.0  # a hang limit, no measure
TAKES = 2.0  # seconds
VAE = "tiny_taesd.safetensors"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def picture() -> bytes:
    """A PNG of more than 64 KB, which a paced server sends in several parts."""
    written = io.BytesIO()
    Image.effect_noise((512, 512), 100).save(written, "png")
    return written.getvalue()


def wait_until(condition: Callable[[], bool], worker: WorkerProcess) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, worker.log
        time.sleep(0.02)


def answer_after_sigterm(
    folder: Path,
    environment: Mapping[str, str],
    job_input: dict[str, Any],
    is_busy: Callable[[], bool],
    arguments: tuple[str, ...] = ("--draft",),
) -> dict[str, Any]:
    """What a job is answered that is in the midst of something, as `is_busy` says, when SIGTERM comes."""
    with serving() as queue, running([*arguments], {**queue.environment, **environment}, folder) as worker:
        queue.put("job", job_input)
        wait_until(is_busy, worker)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(LONG) == 0, worker.log
        assert worker.process_tree_ends(5)
        assert "Traceback" not in worker.log
        answer: dict[str, Any] = queue.posted["job"][0]["output"]
        return answer


def test_while_an_input_is_fetched(tmp_path: Path) -> None:
    with model_server() as server:
        server.files["picture.png"] = picture()
        server.pace = TAKES / (len(server.files["picture.png"]) // 65536 + 1)
        workflow = workflows.still()
        workflow["1"] = workflows.node("LoadImage", image="given.png")
        url = f"{server.url}/files/picture.png"
        answer = answer_after_sigterm(
            tmp_path,
            {"TRUSTED_HOSTS": server.host, "ALLOW_HTTP_URLS": "true"},
            {"workflow": workflow, "images": [{"name": "given.png", "image": url}]},
            lambda: any(request.startswith("GET") for request in server.requests),
        )
    assert answer["status"] == "success"
    assert server.sent == len(server.files["picture.png"])


def test_while_a_picture_is_uploaded(tmp_path: Path, storage: Storage) -> None:
    with faulty_proxy(storage.config.endpoint_url, pause=TAKES) as proxy:
        environment = {
            "BUCKET_ENDPOINT_URL": proxy.url,
            "BUCKET_ACCESS_KEY_ID": "any",
            "BUCKET_SECRET_ACCESS_KEY": "any",
            "BUCKET_NAME": storage.config.name,
            "BUCKET_REGION": "us-east-1",
            "BUCKET_PREFIX": "sigterm/",
        }
        answer = answer_after_sigterm(
            tmp_path,
            environment,
            {"workflow": workflows.still(), "output": {"delivery": "bucket"}},
            lambda: any(request.startswith("PUT") for request in proxy.requests),
        )
    assert answer["status"] == "success"
    keys = storage.keys()
    assert any(key.startswith("sigterm/") for key in keys)


def environment_of_models(folder: Path, server: ModelServer) -> dict[str, str]:
    """Of a worker that fetches the VAE of the tiny models; the other files are there."""
    make_models(folder / "volume")
    vae = folder / "volume" / "vae" / VAE
    server.files[VAE] = vae.read_bytes()
    vae.unlink()
    server.pace = TAKES / (len(server.files[VAE]) // 65536 + 1)
    source = {"url": f"{server.url}/files/{VAE}"}
    manifest = folder / "models.json"
    manifest.write_text(json.dumps({"models": [entry("tiny", server.files[VAE], source)], "sets": {}}))
    return {
        "DOWNLOAD_MODELS": "true",
        "MODELS_DIR": str(folder / "volume"),
        "MODELS_MANIFEST": str(manifest),
        "TRUSTED_HOSTS": server.host,
    }


@pytest.mark.slow
def test_while_a_model_is_fetched_for_a_job(tmp_path: Path) -> None:
    real = installation("real")
    with model_server() as server:
        environment = {
            **environment_of_models(tmp_path, server),
            "COMFYUI_PATH": str(real.directory),
            "COMFYUI_ARGS": f"{REAL_ARGS} --disable-all-custom-nodes",
        }
        answer = answer_after_sigterm(
            tmp_path, environment, {"workflow": workflows.generative()}, lambda: server.sent > 0, ()
        )
    assert answer["status"] == "success", answer
    assert (tmp_path / "volume" / "vae" / VAE).is_file()


def test_while_models_are_fetched_at_the_boot_it_ends_at_once_and_the_next_boot_goes_on(tmp_path: Path) -> None:
    with model_server() as server, serving() as queue:
        environment = {
            **queue.environment,
            **environment_of_models(tmp_path, server),
            "MODELS": "tiny",
            "COMFYUI_PATH": str(draft_checkout(tmp_path)),
            "COMFYUI_PYTHON": sys.executable,
        }
        with running([], environment, tmp_path) as worker:
            wait_until(lambda: server.sent > 0, worker)
            worker.process.send_signal(signal.SIGTERM)
            worker.process.wait(5)
            assert worker.process_tree_ends(5)
        vae = tmp_path / "volume" / "vae" / VAE
        assert not vae.exists()
        server.pace = 0
        queue.put("job", {"workflow": workflows.still()})
        with running([], environment, tmp_path) as worker:
            queue.wait_for(1, LONG)
            assert queue.posted["job"][0]["output"]["status"] == "success", worker.log
        assert vae.read_bytes() == server.files[VAE]
