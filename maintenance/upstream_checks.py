"""What the worker relies on in ComfyUI, as checks on a running ComfyUI. Used by `maintenance.upstream`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import websocket

from src.comfy.client import Submission
from src.comfy.engine import ComfyEngine
from src.comfy.install import Installation
from src.comfy.process import plain_line
from src.comfy.rejection import Engine, explain_rejection
from src.errors import MissingNodeType
from src.launch import LAUNCHER
from src.models.folders import folder_names
from src.settings import Settings
from tests import workflows
from tests.workflows import node

_SECONDS = 60.0


class Broken(Exception):
    """What a check relies on is different in this version."""


@dataclass(frozen=True)
class Subject:
    """The ComfyUI that is checked: where it is, and the engine that runs it."""

    installation: Installation
    settings: Settings
    engine: ComfyEngine

    def queue(self, prompt: Mapping[str, Any], prompt_id: str) -> Submission:
        """Its response to a prompt."""
        return self.engine.client.queue_prompt(prompt, prompt_id, "upstream", {})

    def run(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """Queue a prompt; its history entry. Raises Broken if it is refused or does not end."""
        prompt_id = str(uuid.uuid4())
        submission = self.queue(prompt, prompt_id)
        expect(submission.is_whole, f"a good prompt was refused: {json.dumps(submission.body)[:300]}")
        end = time.monotonic() + _SECONDS
        while (entry := self.engine.client.history(prompt_id)) is None:
            expect(time.monotonic() < end, "a prompt did not end")
            time.sleep(0.02)
        return entry

    def refusal(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """The body of the response to a prompt that is refused. Raises Broken if it is accepted."""
        submission = self.queue(prompt, str(uuid.uuid4()))
        expect(not submission.is_whole, "a bad prompt was accepted")
        return dict(submission.body)


def expect(condition: object, otherwise: str) -> None:
    """Raise Broken with that text, unless the condition holds."""
    if not condition:
        raise Broken(otherwise)


def flags(subject: Subject) -> str:
    """It accepts every flag that the worker needs; missing optional flags are listed."""
    accepted = subject.installation.accepted
    needed = {"--listen", "--port", "--disable-auto-launch", "--input-directory", "--output-directory"}
    needed |= {"--temp-directory", "--user-directory", "--extra-model-paths-config", "--disable-metadata"}
    expect(needed <= accepted, f"missing: {', '.join(sorted(needed - accepted))} (src/comfy/install.py)")
    wished = {"--database-url", "--front-end-root", "--cache-ram", "--disable-api-nodes", "--disable-assets"}
    return f"lacks {', '.join(sorted(wished - accepted))}" if wished - accepted else ""


def log_form(subject: Subject) -> str:
    """Its log lines can be reduced to plain text, and the last line of the boot is the expected one."""
    lines = subject.engine.process.log_tail(200)
    expect("Starting server" in lines, "no line 'Starting server' ends the boot (src/comfy/boot_log.py)")
    coloured = [line for line in lines if "\x1b" in line or re.match(r"\[[A-Z]+\]", plain_line(line))]
    expect(not coloured, f"a line is not plain: {coloured[:1]} (src/comfy/process.py)")
    return ""


def fast_paths(subject: Subject) -> str:
    """Its boot log shows which fast paths are active."""
    paths = subject.engine.process.boot_log.fast_paths(subject.settings.comfyui_args)
    expect(paths, "its log shows none (src/comfy/boot_log.py)")
    return ", ".join(path.name for path in paths)


def prompt_worker(subject: Subject) -> str:
    """The thread that runs prompts is named after `prompt_worker`, so the launcher can notice when it ends."""
    sources = (subject.installation.directory / name for name in ("main.py", "app/prompt_worker.py"))
    texts = [source.read_text(encoding="utf-8") for source in sources if source.is_file()]
    expect(
        any("target=prompt_worker" in text for text in texts),
        "no thread has `prompt_worker` as its target (comfy_launcher.py)",
    )
    return ""


def prompt_ids(subject: Subject) -> str:
    """It keeps the lowercase UUID that the worker assigns to a prompt."""
    prompt_id = str(uuid.uuid4())
    submission = subject.queue(workflows.still(), prompt_id)
    expect(submission.is_whole, f"refused: {json.dumps(submission.body)[:300]}")
    expect(submission.body.get("prompt_id") == prompt_id, "the prompt got another id (src/comfy/client.py)")
    return "" if subject.queue(workflows.still(), "Not-a-UUID").is_whole else "other ids are refused"


def history(subject: Subject) -> str:
    """A history entry has the outputs, the status and the messages in the order of events."""
    entry = subject.run(workflows.still(color=1, prefix=uuid.uuid4().hex))
    expect(entry.keys() >= {"prompt", "outputs", "status"}, f"an entry has {sorted(entry)}")
    names = [message[0] for message in entry["status"]["messages"]]
    expect(names[0] == "execution_start" and names[-1] == "execution_success", f"messages are {names}")
    expect("execution_cached" in names, f"messages are {names}")
    return ""


def output_shapes(subject: Subject) -> str:
    """A saved image is listed as an object with filename, subfolder and type, and /view returns it."""
    outputs = subject.run(workflows.still(color=2, prefix=f"a/{uuid.uuid4().hex}"))["outputs"]
    (item,) = outputs["4"]["images"]
    expect(item.keys() >= {"filename", "subfolder", "type"}, f"an item has {sorted(item)} (src/outputs)")
    picture = subject.engine.client.view(item["filename"], item["subfolder"], item["type"])
    expect(picture and picture.startswith(b"\x89PNG"), "/view does not return the image")
    more = sorted(item.keys() - {"filename", "subfolder", "type"})
    return f"items also have {', '.join(more)}" if more else ""


def no_metadata(subject: Subject) -> str:
    """With --disable-metadata, a saved image contains no workflow."""
    outputs = subject.run(workflows.still(color=3, prefix=uuid.uuid4().hex))["outputs"]
    (item,) = outputs["4"]["images"]
    picture = subject.engine.client.view(item["filename"], item["subfolder"], item["type"]) or b""
    expect(b"class_type" not in picture, "the image contains the prompt")
    return ""


def cached_outputs(subject: Subject) -> str:
    """An identical prompt executes no nodes, and returns the files of the previous run."""
    prompt = workflows.still(color=4, prefix=uuid.uuid4().hex)
    first, second = subject.run(prompt), subject.run(prompt)
    expect(first["outputs"] == second["outputs"], "it returns other files (src/comfy/recovery.py)")
    cached = dict(second["status"]["messages"])["execution_cached"]["nodes"]
    expect(sorted(cached) == ["1", "2", "3", "4"], f"cached are {cached}")
    return ""


def node_errors(subject: Subject) -> str:
    """An invalid value is refused with an error that names its node, input, type and value."""
    prompt = workflows.still()
    prompt["1"]["inputs"]["width"] = 0
    body = subject.refusal(prompt)
    (error,) = body["node_errors"]["1"]["errors"]
    expect(error["type"] == "value_smaller_than_min", f"its type is {error['type']} (src/comfy/rejection.py)")
    expect(error["extra_info"]["input_name"] == "width", "extra_info has no input_name")
    return ""


def missing_class(subject: Subject) -> str:
    """A missing node class is reported as missing."""
    prompt = {**workflows.still(), "2": node("NoSuchClass", image=["1", 0])}
    error = explain_rejection(subject.refusal(prompt), prompt, Engine(subject.installation.name))
    is_known = isinstance(error, MissingNodeType) and error.details["class_type"] == "NoSuchClass"
    expect(is_known, f"its error is not recognized: {error.message} (src/comfy/rejection.py)")
    return ""


def runtime_errors(subject: Subject) -> str:
    """A failing node ends the run with an error that has the node's id, class and exception."""
    prompt = {**workflows.still(), "1": node("ImageFromBatch", image=["9", 0], batch_index=0, length=1)}
    prompt["9"] = node("LoadImage", image="broken.png")
    (subject.engine.process.folders.input / "broken.png").write_bytes(b"no picture")
    entry = subject.run(prompt)
    error = dict(entry["status"]["messages"]).get("execution_error") or {}
    expect(error.get("node_id") == "9", f"no execution_error of node 9: {json.dumps(entry['status'])[:300]}")
    expect(error.keys() >= {"node_type", "exception_type", "exception_message"}, f"it has {sorted(error)}")
    return ""


