"""One prompt as one job: what is sent, what is reported on the way, and how it ends, whatever the endpoint does."""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from src.gateway.endpoint import Endpoint
from src.gateway.executor import JobExecutor
from src.gateway.input_files import Sender
from src.gateway.node_classes import NodeClasses
from src.gateway.results import ResultSaver
from src.gateway.store import StoredQueue
from src.protocol.executor import Folders
from src.protocol.queue import QueuedPrompt
from src.protocol.report import Frame, RunReport

from .scripted_endpoint import Answer, ScriptedEndpoint, scripted_endpoint

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {"class_type": "KSampler", "inputs": {"image": ["1", 0], "steps": 4}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}
FILE = {"node_id": "3", "name": "x_00001_.png", "type": "image", "content_type": "image/png", "size_bytes": 3}
OUTPUTS = {"3": {"images": [{"filename": "x_00001_.png", "subfolder": "", "type": "output"}]}}
SUCCESS = {
    "status": "success",
    "images": [base64.b64encode(b"one").decode()],
    "filenames": ["x_00001_.png"],
    "files": [{**FILE, "image_index": 0}],
    "outputs": OUTPUTS,
}
RUNS: Answer = (200, {"status": "IN_PROGRESS"})
WAITS: Answer = (200, {"status": "IN_QUEUE"})
DONE: Answer = (200, {"status": "COMPLETED", "output": SUCCESS})


def ended(state: str, **more: Any) -> Answer:
    """The status of a job that ended so."""
    return 200, {"status": state, **more}


@dataclass
class Bench:
    """An executor in front of a scripted endpoint."""

    folder: Path
    endpoint: ScriptedEndpoint
    executor: JobExecutor
    events: list[tuple[str, Any]] = field(default_factory=list)

    @staticmethod
    def of(folder: Path, endpoint: ScriptedEndpoint, takes_previews: bool = False) -> Bench:
        folders = Folders(folder / "input", folder / "output", folder / "temp")
        for needed in (folders.input, folders.output, folders.temp):
            needed.mkdir(exist_ok=True)
        client = Endpoint(endpoint.url, "")
        classes = NodeClasses(client, folder / "classes")
        saver = ResultSaver(folders, client, None)
        queue = StoredQueue(folder / "prompts.db")
        executor = JobExecutor(folders, client, classes, queue, Sender(None), saver, lambda client_id: takes_previews)
        return Bench(folder, endpoint, executor)

    def run(self, prompt: dict[str, Any] = PROMPT, **extra_data: Any) -> dict[str, Any] | None:
        """Run a prompt; its history entry, None if it has none."""
        queue = self.executor.queue
        queue.put(QueuedPrompt(1, str(uuid.uuid4()), prompt, {"client_id": "a", **extra_data}, ["3"]))
        return self.run_next()

    def run_next(self) -> dict[str, Any] | None:
        """The same for the next prompt in the queue."""
        queued = self.executor.queue.take()
        report = RunReport(queued.prompt_id, queued.prompt, lambda kind, data: self.events.append((kind, data)))
        self.executor.execute(queued, report)
        entry = report.entry(queued.as_json())
        self.executor.queue.finish(queued.prompt_id, entry)
        return entry

    def interrupt(self) -> None:
        """Interrupt what runs."""
        for prompt_id in list(self.executor._stops):
            self.executor.interrupt(prompt_id)

    def withdraw(self) -> None:
        """Delete what waits."""
        for prompt_id in list(self.executor._stops):
            self.executor.withdraw(prompt_id)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with scripted_endpoint() as endpoint:
        yield Bench.of(tmp_path, endpoint)


def error_of(entry: dict[str, Any] | None) -> dict[str, Any]:
    """The error in a history entry."""
    assert entry is not None
    kind, error = entry["status"]["messages"][-1]
    assert (kind, entry["status"]["status_str"]) == ("execution_error", "error")
    return dict(error)


