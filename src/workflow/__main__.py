"""`python -m src.workflow`: what a workflow is, told or written by ComfyUI's own node classes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import job_log
from ..comfy.client import ComfyClient
from ..comfy.engine import ComfyEngine
from ..comfy.install import find_comfyui
from ..editor import class_types, convert, is_editor_workflow, read_document
from ..errors import InvalidWorkflow, WorkerError
from ..settings import read_settings
from .checks import check_json, check_workflow


def main() -> int:
    """Convert a file; the exit status: 0 it is written, 1 it cannot be converted, 2 the arguments."""
    options = _parse()
    job_log.configure("WARNING")
    try:
        text = json.dumps(_converted(_read(options.file), options.url), indent=2, ensure_ascii=False) + "\n"
        if options.output:
            options.output.write_text(text, encoding="utf-8")
        else:
            sys.stdout.write(text)
    except WorkerError as error:
        print(f"{error.error_code}: {error.message}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or options.output or options.file}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _converted(saved: object, url: str | None) -> Mapping[str, Any]:
    if not is_editor_workflow(saved):
        return check_workflow(saved)  # it is in API format already, or says what it is
    check_json(saved, "workflow")
    document = read_document(saved)
    with _comfyui(url) as client:
        return check_workflow(convert(document, client.schemas(class_types(document))))


@contextmanager
def _comfyui(url: str | None) -> Iterator[ComfyClient]:
    """The ComfyUI at that address, or one that is started for this."""
    if url is not None:
        client = ComfyClient(url)
        try:
            yield client
        finally:
            client.close()
        return
    settings = read_settings()
    with ComfyEngine(find_comfyui(settings), settings) as engine:
        engine.wait_ready()
        yield engine.client


def _read(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidWorkflow(f"{file.name} cannot be read as JSON") from error


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or (parts.port is not None and not 0 < parts.port < 1 << 16):
        raise argparse.ArgumentTypeError(f"must be like http://127.0.0.1:8188, not {text!r}")
    return text


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m src.workflow", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    told = "write a workflow that the editor saved in API format, as the editor's Export (API) would"
    command = commands.add_parser("convert", help=told, description=told)
    command.add_argument("file", type=Path, metavar="FILE.json")
    command.add_argument("--output", type=Path, metavar="FILE.json", help="where to write it; else it is printed")
    command.add_argument(
        "--url", type=_url, help="a ComfyUI that runs, like http://127.0.0.1:8188; else one is started"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
