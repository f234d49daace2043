"""The settings of one S3-compatible bucket, and the bucket that an endpoint URL may name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_AWS_BUCKET = re.compile(r"(?P<bucket>[a-z0-9.-]+)\.(?P<host>s3[.-][a-z0-9.-]*amazonaws\.com)")


@dataclass(frozen=True)
class BucketConfig:
    """An S3-compatible bucket and how its files are named and linked.

    `prefix` may hold `{date}` (YYYY-MM-DD, UTC) and `{job_id}`. With `public_url` links are that and the key, else
    signed ones that work for `url_seconds`. All files of a job have `upload_seconds`. Jobs may read what is below
    `input_prefix`. `is_from_job`: a caller brought it, so its endpoint is not trusted. `is_for_models`:
    it keeps models.
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
    """The endpoint and the bucket in a URL that may have it: in its path, as Cloudflare's console shows it, or in
    front of the host, as RunPod's documentation has it for AWS.
    """
    place = urlsplit(url)
    in_host = _AWS_BUCKET.fullmatch(place.netloc)
    if in_host:
        return f"{place.scheme}://{in_host['host']}", in_host["bucket"]
    in_path = place.path.strip("/")
    return (f"{place.scheme}://{place.netloc}", in_path) if in_path and "/" not in in_path else (url, "")