def test_a_job_gets_the_prompt_and_what_it_names_and_its_result_is_saved(bench: Bench) -> None:
    (bench.folder / "input" / "photo.png").write_bytes(b"photo")
    (bench.folder / "input" / "other.png").write_bytes(b"other")
    bench.endpoint.statuses = [WAITS, RUNS, DONE]
    entry = bench.run(extra_pnginfo={"workflow": {"id": "w"}}, api_key_comfy_org="key")
    (job,) = bench.endpoint.jobs
    assert job["workflow"] == PROMPT
    assert job["files"] == [{"name": "photo.png", "data": base64.b64encode(b"photo").decode()}]
    assert job["output"] == {
        "answer": "standard",
        "format": "original",
        "previews": True,
        "metadata": True,
        "live_previews": False,
    }
    assert (job["extra_pnginfo"], job["comfy_org_api_key"]) == ({"workflow": {"id": "w"}}, "key")
    assert entry is not None
    assert entry["outputs"] == {"3": {"images": [{"filename": "x_00001_.png", "subfolder": "", "type": "output"}]}}
    assert (bench.folder / "output" / "x_00001_.png").read_bytes() == b"one"
    assert bench.kinds() == [
        *("execution_start", "execution_cached", "progress_state", "progress_state", "executing", "executed"),
        *("progress_state", "execution_success"),
    ]
    assert "key" not in str(entry)
    assert b'"key"' not in (bench.folder / "prompts.db").read_bytes()


def test_files_are_numbered_on_as_comfyui_numbers_them(bench: Bench) -> None:
    bench.endpoint.statuses = [DONE]
    names = [bench.run(), bench.run()]
    assert [entry and entry["outputs"]["3"]["images"][0]["filename"] for entry in names] == [
        "x_00001_.png",
        "x_00002_.png",
    ]


def test_progress_is_reported_node_by_node_with_steps_and_previews(tmp_path: Path) -> None:
    progress = {"percent": 50, "node_id": "2", "node": "KSampler", "step": 2, "steps": 4, "images": []}
    preview = {**progress, "preview": base64.b64encode(b"jpeg").decode()}
    unknown = {**progress, "node_id": "no such node"}
    statuses = [ended("IN_PROGRESS", output=output) for output in (progress, preview, unknown, "odd")]
    with scripted_endpoint(statuses=[*statuses, DONE]) as endpoint:
        bench = Bench.of(tmp_path, endpoint, takes_previews=True)
        bench.run()
    assert endpoint.jobs[0]["output"]["live_previews"]
    assert ("executing", "2") in [(kind, data["node"]) for kind, data in bench.events if kind == "executing"]
    assert [(data["node"], data["value"], data["max"]) for kind, data in bench.events if kind == "progress"] == [
        ("2", 2, 4),
        ("2", 2, 4),
    ]
    states = [data["nodes"] for kind, data in bench.events if kind == "progress_state"]
    assert states[0]["1"]["state"] == "finished"  # the sampler runs, so what it needs has run
    (frame,) = [data for kind, data in bench.events if kind == "preview"]
    assert isinstance(frame, Frame)
    assert (frame.content, (frame.preview_of or {})["node_id"]) == (b"jpeg", "2")


@pytest.mark.parametrize(
    ("status", "node_id", "message"),
    [
        (
            ended("FAILED", error="node 2 failed", output={"node_id": "2", "exception_type": "ValueError"}),
            "2",
            "failed",
        ),
        (ended("FAILED", error="no file", output={"comfyui_error": {"node_errors": {"1": {}}}}), "1", "no file"),
        (ended("FAILED", error="no class", output={"missing_nodes": [{"node_id": "3"}]}), "3", "no class"),
        (ended("FAILED", error="out of stock"), "", "out of stock"),
        (ended("COMPLETED", output={"status": "error", "error": "bad", "node_id": "gone"}), "", "bad"),
        (ended("COMPLETED"), "", "larger than RunPod accepts"),
        (ended("TIMED_OUT", error="job timed out after 600 seconds"), "", "600 seconds"),
        ((404, {"error": "no such job"}), "", "no longer has this job"),
        ((401, {}), "", "RUNPOD_API_KEY"),
        ((200, "text"), "", "does not answer as a RunPod endpoint"),
        (ended("COMPLETED", output={**SUCCESS, "images": ["no base64!"]}), "", "no base64"),
        (ended("COMPLETED", output={**SUCCESS, "files": [{**FILE, "name": "../x.png", "data": "AA=="}]}), "", "name"),
        (ended("COMPLETED", output={**SUCCESS, "files": [{**FILE, "bucket": "b", "key": "k"}]}), "", "BUCKET_"),
        (ended("COMPLETED", output={"status": "success", "files": [{}]}), "", "unexpected error"),
    ],
)
def test_a_prompt_without_a_result_says_why_at_the_node_at_fault(
    bench: Bench, status: Answer, node_id: str, message: str
) -> None:
    bench.endpoint.statuses = [RUNS, status]
    error = error_of(bench.run())
    assert error["node_id"] == node_id
    assert message in error["exception_message"]
    assert not list((bench.folder / "output").iterdir())


