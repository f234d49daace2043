"""The wings of the ComfyUI serverless worker, lowest first; a wing imports only from wings above it in this list.

launch/     scripts that run inside the processes that the worker starts
errors      everything raised on purpose: error_type, error_code, retire the worker?
deadline    one time budget per wait
job_log     log lines with the job's id
redaction   text from inside ComfyUI, made fit for a caller
settings/   the environment, read once
workflow/   the API-format graph: checks, types, schemas
overrides/  a job's values: where they go in a workflow
editor/     the editor's own save format -> the API format
pictures/   Pillow's work, in processes that can be ended
storage/    files stored elsewhere: in buckets, and at URLs that callers name
models/     model files: which there are, where they come from, fetched, checked, kept
needs/      what workflows need besides ComfyUI: models, node packs, files
packs/      node packs that are not part of an image: fetched, checked, put beside ComfyUI
protocol/   ComfyUI's own HTTP and websocket protocol, served over an executor
draft/      the draft engine: an executor that draws with Pillow
comfy/      ComfyUI as a subprocess, and the client of its HTTP and websocket protocol
inputs/     the files that come with a job
outputs/    history entry -> files -> answer
clients/    jobs as clients of other workers send them, and answers as they read them
job/        one job, from its input to its answer
worker/     RunPod's side: its loop over jobs, progress, boot
endpoint/   a RunPod endpoint on this machine
gateway/    ComfyUI's own API and editor in front of an endpoint
terminal/   what a person starts in a terminal

`serverless_worker.py`, above all of them, tells the story.
"""

from pathlib import Path

VERSION = "0.5.0"
"""The version of this worker; answers contain it."""

REPOSITORY = Path(__file__).resolve().parent.parent
"""The folder that holds `serverless_worker.py`, `src/` and `examples/`."""
