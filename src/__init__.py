"""The rooms of the ComfyUI serverless worker, lowest floor first; a module imports only from floors below it.

1  launch/         scripts that run inside the processes that are started here
   errors          everything raised on purpose: error_type, error_code, retire the worker?
   settings/       the environment, read once
   deadline        one time budget per wait
   boot_timeline   where the seconds of a cold start go
   command_line    the flags, and what is said before anything runs
   job_log         log lines with the job's id
   redaction       text from inside ComfyUI, made fit for a caller
2  workflow/       the API-format graph: checks, targets, overrides, schemas, isolation; workflows called by name
   editor/         the editor's own save format -> the API format (pure)
   input_fields    the fields of a job's input, and what is said of one that does not fit
   job_input       job dict -> checked, frozen Request
   run_record      what is known of a prompt that ended (pure)
   rejection       ComfyUI's "no" and its failures -> our errors (pure)
   file_checks     is this a file that ComfyUI may be given: name, base64, content?
3  comfy_folders   the folders that one engine process has to itself
   comfy_install   where ComfyUI is, what its version accepts, the command that starts it
   storage/        files elsewhere: in buckets, and at URLs that a caller names
   models/         model files: which there are, where they are, fetched, checked, read ahead, backed up
   comfy_process   the ComfyUI subprocess: start, ready, alive, log tail, stop, restart
   comfy_http      HTTP with one server on this machine, over connections that stay open
   comfy_client    ComfyUI's HTTP routes, one method each
   comfy_events    ComfyUI's websocket: what wakes a wait and carries progress
   draft/          the draft engine: ComfyUI's protocol with pictures drawn by Pillow
   fitness         is this machine fit to take jobs?
4  comfy_engine    process, client and events as one: boot, restart, leave
   input_files     the files that a job brings: fetched, checked, put where ComfyUI finds them
   preflight       does this engine know these nodes, does it take these values?
   worker_info     what a worker can tell about itself
5  prompt_run      one prompt: queue it, wait for its history entry, stop it
   progress        what RunPod is told while a job runs
   recovery        restart, free memory, run once more: what an engine's fault does to a job
6  outputs/        history entry -> files -> answer: listing, encoding, delivery
   job_run         one job on a booted engine
   warm_up         the workflow that runs before the first job is taken
   doctor          what is there and what is missing on this machine
   endpoint/       a RunPod endpoint on this machine, with real SDK workers behind it
7  job_handler     what RunPod calls with each job
   sdk_loop        RunPod's own loop over jobs, its gaps closed
8  job_loop        from the start of ComfyUI to RunPod's jobs
   local_test      one job from a file or the command line, watched, what it made saved

`serverless_worker.py`, above all of them, tells the story.
"""

from pathlib import Path

VERSION = "0.5.0"
"""Of this worker; answers tell it."""

REPOSITORY = Path(__file__).resolve().parent.parent
"""The folder that holds `serverless_worker.py`, `src/` and `examples/`."""
