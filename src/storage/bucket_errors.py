"""Translates errors of boto3 and S3 into BucketFailed, with the setting or the input field to fix in the message."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from ..errors import BucketFailed, JobBucketFailed
from ..settings import BucketConfig

log = logging.getLogger(__name__)

ENDPOINT_FIELD = "s3Config.endpointUrl"
"""The input field with the endpoint of a job's own bucket."""

# What the error codes of S3 mean, and which setting (of the worker, or of the job) is to be fixed.
_NAME, _KEY, _SECRET, _RIGHTS = "no such bucket", "key id unknown", "secret wrong", "no right"
_CODES = {
    "NoSuchBucket": _NAME,
    "404": _NAME,
    "InvalidBucketName": _NAME,
    "InvalidAccessKeyId": _KEY,
    "InvalidClientTokenId": _KEY,
    "Unauthorized": _KEY,
    "401": _KEY,
    "SignatureDoesNotMatch": _SECRET,
    "AccessDenied": _RIGHTS,
    "403": _RIGHTS,
}
_MEANINGS = {
    _NAME: ("there is no such bucket: check {} and the account in {}", ("name", "endpoint")),
    _KEY: ("the access key id is unknown: check {}", ("key",)),
    _SECRET: ("the secret key is wrong: check {}", ("secret",)),
    _RIGHTS: ("these keys do not have permission: grant it, or check {}", ("key",)),
}
_SETTINGS = {
    "name": "BUCKET_NAME",
    "endpoint": "BUCKET_ENDPOINT_URL",
    "key": "BUCKET_ACCESS_KEY_ID",
    "secret": "BUCKET_SECRET_ACCESS_KEY",
}
_MODEL_SETTINGS = {
    "name": "R2_BUCKET",
    "endpoint": "R2_ENDPOINT",
    "key": "R2_ACCESS_KEY_ID",
    "secret": "R2_SECRET_ACCESS_KEY",
}
_FIELDS = {
    "name": "s3Config.bucketName",
    "endpoint": ENDPOINT_FIELD,
    "key": "s3Config.accessId",
    "secret": "s3Config.accessSecret",
}
_MISSING_KEY = ("NoSuchKey", "404")


class KeyMissing(BucketFailed):
    """There is no object of that key."""


@contextmanager
def translate_errors(config: BucketConfig, operation: str) -> Iterator[None]:
    """Turn errors of boto3 into BucketFailed, or into KeyMissing where there is no object of that key.

    `operation` completes the message "the bucket … could not be …": "written to".
    """
    from boto3.exceptions import S3UploadFailedError  # noqa: PLC0415  slow to import
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        raise _explain(config, operation, error) from error
    except S3UploadFailedError as error:
        cause = error.__context__
        if isinstance(cause, ClientError):
            raise _explain(config, operation, cause) from error
        raise unreachable(config, operation) from error
    except ParamValidationError as error:
        raise _error(
            config, f"{_could_not(config, operation)}: {_names_of(config)['name']} is not a valid bucket name"
        ) from error
    except (BotoCoreError, HTTPClientError, OSError) as error:
        raise unreachable(config, operation) from error


def unreachable(config: BucketConfig, operation: str) -> BucketFailed:
    """The error for a storage that did not answer."""
    host = urlsplit(config.endpoint_url).hostname
    return _error(
        config,
        f"{_could_not(config, operation)}: {host} did not respond, or closed the connection: check "
        f"{_names_of(config)['endpoint']}",
    )


def _explain(config: BucketConfig, operation: str, error: Any) -> BucketFailed:
    """The error for a response of the storage; `error` is botocore's ClientError."""
    code = str(error.response.get("Error", {}).get("Code", ""))[:80]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    prefix = _could_not(config, operation)
    if code in _MISSING_KEY and error.operation_name in ("GetObject", "HeadObject"):
        return KeyMissing(prefix)
    log.warning("%s: %s (status %s)", prefix, code or "no code", status)
    if code not in _CODES:
        return _error(config, f"{prefix}: it returned {code or 'no code'} (status {status})", bucket_code=code)
    meaning, parts = _MEANINGS[_CODES[code]]
    names = _names_of(config)
    return _error(config, f"{prefix}: {meaning.format(*(names[part] for part in parts))}", bucket_code=code)


def _error(config: BucketConfig, message: str, **details: Any) -> BucketFailed:
    return (JobBucketFailed if config.is_from_job else BucketFailed)(message, **details)


def _could_not(config: BucketConfig, operation: str) -> str:
    return f"the bucket {config.name[:80]!r} could not be {operation}"


def _names_of(config: BucketConfig) -> dict[str, str]:
    """The names of the settings or input fields that a bucket's configuration comes from."""
    if config.is_from_job:
        return _FIELDS
    return _MODEL_SETTINGS if config.is_for_models else _SETTINGS