def test_the_node_at_fault_is_seen_to_run_before_it_fails(bench: Bench) -> None:
    answer = {"error": "no", "node_id": "2", "exception_type": "ValueError", "exception_message": "no"}
    bench.endpoint.statuses = [ended("COMPLETED", output=answer)]
    assert error_of(bench.run())["executed"] == ["1"]
    kinds = [kind for kind in bench.kinds() if kind != "progress_state"]
    assert kinds == ["execution_start", "execution_cached", "executing", "execution_error"]


def test_an_endpoint_that_is_away_for_a_while_costs_no_result(bench: Bench) -> None:
    bench.endpoint.statuses = [(0, None), (503, {}), (502, b"<html>"), (429, {}), RUNS, (0, None), DONE]
    entry = bench.run()
    assert entry is not None
    assert entry["status"]["status_str"] == "success"
    assert len(bench.endpoint.jobs) == 1


def test_a_job_is_not_sent_twice_if_it_may_have_been_queued(bench: Bench) -> None:
    bench.endpoint.submitted = (0, None)
    assert "did not answer" in error_of(bench.run())["exception_message"]
    assert len(bench.endpoint.jobs) == 1


def test_a_job_that_somebody_else_cancels_is_interrupted(bench: Bench) -> None:
    bench.endpoint.statuses = [RUNS, ended("CANCELLED")]
    entry = bench.run()
    assert entry is not None
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


def test_an_interrupt_cancels_the_job(bench: Bench) -> None:
    bench.endpoint.statuses = [RUNS]
    bench.endpoint.asked = lambda count: bench.interrupt() if count == 2 else None
    entry = bench.run()
    assert entry is not None
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert bench.endpoint.cancels == 1


def test_an_interrupt_ends_although_the_endpoint_is_away(bench: Bench) -> None:
    bench.executor.endpoint.cancel_seconds = 0.5
    bench.endpoint.statuses, bench.endpoint.cancelled = [RUNS], (0, None)
    bench.endpoint.asked = lambda count: bench.interrupt() if count == 2 else None
    assert "may still run" in error_of(bench.run())["exception_message"]


def test_a_prompt_that_is_deleted_before_it_began_leaves_nothing(bench: Bench) -> None:
    bench.endpoint.statuses = [WAITS]
    bench.endpoint.asked = lambda count: bench.withdraw() if count == 2 else None
    assert bench.run() is None
    assert (bench.endpoint.cancels, bench.events) == (1, [])
    assert not StoredQueue(bench.folder / "prompts.db").pending


def test_a_prompt_that_is_interrupted_before_it_began_is_in_the_history(bench: Bench) -> None:
    bench.endpoint.statuses = [WAITS]
    bench.endpoint.asked = lambda count: bench.interrupt() if count == 2 else None
    entry = bench.run()
    assert entry is not None
    assert [kind for kind, _ in entry["status"]["messages"]] == [
        *("execution_start", "execution_cached", "execution_interrupted")
    ]


def test_a_result_that_was_there_before_the_interrupt_is_not_lost(bench: Bench) -> None:
    bench.endpoint.statuses, bench.endpoint.cancelled = [RUNS], DONE
    bench.endpoint.asked = lambda count: bench.interrupt() if count == 2 else None
    entry = bench.run()
    assert entry is not None
    assert entry["status"]["status_str"] == "success"


