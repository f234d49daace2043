"""The built image, run as a container: IMAGE_ROOT names its root filesystem, see docker/BUILD_COMMANDS.md."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from ..container import ENTRY, ENVIRONMENT, Container, running
from ..loopback_queue import LoopbackQueue, serving
from ..scripts import REPOSITORY
from ..workflows import node

ROOT = Path(os.environ.get("IMAGE_ROOT", "/nowhere"))
IS_POD = (ROOT / "worker" / "legacy").is_dir()
GRACE = 10.0  # seconds: Docker's before SIGKILL
HANG = 120.0
SPY = Path(__file__).parents[1] / "comfyui_nodes" / "spy"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "worker").is_dir(), reason="IMAGE_ROOT names no root filesystem of a built image"),
]
pod_only = pytest.mark.skipif(not IS_POD, reason="IMAGE_ROOT is not of the target pod")


def picture(queue: LoopbackQueue, job_id: str) -> bytes:
    (posted,) = queue.posted[job_id]
    answer = posted.get("output", posted)
    assert answer.get("status") == "success", answer
    return base64.b64decode(answer["images"][0])


def file_of(queue: LoopbackQueue, job_id: str) -> bytes:
    (posted,) = queue.posted[job_id]
    answer = posted.get("output", posted)
    assert answer.get("status") == "success", answer
    return base64.b64decode(answer["files"][0]["data"])


def work(size: int = 64, color: int = 255) -> dict[str, Any]:
    return {
        "1": node("EmptyImage", width=size, height=size, batch_size=1, color=color),
        "9": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only root"])
def test_a_job_gives_a_picture_and_sigterm_leaves_nothing(tmp_path: Path, read_only: bool) -> None:
    with serving() as queue:
        queue.put("one", {"workflow": work()})
        environment = {**ENVIRONMENT, **queue.environment}
        with running(ROOT, ENTRY, environment, tmp_path, read_only=read_only) as container:
            queue.wait_for(1, HANG)
            assert picture(queue, "one").startswith(b"\x89PNG")
            assert "Traceback" not in container.log and "Read-only file system" not in container.log
            assert any("main.py" in process for process in container.processes())
            status, seconds = container.stop(GRACE)
            assert status == 0, container.log[-3000:]
            print(f"SIGTERM: nothing left after {seconds:.2f} s")


@pytest.mark.parametrize("confined", ["true", "false"])
def test_a_node_pack_finds_no_secret_and_cannot_change_the_worker(tmp_path: Path, confined: str) -> None:
    """As root with Docker's default capabilities. Without Landlock, `.secrets` and the worker's files are in reach."""
    overlay = tmp_path / "overlay"
    shutil.copytree(SPY, overlay / "comfyui" / "custom_nodes" / "spy")
    (overlay / "worker").mkdir()
    (overlay / "worker" / ".secrets").write_text("R2_SECRET_ACCESS_KEY=hf_planted_in_a_file\n")
    with serving() as queue:
        environment = {**ENVIRONMENT, **queue.environment, "COMFYUI_CONFINED": confined}
        planted = {"HF_TOKEN": "hf_planted_secret", "MY_VALUE_SECRET": "hf_planted_secret"}
        queue.put("spy", {"workflow": {"1": node("Spy", secret_end="_secret")}})
        queue.put("spy on the file", {"workflow": {"1": node("Spy", secret_end="_in_a_file")}})
        with running(ROOT, ENTRY, {**environment, **planted}, tmp_path, overlay=overlay):
            queue.wait_for(2, HANG)
    report, report_of_file = (json.loads(file_of(queue, name)) for name in ("spy", "spy on the file"))
    assert report["others"] >= 2, "it looks at the worker and the container's first process"
    assert report["found"] == []
    if confined == "true":
        assert (report_of_file["found"], report["changed"], report["traced"]) == ([], [], [])
    else:
        assert "/worker/.secrets" in report_of_file["found"], "what is told in operations.md"
        assert "/worker/serverless_worker.py" in report["changed"]


def test_a_job_that_runs_is_answered_before_the_container_ends(tmp_path: Path) -> None:
    blur = {
        "1": node("EmptyImage", width=2048, height=2048, batch_size=2, color=99),
        "2": node("ImageBlur", image=["1", 0], blur_radius=31, sigma=10.0),
        "9": node("SaveImage", images=["2", 0], filename_prefix="x"),
    }
    with serving() as queue, running(ROOT, ENTRY, {**ENVIRONMENT, **queue.environment}, tmp_path) as container:
        queue.put("first", {"workflow": work()})
        queue.wait_for(1, HANG)
        queue.put("long", {"workflow": blur})
        container.wait_for_log("queued prompt", HANG)
        while "long" not in queue.taken:
            time.sleep(0.01)
        time.sleep(0.3)
        status, _ = container.stop(HANG)
        assert status == 0
        assert picture(queue, "long").startswith(b"\x89PNG")


def test_bytecode_is_there_and_not_stale() -> None:
    """Each module that boots has a .pyc whose time and size are those of its source (PEP 552)."""
    for source in (
        ROOT / "comfyui" / "nodes.py",
        ROOT / "comfyui" / "comfy" / "sd.py",
        ROOT / "worker" / "src" / "errors.py",
    ):
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")
        flags, seconds, size = (int.from_bytes(compiled.read_bytes()[at : at + 4], "little") for at in (4, 8, 12))
        told = source.stat()
        assert (flags, seconds, size) == (0, int(told.st_mtime), told.st_size), source


def test_the_image_says_what_is_in_it() -> None:
    proof = json.loads((ROOT / "worker" / "proof.json").read_text())
    assert proof["comfyui"] and "custom_nodes" in proof
    assert not list(ROOT.glob("worker/.secrets*")) and not (ROOT / "comfyui" / ".git").exists()


# --- The Pod ----------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str, container: Container) -> requests.Response:
    deadline = time.monotonic() + HANG
    while True:
        try:
            return requests.get(url, timeout=5)
        except requests.ConnectionError:
            assert container.alive and time.monotonic() < deadline, container.log[-5000:]
            time.sleep(0.1)


@pod_only
def test_the_pod_has_its_editor_jupyter_and_ssh_and_runs_jobs(tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    editor, jupyter, ssh = free_port(), free_port(), free_port()
    environment = {
        **ENVIRONMENT,
        "MODE_TO_RUN": "pod",
        "COMFYUI_PORT": str(editor),
        "JUPYTER_PORT": str(jupyter),
        "SSH_PORT": str(ssh),
        "JUPYTER_PASSWORD": "a password",
        "PUBLIC_KEY": (tmp_path / "key.pub").read_text(),
        "COMFYUI_LISTEN": "127.0.0.1",
    }
    (tmp_path / "pod").mkdir()
    with running(ROOT, ENTRY, environment, tmp_path / "pod", volume="workspace") as container:
        url = f"http://127.0.0.1:{editor}"
        assert "<html" in answers(url, container).text.lower(), "the editor"
        prompt_id = requests.post(f"{url}/prompt", json={"prompt": work()}, timeout=10).json()["prompt_id"]
        while not (history := requests.get(f"{url}/history/{prompt_id}", timeout=10).json()):
            time.sleep(0.05)
        assert history[prompt_id]["status"]["status_str"] == "success"

        notebooks = f"http://127.0.0.1:{jupyter}/api/contents"
        answers(notebooks, container)
        assert requests.get(notebooks, timeout=10).status_code == 403
        listed = requests.get(notebooks, headers={"Authorization": "token a password"}, timeout=10).json()
        assert {"ComfyUI", "models"} <= {entry["name"] for entry in listed["content"]}

        command = ["ssh", "-p", str(ssh), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o"]
        login = subprocess.run(
            [*command, "IdentitiesOnly=yes", "-i", str(key), "root@127.0.0.1", "ls /workspace/ComfyUI/output"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert (login.returncode, "x_00001_.png" in login.stdout) == (0, True), login.stderr
        shell = 'models sets | head -n 1; bash -lc "echo $COMFYUI_PATH ${JUPYTER_PASSWORD:-none}"'
        told = subprocess.run(
            [*command, "IdentitiesOnly=yes", "-i", str(key), "root@127.0.0.1", shell],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert told.stdout.startswith("flux1-dev ") and told.stdout.endswith("/comfyui none\n"), told
        refused = subprocess.run(
            [*command, "BatchMode=yes", "-o", "PubkeyAuthentication=no", "root@127.0.0.1", "true"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert "Permission denied (publickey)" in refused.stderr
        status, seconds = container.stop(GRACE)
        assert status == 0
        print(f"SIGTERM: nothing left after {seconds:.2f} s")


def test_the_tests_are_of_this_repository() -> None:
    for name in ("serverless_worker.py", "src/start.sh"):
        assert (ROOT / "worker" / name).read_bytes() == (REPOSITORY / name).read_bytes(), "IMAGE_ROOT is of other code"


def test_an_image_made_from_it_as_the_page_says(tmp_path: Path) -> None:
    """The recipe of docs/migrating.md: its RUN lines run in the image, and what it adds lies where it says."""
    page = (REPOSITORY / "docs" / "migrating.md").read_text(encoding="utf-8")
    recipe = page.split("```dockerfile\n")[1].split("```")[0].replace("PACK", "worker_test_nodes")
    steps = [line.removeprefix("RUN ") for line in recipe.splitlines() if line.startswith("RUN ")]
    variables = dict(line.removeprefix("ENV ").split("=") for line in recipe.splitlines() if line.startswith("ENV "))
    added = [line.split()[-1] for line in recipe.splitlines() if line.startswith(("ADD ", "COPY "))]
    assert (len(steps), variables) == (2, {"WORKFLOWS_DIR": "/workflows"})
    overlay = tmp_path / "overlay"
    pack, models, inputs, workflows = (overlay / place.lstrip("/") for place in added)
    shutil.copytree(SPY.parent / "worker_test_nodes", pack)
    (pack / "requirements.txt").write_text("numpy\npillow\n")
    for folder in (models, inputs, workflows):
        folder.mkdir(parents=True)
    (models / "style.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    shutil.copy(REPOSITORY / "docs" / "pictures" / "playground-light.png", inputs / "face.png")
    load = {"1": node("LoadImage", image="face.png"), "9": node("SaveImage", images=["1", 0], filename_prefix="x")}
    (workflows / "portrait.json").write_text(json.dumps(load))
    sleep = {**work(), "2": node("WorkerTestSleep", image=["1", 0], seconds=0.1, steps=1)}
    sleep["9"]["inputs"]["images"] = ["2", 0]
    start = " && ".join([*steps, f"exec {ENTRY[0]}"])
    with serving() as queue:
        environment = {**ENVIRONMENT, **queue.environment, **variables}
        with running(ROOT, ["/bin/sh", "-c", start], environment, tmp_path, overlay=overlay) as container:
            queue.put("baked", {"workflow": "portrait"})
            queue.put("pack", {"workflow": sleep})
            queue.put("info", {"action": "info"})
            queue.wait_for(3, 2 * HANG)
            assert picture(queue, "baked").startswith(b"\x89PNG"), container.log[-3000:]
            assert picture(queue, "pack").startswith(b"\x89PNG")
    (posted,) = queue.posted["info"]
    assert posted["output"]["models"]["loras"] == ["style.safetensors"]
