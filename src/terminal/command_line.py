"""The flags, and what is printed before anything runs. Imports little, so that ComfyUI is started without delay."""

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
python serverless_worker.py --gateway                   ComfyUI's editor and API here, an endpoint runs the prompts
python serverless_worker.py --doctor                    check what this machine has and what is missing
python serverless_worker.py                             take jobs from RunPod (where RunPod starts it)"""


@dataclass(frozen=True)
class Options:
    """The parsed command line. `for_sdk` are the arguments that are passed on to RunPod's SDK."""

    testing: bool
    test_input: str | None
    overrides: dict[str, Any]
    draft: bool
    output: Path
    serve: bool
    gateway: bool
    doctor: bool
    endpoint: str
    local: str | None
    folder: Path
    port: int | None
    workers: int
    for_sdk: list[str]


class _Parser(argparse.ArgumentParser):
    """Adds the settings to --help."""

    def format_help(self) -> str:
        return f"{super().format_help()}\n{_settings_help()}"


def _settings_help() -> str:
    """Every setting with its default and its meaning."""
    lines = ["settings, from the environment or from a file .secrets beside serverless_worker.py:"]
    for setting in fields(Settings):
        default = format_value(setting.default)
        meaning = setting.metadata["meaning"].replace("`", "")
        lines.append(f"  {variable(setting)}" + (f" ({default})" if default else ""))
        lines.append(textwrap.fill(meaning, 110, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines) + "\n"


def parse(arguments: list[str]) -> Options:
    """The worker's own flags and those for the SDK. Exits the process for --help and for an unknown argument."""
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
    parser.add_argument(
        "--draft", action="store_true", help="draw drafts instead of running ComfyUI: no model, no GPU"
    )
    parser.add_argument("--serve", action="store_true", help="serve RunPod's routes on 127.0.0.1 with real workers")
    parser.add_argument(
        "--doctor", action="store_true", help="check what this machine has and what is missing, and exit"
    )
    parser.add_argument(
        "--gateway", action="store_true", help="serve ComfyUI's editor and API, and run the prompts on an endpoint"
    )
    parser.add_argument("--endpoint", metavar="ID", default="", help="endpoint of --gateway (RUNPOD_ENDPOINT_ID)")
    parser.add_argument(
        "--local", metavar="URL", nargs="?", const="", help="have --gateway use an endpoint of --serve (port 8000)"
    )
    parser.add_argument(
        "--folder", metavar="DIR", type=Path, default=Path("gateway"), help="where --gateway keeps files (./gateway)"
    )
    parser.add_argument("--port", metavar="N", type=_port, help="port of --serve (8000) or --gateway (8188)")
    parser.add_argument(
        "--workers", metavar="N", type=_worker_count, default=1, help="worker processes of --serve (1)"
    )
    flags, rest = parser.parse_known_args(arguments)
    known = [flag for action in parser._actions for flag in action.option_strings]
    _check_sdk_arguments(rest, known, parser)
    return Options(
        testing=flags.test or flags.test_input is not None,
        test_input=flags.test_input,
        overrides={name: value for name in ("prompt", "seed") if (value := getattr(flags, name)) is not None},
        draft=flags.draft,
        output=flags.output,
        serve=flags.serve,
        gateway=flags.gateway,
        endpoint=flags.endpoint,
        local=flags.local,
        folder=flags.folder,
        doctor=flags.doctor,
        port=flags.port,
        workers=flags.workers,
        for_sdk=rest,
    )


def _check_sdk_arguments(rest: list[str], known: list[str], parser: argparse.ArgumentParser) -> None:
    """Exit with an error unless the remaining arguments are the SDK's flags and their values."""
    is_value = False
    for argument in rest:
        if not argument.startswith("--rp_") and not is_value:
            close = difflib.get_close_matches(argument, known, n=1)
            parser.error(f"unknown argument {argument}" + (f"; did you mean {close[0]}?" if close else "; see --help"))
        is_value = argument.startswith("--rp_")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError("must be a port from 1 to 65535")
    return int(text)


def _worker_count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 64:
        raise argparse.ArgumentTypeError("must be from 1 to 64")
    return int(text)


def print_serving(port: int, workers: int, has_key: bool) -> None:
    """Print the URL of the local endpoint and how to try it."""
    url = f"http://127.0.0.1:{port}/v2/local"
    key = ' -H "Authorization: Bearer $SERVE_API_KEY"' if has_key else ""
    print(
        f"serving {url} with {workers} worker{'s' if workers > 1 else ''}; stop it with Ctrl-C. Try it:\n"
        f"curl -s {url}/runsync -H 'Content-Type: application/json' -d @test_input.json{key}\n"
        f"or open http://127.0.0.1:{port}/ in a browser; the API is described at http://127.0.0.1:{port}/docs",
        flush=True,
    )


def print_gateway(port: int, target: str, editor: str) -> None:
    """Print the gateway's URL, where it runs prompts, and whether there is an editor."""
    what = f"the editor {editor} and ComfyUI's API" if editor else "ComfyUI's API"
    print(f"http://127.0.0.1:{port} has {what}; prompts run on {target}; stop it with Ctrl-C", flush=True)
    if not editor:
        print("For the editor as well: pip install -r requirements-gateway.txt", flush=True)


def print_usage_hint() -> int:
    """Print the usage where there is no RunPod queue to take jobs from; the exit status."""
    print(
        "Not on RunPod (RUNPOD_WEBHOOK_GET_JOB is not set), so there are no jobs to take. "
        f"To try it, add a flag:\n\n{_USAGE}"
    )
    return 2
