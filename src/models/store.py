"""Models in a bucket: one object a file; its key is the path below the folder of models, its metadata has the SHA-256.

The ETag of a large object is not its digest (it was a multipart upload), hence the metadata. A multipart upload can be
resumed: the ETag of a part is the MD5 of its content (on S3 and R2, without customer-provided encryption keys), so
nothing has to be remembered between two runs.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from ..errors import BucketFailed, ModelCorrupt, ModelFetchFailed
from ..storage.bucket import Bucket
from ..storage.bucket_errors import KeyMissing
from .files import check_digest
from .transfer import Check, Count, RemoteInfo, RetryableSourceError

_CHUNK_BYTES = 1 << 20
_PART_BYTES = 32 << 20  # all parts but the last must have one size (R2); 10,000 of them at most
_MAX_PARTS = 10_000
_PARALLEL_UPLOADS = 4
_CHECK_INTERVAL_SECONDS = 0.1
_DIGEST_METADATA = "sha256"


@dataclass(frozen=True)
class StoredModel:
    """An object: size in bytes, the SHA-256 in its metadata or None, and the ETag, which changes with its content."""

    key: str
    size: int
    sha256: str | None
    tag: str


@dataclass(frozen=True)
class ModelStore:
    """A bucket of models. May be used from several threads."""

    bucket: Bucket
    part_bytes: int = _PART_BYTES

    @property
    def name(self) -> str:
        """The name of the bucket."""
        return self.bucket.config.name

    def sizes(self) -> dict[str, int]:
        """Key to size of all objects. Raises BucketFailed."""
        found: dict[str, int] = {}

        def list_all(client: Any) -> None:
            found.clear()
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.name):
                found.update({item["Key"]: int(item["Size"]) for item in page.get("Contents", [])})

        self.bucket.attempt("listed", list_all)
        return {key: size for key, size in found.items() if not key.endswith("/")}

    def head(self, key: str) -> StoredModel | None:
        """Size, digest and ETag of an object, None if it does not exist. Raises BucketFailed."""
        try:
            response = self.bucket.attempt("listed", lambda client: client.head_object(Bucket=self.name, Key=key))
        except KeyMissing:
            return None
        digest = (response.get("Metadata") or {}).get(_DIGEST_METADATA)
        return StoredModel(key, int(response["ContentLength"]), digest, str(response.get("ETag", "")))

    def remote(self, key: str) -> StoredFile:
        """An object as a `Remote` to download."""
        return StoredFile(self, key)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, one request each: RunPod's network volumes have no DeleteObjects. Raises BucketFailed."""
        for key in keys:
            self.bucket.attempt("tidied", partial(_delete, bucket=self.name, key=key))

    # --- Uploads ---------------------------------------------------------------------------------------

    def upload(self, file: Path, key: str, sha256: str, check: Check, count: Count) -> None:
        """Upload a file; parts that an earlier run has uploaded are not sent again.

        Raises BucketFailed; ModelCorrupt if the file changed meanwhile. `count` gets the bytes of existing parts, too.
        """
        size = file.stat().st_size
        metadata = {
            "Metadata": {_DIGEST_METADATA: sha256},
            "ContentType": mimetypes.guess_type(file.name)[0] or "application/octet-stream",
        }
        location = {"Bucket": self.name, "Key": key}
        if size <= self.part_bytes:
            content = file.read_bytes()
            check_digest(file, hashlib.sha256(content).hexdigest(), sha256)
            self.bucket.attempt("written to", lambda client: client.put_object(**location, **metadata, Body=content))
            count(size)
            return
        self._upload_in_parts(file, key, metadata, check, count)
        stored = self.head(key)
        if stored is not None and stored.sha256 != sha256:  # the upload was begun with another content
            self.delete([key])
            raise ModelCorrupt(f"{key} changed since its upload started; run the command again")

    def _upload_in_parts(self, file: Path, key: str, metadata: Mapping[str, Any], check: Check, count: Count) -> None:
        location, size = {"Bucket": self.name, "Key": key}, file.stat().st_size
        part_bytes = max(self.part_bytes, -(-size // _MAX_PARTS))
        upload_id, existing_parts = self.bucket.attempt(
            "written to", lambda client: _unfinished_upload(client, location) or ("", {})
        )
        if not upload_id:
            made = self.bucket.attempt(
                "written to", lambda client: client.create_multipart_upload(**location, **metadata)
            )
            upload_id = made["UploadId"]
        before, upload = _file_state(file), {**location, "UploadId": upload_id}
        tags = _Upload(self.bucket, file, upload, size, part_bytes, existing_parts, check, count).run()
        if _file_state(file) != before:
            self.bucket.attempt("tidied", lambda client: client.abort_multipart_upload(**upload))
            raise ModelCorrupt(f"{key} changed during its upload; run the command again")
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        self.bucket.attempt(
            "written to",
            lambda client: client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}),
        )


