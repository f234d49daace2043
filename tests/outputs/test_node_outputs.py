"""What each node reported is in the answer, with the names of the answer's files, and nothing of the worker's own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from src.comfy.folders import Folders
from src.comfy.record import Run
from src.outputs import FileNames, LocalFile, OutputFile, Result, node_outputs, success_answer
from src.outputs.gathering import with_unique_names

from .. import workflows
from ..conftest import Bench
from ..s3 import Storage
from ..workflows import Workflow, node
from .test_delivery import noise, with_bucket
from .test_kinds import real_only

JOB = "job-0123456789ab"
LIMIT = 9_500_000
NO_NAMES: Mapping[str, str] = MappingProxyType({})


def ran(bench: Bench, workflow: Workflow, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer to a job that went well, and its outputs, of which each file is one of the answer's."""
    answer = bench.run(workflow=workflow, **fields)
    assert answer["status"] == "success", answer
    assert set(named(answer.get("outputs", {}))) <= {entry["name"] for entry in answer["files"]}
    return answer, answer.get("outputs", {})


def named(value: Any) -> list[str]:
    """The names of all files that it reports."""
    if isinstance(value, dict) and "filename" in value:
        return [f"{value['subfolder']}/{value['filename']}".lstrip("/")]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [name for part in parts for name in named(part)]


def saved_twice(prefix: str = "a/still") -> Workflow:
    """Two pictures with the same prefix, a preview, and a text."""
    return {
        "12": node("SaveImage", images=["2", 0], filename_prefix=prefix),
        **workflows.still(prefix=prefix),
        "5": node("PreviewImage", images=["2", 0]),
        "6": node("PrimitiveString", value="a cat\nsat"),
        "7": node("PreviewAny", source=["6", 0]),
    }


def test_each_node_tells_its_files_by_the_names_of_the_answer(bench: Bench) -> None:
    answer, outputs = ran(bench, saved_twice())
    assert list(outputs) == ["12", "4", "7"], "in the order of the workflow"
    for entry in answer["files"]:
        (item,) = outputs[entry["node_id"]]["images"]
        assert f"{item['subfolder']}/{item['filename']}" == entry["name"]
        assert item == {"filename": item["filename"], "subfolder": "a", "type": "output"}
    assert outputs["7"] == {"text": ["a cat\nsat"]}
    assert "job-" not in json.dumps(outputs)


def test_a_file_that_is_converted_has_its_new_name(bench: Bench) -> None:
    answer, outputs = ran(bench, saved_twice(), output={"format": "webp"})
    assert sorted(named(outputs)) == sorted(answer["filenames"]) == ["a/still_00001_.webp", "a/still_00002_.webp"]


def test_a_preview_is_in_outputs_if_it_is_in_the_answer(bench: Bench) -> None:
    answer, outputs = ran(bench, saved_twice(), output={"previews": True})
    (item,) = outputs["5"]["images"]
    assert (item["type"], item["subfolder"]) == ("temp", "")
    assert item["filename"] in answer["filenames"]
    assert "5" not in ran(bench, saved_twice())[1]


def test_files_in_the_bucket_are_named_too(bench: Bench, storage: Storage) -> None:
    own = with_bucket(bench, storage.config, output_delivery="bucket")
    answer, outputs = ran(own, saved_twice())
    assert sorted(named(outputs)) == sorted(entry["name"] for entry in answer["files"])
    assert all("key" in entry for entry in answer["files"])


def test_pictures_over_the_websocket_are_no_outputs(bench: Bench) -> None:
    workflow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=255),
        "9": node("SaveImageWebsocket", images=["1", 0]),
    }
    answer, _ = ran(bench, workflow)
    assert len(answer["files"]) == 1
    assert "outputs" not in answer


def test_the_format_of_worker_comfyui_has_no_outputs(bench: Bench) -> None:
    assert "outputs" not in bench.run(workflow=saved_twice(), output={"answer": "worker-comfyui"})


def test_a_file_keeps_what_its_node_says_of_it_but_no_path(bench: Bench) -> None:
    real_only(bench)
    workflow = {**workflows.still(), "22": node("WorkerTestGifs", images=["3", 0], filename_prefix="v/g")}
    _, outputs = ran(bench, workflow)
    assert outputs["22"] == {
        "gifs": [
            {
                "filename": "g_00001.gif",
                "subfolder": "v",
                "type": "output",
                "format": "image/gif",
                "frame_rate": 10.0,
                "workflow": "g_00001.png",
            }
        ],
        "unfinished_batch": [True],
    }


