"""Environment variables of other workers, and what stands for them here."""

from __future__ import annotations

from collections.abc import Mapping

PEER_VARIABLES: Mapping[str, str] = {
    "COMFY_LOG_LEVEL": "LOG_LEVEL sets the worker's; COMFYUI_ARGS=--verbose=… ComfyUI's",
    "COMFY_API_AVAILABLE_INTERVAL_MS": "nothing is needed: the worker starts ComfyUI itself and waits for it",
    "COMFY_API_AVAILABLE_MAX_RETRIES": "COMFYUI_BOOT_TIMEOUT limits how long ComfyUI may take to start",
    "WEBSOCKET_RECONNECT_ATTEMPTS": "nothing is needed: a job does not depend on the websocket",
    "WEBSOCKET_RECONNECT_DELAY_S": "nothing is needed: a job does not depend on the websocket",
    "WEBSOCKET_TRACE": "LOG_LEVEL=DEBUG shows the events of a job",
    "NETWORK_VOLUME_DEBUG": "`python serverless_worker.py --doctor` and `action: info` show what is on the volume",
    "SERVE_API_LOCALLY": "`python serverless_worker.py --serve` is an endpoint on this machine",
    "PUBLIC_KEY": "the image for serverless has no sshd",
    "COMFY_POLLING_INTERVAL_MS": "nothing is needed: the worker waits for ComfyUI's own signal",
    "COMFY_POLLING_MAX_RETRIES": "JOB_TIMEOUT ends a job",
    "COMFY_HOME": "COMFYUI_PATH is ComfyUI's folder",
    "WARMUP_PROMPT_FILE": "WARMUP_WORKFLOW is the workflow that runs first",
    "WORKFLOW_DIR": "WORKFLOWS_DIR is the folder of stored workflows",
    "MANIFEST_JSON": "MODELS_MANIFEST lists models; node packs belong in the image",
    "COMFYUI_MANAGER_CONFIG": "node packs are installed when the image is built",
}
"""Variable to what stands for it; those that mean the same here (`BUCKET_…`, `REFRESH_WORKER`) are not among them."""
