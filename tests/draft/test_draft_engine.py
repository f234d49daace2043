"""What the draft engine answers is what a real ComfyUI was seen to answer."""

from __future__ import annotations

import copy
import io
import json
import struct
import time
import uuid
from typing import Any

import pytest
import requests
import websocket
from PIL import Image

from src.draft.executor import NODES, DraftExecutor
from src.draft.schema import MODEL_FILE_INPUTS, excerpt, object_info

from .. import workflows
from ..conftest import Bench
from ..workflows import node


def ask(bench: Bench, prompt: Any, **more: Any) -> tuple[int, dict[str, Any]]:
    """POST /prompt, as it stands."""
    response = requests.post(f"{bench.engine.process.url}/prompt", json={"prompt": prompt, **more}, timeout=10)
    return response.status_code, response.json()


def test_every_class_has_a_schema_and_every_schema_a_class() -> None:
    assert NODES.keys() == object_info().keys()


def test_the_schema_is_the_one_of_a_real_comfyui(bench: Bench) -> None:
    if bench.name == "draft":
        pytest.skip("compared with the real one")
    if bench.engine.version != DraftExecutor.version:
        pytest.skip(f"the draft engine is {DraftExecutor.version}, this is {bench.engine.version}")
    real = excerpt(requests.get(f"{bench.engine.process.url}/object_info", timeout=30).json(), sorted(NODES))
    ours = {name: {key: object_info()[name][key] for key in real[name]} for name in real}
    assert without_files(real) == without_files(ours)


def without_files(classes: dict[str, Any]) -> dict[str, Any]:
    """Without the lists of files, which differ between machines."""
    stripped = copy.deepcopy(classes)
    for name, schema in stripped.items():
        for inputs in schema["input"].values():
            for key, config in inputs.items():
                if key in MODEL_FILE_INPUTS or (name.startswith("LoadImage") and key == "image"):
                    config[:] = []
    return stripped


def chain(**nodes: Any) -> Any:
    """The still workflow with other nodes."""
    return {**workflows.still(), **{name.removeprefix("n"): part for name, part in nodes.items()}}


# Prompts that ComfyUI refuses as a whole: type, message, details and extra_info, seen on a real one.
REFUSED: dict[str, tuple[Any, tuple[str, str, str, dict[str, Any]]]] = {
    "no output": (
        {"1": workflows.still()["1"]},
        ("prompt_no_outputs", "Prompt has no outputs", "", {}),
    ),
    "unknown class": (
        chain(n2=node("Nope")),
        (
            "missing_node_type",
            "Node 'Nope' not found. The custom node may not be installed.",
            "Node ID '#2'",
            {"node_id": "2", "class_type": "Nope", "node_title": "Nope"},
        ),
    ),
    "unknown class with a title": (
        chain(n2={**node("Nope"), "_meta": {"title": "Mine"}}),
        (
            "missing_node_type",
            "Node 'Mine' not found. The custom node may not be installed.",
            "Node ID '#2'",
            {"node_id": "2", "class_type": "Nope", "node_title": "Mine"},
        ),
    ),
    "no class_type": (
        chain(n2={"inputs": {}}),
        (
            "missing_node_type",
            "Node 'ID #2' has no class_type. The workflow may be corrupted or a custom node is missing.",
            "Node ID '#2'",
            {"node_id": "2", "class_type": None, "node_title": None},
        ),
    ),
}