def test_a_file_that_a_node_reports_as_a_path_has_its_name(bench: Bench) -> None:
    real_only(bench)
    answer, outputs = ran(bench, {"9": node("WorkerTestReports", how="result", filename_prefix="mesh/m")})
    assert outputs == {"9": {"result": ["mesh/m_00001.glb", None, []]}}
    assert [entry["name"] for entry in answer["files"]] == ["mesh/m_00001.glb"]


def test_a_hostile_node_gives_nothing_of_the_worker_away(bench: Bench) -> None:
    real_only(bench)
    workflow = {**workflows.still(), "9": node("WorkerTestReports", how="hostile", filename_prefix="mesh/m")}
    answer, outputs = ran(bench, workflow)
    told = json.dumps(outputs, allow_nan=False)
    folders, comfyui = bench.engine.process.folders, bench.engine.process.installation.directory
    for secret in ("job-", str(folders.root), str(comfyui), comfyui.parent.name + "/", "secret.png"):
        assert secret not in told, secret
    told_by_node = outputs["9"]
    assert told_by_node["3d"] == [
        {"filename": "m_00001.glb", "subfolder": "mesh", "type": "output", "note": "in …/m_00001.glb", "kept": 1}
    ]
    assert told_by_node["paths"] == ["mesh/m_00001.glb", "mesh/m_00001.glb", "…/output", "…/main.py", "a mesh b"]
    assert told_by_node["odd"][:3] == ["nan", "-inf", "half ?"]
    assert told_by_node["odd"][3] == {"…/m_00001.glb": {"in": ["mesh/m_00001.glb", "mesh/m_00001.glb"]}}
    assert told_by_node["text"] == ["saved …/output/mesh/m_00001.glb of mesh/m_00001.glb from …/models/x.bin"]
    assert told_by_node["empty"] == []
    assert "inputs" not in told_by_node
    assert "still_00001_.png" in answer["filenames"]


def test_what_is_too_large_is_left_out_and_told(bench: Bench) -> None:
    workflow = saved_twice()
    workflow["6"]["inputs"]["value"] = "word " * 30_000
    answer, outputs = ran(bench, workflow)
    assert list(outputs) == ["12", "4"]
    assert answer["warnings"] == [
        "outputs does not have what these nodes reported, since it is too large: 7 (PreviewAny)"
    ]
    assert len(answer["text"][0]) > 100_000


def test_outputs_count_where_the_size_of_the_response_is_planned(bench: Bench) -> None:
    """Else it would be found too large only when everything is encoded, too late for the bucket or another format."""
    workflow = {**noise(220), "6": node("PrimitiveString", value="word " * 1200)}
    workflow["7"] = node("PreviewAny", source=["6", 0])
    size = len(json.dumps(ran(bench, workflow)[0]))
    own = with_bucket(bench, None, result_limit=(size - 100) / 1e6)
    refused = own.run(workflow=workflow)
    assert refused["error_code"] == "output_too_large"
    assert [entry["name"] for entry in refused["files"]] == ["noise_00001_.png"], "told before encoding"


# --- Without an engine ------------------------------------------------------------------------------------


COMFYUI = Path("/opt/comfyui")
FOLDERS = Folders(Path("/tmp/comfyui-worker-x"))


def file(name: str, subfolder: str = JOB, kind: str = "output", **more: Any) -> dict[str, Any]:
    """A file as a node reports it."""
    return {"filename": name, "subfolder": subfolder, "type": kind, **more}


def told(
    outputs: dict[str, Any], limit: int = LIMIT, names: Mapping[str, str] = NO_NAMES
) -> tuple[dict[str, Any], list[str]]:
    """What the answer has of these outputs, and warnings, if the job saved `a.png`, `b.png` and the preview `p.png`.

    The names that `a` and `b` have in the answer are as given; the preview has none.
    """
    saved = [OutputFile("1", name, JOB, "output") for name in ("a.png", "b.png")] + [
        OutputFile("2", "p.png", "", "temp")
    ]
    delivered = [
        LocalFile("1", names.get(saved_file.filename[0], saved_file.filename), Path("x"), origin=saved_file)
        for saved_file in saved[:2]
    ]
    run = Run("id", {str(number): {"class_type": "X", "inputs": {}} for number in range(1, 10)}, {"outputs": outputs})
    return node_outputs(run, FileNames.make(COMFYUI, FOLDERS, JOB, saved, with_unique_names(delivered)), limit)


def value(given: Any, key: str = "x", **names: str) -> Any:
    """What becomes of one value under a key, `...` if it is gone."""
    return told({"1": {key: given}}, names=names)[0].get("1", {}).get(key, ...)


