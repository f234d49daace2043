"""The list of jobs is what the editor's panels take; it drops the whole list for one value of another type."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.protocol.queue import QueuedPrompt
from src.protocol.report import RunReport

from .. import workflows
from .here import Here, gateway_here

RUNS = (200, {"status": "IN_PROGRESS"})
PICTURE = {"filename": "a.png", "subfolder": "", "type": "output"}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with gateway_here(tmp_path) as running:
        yield running
        end_all(running)


def end_all(here: Here) -> None:
    """Have no job follow its endpoint any more."""
    here.post("/queue", {"clear": True})
    here.post("/interrupt")
    until(lambda: not here.gateway.queue.remaining)


def until(is_so: Any) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


def ended(here: Here, outputs: Any = None, how: str = "success", extra_data: Any = None, number: float = 1) -> str:
    """A prompt that has ended; its id."""
    prompt_id = str(uuid.uuid4())
    prompt = {"9": {"class_type": "SaveImage", "inputs": {}}}
    report = RunReport(prompt_id, prompt, lambda kind, data: None)
    report.started()
    report.cached({})
    for node_id, ui in (outputs or {}).items():
        report.output(node_id, ui)
    if how == "failed":
        report.failed("9", [], "ValueError", "broken")
    elif how == "cancelled":
        report.interrupted(None, [])
    else:
        report.succeeded()
    extra = {"create_time": int(number * 1000), **(extra_data or {})}
    entry = report.entry(QueuedPrompt(number, prompt_id, prompt, extra, ["9"]).as_json())
    here.gateway.queue.finish(prompt_id, entry)
    return prompt_id


def check_job(job: dict[str, Any]) -> None:
    """What the editor (1.58) insists on: types of fields, and which must be there."""
    number = (int, float)
    assert isinstance(job["id"], str) and isinstance(job["create_time"], number)
    assert job["status"] in ("pending", "in_progress", "completed", "failed", "cancelled")
    for name, kind in (
        ("priority", number), ("workflow_id", str), ("execution_start_time", number), ("execution_end_time", number),
        ("outputs_count", int), ("previewable_outputs_count", int),
    ):  # fmt: skip
        assert name not in job or isinstance(job[name], kind), (name, job[name])
    if "preview_output" in job:
        preview = job["preview_output"]
        assert isinstance(preview["nodeId"], str) and isinstance(preview["mediaType"], str)
        for name in ("filename", "subfolder", "content", "display_name", "type"):
            assert name not in preview or isinstance(preview[name], str), preview
        assert preview.get("type", "input") in ("input", "output", "temp")
    if "execution_error" in job:
        error = job["execution_error"]
        for name in ("node_id", "node_type", "exception_message", "exception_type"):
            assert isinstance(error[name], str)
        assert all(isinstance(line, str) for line in error["traceback"])


def jobs(here: Here, **query: str) -> list[dict[str, Any]]:
    """The list, as the editor takes it."""
    answer = here.get("/api/jobs", **query)
    assert answer.status == 200, answer.text
    pagination = answer.json["pagination"]
    assert all(type(pagination[name]) is int for name in ("offset", "limit", "total"))
    assert isinstance(pagination["has_more"], bool)
    found: list[dict[str, Any]] = answer.json["jobs"]
    for job in found:
        check_job(job)
    return found


def test_a_job_is_in_each_state_in_turn(here: Here) -> None:
    workflow = {"extra_pnginfo": {"workflow": {"id": "11111111-1111-4111-8111-111111111111"}}}
    queued = here.post("/prompt", {"prompt": workflows.still(), "extra_data": workflow}).json["prompt_id"]
    (pending,) = jobs(here, status="pending")
    assert (pending["id"], pending["workflow_id"]) == (queued, "11111111-1111-4111-8111-111111111111")
    assert (pending["outputs_count"], here.get(f"/api/jobs/{queued}").json) == (0, pending)
    here.endpoint.statuses = [RUNS]
    until(lambda: jobs(here, status="in_progress"))
    (running,) = jobs(here, status="in_progress,pending")
    assert running == {**pending, "status": "in_progress"}
    assert here.post(f"/api/jobs/{queued}/cancel").json == {"cancelled": True}
    until(lambda: jobs(here, status="cancelled"))
    (cancelled,) = jobs(here)
    assert cancelled["execution_end_time"] >= cancelled["execution_start_time"]
    assert "execution_error" not in cancelled
    assert here.post(f"/api/jobs/{queued}/cancel").json == {"cancelled": False}


def test_a_job_that_is_cancelled_before_it_runs_vanishes(here: Here) -> None:
    queued = here.post("/prompt", {"prompt": workflows.still()}).json["prompt_id"]
    assert here.post("/api/jobs/cancel", {"job_ids": [queued]}).json == {"cancelled": True}
    until(lambda: not here.gateway.queue.remaining)
    assert jobs(here) == []
    assert here.get(f"/api/jobs/{queued}").status == 404


def test_a_job_that_has_ended_says_how_and_has_its_workflow(here: Here) -> None:
    done = ended(here, {"9": {"images": [PICTURE, {**PICTURE, "filename": "b.png"}]}})
    failed = ended(here, how="failed")
    states = {job["id"]: job for job in jobs(here)}
    assert (states[done]["status"], states[failed]["status"]) == ("completed", "failed")
    assert states[failed]["execution_error"]["exception_message"] == "broken"
    assert states[failed]["execution_error"]["node_type"] == "SaveImage"
    whole = here.get(f"/api/jobs/{done}").json
    check_job(whole)
    assert whole["outputs"] == {"9": {"images": [PICTURE, {**PICTURE, "filename": "b.png"}]}}
    assert whole["execution_status"]["status_str"] == "success"
    assert whole["workflow"]["prompt"] == {"9": {"class_type": "SaveImage", "inputs": {}}}
    assert (whole["outputs_count"], whole["preview_output"]["nodeId"]) == (2, "9")


def test_what_is_not_a_job_is_not_found_and_nothing_to_cancel(here: Here) -> None:
    answer = here.get("/api/jobs/nope")
    assert (answer.status, answer.json) == (404, {"error": "Job not found"})
    assert here.post("/api/jobs/nope/cancel").json == {"cancelled": False}
    assert here.post("/api/jobs/cancel", {"job_ids": [str(uuid.uuid4())]}).json == {"cancelled": False}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", {"error": "Request body must be valid JSON"}),
        (b"", {"error": "Request body must be valid JSON"}),
        (b"[]", {"error": "job_ids must be a list"}),
        (b'{"job_ids": "x"}', {"error": "job_ids must be a list"}),
        (b'{"job_ids": ["x"]}', {"error": "job_ids contains invalid id(s)", "invalid_ids": ["x"]}),
        (b'{"job_ids": [{}]}', {"error": "job_ids contains invalid id(s)", "invalid_ids": ["{}"]}),
    ],
)
def test_a_wrong_list_of_jobs_to_cancel_is_refused(here: Here, body: bytes, said: Any) -> None:
    answer = here.ask("POST", "/api/jobs/cancel", body)
    assert (answer.status, answer.json) == (400, said)


def test_jobs_come_newest_first_page_by_page(here: Here) -> None:
    ids = [ended(here, number=number) for number in range(1, 6)]
    assert [job["id"] for job in jobs(here)] == ids[::-1]
    assert [job["id"] for job in jobs(here, sort_order="asc")] == ids
    answer = here.get("/api/jobs", limit="2", offset="1").json
    assert [job["id"] for job in answer["jobs"]] == [ids[3], ids[2]]
    assert answer["pagination"] == {"offset": 1, "limit": 2, "total": 5, "has_more": True}
    assert not here.get("/api/jobs", limit="2", offset="3").json["pagination"]["has_more"]
    assert (jobs(here, limit="2", offset="9"), jobs(here, offset="-3", limit="9")) == ([], jobs(here))
    assert [job["id"] for job in jobs(here, sort_by="execution_duration", sort_order="asc")]


@pytest.mark.parametrize(
    "query",
    [
        {"status": "completed,zz"}, {"limit": "0"}, {"limit": "-1"}, {"limit": "x"}, {"offset": "x"},
        {"limit": "9" * 5000}, {"sort_by": "name"}, {"sort_order": "up"},
    ],
)  # fmt: skip
def test_a_wrong_question_is_refused_with_a_reason(here: Here, query: dict[str, str]) -> None:
    answer = here.get("/api/jobs", **query)
    assert (answer.status, bool(answer.json["error"])) == (400, True)


def test_an_unknown_state_is_named(here: Here) -> None:
    assert (
        "zz. Valid values: pending, in_progress, completed, failed, cancelled" in here.get("/jobs", status="zz").text
    )
    assert here.get("/jobs", status=" Completed , failed").status == 200


def test_jobs_are_found_by_their_workflow(here: Here) -> None:
    mine = ended(here, extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}})
    ended(here, extra_data={"extra_pnginfo": {"workflow": {"id": "v"}}})
    assert [job["id"] for job in jobs(here, workflow_id="w")] == [mine]


# What stands for a job: outputs, the result that is shown, how many there are, how many of them can be shown.
SHOWN: dict[str, tuple[Any, Any, int, int]] = {
    "nothing": ({}, None, 0, 0),
    "a saved picture before a preview": (
        {"1": {"images": [{**PICTURE, "type": "temp"}]}, "2": {"images": [PICTURE]}},
        {**PICTURE, "nodeId": "2", "mediaType": "images"}, 2, 2,
    ),
    "a preview before a text": (
        {"1": {"text": ["hello"]}, "2": {"images": [{**PICTURE, "type": "temp"}]}},
        {**PICTURE, "type": "temp", "nodeId": "2", "mediaType": "images"}, 1, 1,
    ),
    "a file of text before a text": (
        {"1": {"text": ["hello"]}, "2": {"files": [{**PICTURE, "filename": "a.txt"}]}},
        {**PICTURE, "filename": "a.txt", "nodeId": "2", "mediaType": "files"}, 1, 1,
    ),
    "a picture before a file of text": (
        {"1": {"files": [{**PICTURE, "filename": "a.json"}]}, "2": {"images": [{**PICTURE, "type": "temp"}]}},
        {**PICTURE, "type": "temp", "nodeId": "2", "mediaType": "images"}, 2, 2,
    ),
    "a text": ({"1": {"text": ["hello"]}}, {"content": "hello", "nodeId": "1", "mediaType": "text"}, 0, 0),
    "a long text": (
        {"1": {"text": ["x" * 2000]}},
        {"content": "x" * 1024, "truncated": True, "nodeId": "1", "mediaType": "text"}, 0, 0,
    ),
    "a 3D file by its path": (
        {"1": {"result": ["mesh/a.glb", None, {}]}},
        {"filename": "a.glb", "subfolder": "mesh", "type": "output", "nodeId": "1", "mediaType": "3d"}, 1, 1,
    ),
    "a file that cannot be shown": ({"1": {"latents": [{**PICTURE, "filename": "a.latent"}]}}, None, 1, 0),
    "a video of a pack": (
        {"1": {"clips": [{**PICTURE, "filename": "a.mp4", "format": "video/h264-mp4", "frame_rate": 8}]}},
        {**PICTURE, "filename": "a.mp4", "format": "video/h264-mp4", "frame_rate": 8, "nodeId": "1", "mediaType": "clips"},
        1, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_the_best_result_stands_for_a_job(here: Here, name: str) -> None:
    outputs, shown, count, can_be_shown = SHOWN[name]
    ended(here, outputs)
    (job,) = jobs(here)
    assert job.get("preview_output") == shown
    assert (job["outputs_count"], job["previewable_outputs_count"]) == (count, can_be_shown)


@pytest.mark.parametrize(
    "outputs",
    [
        {"1": None}, {"1": []}, {"1": {"images": None}}, {"1": {"images": [None, 5, {}, [], "x"]}},
        {"1": {"images": [{"filename": 5}]}}, {"1": {"images": [{**PICTURE, "type": "models"}]}},
        {"1": {"images": [{**PICTURE, "type": None}]}}, {"1": {"images": [{**PICTURE, "subfolder": 5}]}},
        {"1": {"images": [{**PICTURE, "content": 5, "display_name": {}, "format": 5, "mediaType": 5, "nodeId": 5}]}},
        {"1": {"text": [5, None, {"content": 5}]}}, {"1": {"animated": [True]}},
    ],
)  # fmt: skip
def test_whatever_a_node_reports_the_list_stays_readable(here: Here, outputs: Any) -> None:
    ended(here, {"9": {"images": [PICTURE]}}, number=1)
    ended(here, outputs, number=2)
    assert len(jobs(here)) == 2


@pytest.mark.parametrize(
    "extra_data",
    [
        {"create_time": None}, {"extra_pnginfo": None}, {"extra_pnginfo": []}, {"extra_pnginfo": {"workflow": []}},
        {"extra_pnginfo": {"workflow": {"id": 5}}}, {"extra_pnginfo": {"workflow": {"id": None}}},
    ],
)  # fmt: skip
def test_whatever_a_client_sent_the_list_stays_readable(here: Here, extra_data: Any) -> None:
    ended(here, extra_data=extra_data)
    assert len(jobs(here)) == 1
