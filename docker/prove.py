"""Check that the image works: boot its ComfyUI on the CPU, check for the classes of its custom nodes, run a job.

Runs at the end of the build, in the worker's folder and with its Python. It writes what it found to a file, the proof.
If anything is missing it exits with an error, which fails the build.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).with_name("custom_nodes.lock")


def prove(proof: Path) -> None:
    """Write the proof, or exit with an error that says what is wrong."""
    installed = {folder.name for folder in Path(os.environ["COMFYUI_PATH"], "custom_nodes").iterdir()}
    known = json.loads(LOCK.read_text(encoding="utf-8"))["custom_nodes"]
    packs = [pack for pack in known if pack["name"] in installed]
    needed = {class_type: pack["name"] for pack in packs for class_type in pack["classes"]}
    engine_info, answer = asyncio.run(_check_engine(list(needed)))

    if engine_info["missing"]:
        missing = engine_info["missing"]
        sys.exit("\n".join(f"custom node {needed[name]}: ComfyUI has no {name}" for name in missing))
    if answer["status"] != "success" or not answer["images"]:
        sys.exit(f"the job failed: {answer.get('error')}")
    found = {
        "comfyui": engine_info["comfyui"],
        "custom_nodes": {pack["name"]: pack.get("commit") or pack["registry"] for pack in packs},
    }
    proof.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"proved: {json.dumps(found)}, and a job that made {answer['filenames'][0]}", flush=True)


async def _check_engine(class_types: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """ComfyUI's version and which classes it lacks, and the answer to the job of `examples/smoke_workflow.json`."""
    from src.comfy.engine import ComfyEngine
    from src.comfy.install import find_comfyui
    from src.job.handler import Worker, handler, set_worker
    from src.job.run import JobRunner
    from src.settings import read_settings

    settings = read_settings({**os.environ, "COMFYUI_ARGS": "--cpu", "READ_AHEAD": "false"})
    with ComfyEngine(find_comfyui(settings), settings) as engine:
        try:
            engine.wait_ready()
        finally:
            print("\n".join(engine.process.log_tail(200)), flush=True)
        schemas = engine.client.schemas(class_types)
        missing = sorted(class_type for class_type, schema in schemas.items() if schema is None)
        runner = JobRunner.make(engine, settings)
        set_worker(Worker(runner))
        workflow = json.loads(Path("examples", "smoke_workflow.json").read_text(encoding="utf-8"))
        answer = await handler({"id": "proof", "input": {"workflow": workflow}})
        return {"missing": missing, "comfyui": engine.version}, answer


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    prove(Path(sys.argv[1]))