def test_files_are_told_apart_by_where_they_were_and_not_by_their_names() -> None:
    outputs = {"1": {"images": [file("b.png"), file("a.png")]}}
    found, _ = told(outputs, names={"a": "same.webp", "b": "same.webp"})
    assert found["1"]["images"] == [file("same-2.webp", ""), file("same.webp", "")]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([file("a.png"), file("p.png", "", "temp")], [file("c.png", "d/e")]),
        ([file("p.png", "", "temp")], ...),
        ([], []),
        ({"inner": [file("p.png", "", "temp")], "x": 1}, {"x": 1}),
        ([[file("p.png", "", "temp")]], ...),
        ([file("unknown.png")], ...),
        ([file("a.png", kind="input")], ...),
        ([{"filename": "just a word"}], [{"filename": "just a word"}]),
        ([file("a.png", fullpath="/x/y/a.png", size=5, at="/srv/x", url="file:///srv/x")], [file("c.png", "d/e", size=5)]),
        ([f"{JOB}/a.png", None, []], ["d/e/c.png", None, []]),
        ([f"output/{JOB}/a.png", f"{FOLDERS.output}/{JOB}/./a.png"], ["d/e/c.png", "d/e/c.png"]),
        (["temp/p.png", "p.png", f"{FOLDERS.temp}/p.png"], [None, None, None]),
        (["a.png", "other.png", ""], ["a.png", "other.png", ""]),
        ([math.nan, math.inf, 1.5, 3, True, None], ["nan", "inf", 1.5, 3, True, None]),
        (["half \ud800", f"see {JOB}/z and /srv/app/models/m.bin"], ["half ?", "see z and …/m.bin"]),
        (["https://user:key@host.org/a?token=1"], ["https://host.org/a?…"]),
        ([f"glued{FOLDERS.root}/x"], ["glued…/x"]),
        ({f"{JOB}/k": 1}, {"k": 1}),
    ],
)  # fmt: skip
def test_a_value_becomes_what_a_caller_may_see(given: Any, kept: Any) -> None:
    assert value(given, a="d/e/c.png") == kept


def test_texts_that_people_read_keep_their_spaces_and_length_and_are_no_files() -> None:
    long = "  a cat sat.\n" * 5000
    assert value([long, "a.png", "  x "], "text") == [long, "a.png", "  x "]
    assert value([f"{FOLDERS.output}/{JOB}/a.png"], "text", a="c.webp") == ["…/output/a.png"]
    assert value([f"{COMFYUI}/models/a.bin"], "text") == ["…/models/a.bin"]
    plain = "see /usr/share and https://example.org/a?b=c"
    assert value([plain], "text") == [plain]


def test_endless_nesting_ends() -> None:
    nested: Any = []
    for _ in range(300):
        nested = [nested]
    assert "(list)" in json.dumps(value(nested))


@pytest.mark.parametrize(
    "large", ["x" * 100_000, ["é" * 20_000], [1] * 60_000, {"a" * 101_000: 1}, [{"b": ["y" * 60_000] * 2}]]
)
def test_a_node_that_reports_too_much_is_left_out_and_no_other(large: Any) -> None:
    found, (warning,) = told({"1": {"x": ["fine"]}, "2": {"x": large}, "3": {"x": ["fine"]}})
    assert found == {"1": {"x": ["fine"]}, "3": {"x": ["fine"]}}
    assert warning.endswith("since it is too large: 2 (X)")


def test_all_nodes_together_have_a_limit_and_a_tenth_of_the_response() -> None:
    outputs = {str(number): {"x": ["x" * 90_000]} for number in range(1, 10)}
    assert list(told(outputs)[0]) == ["1", "2", "3", "4", "5"]
    found, (warning,) = told(outputs, limit=2_000_000)
    assert list(found) == ["1", "2"]
    assert warning.endswith("3 (X), 4 (X), 5 (X), 6 (X), 7 (X), 8 (X), 9 (X)")


def test_what_is_no_output_of_a_node_is_passed_over() -> None:
    assert told({"1": None, "2": [], "3": "x", "4": {}, f"5.{JOB}": {"x": [1]}}) == ({"5.": {"x": [1]}}, [])


def test_outputs_are_there_only_if_there_are_some_and_beside_errors_too() -> None:
    assert "outputs" not in success_answer(Result("id", []), (), 1, 5000)
    answer = success_answer(Result("id", [], outputs={"1": {"text": ["x"]}}, errors=["node 2 failed"]), (), 1, 5000)
    assert (answer["outputs"], answer["errors"]) == ({"1": {"text": ["x"]}}, ["node 2 failed"])
