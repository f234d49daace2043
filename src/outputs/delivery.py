"""How files reach the caller: as base64 in the answer, or by a bucket and links to it.

RunPod loses answers that are too large, without a word. So the size is known before anything is encoded: what does
not fit goes to the bucket, is re-encoded if the caller allowed it, or ends in an error that names the sizes.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

import pybase64

from ..deadline import Deadline
from ..errors import BucketFailed, OutputTooLarge
from ..settings import Delivery
from ..storage.bucket import Bucket, StoredObject
from .encoding import Encoding, encode_files
from .gathering import LocalFile, with_own_names

log = logging.getLogger(__name__)

_MEGABYTE = 1_000_000
_BYTES_PER_ENTRY = 400  # of an answer, beside a file's base64: its names, sizes and the fields of the contract
_CHUNK = 3 * (1 << 18)  # a multiple of three bytes, so that base64 of the pieces is base64 of the whole
_AT_ONCE = 8_000_000  # twice as fast, where memory is no matter
_UPLOADS_AT_A_TIME = 4
_LOOK_SECONDS = 0.2
_QUALITIES = (90, 80, 65, 50)


@dataclass(frozen=True)
class Delivered:
    """A file as the answer holds it: `data` is its base64, or it is `stored` in a bucket of that name."""

    file: LocalFile
    size: int
    data: str | None = None
    stored: StoredObject | None = None
    bucket_name: str = ""


@dataclass(frozen=True)
class Plan:
    """Where files go. `limit_bytes` is for the whole answer as JSON; `reserved_bytes` of it are taken by the rest.

    `check_stop` raises if nobody waits for the answer any more.
    """

    delivery: Delivery
    bucket: Bucket | None
    limit_bytes: int
    may_reencode: bool
    job_id: str
    reserved_bytes: int = 0
    check_stop: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Outcome:
    """What was delivered, what the caller should know about it, and seconds that it took."""

    files: list[Delivered]
    hints: list[str]
    encode_seconds: float
    upload_seconds: float


def deliver(files: Sequence[LocalFile], plan: Plan, encoding: Encoding, folder: Path) -> Outcome:
    """Encode the files as wanted and bring them where they are to go; `folder` is for what is written on the way.

    Raises OutputTooLarge, BucketFailed.
    """
    started = time.monotonic()
    encoded, hints = encode_files(files, encoding, folder)
    encoded = with_own_names(encoded)
    encode_seconds = time.monotonic() - started
    failure: BucketFailed | None = None
    if plan.bucket and (plan.delivery == "bucket" or (plan.delivery == "auto" and _is_too_large(encoded, plan))):
        started = time.monotonic()
        try:
            stored = _upload(encoded, plan, plan.bucket)
            if plan.delivery == "auto":
                hints.append(f"{_too_large_for_base64(encoded, plan)}; so the files went to the bucket")
            return Outcome(stored, hints, encode_seconds, time.monotonic() - started)
        except BucketFailed as error:
            log.warning("%s", error)
            failure = error
    started = time.monotonic()
    if _is_too_large(encoded, plan) and plan.may_reencode:
        encoded, more = _reencoded(encoded, plan, encoding, folder)
        hints.extend(more)
    if _is_too_large(encoded, plan):
        raise failure or _too_large(encoded, plan)
    if failure:
        hints.append(f"{failure.message}; so the files come as base64")
    inline = [Delivered(file, file.size, data=base64_of(file.path)) for file in encoded]
    return Outcome(inline, hints, encode_seconds + time.monotonic() - started, 0.0)


def base64_of(file: Path) -> str:
    """The base64 of a file; of a large one piece by piece, so that in memory there is never more than it twice."""
    if file.stat().st_size <= _AT_ONCE:
        return pybase64.b64encode_as_string(file.read_bytes())
    text = io.StringIO()
    with file.open("rb") as opened:
        while piece := opened.read(_CHUNK):
            text.write(pybase64.b64encode_as_string(piece))
    return text.getvalue()


def _upload(files: Sequence[LocalFile], plan: Plan, bucket: Bucket) -> list[Delivered]:
    def upload(file: LocalFile) -> Delivered:
        stored = bucket.upload(file.path, file.name, file.content_type, plan.job_id)
        return Delivered(file, file.size, stored=stored, bucket_name=bucket.config.name)

    deadline = Deadline(bucket.config.upload_seconds)
    pool = ThreadPoolExecutor(_UPLOADS_AT_A_TIME, thread_name_prefix="upload")
    try:
        futures = [pool.submit(upload, file) for file in files]
        waiting: set[Future[Delivered]] = set(futures)
        while waiting:
            _, waiting = wait(waiting, _LOOK_SECONDS, FIRST_EXCEPTION)
            plan.check_stop()
            for future in futures:
                if future.done():
                    future.result()  # the first failure ends it
            if waiting and deadline.passed:
                raise BucketFailed(
                    f"the bucket {bucket.config.name!r} did not take the files within {deadline.seconds:g} s "
                    "(UPLOAD_TIMEOUT)"
                )
        return [future.result() for future in futures]
    except BaseException:
        bucket.abort()  # a storage that stalls is not waited for
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _reencoded(
    files: Sequence[LocalFile], plan: Plan, encoding: Encoding, folder: Path
) -> tuple[list[LocalFile], list[str]]:
    """The files with their pictures as WebP, of the best quality that fits."""
    smaller = list(files)
    for quality in _QUALITIES:
        as_webp = replace(encoding, format="webp", quality=quality)
        smaller = with_own_names(encode_files(files, as_webp, folder / f"webp-{quality}")[0])
        if not _is_too_large(smaller, plan):
            return smaller, [
                f"the pictures were re-encoded as WebP of quality {quality}: {_too_large_for_base64(files, plan)}"
            ]
    return smaller, []


# --- Sizes ---------------------------------------------------------------------------------------------


def _answer_size(files: Sequence[LocalFile], plan: Plan) -> int:
    """About what the answer takes as JSON."""
    return plan.reserved_bytes + sum((file.size + 2) // 3 * 4 + _BYTES_PER_ENTRY for file in files)


def _is_too_large(files: Sequence[LocalFile], plan: Plan) -> bool:
    return _answer_size(files, plan) > plan.limit_bytes


def _too_large_for_base64(files: Sequence[LocalFile], plan: Plan) -> str:
    size, limit = _answer_size(files, plan) / _MEGABYTE, plan.limit_bytes / _MEGABYTE
    return f"as base64 the answer would be {size:.1f} MB, over the limit of {limit:g} MB (RESULT_LIMIT_MB)"


def _too_large(files: Sequence[LocalFile], plan: Plan) -> OutputTooLarge:
    named = [{"name": file.name[:200], "size_bytes": file.size} for file in files[:20]]
    return too_large(_answer_size(files, plan), plan.limit_bytes, named, plan)


def too_large(size: int, limit_bytes: int, files: Sequence[object] = (), plan: Plan | None = None) -> OutputTooLarge:
    """The error for an answer that RunPod would lose, with what can be done about it."""
    cures = ["make fewer or smaller files"]
    if plan is None or plan.bucket is None:
        cures.append("set up a bucket (BUCKET_ENDPOINT_URL and its kin)")
    elif plan.delivery == "base64":
        cures.append('let them go to the bucket (output {"delivery": "auto"})')
    if plan is None or not plan.may_reencode:
        cures.append('ask for smaller pictures, with output like {"format": "webp"} or {"may_reencode": true}')
    else:
        cures.append(
            f'ask for smaller pictures (output {{"max_side": 1024}}): WebP of quality {_QUALITIES[-1]} is too large'
        )
    return OutputTooLarge(
        f"the answer would be {size / _MEGABYTE:.1f} MB, over the limit of {limit_bytes / _MEGABYTE:g} MB "
        f"(RESULT_LIMIT_MB; RunPod loses larger ones): {'; or '.join(cures)}",
        size_bytes=size,
        limit_bytes=limit_bytes,
        files=list(files),
    )
