"""How files reach the caller: as base64 in the answer, or uploaded to a bucket, with links.

RunPod drops answers that are too large without an error. So the size is computed before anything is encoded: what does
not fit is uploaded to the bucket, re-encoded if the caller allowed that, or ends in an error that states the sizes.
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
from ..pictures.encoding import Encoding
from ..settings import Delivery
from ..storage.bucket import Bucket, StoredObject
from .encoding import encode_files
from .gathering import LocalFile, with_unique_names

log = logging.getLogger(__name__)

_MEGABYTE = 1_000_000
_BYTES_PER_ENTRY = 400  # of an answer, besides a file's base64: its name, sizes and the other fields of its entry
_CHUNK_BYTES = 3 * (1 << 18)  # a multiple of three, so that the base64 of the chunks joins to the base64 of the file
_MAX_ONE_PASS_BYTES = 8_000_000  # one pass is twice as fast; larger files are encoded in chunks to save memory
_MAX_PARALLEL_UPLOADS = 4
_CHECK_INTERVAL_SECONDS = 0.2
_QUALITIES = (90, 80, 65, 50)


@dataclass(frozen=True)
class Delivered:
    """A file as the answer has it: either `data` is its base64, or it is `stored` in the bucket `bucket_name`."""

    file: LocalFile
    size: int
    data: str | None = None
    stored: StoredObject | None = None
    bucket_name: str = ""


@dataclass(frozen=True)
class Plan:
    """Where the files go. `limit_bytes` is for the whole answer as JSON, with `reserved_bytes` of it for other fields.

    `check` raises if the job has to end, by its deadline or because it was cancelled.
    """

    delivery: Delivery
    bucket: Bucket | None
    limit_bytes: int
    may_reencode: bool
    job_id: str
    reserved_bytes: int = 0
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Outcome:
    """The delivered files, hints for the caller about them, and how many seconds it took."""

    files: list[Delivered]
    hints: list[str]
    encode_seconds: float
    upload_seconds: float


def deliver(files: Sequence[LocalFile], plan: Plan, encoding: Encoding, folder: Path) -> Outcome:
    """Encode the files as requested and deliver them; `folder` is for temporary files.

    Raises OutputTooLarge, BucketFailed.
    """
    started = time.monotonic()
    encoded, hints = encode_files(files, encoding, folder, plan.check)
    encoded = with_unique_names(encoded)
    encode_seconds = time.monotonic() - started
    failure: BucketFailed | None = None
    if plan.bucket and (plan.delivery == "bucket" or (plan.delivery == "auto" and _is_too_large(encoded, plan))):
        started = time.monotonic()
        try:
            stored = _upload(encoded, plan, plan.bucket)
            if plan.delivery == "auto":
                hints.append(f"{_base64_size_message(encoded, plan)}; the files were uploaded to the bucket instead")
            return Outcome(stored, hints, encode_seconds, time.monotonic() - started)
        except BucketFailed as error:
            log.warning("%s", error)
            failure = error
    started = time.monotonic()
    if _is_too_large(encoded, plan) and plan.may_reencode:
        encoded, reencoding_hints = _reencode(encoded, plan, encoding, folder)
        hints.extend(reencoding_hints)
    if _is_too_large(encoded, plan):
        raise failure or _too_large(encoded, plan)
    if failure:
        hints.append(f"{failure.message}; the files are returned as base64 instead")
    inline = [Delivered(file, file.size, data=base64_of(file.path)) for file in encoded]
    return Outcome(inline, hints, encode_seconds + time.monotonic() - started, 0.0)


def base64_of(file: Path) -> str:
    """The base64 of a file. A large one is encoded in chunks, so that memory never holds more than twice its size."""
    if file.stat().st_size <= _MAX_ONE_PASS_BYTES:
        return pybase64.b64encode_as_string(file.read_bytes())
    text = io.StringIO()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            text.write(pybase64.b64encode_as_string(chunk))
    return text.getvalue()


def _upload(files: Sequence[LocalFile], plan: Plan, bucket: Bucket) -> list[Delivered]:
    def upload(file: LocalFile) -> Delivered:
        stored = bucket.upload(file.path, file.name, file.content_type, plan.job_id)
        return Delivered(file, file.size, stored=stored, bucket_name=bucket.config.name)

    deadline = Deadline(bucket.config.upload_seconds)
    pool = ThreadPoolExecutor(_MAX_PARALLEL_UPLOADS, thread_name_prefix="upload")
    try:
        futures = [pool.submit(upload, file) for file in files]
        waiting: set[Future[Delivered]] = set(futures)
        while waiting:
            _, waiting = wait(waiting, _CHECK_INTERVAL_SECONDS, FIRST_EXCEPTION)
            plan.check()
            for future in futures:
                if future.done():
                    future.result()  # raises the first failure
            if waiting and deadline.passed:
                raise BucketFailed(
                    f"the bucket {bucket.config.name!r} did not take the files within {deadline.seconds:g} s "
                    "(UPLOAD_TIMEOUT)"
                )
        return [future.result() for future in futures]
    except BaseException:  # the edge of the uploads: whatever ended them early, stalled ones are not waited for
        bucket.abort()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _reencode(
    files: Sequence[LocalFile], plan: Plan, encoding: Encoding, folder: Path
) -> tuple[list[LocalFile], list[str]]:
    """The files with their pictures as WebP, in the highest quality that fits, and hints about that."""
    smaller = list(files)
    for quality in _QUALITIES:
        as_webp = replace(encoding, format="webp", quality=quality)
        smaller = with_unique_names(encode_files(files, as_webp, folder / f"webp-{quality}", plan.check)[0])
        if not _is_too_large(smaller, plan):
            return smaller, [
                f"the images were re-encoded as WebP of quality {quality}: {_base64_size_message(files, plan)}"
            ]
    return smaller, []


# --- Sizes ---------------------------------------------------------------------------------------------


def _answer_size(files: Sequence[LocalFile], plan: Plan) -> int:
    """The approximate size of the answer as JSON, in bytes."""
    return plan.reserved_bytes + sum((file.size + 2) // 3 * 4 + _BYTES_PER_ENTRY for file in files)


def _is_too_large(files: Sequence[LocalFile], plan: Plan) -> bool:
    return _answer_size(files, plan) > plan.limit_bytes


def _base64_size_message(files: Sequence[LocalFile], plan: Plan) -> str:
    size, limit = _answer_size(files, plan) / _MEGABYTE, plan.limit_bytes / _MEGABYTE
    return f"as base64 the response would be {size:.1f} MB, over the limit of {limit:g} MB (RESULT_LIMIT_MB)"


def _too_large(files: Sequence[LocalFile], plan: Plan) -> OutputTooLarge:
    named = [{"name": file.name[:200], "size_bytes": file.size} for file in files[:20]]
    return too_large(_answer_size(files, plan), plan.limit_bytes, named, plan)


def too_large(size: int, limit_bytes: int, files: Sequence[object] = (), plan: Plan | None = None) -> OutputTooLarge:
    """The error for an answer that RunPod would drop, with what the caller can do about it."""
    remedies = ["produce fewer or smaller files"]
    if plan is None or plan.bucket is None:
        remedies.append("set up a bucket (BUCKET_ENDPOINT_URL and the other BUCKET_ settings)")
    elif plan.delivery == "base64":
        remedies.append('have them uploaded to the bucket (output {"delivery": "auto"})')
    if plan is None or not plan.may_reencode:
        remedies.append('request smaller images, with output like {"format": "webp"} or {"may_reencode": true}')
    else:
        remedies.append(
            f'request smaller images (output {{"max_side": 1024}}): WebP of quality {_QUALITIES[-1]} is too large'
        )
    return OutputTooLarge(
        f"{_over_the_limit(size, limit_bytes)}: {'; or '.join(remedies)}",
        size_bytes=size,
        limit_bytes=limit_bytes,
        files=list(files),
    )


def info_too_large(size: int, limit_bytes: int) -> OutputTooLarge:
    """The error for an answer to `action: info` that RunPod would drop."""
    return OutputTooLarge(
        f"{_over_the_limit(size, limit_bytes)}: request fewer of its parts at a time",
        size_bytes=size,
        limit_bytes=limit_bytes,
    )


def _over_the_limit(size: int, limit_bytes: int) -> str:
    return (
        f"the response would be {size / _MEGABYTE:.1f} MB, over the limit of {limit_bytes / _MEGABYTE:g} MB "
        "(RESULT_LIMIT_MB; RunPod loses larger ones)"
    )
