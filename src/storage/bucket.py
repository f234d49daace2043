"""S3-compatible storage (Cloudflare R2 first); the only module that uses boto3.

One client a bucket, created when it is first needed: boto3 takes 0.3 s to import. A bucket that a job brings is no
more trusted than a URL: its endpoint is reached by the rules of `web`, and the size of its responses is limited.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from ..errors import BucketFailed, InputFileRefused, InputFileUnavailable, InvalidInput, JobBucketFailed
from ..settings import BucketConfig
from .bucket_connections import use_connections
from .bucket_errors import ENDPOINT_FIELD, KeyMissing, translate_errors, unreachable
from .web import FetchRules, check_endpoint, connect_checked

log = logging.getLogger(__name__)

_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 5, 30, 4
_CHECK_READ_SECONDS, _CHECK_ATTEMPTS, _CHECK_SECONDS = 10, 2, 30.0
_MULTIPART_THRESHOLD_BYTES = 32 << 20  # smaller files go in one request, which is faster than four
_CONNECTIONS = 32  # of the connection pool: threads beyond that would wait for a connection silently
# botocore sends requests for bucket names of some forms (ARNs, -s3alias …) to other hosts.
_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9](?<!--x-s3)(?<!--ol-s3)(?<!-s3alias)")
_AWS_REGION = re.compile(r"\bs3[.-]([a-z]+(?:-[a-z]+)+-\d)\.amazonaws\.com$")
_RUNPOD_REGION = re.compile(r"s3api-([a-z0-9-]+)\.runpod\.io$")
# Characters that some storages or links cannot handle, each replaced by its code, so that names stay distinct.
_UNUSABLE_IN_KEY = str.maketrans({character: f"~{ord(character):02X}" for character in '\\{}^%`[]"<>~#|?*:'})


@dataclass(frozen=True)
class StoredObject:
    """A file in the bucket. `url` is None where there are no presigned URLs (RunPod's network volumes)."""

    key: str
    url: str | None


@dataclass(frozen=True)
class Bucket:
    """One bucket. May be used from several threads. `rules` apply to the endpoint of a bucket from a job."""

    config: BucketConfig
    rules: FetchRules = field(default_factory=FetchRules)
    _clients: list[Any] = field(default_factory=list)
    _checked: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sockets: list[socket.socket] = field(default_factory=list)
    _closed: threading.Event = field(default_factory=threading.Event)
    _connections: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    _connecting: threading.Lock = field(default_factory=threading.Lock)

    def abort(self) -> None:
        """Break off all connections, since a storage may send a byte a minute. New connections may follow."""
        with self._connecting:
            open_now = [connection.sock for connection in self._connections]
        for connection in (*self._sockets, *open_now):
            with contextlib.suppress(OSError, AttributeError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break off all connections to a job's bucket for good, and refuse new ones."""
        self._closed.set()
        self.abort()
        for connection in self._sockets:
            connection.close()
        self._sockets.clear()

    def check(self) -> None:
        """List the bucket to check its name and keys, unless that succeeded before.

        Keys that may not list it are no failure: they may be meant to write only. Raises BucketFailed, which names
        what to fix, within a minute.
        """
        if self._checked.is_set():
            return
        client = self.attempt("listed", lambda _: self._new_client(_CHECK_ATTEMPTS, _CHECK_READ_SECONDS))
        end = threading.Timer(_CHECK_SECONDS, self.close if self.config.is_from_job else lambda: None)
        end.daemon = True
        end.start()
        try:
            self.attempt("listed", lambda _: client.list_objects_v2(Bucket=self.config.name, MaxKeys=1))
        except BucketFailed as error:
            if error.details.get("bucket_code") not in ("AccessDenied", "403"):
                raise
            log.warning("these keys may not list the bucket %r; uploads may still work", self.config.name)
        finally:
            end.cancel()
        if self._closed.is_set():  # a connection that was broken off looks like the end of a response
            raise unreachable(self.config, "listed")
        self._checked.set()

    def upload(self, file: Path, name: str, content_type: str, job_id: str) -> StoredObject:
        """Upload a file under its name, below the prefix; it is streamed from the disk. Raises BucketFailed."""
        key = self.key(name, job_id)

        def put(client: Any) -> None:
            if file.stat().st_size >= _MULTIPART_THRESHOLD_BYTES:
                client.upload_file(str(file), self.config.name, key, ExtraArgs={"ContentType": content_type})
                return
            with file.open("rb") as body:
                client.put_object(Bucket=self.config.name, Key=key, Body=body, ContentType=content_type)

        self.attempt("written to", put)
        return StoredObject(key, self._url(key))

    def download(self, key: str, where: str, write: Callable[[bytes], object]) -> None:
        """Pass the bytes of an object to `write` in chunks; if the response breaks off, the rest is requested.

        `write` is called with an empty chunk before that, so that it can raise if the object is not needed any more.
        Raises InputFileUnavailable (naming `where`) if there is no such object, BucketFailed.
        """

        from botocore.exceptions import HTTPClientError, IncompleteReadError  # noqa: PLC0415  slow to import

        def get(client: Any) -> None:
            size, resume_options = 0, dict[str, str]()
            for attempt_number in range(1, _ATTEMPTS + 1):
                answer = client.get_object(Bucket=self.config.name, Key=key, **resume_options)
                if resume_options and answer["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.PARTIAL_CONTENT:
                    raise IncompleteReadError(actual_bytes=0, expected_bytes=answer["ContentLength"])
                try:
                    for chunk in answer["Body"].iter_chunks(1 << 20):
                        write(chunk)
                        size += len(chunk)
                    return
                except (HTTPClientError, IncompleteReadError):  # botocore retries requests, but resumes no responses
                    if attempt_number == _ATTEMPTS or self._closed.is_set() or "ETag" not in answer:
                        raise
                    write(b"")
                    resume_options = {"Range": f"bytes={size}-", "IfMatch": answer["ETag"]} if size else {}

        try:
            self.attempt("read from", get)
        except KeyMissing as error:
            raise InputFileUnavailable(f"{where}: the bucket {self.config.name!r} has no {key[:200]!r}") from error

    def key(self, name: str, job_id: str) -> str:
        """The key of a file. Without `{job_id}` in the prefix it gets a unique part: other jobs may use that name."""
        prefix = self.config.prefix
        if "{job_id}" not in prefix:
            path = PurePosixPath(name)
            name = str(path.with_stem(f"{path.stem}-{uuid.uuid4().hex[:8]}"))
        folder = prefix.replace("{date}", time.strftime("%Y-%m-%d", time.gmtime())).replace("{job_id}", job_id)
        return f"{folder}/{name}".lstrip("/").translate(_UNUSABLE_IN_KEY)

    def _url(self, key: str) -> str | None:
        if self.config.public_url:
            return f"{self.config.public_url}/{quote(key)}"
        if (urlsplit(self.config.endpoint_url).hostname or "").startswith("s3api-"):  # RunPod's: no presigned URLs
            return None
        params = {"Bucket": self.config.name, "Key": key}
        return str(
            self._client().generate_presigned_url("get_object", Params=params, ExpiresIn=self.config.url_seconds)
        )

    def attempt(self, operation: str, action: Callable[[Any], Any]) -> Any:
        """What `action` returns, called with boto3's client. `operation` completes "the bucket could not be …".

        Raises BucketFailed, which names what to fix; KeyMissing where there is no object of that key.
        """
        with translate_errors(self.config, operation):
            return action(self._client())

    # --- Clients ---------------------------------------------------------------------------------------

    def _client(self) -> Any:
        with self._lock:
            if not self._clients:
                self._clients.append(self._new_client(_ATTEMPTS, _READ_SECONDS))
            return self._clients[0]

    def _new_client(self, attempts: int, read_seconds: float) -> Any:
        import boto3  # noqa: PLC0415  slow to import
        from botocore.config import Config  # noqa: PLC0415

        if self.config.is_from_job:
            try:
                check_endpoint(self.config.endpoint_url, self.rules, ENDPOINT_FIELD)
            except (InputFileRefused, InputFileUnavailable) as error:
                raise JobBucketFailed(error.message) from error
            if not _BUCKET_NAME.fullmatch(self.config.name):
                raise JobBucketFailed(
                    "s3Config.bucketName must be a plain bucket name, not an ARN or a special bucket"
                )
        options = Config(
            signature_version="s3v4",
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=read_seconds,
            retries={"mode": "standard", "max_attempts": attempts},
            s3={"addressing_style": "path"},
            # Newer botocore sends checksums that not all of R2, MinIO, B2 and RunPod's volumes accept.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies={} if self.config.is_from_job else None,
            max_pool_connections=_CONNECTIONS,
        )
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.config.endpoint_url,
            aws_access_key_id=self.config.access_key_id,
            aws_secret_access_key=self.config.secret_access_key,
            region_name=_region(self.config),
            config=options,
        )
        use_connections(client, self._connect, self._register)
        return client

    def _register(self, connection: Any) -> None:
        with self._connecting:
            self._connections.add(connection)

    def _connect(self, host: str, port: int, timeout: float) -> socket.socket:
        if not self.config.is_from_job:
            return socket.create_connection((host, port), timeout)
        connection = connect_checked(host, port, timeout, self.rules, ENDPOINT_FIELD)
        self._sockets.append(connection.dup())
        if self._closed.is_set():
            connection.close()
            raise OSError("nobody waits for it any more")
        return connection


def _region(config: BucketConfig) -> str:
    """The region to sign for: R2 takes `auto`; AWS and RunPod's volumes have it in the host name."""
    host = urlsplit(config.endpoint_url).hostname or ""
    if config.region != "auto":
        return config.region
    if host.endswith(".amazonaws.com"):
        found = _AWS_REGION.search(host)
        return found[1] if found else "us-east-1"
    found = _RUNPOD_REGION.match(host)
    return found[1].upper() if found else "auto"


def key_of(url: str, config: BucketConfig | None, where: str) -> str:
    """The key in `s3://bucket/key`. Raises InputFileRefused unless jobs may read it."""
    name, _, key = url.removeprefix("s3://").partition("/")
    if config is None:
        raise InputFileRefused(
            f"{where}: s3:// needs a bucket: set BUCKET_ENDPOINT_URL and the other BUCKET_ settings, or send "
            "s3Config with the job"
        )
    if name != config.name:
        raise InputFileRefused(f"{where}: s3:// must name the bucket {config.name!r}, not {name[:80]!r}")
    if not key:
        raise InvalidInput(f"{where}: s3://{config.name}/ must be followed by the key of an object")
    if {".", ".."} & set(key.split("/")):  # some storages are file systems, or are reached through a proxy
        raise InputFileRefused(
            f"{where}: the key after s3://{config.name}/ must have no '.' or '..' between its slashes"
        )
    folder = config.input_prefix.strip("/")
    if folder and not key.startswith(f"{folder}/"):  # `inputs` is not `inputs-of-others`
        raise InputFileRefused(f"{where}: s3://{config.name}/ must be followed by {f'{folder}/'!r}")
    return key
