"""The engines that the tests share: always the draft engine, and a real ComfyUI if one is found."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from jsonschema import Draft202012Validator

from maintenance.schemas import schemas
from src.comfy.engine import ComfyEngine
from src.comfy.install import Installation, draft_installation, find_comfyui
from src.errors import ComfyNotFound
from src.job import handler as job_handler
from src.job.handler import Worker
from src.job.run import JobRunner
from src.settings import Settings, read_settings

from .s3 import storage, strict_storage  # noqa: F401  fixtures
from .tiny_models import make_paths

hypothesis.settings.register_profile("no time", deadline=None)
hypothesis.settings.load_profile("no time")

ANSWERS = Draft202012Validator(schemas()["output.schema.json"])
ENGINES = ("draft", "real")
# Arguments of the real ComfyUI, unless the environment sets them: the tests run without a GPU.
REAL_ARGS = os.environ.get("COMFYUI_ARGS", "--cpu")


def _real_installation() -> Installation | str:
    """A real ComfyUI, or why there is none."""
    try:
        return find_comfyui(read_settings())
    except ComfyNotFound as error:
        return error.message


REAL = _real_installation()


def pytest_report_header() -> str:
    """Print which engines are used."""
    if isinstance(REAL, str):
        return f"engines: draft engine; real ComfyUI skipped: {REAL}"
    return f"engines: draft engine, {REAL.name}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print it again at the end, where it is noticed."""
    terminalreporter.write_line(pytest_report_header())


def installation(name: str) -> Installation:
    """The engine of that name; skips the test if it is not available."""
    if name in ("draft", "draft of any class"):
        return draft_installation(any_class=name != "draft")
    if isinstance(REAL, str):
        pytest.skip(f"no real ComfyUI: {REAL}")
    return REAL


@pytest.fixture(scope="session")
def model_paths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for --extra-model-paths-config, with the paths of the tiny models and the test nodes."""
    return make_paths(tmp_path_factory.mktemp("models"))


def settings_for(name: str, model_paths: Path | None = None, **changes: Any) -> Settings:
    """Settings for that engine in tests: the arguments that it needs, and the given changes."""
    arguments = ""
    if name == "real":
        nodes = "--disable-all-custom-nodes --whitelist-custom-nodes worker_test_nodes websocket_image_save.py"
        paths = f"--extra-model-paths-config {model_paths}" if model_paths else ""
        arguments = f"{REAL_ARGS} {nodes} {paths}"
    return replace(read_settings({}), comfyui_args=arguments, **changes)


@dataclass(frozen=True)
class Bench:
    """A booted worker with an engine, to run jobs on through the handler."""

    name: str
    worker: Worker

    @property
    def engine(self) -> ComfyEngine:
        """The worker's engine."""
        return self.worker.runner.engine

    def run(self, **fields: Any) -> dict[str, Any]:
        """The handler's answer to a job with these input fields."""
        return self.handle({"id": "test-job", "input": fields})

    def handle(self, job: Any) -> dict[str, Any]:
        """The handler's answer to a job, validated against docs/output.schema.json."""
        job_handler.set_worker(self.worker)
        answer: dict[str, Any] = asyncio.run(job_handler.handler(job))
        ANSWERS.validate(answer)
        return answer

    def prompts_in_history(self) -> list[str]:
        """The ids of the prompts in ComfyUI's history; waits up to 10 seconds for those that are just being deleted."""
        end = time.monotonic() + 10
        while (history := self.engine.client._json("GET", "/history")) and time.monotonic() < end:
            time.sleep(0.02)
        return list(history)

    def leftovers(self) -> list[str]:
        """Files and folders that jobs left behind."""
        self.worker.runner.turns.wait_cleared()
        folders = self.engine.process.folders
        paths = [path for folder in (folders.input, folders.output, folders.temp) for path in folder.rglob("*")]
        # ComfyUI creates this folder itself: newer versions at startup, 0.3.64 on a request to /object_info.
        created_by_comfyui = folders.input / "3d"
        baked = self.engine.process.installation.directory / "input"
        brought = {folders.input / path.relative_to(baked) for path in baked.rglob("*")}
        others = [path for path in paths if path not in brought]
        return [str(path) for path in others if path != created_by_comfyui or not path.is_dir()]


@contextmanager
def booted(name: str, settings: Settings) -> Iterator[Bench]:
    """A bench with its own engine."""
    with ComfyEngine(installation(name), settings) as engine:
        engine.wait_ready()
        yield Bench(name, Worker(JobRunner.make(engine, settings)))


@pytest.fixture(scope="session", params=ENGINES)
def bench(request: pytest.FixtureRequest, model_paths: Path) -> Iterator[Bench]:
    """For each engine, one booted worker for the whole test run."""
    installation(request.param)
    with booted(request.param, settings_for(request.param, model_paths)) as shared:
        yield shared


@pytest.fixture(scope="session")
def draft_bench() -> Iterator[Bench]:
    """A booted worker with the draft engine, for tests that do not depend on the engine."""
    with booted("draft", settings_for("draft")) as shared:
        yield shared
