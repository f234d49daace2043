"""The flags, and what is said on a terminal before anything runs. Imports little: ComfyUI is waited for."""

from __future__ import annotations

import argparse
import difflib
import textwrap
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..settings import Settings, format_value, variable

_USAGE = """\
python serverless_worker.py --test --draft              an image now: no ComfyUI, no model, no GPU
python serverless_worker.py --test                      run test_input.json on ComfyUI and save its images
python serverless_worker.py --test_input JSON|FILE      run that input, or that workflow
python serverless_worker.py --serve [--draft]           a RunPod endpoint on this machine, for clients and curl
python serverless_worker.py --doctor                    what is there and what is missing on this machine
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
    doctor: bool
    port: int
    workers: int
    for_sdk: list[str]


class _Parser(argparse.ArgumentParser):
    """Tells the settings too, for --help only: an error does not need them."""

    def format_help(self) -> str:
        return f"{super().format_help()}\n{_settings_help()}"


def _settings_help() -> str:
    """Every setting with its default and what it means."""
    told = ["settings, from the environment or from a file .secrets beside serverless_worker.py:"]
    for setting in fields(Settings):
        default = format_value(setting.default)
        meaning = setting.metadata["meaning"].replace("`", "")
        told.append(f"  {variable(setting)}" + (f" ({default})" if default else ""))
        told.append(textwrap.fill(meaning, 110, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(told) + "\n"


def parse(arguments: list[str]) -> Options:
    """Our flags out of the arguments; ends the process for --help and for what nobody knows."""
    parser = _Parser(
        prog="serverless_worker.py",
        description=f"A RunPod Serverless worker for ComfyUI.\n\n{_USAGE}",
        usage="python serverless_worker.py [flags]",
        epilog="RunPod's SDK gets its own flags (--rp_…).",
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
    parser.add_argument("--doctor", action="store_true", help="say what is there and what is missing, and exit")
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
        doctor=ours.doctor,
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
        f"curl -s {url}/runsync -H 'Content-Type: application/json' -d @test_input.json\n"
        f"or open http://127.0.0.1:{port}/ in a browser",
        flush=True,
    )


def say_what_can_be_done() -> int:
    """For somebody who started the worker where there is no RunPod queue."""
    print(
        "Not on RunPod (RUNPOD_WEBHOOK_GET_JOB is not set), so there are no jobs to take. "
        f"To try it, add a flag:\n\n{_USAGE}"
    )
    return 2
