"""comfy-api-simplified: python simplified.py URL PICTURE BROKEN SLOW. Prints what came of each step, one JSON a line.

SLOW is a workflow in JSON, which is cancelled.
"""

import json
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper
from comfy_api_simplified.exceptions import ComfyApiError

URL, PICTURE, BROKEN, SLOW = sys.argv[1:]

api = ComfyApiWrapper(URL)


def tell(step: str, outcome: object) -> None:
    """Print a line."""
    print(json.dumps([step, outcome]), flush=True)


def outcome_of(workflow: Mapping[str, Any]) -> object:
    """The pictures that came, as name and size in bytes, or the error."""
    try:
        pictures = api.queue_and_wait_images(ComfyWorkflowWrapper(dict(workflow)), "Save")
    except (ComfyApiError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return {name: len(content) for name, content in pictures.items()}


def saving(file: str) -> dict[str, Any]:
    """A workflow that saves a picture."""
    load = {"class_type": "LoadImage", "inputs": {"image": file}, "_meta": {"title": "Load"}}
    inputs = {"images": ["1", 0], "filename_prefix": "simplified"}
    return {"1": load, "2": {"class_type": "SaveImage", "inputs": inputs, "_meta": {"title": "Save"}}}


def interrupt_what_runs() -> None:
    """Once there is something."""
    while not api.get_queue()["queue_running"]:
        time.sleep(0.05)
    api.interrupt()


picture, broken = (api.upload_image(path, subfolder="uploads") for path in (PICTURE, BROKEN))
tell("uploaded", picture)
tell("saved", outcome_of(saving(f"uploads/{picture['name']}")))
tell("refused", outcome_of(saving("no-such-file.png")))
tell("failed", outcome_of(saving(f"uploads/{broken['name']}")))
threading.Thread(target=interrupt_what_runs, daemon=True).start()
tell("cancelled", outcome_of(json.loads(SLOW)))
tell("saved again", outcome_of(saving(f"uploads/{picture['name']}")))
