"""One job on this machine: read from a file or the command line, run with its progress shown, its files saved."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from .. import REPOSITORY
from ..clients import as_own_input
from ..comfy.engine import ComfyEngine
from ..comfy.events import Event
from ..comfy.install import draft_installation, find_comfyui
from ..comfy.run_limits import Report
from ..errors import GuiFormatWorkflow, InvalidInput
from ..job.fields import InputFields
from ..job.handler import Worker, handler, set_worker
from ..job.request import read_job
from ..job.run import JobRunner
from ..overrides import apply_overrides
from ..settings import Settings
from ..workflow.core_classes import core_schemas
from ..workflow.graph import Graph, Workflow
from ..workflow.stored import stored_workflow
from .command_line import Options

_TEST_INPUT = REPOSITORY / "test_input.json"
_SHOWN_CHARACTERS = 40


def run_test(options: Options, settings: Settings) -> int:
    """Run the test job, show its progress and save its files; the exit status."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the SDK is not in this process
    job, workflow = _checked_test_job(options, settings)
    installation = draft_installation(any_class=True) if options.draft else find_comfyui(settings)
    progress = Progress(workflow, installation.name)
    with ComfyEngine(installation, settings) as engine:
        runner = JobRunner.make(engine, settings)
        progress.booting()
        with runner.models:
            runner.begin_models()
            engine.wait_ready()
            runner.models.wait()
            set_worker(Worker(runner, lambda job, workflow: nullcontext(progress.reporter_for(workflow))))
            answer = asyncio.run(handler(job))
    progress.ended()
    return show_answer(answer, options.output)


def _checked_test_job(options: Options, settings: Settings) -> tuple[dict[str, Any], Workflow]:
    """The job to run, and its workflow.

    Raises InvalidInput if something is wrong with it, so that this shows before ComfyUI is started.
    """
    job = test_job(options)
    _check_output(options.output)
    try:
        request = read_job(
            job,
            lambda name: stored_workflow(name, settings),
            mend=_leave_to_comfyui,
            default_workflow=settings.default_workflow,
        )
    except (GuiFormatWorkflow, _NeedsComfyUI):  # only a running ComfyUI can convert or judge it
        return job, {}
    if all(node["class_type"] in core_schemas() for node in request.workflow.values()):
        apply_overrides(request.workflow, request.overrides)
    return job, request.workflow


class _NeedsComfyUI(Exception):
    """Only the schemas of node classes tell what is wrong with a workflow."""


def _leave_to_comfyui(_: Workflow) -> NoReturn:
    raise _NeedsComfyUI


def test_job(options: Options) -> dict[str, Any]:
    """The job to run: the one given, else test_input.json. Raises InvalidInput if it cannot be read."""
    text, source = _test_text(options.test_input)
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} in line {error.lineno}, column {error.colno}" if text.strip() else "it is empty"
        raise InvalidInput(f"{source} is not valid JSON: {problem}") from error
    except RecursionError as error:
        raise InvalidInput(f"{source} is nested too deeply") from error
    job_input = as_own_input(given, InputFields.model_fields)
    if isinstance(job_input, dict):
        job_input = {**job_input, **options.overrides}
    return {"id": "test", "input": job_input}


def _test_text(given: str | None) -> tuple[str, str]:
    """The JSON text, and the name of its source for error messages."""
    if given is not None and given.lstrip().startswith(("{", "[")):
        return given, "--test_input"
    file = _TEST_INPUT if given is None else Path(given.removeprefix("@"))
    try:
        return file.read_text(encoding="utf-8"), file.name
    except OSError as error:
        raise InvalidInput(
            f"cannot read {file.absolute()}: {error.strerror}; --test_input takes JSON or a file"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text") from error


def _check_output(folder: Path) -> None:
    """Create the folder that a test saves to. Raises InvalidInput if that fails, before anything runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"--output must be a folder: {folder} cannot be created ({error.strerror})") from error


# --- While it runs -------------------------------------------------------------------------------------


class Progress:
    """Progress on stderr: one line that is rewritten on a terminal, elsewhere a line for each event."""

    def __init__(self, workflow: Workflow, engine: str) -> None:
        self._graph = Graph(workflow)
        self._engine = engine
        self._rewrites = sys.stderr.isatty()
        self._last = ""

    def booting(self) -> None:
        """Show that the engine is starting."""
        self._show(f"starting {self._engine} …")

    def reporter_for(self, workflow: Workflow) -> Report:
        """The function to call with each event of a run of this workflow."""
        self._graph = Graph(workflow)
        return self.report

    def report(self, event: Event) -> None:
        """Show the node that runs, and its step."""
        if event.node_id is not None and event.node_id in self._graph and not event.jpeg:
            step = f": step {event.step} of {event.steps}" if event.steps else ""
            self._show(f"node {event.node_id} {self._graph.title(event.node_id)}{step}")

    def ended(self) -> None:
        """Leave the last line as it is."""
        if self._rewrites and self._last:
            print(file=sys.stderr)

    def _show(self, line: str) -> None:
        if line == self._last:
            return
        padding = " " * (len(self._last) - len(line))
        print(
            f"\r{line}{padding}" if self._rewrites else line,
            end="" if self._rewrites else "\n",
            file=sys.stderr,
            flush=True,
        )
        self._last = line


# --- Afterwards ----------------------------------------------------------------------------------------


def show_answer(answer: Mapping[str, Any], folder: Path) -> int:
    """Print the answer with base64 shortened, and save its files below `folder`; the exit status."""
    print(json.dumps(_shorten_base64(answer), indent=2, ensure_ascii=False), flush=True)
    for name, data in _answer_files(answer):
        content = base64.b64decode(data)
        file = _free_name(folder / name.lstrip("/"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        print(f"saved {file} ({len(content):,} bytes)", file=sys.stderr)
    return 0 if answer.get("status") == "success" or "images" in answer else 1


def _answer_files(answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and base64 of every file that the answer holds, in either format."""
    for number, image in enumerate(answer.get("images", [])):
        if isinstance(image, str):
            yield answer["filenames"][number], image
        elif image["type"] == "base64":  # worker-comfyui's
            yield image["filename"], image["data"]
    yield from ((file["name"], file["data"]) for file in answer.get("files", []) if "data" in file)


def _free_name(file: Path) -> Path:
    """`file`, or if it exists that name with a number, so that nothing is overwritten."""
    number, free = 2, file
    while free.exists():
        free = file.with_stem(f"{file.stem}-{number}")
        number += 1
    return free


def _shorten_base64(value: Any, key: str = "") -> Any:
    """JSON in which base64 is cut short."""
    if isinstance(value, Mapping):
        return {name: _shorten_base64(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_shorten_base64(part, key) for part in value]
    if key not in ("images", "data") or not isinstance(value, str) or len(value) <= _SHOWN_CHARACTERS:
        return value
    return f"{value[:_SHOWN_CHARACTERS]}… ({len(value):,} characters)"