def _file_state(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _delete(client: Any, bucket: str, key: str) -> None:
    client.delete_object(Bucket=bucket, Key=key)


def _unfinished_upload(client: Any, location: Mapping[str, str]) -> tuple[str, dict[int, str]] | None:
    """The newest unfinished upload of this key: its id, and part number to ETag of its parts; None without one."""
    response = client.list_multipart_uploads(Bucket=location["Bucket"], Prefix=location["Key"])
    unfinished = [upload for upload in response.get("Uploads", []) if upload["Key"] == location["Key"]]
    if not unfinished:
        return None
    upload_id = max(unfinished, key=lambda upload: str(upload.get("Initiated")))["UploadId"]
    pages = client.get_paginator("list_parts").paginate(**location, UploadId=upload_id)
    parts = [part for page in pages for part in page.get("Parts", [])]
    return upload_id, {int(part["PartNumber"]): str(part["ETag"]) for part in parts}


@dataclass(frozen=True)
class _Upload:
    """One multipart upload; `existing_parts`: part number to ETag."""

    bucket: Bucket
    file: Path
    location: Mapping[str, str]
    size: int
    part_bytes: int
    existing_parts: Mapping[int, str]
    check: Check
    count: Count
    stop: Event = field(default_factory=Event)

    def run(self) -> list[str]:
        """Send the missing parts; returns the ETags of all parts."""
        pool = ThreadPoolExecutor(_PARALLEL_UPLOADS, thread_name_prefix="backup")
        try:
            futures = [pool.submit(self._send, number) for number in range(1, -(-self.size // self.part_bytes) + 1)]
            pending = set(futures)
            while pending:
                done, pending = wait(pending, _CHECK_INTERVAL_SECONDS, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                self.check()
            return [future.result() for future in futures]
        finally:
            self.stop.set()
            pool.shutdown(cancel_futures=True)

    def _send(self, number: int) -> str:
        if self.stop.is_set():
            return ""
        with self.file.open("rb") as opened:
            opened.seek((number - 1) * self.part_bytes)
            content = opened.read(self.part_bytes)
        tag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if self.existing_parts.get(number, "").strip('"') != tag:
            sent = self.bucket.attempt(
                "written to", lambda client: client.upload_part(**self.location, PartNumber=number, Body=content)
            )
            self.count(len(content))
            return str(sent["ETag"])
        self.count(len(content))
        return self.existing_parts[number]


@dataclass(frozen=True)
class StoredFile:
    """One object, as a `Remote`."""

    store: ModelStore
    key: str

    def __str__(self) -> str:
        return self.key

    def info(self) -> RemoteInfo:
        """See `Remote`."""
        stored = self.store.head(self.key)
        if stored is None:
            raise ModelFetchFailed(f"the bucket {self.store.name!r} has no {self.key!r}")
        return RemoteInfo(stored.size, stored.tag, sha256=stored.sha256)

    def read(self, start: int, end: int, write: Callable[[bytes], object]) -> None:
        """See `Remote`."""

        def get(client: Any) -> None:
            location = {"Bucket": self.store.name, "Key": self.key, "Range": f"bytes={start}-{end - 1}"}
            for chunk in client.get_object(**location)["Body"].iter_chunks(_CHUNK_BYTES):
                write(chunk)  # it raises its own errors for a full disk

        try:
            self.store.bucket.attempt("read from", get)
        except BucketFailed as error:
            if error.details.get("bucket_code"):
                raise ModelFetchFailed(error.message) from error
            raise RetryableSourceError(error.message) from error

    def abort(self) -> None:
        """See `Remote`."""
        self.store.bucket.abort()

    def close(self) -> None:
        """See `Remote`. The connections belong to the bucket's client, which keeps them."""