def test_a_gateway_that_starts_again_asks_for_the_jobs_that_it_had(tmp_path: Path) -> None:
    with scripted_endpoint(statuses=[RUNS]) as endpoint:
        first = Bench.of(tmp_path, endpoint)
        begun = threading.Event()
        endpoint.asked = lambda count: begun.set()
        threading.Thread(target=first.run, daemon=True).start()
        assert begun.wait(10)
        first.executor.queue.put(QueuedPrompt(2, str(uuid.uuid4()), PROMPT, {}, ["3"]))
        first.executor.queue.finish = lambda *_: None  # type: ignore[method-assign]
        endpoint.statuses = [DONE]
        second = Bench.of(tmp_path, endpoint)
        assert [queued.number for queued in second.executor.queue.pending] == [1, 2]
        entry = second.run_next()
        assert entry is not None
        assert entry["outputs"]["3"]
        assert len(endpoint.jobs) == 1
        assert second.run_next()
        assert len(endpoint.jobs) == 2
    kept = StoredQueue(tmp_path / "prompts.db")
    assert not kept.pending
    assert len(kept.history) == 2
    assert kept.next_number(is_front=False) > 2


def test_pictures_that_a_node_sends_over_the_websocket_are_sent_on(bench: Bench) -> None:
    prompt = {**PROMPT, "3": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["2", 0]}}}
    answer = {**SUCCESS, "files": [{**FILE, "name": "websocket_00001_.png", "image_index": 0}], "outputs": {}}
    bench.endpoint.statuses = [ended("COMPLETED", output=answer)]
    entry = bench.run(prompt)
    assert entry is not None
    assert entry["outputs"] == {}
    assert [data.content for kind, data in bench.events if kind == "picture"] == [b"one"]


def test_a_file_that_no_node_reported_is_that_of_the_node_that_made_it(bench: Bench) -> None:
    bench.endpoint.statuses = [ended("COMPLETED", output={**SUCCESS, "outputs": {}})]
    entry = bench.run()
    assert entry is not None
    assert entry["outputs"]["3"]["images"][0]["filename"] == "x_00001_.png"


def test_what_else_nodes_report_stays_as_it_is(bench: Bench) -> None:
    mesh = {**FILE, "node_id": "2", "name": "sub/m.glb", "type": "file", "data": "AA=="}
    reported = {"1": {"text": ["x_00001_.png"]}, "2": {"result": ["sub/m.glb", None, []]}}
    answer = {**SUCCESS, "files": [{**FILE, "image_index": 0}, mesh], "outputs": {**reported, **OUTPUTS}}
    bench.endpoint.statuses = [ended("COMPLETED", output=answer)]
    bench.run()
    entry = bench.run()
    assert entry is not None
    assert entry["outputs"]["1"] == {"text": ["x_00001_.png"]}
    assert entry["outputs"]["2"] == {"result": ["sub/m-2.glb", None, []]}
    assert entry["outputs"]["3"]["images"][0]["filename"] == "x_00002_.png"
    assert sorted(path.name for path in (bench.folder / "output" / "sub").iterdir()) == ["m-2.glb", "m.glb"]


def test_jobs_are_sent_in_the_order_of_the_queue_and_none_for_a_prompt_that_is_deleted_meanwhile(bench: Bench) -> None:
    bench.endpoint.statuses = [DONE]
    executor, queue = bench.executor, bench.executor.queue
    first, second, third = (
        QueuedPrompt(
            number, str(uuid.uuid4()), {**PROMPT, "9": {"class_type": "Note", "inputs": {"n": number}}}, {}, []
        )
        for number in (1, 2, 3)
    )
    begun = threading.Event()

    def execute(queued: QueuedPrompt) -> threading.Thread:
        report = RunReport(queued.prompt_id, queued.prompt, lambda kind, data: None)
        thread = threading.Thread(target=executor.execute, args=(queued, report))
        thread.start()
        return thread

    with executor.turn_to_send(QueuedPrompt(0, "0", {}, {}, [])):
        threads = [execute(queued) for queued in (third, second, first)]
        while len(executor._unsent) < 4:
            assert not begun.wait(0.01)
        executor.withdraw(second.prompt_id)
    for thread in threads:
        thread.join(20)
    assert [job["workflow"]["9"]["inputs"]["n"] for job in bench.endpoint.jobs] == [1, 3]
    assert not queue.pending
