"""The wings of the ComfyUI serverless worker, lowest first; a wing imports only from wings above it in this list.

launch/         scripts that run inside the processes that are started here
errors          everything raised on purpose: error_type, error_code, retire the worker?
settings/       the environment, read once
deadline        one time budget per wait
job_log         log lines with the job's id
redaction       text from inside ComfyUI, made fit for a caller
boot_timeline   where the seconds of a cold start go
command_line    the flags, and what is said before anything runs
workflow/       the API-format graph: checks, targets, overrides, schemas, isolation; workflows called by name
editor/         the editor's own save format -> the API format
storage/        files elsewhere: in buckets, and at URLs that a caller names
models/         model files: which there are, where they are, fetched, checked, read ahead, backed up
draft/          the draft engine: ComfyUI's protocol with pictures drawn by Pillow
comfy/          ComfyUI as a subprocess, and as a server that is asked
fitness         is this machine fit to take jobs?
progress        what RunPod is told while a job runs
inputs/         the files that a job brings
outputs/        history entry -> files -> answer: listing, encoding, delivery
job/            one job, from its input to its answer
warm_up         the workflow that runs before the first job is taken
doctor          what is there and what is missing on this machine
endpoint/       a RunPod endpoint on this machine, with real SDK workers behind it
sdk_loop        RunPod's own loop over jobs, its gaps closed
job_loop        from the start of ComfyUI to RunPod's jobs
local_test      one job from a file or the command line, watched, what it made saved

`serverless_worker.py`, above all of them, tells the story.
"""

from pathlib import Path

VERSION = "0.5.0"
"""Of this worker; answers tell it."""

REPOSITORY = Path(__file__).resolve().parent.parent
"""The folder that holds `serverless_worker.py`, `src/` and `examples/`."""
