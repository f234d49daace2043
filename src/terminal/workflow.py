"""The command of `python -m src.workflow`: convert a workflow from the editor's save format to API format."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .. import job_log
from ..comfy.client import ComfyClient
from ..comfy.engine import ComfyEngine
from ..comfy.install import find_comfyui
from ..editor import class_types, convert, is_editor_workflow, read_document
from ..errors import WorkerError
from ..settings import read_settings
from ..workflow.checks import check_json, check_workflow
from ..workflow.leftovers import without_leftovers
from .files import read_content


def run(options: argparse.Namespace) -> int:
    """Convert a file; the exit status: 0 written, 1 it cannot be converted."""
    job_log.configure("WARNING")
    try:
        text = json.dumps(_converted(read_content(options.file), options.url), indent=2, ensure_ascii=False) + "\n"
        if options.output:
            options.output.write_text(text, encoding="utf-8")
        else:
            sys.stdout.write(text)
    except WorkerError as error:
        print(f"{error.error_code}: {options.file.name}: {error.message}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or options.output or options.file}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _converted(saved: object, url: str | None) -> Mapping[str, Any]:
    if not is_editor_workflow(saved):
        tidied, told = without_leftovers(saved)
        for warning in told:
            print(warning, file=sys.stderr)
        return check_workflow(tidied)  # already in API format; otherwise this raises what is wrong with it
    check_json(saved, "workflow")
    document = read_document(saved)
    with _comfyui(url) as client:
        return check_workflow(convert(document, client.schemas(class_types(document))).prompt)


@contextmanager
def _comfyui(url: str | None) -> Iterator[ComfyClient]:
    """A client of the ComfyUI at that URL, or of one that is started for this."""
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