def events(subject: Subject) -> str:
    """The websocket reports the running node, its outputs and the end of the run, in that order."""
    client, prompt_id = uuid.uuid4().hex, str(uuid.uuid4())
    url = subject.engine.process.url.replace("http", "ws", 1)
    socket = websocket.create_connection(f"{url}/ws?clientId={client}", timeout=_SECONDS)
    try:
        prompt = workflows.still(color=5, prefix=uuid.uuid4().hex)
        subject.engine.client.queue_prompt(prompt, prompt_id, client, {})
        seen: list[tuple[str, Any]] = []
        while not seen or seen[-1] != ("executing", None):
            frame = socket.recv()
            event: dict[str, Any] = json.loads(frame) if isinstance(frame, str) else {"data": {}}
            if event["data"].get("prompt_id") == prompt_id:
                seen.append((event["type"], event["data"].get("node")))
    finally:
        socket.close()
    wanted = [("executing", name) for name in "1234"]
    expect([item for item in seen if item in wanted] == wanted, f"events are {seen} (src/comfy/events.py)")
    names = [name for name, _ in seen]
    expect({"execution_start", "executed", "execution_success"} <= set(names), f"events are {names}")
    return "" if "progress_state" in names else "without progress_state"


def interrupt(subject: Subject) -> str:
    """A waiting prompt can be removed from the queue, and a running one can be interrupted."""
    client, prompt_id = subject.engine.client, str(uuid.uuid4())
    subject.queue(workflows.still(color=6, prefix=uuid.uuid4().hex), prompt_id)
    client.interrupt(prompt_id)
    client.dequeue(prompt_id)
    end = time.monotonic() + _SECONDS
    while prompt_id in client.queue():
        expect(time.monotonic() < end, "the prompt is still running or waiting (src/comfy/prompt.py)")
        time.sleep(0.02)
    return ""


