"""Programs of others that use ComfyUI's API run through a gateway as they are.

They are installed once, from PyPI and from npm; where these cannot be reached the tests are skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .. import workflows
from ..conftest import ENGINES, installation
from ..endpoint.test_endpoint import serving
from .conftest import GatewayClient, gateway, serving_real

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent / "clients"
HANG = 120.0  # no measure
UNREACHABLE = re.compile(
    r"No module named pip|from versions: none|ConnectionError|ConnectTimeout|ReadTimeout|Could not fetch URL"
    r"|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|E40[34]"
)
# No program may send anything to anybody else: not what they do (telemetry), and not by accident.
NOWHERE = "http://127.0.0.1:9"
QUIET = {
    **dict.fromkeys(("DO_NOT_TRACK", "COMFY_NO_TELEMETRY", "COMFY_NO_UPDATE_CHECK", "COMFY_NO_WATCH"), "1"),
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), NOWHERE),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    "NO_COLOR": "1",
}


@dataclass(frozen=True)
class Programs:
    """Where they are installed."""

    folder: Path

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one to its end, in a home of its own."""
        home = {"HOME": str(self.folder), "PATH": f"{self.folder / 'venv' / 'bin'}:{os.environ['PATH']}"}
        return subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env={**QUIET, **home},
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )

    def outcomes(self, *command: str | Path) -> dict[str, Any]:
        """What a script tells of its steps."""
        done = self.run(*command)
        lines = [line for line in done.stdout.splitlines() if line.startswith('["')]
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return dict(json.loads(line) for line in lines)

    def comfy(self, *arguments: str | Path) -> dict[str, Any]:
        """What comfy-cli answers to a command."""
        done = self.run("comfy", "--skip-prompt", "--json", *arguments)
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert answers, f"{done.stdout}\n{done.stderr}"
        return dict(answers[-1])


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """All of them; the one for Node.js is missing where there is no npm."""
    folder = tmp_path_factory.mktemp("clients")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    pip = (sys.executable, "-m", "pip", "--python", str(folder / "venv"), "install", "--quiet", "--no-compile")
    installs: list[tuple[str, ...]] = [(*pip, "--requirement", str(SCRIPTS / "requirements.txt"))]
    if shutil.which("npm"):
        shutil.copy(SCRIPTS / "package.json", folder)
        installs.append(("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps"))
    started = [
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in installs
    ]
    ended = [(process.communicate(timeout=600)[0], process.returncode) for process in started]
    for output, status in ended:
        if status and UNREACHABLE.search(output):
            pytest.skip(f"PyPI or npm cannot be reached, or there is no pip: {output[-500:]}")
        assert status == 0, output
    return Programs(folder)


@pytest.fixture(scope="module", params=ENGINES)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_paths: Path
) -> Iterator[tuple[str, GatewayClient]]:
    """The name of an engine, and a gateway in front of workers with it, which knows their classes."""
    installation(request.param)
    folders = [tmp_path_factory.mktemp(name) for name in ("endpoint", "gateway")]
    serve = serving(folders[0]) if request.param == "draft" else serving_real(folders[0], model_paths)
    with serve as endpoint, gateway(folders[1], endpoint) as served:
        (folders[1] / "picture.png").write_bytes(workflows.png(48))
        (folders[1] / "broken.png").write_bytes(b"no picture")
        assert served.get("/object_info").status_code == 200
        yield request.param, served


def slow(engine: str) -> dict[str, Any]:
    """A workflow that takes minutes, and tells its steps; its last node, for JavaScript too, is its output."""
    if engine == "draft":
        workflow = workflows.generative()
        workflow["8"]["inputs"]["steps"] = 10_000
        workflow["9"]["_meta"] = {"title": "Save"}
        return {**{node_id: node for node_id, node in workflow.items() if node_id != "9"}, "n9": workflow["9"]}
    save = {**workflows.node("SaveImage", images=["2", 0], filename_prefix="slow"), "_meta": {"title": "Save"}}
    return {
        "1": workflows.node("EmptyImage", width=64, height=64, batch_size=1, color=1),
        "2": workflows.node("WorkerTestSleep", image=["1", 0], seconds=300.0, steps=1000),
        "3": save,
    }


def saving(file: str) -> dict[str, Any]:
    """A workflow that saves an input picture."""
    save = workflows.node("SaveImage", images=["1", 0], filename_prefix="saved")
    return {"1": workflows.node("LoadImage", image=file), "2": save}


def nothing_is_left(served: GatewayClient) -> bool:
    """Whether the gateway has nothing to do, and its last prompt succeeded."""
    *_, last = served.get("/history").json().values()
    return not any(served.get("/queue").json().values()) and bool(last["status"]["completed"])


def cancelled(served: GatewayClient) -> int:
    """How many prompts were."""
    endings = [entry["status"]["messages"][-1][0] for entry in served.get("/history").json().values()]
    return endings.count("execution_interrupted")


