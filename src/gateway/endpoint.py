"""The routes of a RunPod endpoint that the gateway uses, as RunPod documents them: run, status, cancel."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

RUNPOD_URL = "https://api.runpod.ai/v2"
FINAL_STATES = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
MAX_REQUEST_BYTES = 10_000_000
"""Of a request to /run."""

log = logging.getLogger(__name__)

_FIRST_POLL_SECONDS, _POLL_GROWTH = 0.1, 1.4
_MAX_POLL_SECONDS, _MAX_POLL_SECONDS_RUNNING, _MAX_POLL_SECONDS_AWAY = 1.0, 0.5, 10.0
_CANCEL_SECONDS = 30.0  # that an endpoint which does not answer is asked to cancel a job
_TIMEOUT = (10.0, 60.0)  # to connect, to read
_CONNECTIONS = 64
_ATTEMPTS, _RETRY_SECONDS = 5, 1.0  # of a request that did not reach the endpoint
_REFUSED_FOR_NOW = (429, 503)
_REMEDIES = {
    401: "the endpoint does not accept the key: set RUNPOD_API_KEY to a key of your account (console, Settings > API "
    "keys), or SERVE_API_KEY for a local endpoint",
    403: "the key may not use this endpoint: it needs access to Serverless",
    404: "the endpoint does not exist, or no longer has this job (RunPod keeps results for 30 minutes): check "
    "--endpoint",
}


class EndpointFailed(Exception):
    """The endpoint refused a request, or its answer is none of RunPod's. `message` is for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class EndpointUnreachable(EndpointFailed):
    """The endpoint gave no answer, which may pass. `is_certain`: it has not done what it was asked."""

    def __init__(self, message: str, is_certain: bool = False) -> None:
        super().__init__(message)
        self.is_certain = is_certain


@dataclass(frozen=True)
class JobStatus:
    """What /status tells of a job: `output` is its progress while it runs, then its answer."""

    state: str
    output: Any = None
    error: Any = None

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.state in FINAL_STATES


class Endpoint:
    """One endpoint, `https://api.runpod.ai/v2/ID` or a local one. May be used from several threads.

    Every method raises EndpointFailed for an answer that says no, and EndpointUnreachable, a kind of that, if there
    was no answer.
    """

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self.cancel_seconds = _CANCEL_SECONDS
        self._session = requests.Session()
        self._session.trust_env = not self.url.startswith(("http://127.0.0.1", "http://localhost"))
        self._session.mount("https://", HTTPAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS))
        self._session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS))
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"

    def run(self, job_input: Mapping[str, Any], sleep: Callable[[float], object] = time.sleep) -> str:
        """Queue a job; its id. Sent again only if it cannot have been queued: `sleep` is called before that."""
        body = json.dumps({"input": job_input}).encode()
        if len(body) > MAX_REQUEST_BYTES:
            raise EndpointFailed(
                f"the job is {len(body) / 1e6:.1f} MB, and RunPod accepts {MAX_REQUEST_BYTES // 10**6} MB: use "
                "smaller input files"
            )
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = self._request("POST", "run", body)
                break
            except EndpointUnreachable as error:
                if not error.is_certain or attempt == _ATTEMPTS:
                    raise
                sleep(attempt * _RETRY_SECONDS)
        job_id = answer.get("id")
        if not isinstance(job_id, str) or not job_id:
            raise EndpointFailed("the endpoint returned no id for the job")
        return job_id

    def status(self, job_id: str) -> JobStatus:
        """How a job is."""
        return _status(self._request("GET", f"status/{quote(job_id, safe='')}"))

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel a job, which does nothing to one that has ended; how it is then."""
        self._request("POST", f"cancel/{quote(job_id, safe='')}")
        return self.status(job_id)

    def follow(
        self, job_id: str, stop: threading.Event, see: Callable[[JobStatus], object] = lambda status: None
    ) -> JobStatus:
        """Wait until a job has ended, or `stop` is set, which cancels it; how it ended. `see` gets each status before.

        While the endpoint does not answer (a laptop sleeps, a network is away) it waits on; but not for long to
        cancel a job, which then may run on. Raises EndpointFailed.
        """
        wait, is_away, stopped_at = _FIRST_POLL_SECONDS, False, 0.0
        while True:
            stopped_at = stopped_at or (time.monotonic() if stop.is_set() else 0.0)
            try:
                status = self.cancel(job_id) if stop.is_set() else self.status(job_id)
                if status.is_final:
                    return status
                see(status)
                is_away = False
                longest = _MAX_POLL_SECONDS if status.state == "IN_QUEUE" else _MAX_POLL_SECONDS_RUNNING
            except EndpointUnreachable as error:
                if stopped_at and time.monotonic() - stopped_at >= self.cancel_seconds:
                    raise EndpointFailed(
                        f"{error.message}: the job could not be cancelled, and may still run"
                    ) from error
                if not is_away:
                    log.warning("%s; trying again until it does", error)
                is_away, longest = True, _MAX_POLL_SECONDS_AWAY
            wait = min(wait * _POLL_GROWTH, longest)
            if stop.is_set():
                time.sleep(wait)
            else:
                stop.wait(wait)

    def download(self, url: str, write: Callable[[bytes], object]) -> None:
        """Pass the bytes at a URL that an answer holds, a presigned one of a bucket, to `write` in chunks.

        The key is not sent there.
        """
        try:
            with requests.get(url, stream=True, timeout=_TIMEOUT) as response:
                if not response.ok:
                    raise EndpointFailed(f"the bucket refused to give a result: HTTP {response.status_code}")
                for chunk in response.iter_content(1 << 20):
                    write(chunk)
        except requests.RequestException as error:
            raise EndpointUnreachable("a result could not be downloaded from the bucket") from error

    def _request(self, method: str, route: str, body: bytes | None = None) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            response = self._session.request(
                method, f"{self.url}/{route}", data=body, headers=headers, timeout=_TIMEOUT, allow_redirects=False
            )
        except requests.RequestException as error:
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            raise EndpointUnreachable(
                f"the endpoint {self.url} did not answer", isinstance(reason, NewConnectionError)
            ) from error
        code = response.status_code
        if code in _REFUSED_FOR_NOW or code >= 500:
            raise EndpointUnreachable(f"the endpoint answered HTTP {code}", code in _REFUSED_FOR_NOW)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if code >= 400:
            said = answer.get("error") if isinstance(answer, dict) else None
            remedy = _REMEDIES.get(code) or str(said or f"HTTP {code}")[:500]
            raise EndpointFailed(f"the endpoint refused the request: {remedy}")
        if not isinstance(answer, dict):
            raise EndpointFailed(f"{self.url} does not answer as a RunPod endpoint does")
        return answer


def _status(answer: Mapping[str, Any]) -> JobStatus:
    return JobStatus(str(answer.get("status")), answer.get("output"), answer.get("error"))
