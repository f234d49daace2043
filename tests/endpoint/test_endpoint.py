"""The local endpoint answers as RunPod's does, with real SDK workers behind it."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from src.endpoint.jobs import JobQueue, Policy

from .. import workflows
from ..worker_process import ROOT, WorkerProcess, running

LONG = 45.0  # a hang limit, no measure
KEY = "local-secret-key"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Client:
    """Plain HTTP against /v2/{endpoint}, as against the cloud."""

    def __init__(self, url: str, process: WorkerProcess) -> None:
        self.url = url
        self.process = process
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {KEY}"

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        """POST."""
        return self.session.post(f"{self.url}/{path}", json=body, timeout=LONG, **more)

    def get(self, path: str) -> Any:
        """GET, as JSON."""
        response = self.session.get(f"{self.url}/{path}", timeout=LONG)
        response.raise_for_status()
        return response.json()

    def run(self, job_input: Any, **more: Any) -> str:
        """Queue a job; its id."""
        answer = self.post("run", {"input": job_input, **more}).json()
        assert answer["status"] == "IN_QUEUE"
        return str(answer["id"])

    def ended(self, job_id: str) -> dict[str, Any]:
        """The status of a job once it is final."""
        return self.until(job_id, lambda status: status["status"] not in ("IN_QUEUE", "IN_PROGRESS"))

    def until(self, job_id: str, is_enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The status of a job once it is as wanted."""
        end = time.monotonic() + LONG
        while True:
            status: dict[str, Any] = self.get(f"status/{job_id}")
            if is_enough(status):
                return status
            assert time.monotonic() < end, status
            time.sleep(0.05)

    def wait_for_workers(self, count: int) -> None:
        """Until that many workers take jobs."""
        end = time.monotonic() + LONG
        while self.get("health")["workers"]["ready"] < count:
            assert time.monotonic() < end, self.process.log
            time.sleep(0.05)

    def worker_processes(self) -> list[int]:
        """The processes of the workers: those children of the endpoint that run serverless_worker.py themselves."""
        found = []
        for process_id in self.process.process_tree():
            try:
                stat = Path(f"/proc/{process_id}/stat").read_text()
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == self.process.process.pid:
                found.append(process_id)
        return found


