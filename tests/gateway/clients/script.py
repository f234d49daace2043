"""comfy-script: python script.py URL PICTURE BROKEN SLOW. Prints what came of each step, one JSON a line.

PICTURE and BROKEN are the names of input files, which it cannot upload; SLOW is a workflow in JSON, which is cancelled.
"""

import importlib
import json
import sys
import time
import urllib.request
from typing import Any

runtime = importlib.import_module("comfy_script.runtime")  # its functions are not known before it is loaded

URL, PICTURE, BROKEN, SLOW = sys.argv[1:]

runtime.load(URL)
nodes = importlib.import_module("comfy_script.runtime.nodes")  # those that the server has


def tell(step: str, outcome: object) -> None:
    """Print a line, apart from those that it prints itself."""
    print(f"\n{json.dumps([step, outcome])}", flush=True)


def outcome_of(output: Any, is_cancelled: bool = False) -> object:
    """The files and the sizes of the pictures that came."""
    task = runtime.queue.put(output)
    if task is None:
        return "refused"
    if is_cancelled:
        while not json.load(urllib.request.urlopen(f"{URL}/queue"))["queue_running"]:
            time.sleep(0.05)
        runtime.queue.cancel_all()
    result = task.wait_result(output)
    return (
        "no result" if result is None else {"files": result._output, "sizes": [image.size for image in result.wait()]}
    )


def saving(file: str) -> Any:
    """A workflow that saves a picture."""
    image, _ = nodes.LoadImage(file)
    return nodes.SaveImage(image, "script")


def made(workflow: dict[str, Any], node_id: str) -> Any:
    """A node of a workflow; all inputs are its first outputs."""
    node = workflow[node_id]
    linked = {name: made(workflow, value[0]) for name, value in node["inputs"].items() if isinstance(value, list)}
    return getattr(nodes, node["class_type"])(**{**node["inputs"], **linked})


tell("saved", outcome_of(saving(PICTURE)))
tell("refused", outcome_of(saving("no-such-file.png")))
tell("failed", outcome_of(saving(BROKEN)))
slow = json.loads(SLOW)
tell("cancelled", outcome_of(made(slow, list(slow)[-1]), is_cancelled=True))
tell("saved again", outcome_of(saving(PICTURE)))
