"""Flags, progress on a terminal, and saving what a local test made. The only room that prints."""

from __future__ import annotations

import argparse
import base64
import difflib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .comfy_events import Event
from .errors import BootTimeout, ComfyBootFailed, InvalidInput, WorkerError
from .job_input import read_job
from .settings import Settings
from .stored_workflows import stored_workflow
from .workflow import apply_overrides
from .workflow.graph import Graph, Workflow

_TEST_INPUT = Path(__file__).resolve().parent.parent / "test_input.json"
_SHOWN_CHARACTERS = 40

_USAGE = """\
python serverless_worker.py --test --draft              an image now: no ComfyUI, no model, no GPU
python serverless_worker.py --test                      run test_input.json on ComfyUI and save its images
python serverless_worker.py --test_input JSON|FILE      run that input, or that workflow
python serverless_worker.py --serve [--draft]           a RunPod endpoint on this machine, for clients and curl
python serverless_worker.py                             take jobs from RunPod (where RunPod starts it)"""


@dataclass(frozen=True)
class Options:
    """What the command line asked for. `for_sdk` are the arguments that are not ours."""

    testing: bool
    test_input: str | None
    overrides: dict[str, Any]
    draft: bool
    output: Path
    serve: bool
    port: int
    workers: int
    for_sdk: list[str]


def parse(arguments: list[str]) -> Options:
    """Our flags out of the arguments; ends the process for --help and for what nobody knows."""
    parser = argparse.ArgumentParser(
        prog="serverless_worker.py",
        description=f"A RunPod Serverless worker for ComfyUI.\n\n{_USAGE}",
        usage="python serverless_worker.py [flags]",
        epilog="Settings come from the environment (see docs/settings.md). RunPod's SDK gets its own flags (--rp_…).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--test", action="store_true", help="run test_input.json once and exit")
    parser.add_argument("--test_input", metavar="JSON|FILE", help="run this input or workflow once and exit")
    parser.add_argument("--prompt", metavar="TEXT", help="put this prompt into the test")
    parser.add_argument("--seed", metavar="N", type=int, help="put this seed into the test")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("output"), help="where a test saves (./output)"
    )
    parser.add_argument("--draft", action="store_true", help="in place of ComfyUI: draw drafts, without model or GPU")
    parser.add_argument("--serve", action="store_true", help="serve RunPod's routes on 127.0.0.1 with real workers")
    parser.add_argument("--port", metavar="N", type=_port, default=8000, help="port of --serve (8000)")
    parser.add_argument(
        "--workers", metavar="N", type=_worker_count, default=1, help="worker processes of --serve (1)"
    )
    ours, rest = parser.parse_known_args(arguments)
    known = [flag for action in parser._actions for flag in action.option_strings]
    for_sdk = _arguments_of_sdk(rest, known, parser)
    return Options(
        testing=ours.test or ours.test_input is not None,
        test_input=ours.test_input,
        overrides={name: value for name in ("prompt", "seed") if (value := getattr(ours, name)) is not None},
        draft=ours.draft,
        output=ours.output,
        serve=ours.serve,
        port=ours.port,
        workers=ours.workers,
        for_sdk=for_sdk,
    )


