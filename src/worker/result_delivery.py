"""Results on their way to RunPod's job-done API: each is tried until it is accepted, while other jobs run.

RunPod's SDK gives up after one answer of 4xx and three of 5xx, and waits for a hanging one with the job's slot.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..deadline import Deadline
from ..errors import ResultRefused
from ..outputs import failure_answer

log = logging.getLogger("worker")

_DELIVERY_SECONDS = 600.0  # that a result is tried for
_TRY_SECONDS, _MIN_BYTES_PER_SECOND = 20.0, 200_000  # of one try: a fixed time, and one for its size
_FIRST_DELAY, _MAX_DELAY = 1.0, 30.0
_MAX_RETRY_AFTER = 120.0
_TOO_LARGE = 413
_REFUSALS = (400, _TOO_LARGE, 422)  # of the result itself: the same again helps only if it was a passing fault
_UNKNOWN_JOB = (404, 410)  # the job was cancelled, or is too old
_MAX_REFUSALS = 2  # of the same body
_MAX_UNKNOWN = 3


@dataclass(frozen=True)
class _Response:
    """What a try came to: an HTTP status, 0 without an answer; `retry_after` in seconds if RunPod says so."""

    status: int
    retry_after: float = 0.0


async def deliver(session: Any, job_id: str, answer: Mapping[str, Any]) -> None:
    """Send the handler's answer to a job; returns when it is delivered, or cannot be, which is logged."""
    body = result_body(answer)
    deadline, delay = Deadline(_DELIVERY_SECONDS), _FIRST_DELAY
    refusals = unknown = 0
    is_result = True
    while True:
        response = await _post(session, job_id, body)
        if 200 <= response.status < 300:
            return
        refusals += response.status in _REFUSALS
        unknown += response.status in _UNKNOWN_JOB
        if response.status == _TOO_LARGE or refusals >= _MAX_REFUSALS:
            if not is_result:
                break
            log.error("RunPod refused the result of job %s (status %d, %d bytes)", job_id, response.status, len(body))
            body, is_result, refusals = _refusal_body(response.status, len(body)), False, 0
            continue
        if unknown >= _MAX_UNKNOWN or deadline.passed:
            break
        pause = deadline.at_most(max(delay, response.retry_after))
        log.warning(
            "RunPod did not accept the result of job %s (%s); retrying in %.0f s",
            job_id,
            f"status {response.status}" if response.status else "no response",
            pause,
        )
        await asyncio.sleep(pause)
        delay = min(delay * 2, _MAX_DELAY)
    log.error("the result of job %s is lost: RunPod did not accept it", job_id)


def result_body(answer: Mapping[str, Any]) -> bytes:
    """The body that is posted for an answer, as the SDK forms it: `output`, and next to it `error` and `stopPod`.

    The handler's answers are serialisable.
    """
    output = dict(answer)
    error, refresh_worker = output.pop("error", None), output.pop("refresh_worker", None)
    result: dict[str, Any] = {"output": output}
    if error:
        result["error"] = error
    if refresh_worker:
        result["stopPod"] = True
    return json.dumps(result, ensure_ascii=False, allow_nan=False).encode()


async def _post(session: Any, job_id: str, body: bytes) -> _Response:
    """One try, bounded in time; a redirect is not followed."""
    import aiohttp
    from runpod.serverless.modules import rp_http

    url = rp_http.JOB_DONE_URL.replace("$ID", quote(job_id, safe="")) + "&isStream=false"
    headers = {"Content-Type": "application/x-www-form-urlencoded", "charset": "utf-8", "X-Request-ID": quote(job_id)}
    timeout = aiohttp.ClientTimeout(total=_TRY_SECONDS + len(body) / _MIN_BYTES_PER_SECOND)
    try:
        async with session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False) as response:
            return _Response(response.status, _retry_after(response.headers.get("Retry-After", "")))
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
        return _Response(0)


def _retry_after(header: str) -> float:
    """The seconds of a Retry-After header (RFC 9110), 0 for none; a date counts as none."""
    return min(float(header), _MAX_RETRY_AFTER) if header.strip().isdecimal() else 0.0


def _refusal_body(status: int, size: int) -> bytes:
    error = ResultRefused(
        f"the job ran, but RunPod refused its result of {size / 1e6:.1f} MB (status {status}): produce fewer or "
        "smaller files, or have them delivered to a bucket",
    )
    return result_body(failure_answer(error, 0.0))