def test_comfy_cli_uploads_runs_fails_and_cancels(
    place: tuple[str, GatewayClient], programs: Programs, tmp_path: Path
) -> None:
    engine, served = place
    at = ("--host", "127.0.0.1", "--port", served.url.rpartition(":")[2])
    files = {"good": saving("picture.png"), "none": saving("none.png"), "bad": saving("broken.png")}
    for name, workflow in {**files, "slow": slow(engine)}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(workflow))

    def run(name: str, *options: str) -> dict[str, Any]:
        return programs.comfy("run", "--workflow", tmp_path / f"{name}.json", *at, *options)

    uploads = [served.folder.parent / name for name in ("picture.png", "broken.png")]
    assert programs.comfy("upload", *uploads, *at)["ok"]
    answer = run("good", "--wait")
    assert answer["ok"], answer
    (url,) = answer["data"]["outputs"]
    assert served.get(url.removeprefix(served.url)).content.startswith(b"\x89PNG")
    answer = run("none", "--wait")
    assert answer["error"]["code"] == "prompt_rejected"
    assert answer["error"]["details"]["node_errors"][0]["errors"][0]["type"] == "custom_validation_failed"
    answer = run("bad", "--wait")
    assert answer["error"]["code"] == "execution_error"
    assert "UnidentifiedImageError" in json.dumps(answer["error"])
    prompt_id = run("slow")["data"]["prompt_id"]
    while prompt_id not in [item[1] for item in served.get("/queue").json()["queue_running"]]:
        time.sleep(0.05)
    before = cancelled(served)
    assert programs.comfy("jobs", "cancel", prompt_id, *at)["ok"]
    assert served.entry(prompt_id)["status"]["status_str"] == "error"
    assert cancelled(served) == before + 1
    assert programs.comfy("jobs", "status", prompt_id, *at)["data"]["status"] == "cancelled"
    assert run("good", "--wait")["ok"]
    assert nothing_is_left(served)


def test_comfy_api_simplified_uploads_runs_fails_and_cancels(
    place: tuple[str, GatewayClient], programs: Programs
) -> None:
    engine, served = place
    files = [served.folder.parent / name for name in ("picture.png", "broken.png")]
    before = cancelled(served)
    told = programs.outcomes("python", SCRIPTS / "simplified.py", served.url, *files, json.dumps(slow(engine)))
    assert told["uploaded"] == {"name": "picture.png", "subfolder": "uploads", "type": "input"}
    assert list(told["saved"]) == ["simplified_00001_.png"]
    assert "400" in told["refused"]
    # It listens only after it has queued the prompt, so it may miss the error; then it misses the outputs.
    assert told["failed"] in ("ComfyApiError: Execution error occurred.", "KeyError: '2'")
    assert told["cancelled"].startswith("KeyError")
    assert cancelled(served) == before + 1
    assert list(told["saved again"]) == ["simplified_00002_.png"]
    assert nothing_is_left(served)


def test_comfy_script_runs_fails_and_cancels(place: tuple[str, GatewayClient], programs: Programs) -> None:
    engine, served = place
    for name in ("picture.png", "broken.png"):
        shutil.copy(served.folder.parent / name, served.folder / "input")
    before = cancelled(served)
    arguments = (served.url, "picture.png", "broken.png", json.dumps(slow(engine)))
    told = programs.outcomes("python", SCRIPTS / "script.py", *arguments)
    assert told["saved"]["files"]["images"][0]["filename"] == "script_00001_.png"
    assert told["saved"]["sizes"] == [[48, 48]]
    assert (told["refused"], told["failed"], told["cancelled"]) == ("refused", "no result", "no result")
    assert cancelled(served) == before + 1
    assert told["saved again"]["sizes"] == [[48, 48]]
    assert nothing_is_left(served)


def test_the_comfyui_sdk_for_javascript_uploads_runs_fails_and_cancels(
    place: tuple[str, GatewayClient], programs: Programs
) -> None:
    engine, served = place
    if not (programs.folder / "node_modules").is_dir():
        pytest.skip("Node.js and npm are not installed")
    files = [served.folder.parent / name for name in ("picture.png", "broken.png")]
    before = cancelled(served)
    told = programs.outcomes("node", SCRIPTS / "sdk.mjs", served.url, *files, json.dumps(slow(engine)))
    assert told["uploaded"]["filename"] == "sdk.png"
    assert told["saved"]["images"] == [{"filename": "sdk_00001_.png", "subfolder": "", "type": "output"}]
    assert told["shown"] > 0
    assert told["refused"]["error"] == "EnqueueFailedError"
    assert told["refused"]["cause"]["error"]["type"] == "prompt_outputs_failed_validation"
    assert (told["failed"]["error"], told["failed"]["cause"]["node_type"]) == ("CustomEventError", "LoadImage")
    assert told["cancelled"]["error"] == "ExecutionInterruptedError"
    assert told["cancelled"]["steps"] > 0
    assert cancelled(served) == before + 1
    assert told["saved again"]["images"][0]["filename"] == "sdk_00002_.png"
    assert nothing_is_left(served)
