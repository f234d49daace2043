"""S3-compatible storage (Cloudflare R2 first); the only owner of boto3.

One client a bucket, made when it is first needed: boto3 takes a third of a second to import.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from .errors import BucketFailed, InputFileRefused, InputFileUnavailable, InvalidInput
from .settings import BucketConfig

log = logging.getLogger(__name__)

_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 5, 60, 4
# Characters that storages or links trip over; each as its code, so that different names stay different.
_UNUSABLE_IN_KEY = str.maketrans({character: f"~{ord(character):02X}" for character in '\\{}^%`[]"<>~#|?*:'})

# What the codes of S3 mean for whoever set the bucket up.
_MEANINGS = {
    "NoSuchBucket": "there is no such bucket: check BUCKET_NAME and the account in BUCKET_ENDPOINT_URL",
    "404": "there is no such bucket: check BUCKET_NAME and the account in BUCKET_ENDPOINT_URL",
    "InvalidAccessKeyId": "the access key id is not known there: check BUCKET_ACCESS_KEY_ID",
    "InvalidClientTokenId": "the access key id is not known there: check BUCKET_ACCESS_KEY_ID",
    "Unauthorized": "the keys are not accepted: check BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY",
    "401": "the keys are not accepted: check BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY",
    "SignatureDoesNotMatch": "the secret key is wrong: check BUCKET_SECRET_ACCESS_KEY",
    "AccessDenied": "these keys may not do that: give them read and write rights for the bucket",
    "403": "these keys may not do that: give them read and write rights for the bucket",
}
_AWS_REGION = re.compile(r"\bs3[.-]([a-z]+(?:-[a-z]+)+-\d)\.amazonaws\.com$")
_RUNPOD_REGION = re.compile(r"s3api-([a-z0-9-]+)\.runpod\.io$")
_MISSING_KEY = ("NoSuchKey", "404")


@dataclass(frozen=True)
class Stored:
    """A file in the bucket. `url` is None where the storage has no links (RunPod's network volumes)."""

    key: str
    url: str | None


@dataclass(frozen=True)
class Bucket:
    """One bucket. May be used from several threads.

    `check_endpoint` raises if an endpoint that a caller brought must not be reached.
    """

    config: BucketConfig
    check_endpoint: Callable[[str], None] = lambda url: None
    _made: list[Any] = field(default_factory=list)
    _found: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Look into the bucket, unless that went well before: are name and keys right?

        Raises BucketFailed with what to mend.
        """
        if self._found.is_set():
            return
        self._try("looked into", lambda client: client.list_objects_v2(Bucket=self.config.name, MaxKeys=1))
        self._found.set()

    def upload(self, file: Path, name: str, content_type: str, job_id: str) -> Stored:
        """Store a file under its name, below the prefix, read from the disk in parts. Raises BucketFailed."""
        key = self.key(name, job_id)
        extra = {"ContentType": content_type}
        self._try("written to", lambda client: client.upload_file(str(file), self.config.name, key, ExtraArgs=extra))
        return Stored(key, self._url(key))

    def download(self, key: str, where: str, write: Callable[[bytes], object]) -> None:
        """Hand the bytes of an object to `write`, piece by piece.

        Raises InputFileUnavailable (naming `where`) if there is no such object, BucketFailed.
        """

        def get(client: Any) -> None:
            for piece in client.get_object(Bucket=self.config.name, Key=key)["Body"].iter_chunks(1 << 20):
                write(piece)

        try:
            self._try("read from", get)
        except _KeyMissing as error:
            raise InputFileUnavailable(f"{where}: the bucket {self.config.name!r} has no {key[:200]!r}") from error

    def key(self, name: str, job_id: str) -> str:
        """Where a file is stored; one that another job could have too gets a unique part."""
        prefix = self.config.prefix
        if "{job_id}" not in prefix:
            path = PurePosixPath(name)
            name = str(path.with_stem(f"{path.stem}-{uuid.uuid4().hex[:8]}"))
        folder = prefix.replace("{date}", time.strftime("%Y-%m-%d", time.gmtime())).replace("{job_id}", job_id)
        return f"{folder}/{name}".lstrip("/").translate(_UNUSABLE_IN_KEY)

    def _url(self, key: str) -> str | None:
        if self.config.public_url:
            return f"{self.config.public_url}/{quote(key)}"
        if (urlsplit(self.config.endpoint_url).hostname or "").startswith("s3api-"):  # RunPod's: no signed links
            return None
        place = {"Bucket": self.config.name, "Key": key}
        return str(
            self._client().generate_presigned_url("get_object", Params=place, ExpiresIn=self.config.url_seconds)
        )

    def _try(self, done: str, action: Callable[[Any], object]) -> None:
        from boto3.exceptions import S3UploadFailedError  # noqa: PLC0415  slow to import
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # noqa: PLC0415

        place = f"the bucket {self.config.name!r} could not be {done}"
        try:
            action(self._client())
        except ClientError as error:
            raise self._explained(place, error) from error
        except S3UploadFailedError as error:
            cause = error.__context__
            raise (
                self._explained(place, cause) if isinstance(cause, ClientError) else self._unreachable(place)
            ) from error
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise self._unreachable(place) from error

    def _explained(self, place: str, error: Any) -> BucketFailed:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in _MISSING_KEY and error.operation_name == "GetObject":
            return _KeyMissing(place)
        log.warning("%s: %s (status %s)", place, code or "no code", status)
        meaning = _MEANINGS.get(code) or f"it answered {code or 'without a code'} (status {status})"
        return BucketFailed(f"{place}: {meaning}", bucket_code=code)

    def _unreachable(self, place: str) -> BucketFailed:
        host = urlsplit(self.config.endpoint_url).hostname
        return BucketFailed(
            f"{place}: {host} did not answer, or broke off, {_ATTEMPTS} times: check BUCKET_ENDPOINT_URL"
        )

    def _client(self) -> Any:
        with self._lock:
            if not self._made:
                self._made.append(self._new_client())
            return self._made[0]

    def _new_client(self) -> Any:
        import boto3  # noqa: PLC0415  slow to import
        from botocore.config import Config  # noqa: PLC0415

        if self.config.is_from_job:
            self.check_endpoint(self.config.endpoint_url)
        options = Config(
            signature_version="s3v4",
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "max_attempts": _ATTEMPTS},
            s3={"addressing_style": "path"},
            # Newer botocore sends checksums that R2, MinIO, B2 and RunPod's volumes do not all understand.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies={} if self.config.is_from_job else None,
        )
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.config.endpoint_url,
            aws_access_key_id=self.config.access_key_id,
            aws_secret_access_key=self.config.secret_access_key,
            region_name=_region(self.config),
            config=options,
        )


def _region(config: BucketConfig) -> str:
    """The region to sign for: R2 takes `auto`; AWS and RunPod's volumes have theirs in the host."""
    host = urlsplit(config.endpoint_url).hostname or ""
    if config.region != "auto":
        return config.region
    if host.endswith(".amazonaws.com"):
        found = _AWS_REGION.search(host)
        return found[1] if found else "us-east-1"
    found = _RUNPOD_REGION.match(host)
    return found[1].upper() if found else "auto"


class _KeyMissing(BucketFailed):
    """There is no object of that key."""


def key_of(url: str, config: BucketConfig | None, where: str) -> str:
    """The key in `s3://bucket/key`. Raises InputFileRefused unless it is of the configured bucket."""
    name, _, key = url.removeprefix("s3://").partition("/")
    if config is None:
        raise InputFileRefused(
            f"{where}: s3:// needs a bucket: set BUCKET_ENDPOINT_URL and its kin, or send s3Config with the job"
        )
    if name != config.name:
        raise InputFileRefused(f"{where}: s3:// must be of the bucket {config.name!r}, not {name[:80]!r}")
    if not key:
        raise InvalidInput(f"{where}: s3://{config.name}/ must be followed by the key of an object")
    return key
