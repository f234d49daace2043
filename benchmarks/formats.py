"""Response size by image format, and the time that encoding adds to a job.

    COMFYUI_PATH=… python -m benchmarks.formats [--side 1024] [--jobs 5]

The image is smooth with film grain: in each format it is about as large as a photograph. `original` is the file from
SaveImage, a PNG of level 4.
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
    """Print a table: format, size of the answer, its share of the original's size, the handler's median time."""
    options = _parse()
    job_log.configure("ERROR")
    settings = replace(read_settings(), result_limit=100.0)
    content = photograph(options.side)
    with ComfyEngine(find_comfyui(settings), settings) as engine:
        engine.wait_ready()
        job_handler.set_worker(Worker(JobRunner.make(engine, settings)))
        print(f"one image of {options.side}², {options.jobs} jobs per format, default quality")
        print(f"{'format':>9} {'response MB':>12} {'share':>6} {'job ms':>8} {'encoding ms':>12}")
        original_size = 0
        for image_format in _FORMATS:
            answers = [_run_job(content, image_format, number) for number in range(options.jobs + 1)][1:]
            size = json_size(answers[0][0])
            original_size = original_size or size
            job_ms = statistics.median(seconds for _, seconds in answers) * 1000
            encoding_ms = statistics.median(answer["timings"]["encode"] for answer, _ in answers) * 1000
            share = size / original_size
            print(f"{image_format:>9} {size / 1e6:>12.2f} {share:>6.2f} {job_ms:>8.0f} {encoding_ms:>12.0f}")


def photograph(side: int) -> str:
    """A picture as base64 PNG: coarse noise, smoothly upscaled, with film grain."""
    generator = random.Random(1)
    rough = Image.frombytes("RGB", (12, 12), generator.randbytes(12 * 12 * 3)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = Image.frombytes("RGB", (side, side), bytes(b % _GRAIN for b in generator.randbytes(side * side * 3)))
    file = io.BytesIO()
    ImageChops.add(rough, grain).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _run_job(content: str, image_format: str, number: int) -> tuple[dict[str, Any], float]:
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photograph.png"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"{image_format}{number}"}},
    }
    job_input = {
        "workflow": workflow,
        "images": [{"name": "photograph.png", "image": content}],
        "output": {"format": image_format},
    }
    began = time.monotonic()
    answer = asyncio.run(job_handler.handler({"id": "format", "input": job_input}))
    if answer["status"] != "success":
        raise SystemExit(f"{image_format}: {answer['error']}")
    return answer, time.monotonic() - began


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--jobs", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
