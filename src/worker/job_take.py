"""Jobs from RunPod's job-take API: the request, and its answer, read entry by entry.

RunPod's SDK reads an answer as a whole: one job that json cannot read (nested too deeply, a number of too many digits)
silently loses every job in the same answer. Here such a job gets an `UnreadableInput`, so that it is answered; entries
that are no jobs are skipped and logged.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

from ..job.request import UnreadableInput

log = logging.getLogger("worker")

_MAX_BYTES_PER_JOB = 32_000_000  # RunPod takes no request over 20 MB
_RETRY_SECONDS = 2.0  # after a request that failed; the SDK repeats it without a pause
_NO_JOBS = (204, 400)  # 400: expected with FlashBoot, says the SDK
_TOO_MANY_REQUESTS = 429
_CHUNK_BYTES = 1 << 16
_MAX_ID_CHARACTERS = 500
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},]', re.DOTALL)


async def take_jobs(session: Any, count: int) -> list[dict[str, Any]]:
    """Up to `count` jobs, none if there are none. `session` is the SDK's aiohttp session.

    Raises the SDK's TooManyRequests.
    """
    import aiohttp
    from runpod.http_client import TooManyRequests
    from runpod.serverless.modules import rp_job

    try:
        async with session.get(rp_job._job_get_url(count)) as response:
            if response.status in _NO_JOBS:
                return []
            if response.status == _TOO_MANY_REQUESTS:
                raise TooManyRequests(response.request_info, response.history, status=response.status)
            response.raise_for_status()
            return read_jobs(await _body(response, count * _MAX_BYTES_PER_JOB))
    except TooManyRequests:
        raise
    except (aiohttp.ClientError, OSError) as error:
        log.warning("RunPod's queue did not respond (%s); retrying in %g s", type(error).__name__, _RETRY_SECONDS)
        await asyncio.sleep(_RETRY_SECONDS)
        return []


async def _body(response: Any, limit: int) -> bytes:
    """The body, cut off at the limit."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > limit:
            log.error("a response of RunPod's queue was over %d MB and was cut off", limit // 1_000_000)
            break
    return bytes(body)


def read_jobs(body: bytes) -> list[dict[str, Any]]:
    """The jobs in an answer of job-take (one job, or a list of jobs): each has an `id` and an `input`."""
    text = body.decode("utf-8", "replace")
    try:
        answer = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError):
        answer = [_read_entry(part) for part in _entries(text)]
    jobs: list[dict[str, Any]] = []
    for entry in answer if isinstance(answer, list) else [answer]:
        job = _as_job(entry)
        if job is None:
            log.error("RunPod's queue returned something other than a job with an id and an input; it was skipped")
        elif job["id"] not in {other["id"] for other in jobs}:
            jobs.append(job)
    return jobs


def _as_job(entry: object) -> dict[str, Any] | None:
    """The entry, if it is a job. The SDK makes attributes of its fields: odd names are left out."""
    if not isinstance(entry, dict) or "input" not in entry:
        return None
    job_id = entry.get("id")
    if not isinstance(job_id, str) or not 0 < len(job_id) <= _MAX_ID_CHARACTERS:
        return None
    return {
        name: value
        for name, value in entry.items()
        if name.isidentifier() and not name.startswith("_") and name != "self"
    }


# --- What json cannot read ---------------------------------------------------------------------------------


def _entries(text: str) -> list[str]:
    """The JSON text of each job in an answer."""
    return list(_children(text)) if text.lstrip().startswith("[") else [text]


def _children(text: str) -> Iterator[str]:
    """The texts between the commas of the outermost list or object, also of one that is cut off; linear in time."""
    depth, begin = 0, 0
    for token in _TOKEN.finditer(text):
        kind = token[0][0]
        if kind in "[{":
            depth += 1
            if depth == 1:
                begin = token.end()
        elif kind in "]}":
            depth -= 1
            if depth == 0:
                yield text[begin : token.start()]
                return
        elif kind == "," and depth == 1:
            yield text[begin : token.start()]
            begin = token.end()
    if depth:
        yield text[begin:]


def _read_entry(text: str) -> object:
    """One job, with an `UnreadableInput` in place of each field that json cannot read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    entry: dict[str, Any] = {}
    for member in map(str.lstrip, _children(text)):
        if not member.startswith('"'):
            continue
        try:
            name, end = json.JSONDecoder().raw_decode(member)
        except ValueError:
            continue
        entry[name] = _read_value(member[end:].lstrip().removeprefix(":"))
    return entry


def _read_value(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        return UnreadableInput("it is nested too deeply")
    except ValueError as error:
        has_long_number = "digits" in str(error)
        return UnreadableInput(
            "it contains a number with too many digits" if has_long_number else "it is not valid JSON"
        )
