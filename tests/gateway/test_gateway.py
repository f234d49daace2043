"""Prompts that come by ComfyUI's own API run on an endpoint, and everything about them is as a ComfyUI would have it."""

from __future__ import annotations

import io

from PIL import Image

from .. import workflows
from .conftest import GatewayClient


def test_a_prompt_runs_as_a_job_and_its_picture_is_served(served: GatewayClient) -> None:
    entry = served.ran(workflows.still())
    assert entry["status"]["status_str"] == "success"
    (node_id,) = entry["outputs"]
    (file,) = entry["outputs"][node_id]["images"]
    assert Image.open(io.BytesIO(served.content(file))).format == "PNG"
    assert (served.folder / "output" / file["subfolder"] / file["filename"]).is_file()
