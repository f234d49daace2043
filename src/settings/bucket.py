"""The settings of one S3-compatible bucket, and the bucket that an endpoint URL may name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_AWS_BUCKET = re.compile(r"(?P<bucket>[a-z0-9.-]+)\.(?P<host>s3[.-][a-z0-9.-]*amazonaws\.com)")


@dataclass(frozen=True)
class BucketConfig:
    """An S3-compatible bucket and how its files are named and linked.

    `prefix` may hold `{date}` (YYYY-MM-DD, UTC) and `{job_id}`. With `public_url` a link is that URL and the key,
    otherwise a presigned URL that is valid for `url_seconds`. `upload_seconds` is the time limit for all files of a
    job together. Jobs may read the objects below `input_prefix`. `is_from_job`: the job's input named this bucket, so
    its endpoint is not trusted. `is_for_models`: it stores models.
    """

    endpoint_url: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    name: str
    region: str = "auto"
    prefix: str = "{date}/{job_id}"
    public_url: str = ""
    url_seconds: int = 604800
    upload_seconds: float = 120.0
    input_prefix: str = ""
    is_from_job: bool = False
    is_for_models: bool = False


def endpoint_and_bucket(url: str) -> tuple[str, str]:
    """The endpoint and the bucket name of a URL; the name is empty if the URL has none.

    The bucket may be in the path, as in Cloudflare's console, or in front of the host, as RunPod's documentation
    writes it for AWS.
    """
    parts = urlsplit(url)
    in_host = _AWS_BUCKET.fullmatch(parts.netloc)
    if in_host:
        return f"{parts.scheme}://{in_host['host']}", in_host["bucket"]
    in_path = parts.path.strip("/")
    return (f"{parts.scheme}://{parts.netloc}", in_path) if in_path and "/" not in in_path else (url, "")