@contextmanager
def serving(folder: Path, *arguments: str, **environment: str) -> Iterator[Client]:
    """`python serverless_worker.py --serve --draft` with more arguments."""
    port = free_port()
    command = ["--serve", "--draft", "--port", str(port), *arguments]
    with running(command, {"SERVE_API_KEY": KEY, **environment}, folder) as process:
        process.wait_for_log("serving http://", LONG)
        yield Client(f"http://127.0.0.1:{port}/v2/local", process)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One endpoint with one worker for most tests."""
    with serving(tmp_path_factory.mktemp("endpoint")) as served:
        served.wait_for_workers(1)
        yield served


def long_job(steps: int = 10_000) -> dict[str, Any]:
    """A job that takes minutes."""
    workflow = workflows.generative()
    workflow["8"]["inputs"]["steps"] = steps
    return {"workflow": workflow}


STILL = {"workflow": workflows.still()}


def test_run_and_status_have_runpods_shapes(client: Client) -> None:
    job_id = client.run(STILL)
    assert re.fullmatch(r"[0-9a-f-]{36}-u1", job_id)
    status = client.ended(job_id)
    assert status.keys() == {"id", "status", "delayTime", "executionTime", "workerId", "output"}
    assert status["status"] == "COMPLETED"
    assert status["output"]["status"] == "success"
    assert isinstance(status["delayTime"], int)


def test_runsync_waits_for_the_end(client: Client) -> None:
    status = client.post("runsync", {"input": STILL}).json()
    assert status["status"] == "COMPLETED"
    assert status["id"].startswith("sync-")
    assert status["output"]["filenames"] == ["still_00001_.png"]


def test_runsync_that_waits_too_short_gives_the_id_to_ask_for(client: Client) -> None:
    status = client.post("runsync?wait=1000", {"input": long_job(100)}).json()
    assert status["status"] == "IN_PROGRESS"
    assert client.ended(status["id"])["status"] == "COMPLETED"


def test_a_failed_job_has_its_error_at_the_top_and_the_rest_in_the_output(client: Client) -> None:
    status = client.post("runsync", {"input": {"workflow": {}}}).json()
    assert status["status"] == "FAILED"
    assert "workflow has no nodes" in status["error"]
    assert status["output"]["error_code"] == "invalid_workflow"


def test_a_bucket_of_the_callers_own_reaches_the_worker(client: Client) -> None:
    theirs = {"endpointUrl": "https://127.0.0.1:9", "accessId": "a", "accessSecret": "b", "bucketName": "c"}
    status = client.post("runsync", {"input": {"workflow": workflows.still()}, "s3Config": theirs}).json()
    assert "s3Config.endpointUrl: the host '127.0.0.1' is, or leads to, a private address" in status["error"]


def test_progress_shows_while_a_job_runs(client: Client) -> None:
    job_id = client.run(long_job(200))
    status = client.until(job_id, lambda told: "output" in told)
    if status["status"] == "IN_PROGRESS":
        assert 0 <= status["output"]["percent"] < 100
        assert status["output"]["node"]
    assert client.ended(job_id)["output"]["status"] == "success"


def test_a_running_job_can_be_cancelled_and_the_next_one_runs_at_once(client: Client) -> None:
    job_id = client.run(long_job())
    client.until(job_id, lambda status: status["status"] == "IN_PROGRESS")
    cancelled = client.post(f"cancel/{job_id}").json()
    assert (cancelled["id"], cancelled["status"]) == (job_id, "CANCELLED")
    assert client.post("runsync", {"input": STILL}).json()["status"] == "COMPLETED"
    assert client.get(f"status/{job_id}")["status"] == "CANCELLED"


def test_a_stop_is_told_again_after_a_moment_until_the_worker_has_stopped_the_job() -> None:
    async def told() -> list[list[str]]:
        clock = [0.0]
        queue = JobQueue(lambda: clock[0])
        job = queue.submit({}, Policy(), is_sync=False)
        await queue.take("worker", 1, 0.0, lambda: True)
        queue.cancel(job)
        heard = []
        for clock[0] in (0.0, 0.01, 0.5, 0.51, 2.0):
            heard.append(["job"] if queue.jobs_to_stop("worker") == [job.id] else [])
        queue.note_running("worker", ())
        clock[0] = 4.0
        return [*heard, queue.jobs_to_stop("worker")]

    assert asyncio.run(told()) == [["job"], [], ["job"], [], ["job"], []]


def test_what_waits_can_be_cancelled_or_purged(client: Client) -> None:
    running_job = client.run(long_job())
    client.until(running_job, lambda status: status["status"] == "IN_PROGRESS")
    waiting = [client.run(STILL) for _ in range(3)]
    assert client.post(f"cancel/{waiting[0]}").json()["status"] == "CANCELLED"
    assert client.get("health")["jobs"]["inQueue"] == 2
    assert client.post("purge-queue").json() == {"removed": 2, "status": "completed"}
    assert {client.get(f"status/{job_id}")["status"] for job_id in waiting} == {"CANCELLED"}
    client.post(f"cancel/{running_job}")
    assert client.post("runsync", {"input": STILL}).json()["status"] == "COMPLETED"


def test_a_job_over_its_execution_timeout_is_timed_out_and_can_be_retried(client: Client) -> None:
    job_id = client.run(long_job(), policy={"executionTimeout": 5000})
    status = client.ended(job_id)
    assert status["status"] == "TIMED_OUT"
    assert "executionTimeout" in status["error"]
    assert client.post(f"retry/{job_id}").json() == {"id": job_id, "status": "IN_QUEUE"}
    assert client.post(f"cancel/{job_id}").json()["status"] == "CANCELLED"
    assert client.post("runsync", {"input": STILL}).json()["status"] == "COMPLETED"


def test_a_stream_without_chunks_ends_with_the_job(client: Client) -> None:
    job_id = client.run(STILL)
    assert client.get(f"stream/{job_id}") == {"status": "COMPLETED", "stream": []}


def test_health_counts_jobs_and_workers(client: Client) -> None:
    health = client.get("health")
    assert health["jobs"].keys() == {"completed", "failed", "inProgress", "inQueue", "retried"}
    assert health["workers"].keys() >= {"idle", "running", "initializing", "throttled"}
    assert health["jobs"]["completed"] > 0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("run", {"prompt": 1}, 400),
        ("run", {"input": 5}, 400),
        ("run", {"input": {}, "webhook": "nowhere"}, 400),
        ("run", [1], 400),
        ("run", {"input": {}, "policy": {"executionTimeout": 1}}, 400),
        ("run", {"input": {}, "policy": {"ttl": "soon"}}, 400),
        ("run", {"input": {"x": "y" * 10_000_000}}, 400),
        ("runsync", {"input": {"x": "y" * 20_000_000}}, 400),
        ("runsync?wait=1", {"input": {}}, 400),
        ("cancel/nobody", None, 404),
        ("status/nobody", None, 404),
        ("retry/nobody", None, 404),
    ],
)
def test_bad_requests_are_told_apart_with_a_reason(client: Client, path: str, body: Any, status: int) -> None:
    response = client.post(path, body)
    assert response.status_code == status
    assert len(response.json()["error"]) > 10


def test_nobody_gets_in_without_the_key_neither_callers_nor_workers(client: Client) -> None:
    for path in ("health", "status/x", "job-take/worker-1?gpu=x", "job-stop/worker-1?gpu=x", "ping/worker-1"):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert requests.get(f"{client.url}/{path}", headers=headers, timeout=LONG).status_code == 401
    forged = requests.post(f"{client.url}/job-done/worker-1/x", json={}, headers={"Authorization": KEY}, timeout=LONG)
    assert forged.status_code == 401, "the callers' key is not the workers'"


def test_pages_from_elsewhere_may_ask_where_a_key_is_wanted(client: Client) -> None:
    elsewhere = {"Origin": "https://a.example"}
    asked = requests.options(f"{client.url}/run", headers=elsewhere, timeout=LONG)
    assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (204, "*")
    assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
    assert requests.get(f"{client.url}/health", headers=elsewhere, timeout=LONG).status_code == 401


def test_without_a_key_only_its_own_page_may_ask(tmp_path: Path) -> None:
    with serving(tmp_path, SERVE_API_KEY="") as keyless:
        own = keyless.url.removesuffix("/v2/local")
        rebound = {"Origin": "http://a.example", "Host": "a.example"}
        allowed: tuple[dict[str, str], ...] = ({}, {"Origin": own})
        foreign_host, no_host = {"Host": "a.example"}, {"Host": "[::1"}
        refused = (
            *({"Origin": origin} for origin in ("https://a.example", "null", "http://localhost:1")),
            *(rebound, foreign_host, no_host),
        )
        for headers in (*allowed, *refused):
            answer = requests.get(f"{keyless.url}/health", headers=headers, timeout=LONG)
            assert answer.status_code == (200 if headers in allowed else 403)
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert "SERVE_API_KEY" in answer.json()["error"]


def raw_answer(url: str, request: bytes) -> bytes:
    """What the server answers to these bytes."""
    place = urlsplit(url)
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=LONG) as connection:
        connection.sendall(request)
        return connection.recv(100)


def test_a_key_of_odd_bytes_is_a_wrong_key_and_broken_requests_leave_no_traceback(client: Client) -> None:
    odd = b"GET /v2/local/health HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \xff\r\n\r\n"
    assert raw_answer(client.url, odd).startswith(b"HTTP/1.1 401")
    for broken in (b"\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n"):
        assert b" 400 " in raw_answer(client.url, broken)
    length = (
        b"POST /v2/local/run HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + KEY.encode()
        + b"\r\nContent-Length: 99\r\n\r\nabc"
    )
    place = urlsplit(client.url)
    socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=LONG).sendall(length)
    client.process.wait_for_log("a malformed request", LONG)
    assert client.get("health")["workers"]
    assert "Traceback" not in client.process.log


def test_the_sdks_own_client_works_unchanged(client: Client) -> None:
    code = (
        "import runpod, sys;"
        f"endpoint = runpod.Endpoint('local', api_key={KEY!r});"
        f"print(endpoint.run_sync({{'input': {STILL!r}}}, timeout=60)['status'], endpoint.health()['jobs']['failed'] >= 0)"
    )
    environment = {**os.environ, "RUNPOD_ENDPOINT_BASE_URL": client.url.rsplit("/", 1)[0]}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=LONG, check=False
    )
    assert done.stdout.split() == ["success", "True"], done.stderr


def test_the_curl_lines_of_the_readme_work(tmp_path: Path) -> None:
    (line,) = re.findall(r"^curl -s .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    with serving(tmp_path, SERVE_API_KEY="") as served:
        command = shlex.split(line.replace("http://127.0.0.1:8000/v2/local", served.url))
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONG, check=True)
        assert '"status": "COMPLETED"' in done.stdout


def test_ctrl_c_ends_endpoint_workers_and_engines(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as served:
        served.wait_for_workers(2)
        assert len(served.process.process_tree()) >= 5
        served.process.process.send_signal(signal.SIGINT)
        assert served.process.process.wait(LONG) == 0, served.process.log
        assert served.process.process_tree_ends(5)
        assert "Failed to get job" not in served.process.log


def test_a_taken_port_is_a_clear_error(client: Client, tmp_path: Path) -> None:
    port = client.url.split(":")[2].split("/")[0]
    with running(["--serve", "--draft", "--port", port], {}, tmp_path) as second:
        assert second.process.wait(LONG) == 1
        assert "port_taken" in second.log
        assert "--port" in second.log


def test_a_job_whose_worker_dies_runs_on_another(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        served.wait_for_workers(1)
        job_id = served.run(long_job(100))
        served.until(job_id, lambda status: status["status"] == "IN_PROGRESS")
        (process_id,) = served.worker_processes()
        os.kill(process_id, signal.SIGKILL)
        assert served.ended(job_id)["status"] == "COMPLETED"
        assert served.get("health")["jobs"]["retried"] == 1


def test_jobs_overlap_with_concurrency_and_a_cancel_leaves_the_others_alone(tmp_path: Path) -> None:
    with serving(tmp_path, CONCURRENCY="3") as served:
        served.wait_for_workers(1)
        jobs = [served.run(long_job(steps)) for steps in (100, 10_000, 60)]
        for job_id in jobs:
            served.until(job_id, lambda status: status["status"] == "IN_PROGRESS")
        served.post(f"cancel/{jobs[1]}")
        answers = [served.ended(job_id) for job_id in jobs]
        assert [answer["status"] for answer in answers] == ["COMPLETED", "CANCELLED", "COMPLETED"]
        assert answers[0]["output"]["images"] != answers[2]["output"]["images"], "never mixed"


def test_waiting_behind_another_job_does_not_use_up_a_jobs_own_time(tmp_path: Path) -> None:
    with serving(tmp_path, CONCURRENCY="3", JOB_TIMEOUT="4") as served:
        served.wait_for_workers(1)
        jobs = [served.run(long_job(100 + number)) for number in range(3)]  # two seconds each
        assert [served.ended(job_id)["output"].get("error", "fine") for job_id in jobs] == ["fine"] * 3


@pytest.mark.slow
def test_a_flood_over_three_workers_of_which_some_are_killed_loses_nothing(tmp_path: Path) -> None:
    """A job may be handed out three times; more kills than that would be told as FAILED with the reason."""
    count = 60 if not os.environ.get("LONG_TESTS") else 200
    with serving(tmp_path, "--workers", "3") as served:
        served.wait_for_workers(3)
        ended = threading.Event()

        def kill_now_and_then() -> None:
            turn = 0
            while not ended.wait(4.0):
                processes = served.worker_processes()
                if len(processes) == 3:
                    os.kill(processes[turn % 3], signal.SIGKILL)
                turn += 1

        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        try:
            with ThreadPoolExecutor(8) as pool:
                jobs = list(
                    pool.map(lambda number: served.run({"workflow": workflows.still(color=number)}), range(count))
                )
            answers = [served.ended(job_id) for job_id in jobs]
        finally:
            ended.set()
            killer.join()
        for number, answer in enumerate(answers):
            assert answer["status"] in ("COMPLETED", "FAILED")
            if answer["status"] == "FAILED":
                assert "handed out" in answer["error"], answer
            else:
                assert answer["output"]["filenames"] == ["still_00001_.png"], number
        assert sum(answer["status"] == "COMPLETED" for answer in answers) >= count * 0.95
        images = {answer["output"]["images"][0] for answer in answers if answer["status"] == "COMPLETED"}
        assert len(images) == sum(answer["status"] == "COMPLETED" for answer in answers), "each job its own image"