def replaced_classes(subject: Subject) -> str:
    """A node class that it replaces with another one does not fail."""
    replaced = subject.engine.client.node_replacements()
    if "T2IAdapterLoader" not in replaced:
        return "it replaces none" if not replaced else f"it replaces {len(replaced)}"
    prompt = {**workflows.still(), "9": node("T2IAdapterLoader", t2i_adapter_name="x")}
    subject.queue(prompt, str(uuid.uuid4()))
    return f"it replaces {len(replaced)}"


def folder_kinds(subject: Subject) -> str:
    """The worker knows every kind of model folder that it has."""
    source = (subject.installation.directory / "folder_paths.py").read_text(encoding="utf-8")
    kinds = set(re.findall(r'^folder_names_and_paths\["([\w-]+)"\] = .*models_dir', source, re.MULTILINE))
    expect(len(kinds) > 10, "its folder_paths.py has a different structure")
    unknown = sorted(kinds - folder_names().keys())
    expect(not unknown, f"new: {', '.join(unknown)} (src/extra_model_paths.yaml)")
    return f"{len(kinds)} kinds"


def model_lists(subject: Subject) -> str:
    """It lists the model folders that the worker names."""
    folders = subject.engine.client.model_folders()
    expect({"checkpoints", "diffusion_models", "loras", "vae"} <= set(folders), f"GET /models has {folders}")
    return ""


def input_files(subject: Subject) -> str:
    """An image that is placed in the input folder can be loaded."""
    outputs = subject.run(workflows.still(color=7, prefix=uuid.uuid4().hex))["outputs"]
    (item,) = outputs["4"]["images"]
    picture = subject.engine.client.view(item["filename"], item["subfolder"], item["type"])
    folder = subject.engine.process.folders.input / uuid.uuid4().hex
    folder.mkdir()
    (folder / "in.png").write_bytes(picture or b"")
    prompt = {
        "1": node("LoadImage", image=f"{folder.name}/in.png"),
        "2": node("SaveImage", images=["1", 0], filename_prefix=uuid.uuid4().hex),
    }
    expect(subject.run(prompt)["outputs"].get("2"), "it was not loaded (src/inputs)")
    return ""


def partner_nodes(subject: Subject) -> str:
    """Paid nodes are absent unless they are enabled."""
    paid = [name for name, schema in subject.engine.client.all_schemas().items() if schema.is_partner]
    expect(not paid, f"it has {len(paid)}: {', '.join(paid[:5])} (src/comfy/install.py)")
    return ""


def deferred_imports(subject: Subject) -> str:
    """It boots from a pack of bytecode, and does not import large libraries at startup."""
    with linked(subject.installation.directory) as folder:
        python, keeper = subject.installation.start[0], LAUNCHER.with_name("comfy_bytecode.py")
        boot = ["main.py", "--cpu", "--quick-test-for-ci", "--disable-all-custom-nodes"]
        boot += [word for word in ("--disable-api-nodes",) if word in subject.installation.accepted]
        launch = ["-X", "importtime", str(LAUNCHER), str(os.getpid()), "-"]
        for command in ([python, str(keeper), *boot], [python, *launch, *boot]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
            expect(done.returncode == 0, f"it does not boot: {done.stderr[-300:]} (src/launch)")
    tops = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    left = sorted(tops & {"kornia", "scipy", "spandrel", "torchsde", "torchvision", "transformers", "torch._dynamo"})
    return f"still imported: {', '.join(left)}" if left else ""


Check = Callable[[Subject], str]
"""Returns a remark or an empty string. Raises any exception if the check fails on this version."""

CHECKS: dict[str, Check] = {
    check.__name__.replace("_", " "): check
    for check in (
        *(flags, log_form, fast_paths, prompt_worker, prompt_ids, history, output_shapes, no_metadata),
        *(cached_outputs, node_errors, missing_class, runtime_errors, events, interrupt, replaced_classes),
        *(folder_kinds, model_lists, input_files, partner_nodes, deferred_imports),
    )
}


@contextmanager
def linked(directory: Path) -> Iterator[Path]:
    """A folder of links to a ComfyUI, without its custom nodes, so that nothing is written into it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for entry in directory.iterdir():
            if entry.suffix == ".py":  # it finds its folder by them
                shutil.copy(entry, folder)
            elif entry.name not in ("__pycache__", "custom_nodes", "user", "output", "temp", "input"):
                (folder / entry.name).symlink_to(entry)
        yield folder
