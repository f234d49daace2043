"""Bytes on the wire by format: the answer's size for one picture, and what encoding adds to its job.

    COMFYUI_PATH=… python -m benchmarks.formats [--side 1024] [--jobs 5]

The picture is smooth with film grain: about as large as a photograph is in each format. `original` is what SaveImage
wrote, a PNG of level 4.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import random
import statistics
import time
from dataclasses import replace
from typing import Any

from PIL import Image, ImageChops

from src import job_log
from src.comfy.engine import ComfyEngine
from src.comfy.install import find_comfyui
from src.job import handler as job_handler
from src.job.handler import Worker
from src.job.run import JobRunner
from src.outputs.answer import json_size
from src.settings import read_settings

_FORMATS = ("original", "png", "webp", "jpeg", "avif")
_GRAIN = 8


def main() -> None:
    """Print a table: format, bytes of the answer, share of the original's, the handler's median time."""
    options = _parse()
    job_log.configure("ERROR")
    settings = replace(read_settings(), result_limit=100.0)
    content = photograph(options.side)
    with ComfyEngine(find_comfyui(settings), settings) as engine:
        engine.wait_ready()
        job_handler.set_worker(Worker(JobRunner.make(engine, settings)))
        print(f"one picture of {options.side}², {options.jobs} jobs a format, default quality")
        print(f"{'format':>9} {'answer MB':>10} {'share':>6} {'job ms':>8} {'encoding ms':>12}")
        whole = 0
        for wanted in _FORMATS:
            answers = [_answer(content, wanted, number) for number in range(options.jobs + 1)][1:]
            size = json_size(answers[0][0])
            whole = whole or size
            took = statistics.median(seconds for _, seconds in answers)
            encoding = statistics.median(answer["timings"]["encode"] for answer, _ in answers)
            print(f"{wanted:>9} {size / 1e6:>10.2f} {size / whole:>6.2f} {took * 1000:>8.0f} {encoding * 1000:>12.0f}")


def photograph(side: int) -> str:
    """A picture as base64 PNG: noise blown up softly, with grain on it."""
    chance = random.Random(1)
    rough = Image.frombytes("RGB", (12, 12), chance.randbytes(12 * 12 * 3)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = Image.frombytes("RGB", (side, side), bytes(b % _GRAIN for b in chance.randbytes(side * side * 3)))
    file = io.BytesIO()
    ImageChops.add(rough, grain).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _answer(content: str, wanted: str, number: int) -> tuple[dict[str, Any], float]:
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photograph.png"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"{wanted}{number}"}},
    }
    given = {
        "workflow": workflow,
        "images": [{"name": "photograph.png", "image": content}],
        "output": {"format": wanted},
    }
    began = time.monotonic()
    answer = asyncio.run(job_handler.handler({"id": "format", "input": given}))
    if answer["status"] != "success":
        raise SystemExit(f"{wanted}: {answer['error']}")
    return answer, time.monotonic() - began


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--jobs", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