@pytest.mark.parametrize(("prompt", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_whole_prompts_are_refused_in_the_same_words(
    bench: Bench, prompt: Any, error: tuple[str, str, str, dict[str, Any]]
) -> None:
    if bench.engine.version != DraftExecutor.version:
        pytest.skip(f"the words of {DraftExecutor.version}")
    kind, message, details, extra = error
    told = {"type": kind, "message": message, "details": details, "extra_info": extra}
    assert ask(bench, prompt) == (400, {"error": told, "node_errors": {}})


@pytest.mark.parametrize("prompt_id", ["abc", 5, "A5E0D0AA-0000-4000-8000-000000000001"])
def test_an_id_that_is_no_uuid_is_refused_in_the_same_words(bench: Bench, prompt_id: object) -> None:
    if bench.engine.version != DraftExecutor.version:
        pytest.skip(f"the words of {DraftExecutor.version}")
    status, body = ask(bench, workflows.still(), prompt_id=prompt_id)
    assert (status, body["error"]["type"]) == (400, "invalid_prompt_id")
    assert body["error"]["message"] == "prompt_id must be a valid UUID"


# Nodes with links that cannot be: at which node, type, details and what of extra_info.
LINKS: dict[str, tuple[Any, str, tuple[str, str, dict[str, Any]]]] = {
    "to itself": (
        chain(n2=node("ImageInvert", image=["2", 0])),
        "2",
        ("dependency_cycle", "2 (ImageInvert) -> 2 (ImageInvert)", {"node_id": "2", "cycle_nodes": ["2"]}),
    ),
    "in a circle": (
        chain(n2=node("ImageInvert", image=["3", 0])),
        "3",
        (
            "dependency_cycle",
            "3 (ImageScale) -> 2 (ImageInvert) -> 3 (ImageScale)",
            {"node_id": "3", "cycle_nodes": ["3", "2"]},
        ),
    ),
    "to a node that is not there": (
        chain(n2=node("ImageInvert", image=["77", 0])),
        "2",
        ("exception_during_inner_validation", "'77'", {"input_name": "image", "linked_node": ["2", 0]}),
    ),
    "to an output that is not there": (
        chain(n2=node("ImageInvert", image=["1", 9])),
        "2",
        ("exception_during_inner_validation", "tuple index out of range", {"exception_type": "IndexError"}),
    ),
}


@pytest.mark.parametrize(("prompt", "node_id", "error"), LINKS.values(), ids=LINKS.keys())
def test_impossible_links_are_refused_in_the_same_words(
    bench: Bench, prompt: Any, node_id: str, error: tuple[str, str, dict[str, Any]]
) -> None:
    if bench.engine.version != DraftExecutor.version:
        pytest.skip(f"the words of {DraftExecutor.version}")
    status, body = ask(bench, prompt)
    (found,) = body["node_errors"][node_id]["errors"]
    kind, details, extra = error
    assert (status, found["type"], found["details"]) == (400, kind, details)
    assert {name: found["extra_info"][name] for name in extra} == extra
    assert body["node_errors"][node_id]["dependent_outputs"] == ["4"]


@pytest.mark.parametrize(
    ("node_id", "name", "value", "kind", "message"),
    [
        ("1", "width", 0, "value_smaller_than_min", "Value 0 smaller than min of 1"),
        ("1", "width", 99999, "value_bigger_than_max", "Value 99999 bigger than max of 16384"),
        ("1", "width", "abc", "invalid_input_type", "Failed to convert an input value to a INT value"),
        ("3", "crop", "x", "value_not_in_list", "Value not in list"),
        (
            "4",
            "images",
            ["1"],
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
        ),
    ],
)
def test_bad_values_are_refused_in_the_same_words(
    bench: Bench, node_id: str, name: str, value: Any, kind: str, message: str
) -> None:
    prompt = chain()
    prompt[node_id]["inputs"][name] = value
    status, body = ask(bench, prompt)
    (error,) = body["node_errors"][node_id]["errors"]
    assert (status, body["error"]["type"]) == (400, "prompt_outputs_failed_validation")
    assert (error["type"], error["message"]) == (kind, message)
    assert error["extra_info"]["input_name"] == name
    assert error["extra_info"]["received_value"] == value
    assert body["node_errors"][node_id]["dependent_outputs"] == ["4"]


def test_events_come_in_the_same_order_with_the_same_data(bench: Bench) -> None:
    client, prompt_id = uuid.uuid4().hex, str(uuid.uuid4())
    socket = websocket.create_connection(
        bench.engine.process.url.replace("http", "ws") + f"/ws?clientId={client}", timeout=20
    )
    first = json.loads(socket.recv())
    assert (first["type"], first["data"]["sid"]) == ("status", client)
    ask(bench, workflows.still(color=4242, prefix=uuid.uuid4().hex), client_id=client, prompt_id=prompt_id)
    seen: list[tuple[str, str | None]] = []
    while not seen or seen[-1] != ("executing", None):
        event = json.loads(socket.recv())
        if event["type"] in ("status", "progress_state"):
            continue
        assert event["data"]["prompt_id"] == prompt_id
        seen.append((event["type"], event["data"].get("node")))
    socket.close()
    assert seen[:2] == [("execution_start", None), ("execution_cached", None)]
    assert seen[2:] == [
        *(("executing", node_id) for node_id in "1234"),
        ("executed", "4"),
        ("execution_success", None),
        ("executing", None),
    ]
    entry = bench.engine.client.history(prompt_id)
    assert entry
    assert entry.keys() >= {"prompt", "outputs", "status", "meta"}
    assert [message[0] for message in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("success", True)
    bench.engine.client.forget(prompt_id)


@pytest.mark.parametrize(("method", "kinds"), [("auto", {(1, 1)}), ("none", set()), ("default", set())])
def test_a_sampler_sends_a_jpeg_after_each_step_if_the_prompt_says_so(
    bench: Bench, method: str, kinds: set[tuple[int, int]]
) -> None:
    if not bench.engine.process.installation.previews_by_job:
        pytest.skip("this ComfyUI sends previews only if it is started so")
    client, prompt_id, prompt = uuid.uuid4().hex, str(uuid.uuid4()), workflows.generative()
    prompt["8"]["inputs"].update(steps=5, seed=len(method))
    socket = websocket.create_connection(
        bench.engine.process.url.replace("http", "ws") + f"/ws?clientId={client}", timeout=20
    )
    ask(bench, prompt, client_id=client, prompt_id=prompt_id, extra_data={"preview_method": method})
    frames, last = list[bytes](), ""
    while "execution_success" not in last:
        frame = socket.recv()
        frames += [frame] if isinstance(frame, bytes) else []
        if isinstance(frame, bytes):
            assert '"progress"' in last
        last = frame if isinstance(frame, str) else last
    socket.close()
    assert {struct.unpack_from(">II", frame) for frame in frames} == kinds
    assert len(frames) == 5 * len(kinds)
    assert all(max(Image.open(io.BytesIO(frame[8:])).size) <= 512 for frame in frames)
    bench.engine.client.forget(prompt_id)


def test_an_identical_prompt_is_answered_from_the_cache_with_the_old_name(bench: Bench) -> None:
    prompt = workflows.still(color=1717, prefix=uuid.uuid4().hex)
    names = []
    for _ in range(2):
        prompt_id = str(uuid.uuid4())
        ask(bench, prompt, prompt_id=prompt_id, client_id="nobody")  # without one, 0.3.68 to 0.27 name no cached file
        while (entry := bench.engine.client.history(prompt_id)) is None:
            time.sleep(0.01)
        bench.engine.client.forget(prompt_id)
        names.append(entry["outputs"]["4"]["images"][0]["filename"])
        cached = entry["status"]["messages"][1][1]["nodes"]
    assert names[0] == names[1]
    assert sorted(cached) == ["1", "2", "3", "4"]


def test_equal_input_draws_equal_pictures_and_every_override_shows(draft_bench: Bench) -> None:
    def picture(**fields: Any) -> str:
        answer = draft_bench.run(workflow=workflows.flux(), **fields)
        return str(answer["images"][0])

    base = {"prompt": "a cat", "seed": 1, "width": 256, "height": 256}
    assert picture(**base) == picture(**base)
    others = [picture(**{**base, **change}) for change in ({"prompt": "a dog"}, {"seed": 2}, {"width": 264})]
    assert len({picture(**base), *others}) == 4


def test_classes_without_a_function_of_their_own_give_what_they_declare(draft_bench: Bench) -> None:
    workflow = {
        "1": node("EmptyImage", width=64, height=48, batch_size=2, color=255),
        "2": node("CreateVideo", images=["1", 0], fps=8.0),
        "3": node("SaveVideo", video=["2", 0], filename_prefix="moving", format="auto", codec="auto"),
    }
    answer = draft_bench.run(workflow=workflow)
    assert answer["status"] == "success", answer
    assert answer["files"][0]["name"].startswith("moving")
