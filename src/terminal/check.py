"""The command `python -m src.workflow check`: whether this ComfyUI has the node classes and takes the values."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import job_log
from ..comfy.engine import ComfyEngine
from ..comfy.install import find_comfyui
from ..errors import InvalidWorkflow, WorkerError
from ..job.handler import Worker, handler, set_worker
from ..job.run import JobRunner
from ..settings import read_settings
from .files import read_content


def run(options: argparse.Namespace) -> int:
    """Check files on a ComfyUI that is started for this; the exit status: 0 all would run, 1 one would not.

    Models and input files that are missing are listed, but do not count: they may come with a job or a volume.
    """
    job_log.configure("WARNING")
    try:
        settings = read_settings()
        with ComfyEngine(find_comfyui(settings), settings) as engine:
            engine.wait_ready()
            set_worker(Worker(JobRunner.make(engine, settings)))
            return max(_check(file) for file in options.files)
    except WorkerError as error:
        print(f"{error.error_code}: {error.message}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1


def _check(file: Path) -> int:
    try:
        content = read_content(file)
    except InvalidWorkflow as error:
        print(f"{file.name}: {error.message}", file=sys.stderr)
        return 1
    given = content["input"] if isinstance(content, dict) and isinstance(content.get("input"), dict) else None
    job = {**(given or {"workflow": content}), "action": "validate"}
    answer = asyncio.run(handler({"id": "check", "input": job}))
    if answer["status"] != "success":
        print(f"{file.name}: {answer['error']}", file=sys.stderr)
        return 1
    files = {(place["node_id"], place["input"]) for place in answer["inputs"]}
    problems = [(problem, _is_to_come(problem, files)) for problem in answer["problems"]]
    for problem, is_to_come in problems:
        print(f"{file.name}: {'to come: ' if is_to_come else ''}{problem['message']}", file=sys.stderr)
    is_fine = all(is_to_come for _, is_to_come in problems)
    print(f"{file.name}: {'would run' if is_fine else 'would not run'}")
    return 0 if is_fine else 1


def _is_to_come(problem: Mapping[str, Any], files: set[tuple[str, str]]) -> bool:
    """Whether it is a model or an input file that is missing."""
    return "sources" in problem or (problem.get("node_id"), problem.get("input")) in files