def _arguments_of_sdk(rest: list[str], known: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """What is left must be the SDK's flags and their values."""
    is_value = False
    for argument in rest:
        if not argument.startswith("--rp_") and not is_value:
            near = difflib.get_close_matches(argument, known, n=1)
            parser.error(f"unknown argument {argument}" + (f"; did you mean {near[0]}?" if near else "; see --help"))
        is_value = argument.startswith("--rp_")
    return rest


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError("must be a port from 1 to 65535")
    return int(text)


def _worker_count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 64:
        raise argparse.ArgumentTypeError("must be from 1 to 64")
    return int(text)


def say_serving(port: int, workers: int) -> None:
    """Where the local endpoint answers, and how to try it."""
    url = f"http://127.0.0.1:{port}/v2/local"
    print(
        f"serving {url} with {workers} worker{'s' if workers > 1 else ''}; Ctrl-C ends it. Try it:\n"
        f"curl -s {url}/runsync -H 'Content-Type: application/json' -d @test_input.json",
        flush=True,
    )


def say_what_can_be_done() -> int:
    """For somebody who started the worker where there is no RunPod queue."""
    print(
        "Not on RunPod (RUNPOD_WEBHOOK_GET_JOB is not set), so there are no jobs to take. "
        f"To try it, add a flag:\n\n{_USAGE}"
    )
    return 2


def say_error(error: WorkerError) -> int:
    """Why the worker could not start; with what ComfyUI wrote last, if that is why."""
    if isinstance(error, (ComfyBootFailed, BootTimeout)):
        for line in error.log_tail:
            print(f"    {line}", file=sys.stderr)
    print(f"{error.error_code}: {error.message}", file=sys.stderr)
    return 1


# --- The test job --------------------------------------------------------------------------------------


def checked_test_job(options: Options, settings: Settings) -> tuple[dict[str, Any], Workflow]:
    """The job to run, and its workflow.

    Raises InvalidInput for what is wrong with it, which so shows before anything is booted.
    """
    job = test_job(options)
    _check_output(options.output)
    request = read_job(job, lambda name: stored_workflow(name, settings))
    apply_overrides(request.workflow, request.overrides)
    return job, request.workflow


def test_job(options: Options) -> dict[str, Any]:
    """The job to run: the one given, else test_input.json. Raises InvalidInput if it cannot be read."""
    text, source = _test_text(options.test_input)
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} in line {error.lineno}, column {error.colno}" if text.strip() else "it is empty"
        raise InvalidInput(f"{source} is no JSON: {problem}") from error
    except RecursionError as error:
        raise InvalidInput(f"{source} is nested too deeply") from error
    job_input = _unwrapped(given)
    if isinstance(job_input, dict):
        job_input = {**job_input, **options.overrides}
    return {"id": "test", "input": job_input}


def _test_text(given: str | None) -> tuple[str, str]:
    """The JSON text and what to call it in a message."""
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


def _unwrapped(given: object) -> object:
    """The input in what a person has at hand: `{"input": …}`, `{"workflow": …}`, or just a workflow of any format."""
    if not isinstance(given, dict):
        return given
    if "input" in given and "class_type" not in given:
        return given["input"]
    return given if {"workflow", "action"} & given.keys() else {"workflow": given}


def _check_output(folder: Path) -> None:
    """Make the folder that a test saves to. Raises InvalidInput if that cannot be, before anything is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"--output must be a folder: {folder} cannot be made one ({error.strerror})") from error


# --- While it runs -------------------------------------------------------------------------------------


class Progress:
    """Progress lines on stderr: one that rewrites itself on a terminal, one an event elsewhere."""

    def __init__(self, workflow: Workflow, engine: str) -> None:
        self._graph = Graph(workflow)
        self._engine = engine
        self._rewrites = sys.stderr.isatty()
        self._last = ""

    def booting(self) -> None:
        """Before the engine is ready."""
        self._show(f"starting {self._engine} …")

    def report(self, event: Event) -> None:
        """While a prompt runs."""
        if event.node_id is not None and event.node_id in self._graph:
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
    print(json.dumps(_shortened(answer), indent=2, ensure_ascii=False), flush=True)
    for name, data in _contents(answer):
        content = base64.b64decode(data)
        file = _free_name(folder / name.lstrip("/"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        print(f"saved {file} ({len(content):,} bytes)", file=sys.stderr)
    return 0 if answer.get("status") == "success" else 1


def _contents(answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and base64 of every file that the answer holds."""
    yield from zip(answer.get("filenames", []), answer.get("images", []), strict=True)
    yield from ((file["name"], file["data"]) for file in answer.get("files", []) if "data" in file)


def _free_name(file: Path) -> Path:
    """`file`, or a name with a number if there is such a file: nobody's image is overwritten."""
    number, free = 2, file
    while free.exists():
        free = file.with_stem(f"{file.stem}-{number}")
        number += 1
    return free


def _shortened(value: Any, key: str = "") -> Any:
    """JSON in which base64 is cut short."""
    if isinstance(value, Mapping):
        return {name: _shortened(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_shortened(part, key) for part in value]
    if key not in ("images", "data") or not isinstance(value, str) or len(value) <= _SHOWN_CHARACTERS:
        return value
    return f"{value[:_SHOWN_CHARACTERS]}… ({len(value):,} characters)"
