"""Uploads reach a real S3 API, links work, and what is wrong with a bucket is said so that one can mend it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from src.errors import BucketFailed, InputFileRefused, InputFileUnavailable, InvalidSetting, WorkerError
from src.settings import BucketConfig, Settings
from src.storage.bucket import Bucket, _region, key_of

from ..s3 import NAME, FaultyProxy, Storage, faulty_proxy


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A file of 300,000 bytes."""
    file = tmp_path / "p.png"
    file.write_bytes(bytes(range(256)) * 1200)
    return file


def test_a_file_is_stored_under_its_own_name_with_its_type_and_its_link_works(storage: Storage, picture: Path) -> None:
    bucket = Bucket(replace(storage.config, prefix="out/{date}/{job_id}"))
    bucket.check()
    stored = bucket.upload(picture, "sub/ä b_00001_.png", "image/png", "job-1")
    assert stored.key == f"out/{time.strftime('%Y-%m-%d', time.gmtime())}/job-1/sub/ä b_00001_.png"
    assert stored.url
    answer = requests.get(stored.url, timeout=10)
    assert answer.content == picture.read_bytes()
    assert answer.headers["Content-Type"] == "image/png"
    assert "X-Amz-Expires=604800" in stored.url
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in stored.url


def test_a_file_of_many_parts_arrives_whole(storage: Storage, tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(bytes(range(256)) * 40_000 * 2)  # 20 MB: more than one part
    stored = Bucket(storage.config).upload(video, "v.mp4", "video/mp4", "job-2")
    assert stored.url
    assert requests.get(stored.url, timeout=30).content == video.read_bytes()


def test_a_public_bucket_gives_plain_links(storage: Storage, picture: Path) -> None:
    config = replace(storage.config, public_url=f"{storage.config.endpoint_url}/{NAME}")
    stored = Bucket(config).upload(picture, "a b.png", "image/png", "job-3")
    assert stored.url == f"{config.public_url}/{time.strftime('%Y-%m-%d', time.gmtime())}/job-3/a%20b.png"
    storage.client().put_object_acl(Bucket=NAME, Key=stored.key, ACL="public-read")
    assert requests.get(stored.url, timeout=10).content == picture.read_bytes()


def test_jobs_that_share_a_prefix_do_not_overwrite_each_other(storage: Storage, picture: Path) -> None:
    bucket = Bucket(replace(storage.config, prefix="shared"))
    first, second = (bucket.upload(picture, "x_00001_.png", "image/png", job) for job in ("a", "b"))
    assert first.key != second.key
    assert {first.key, second.key} <= set(storage.keys())


def test_a_network_volume_has_no_links_and_none_is_made_up(storage: Storage) -> None:
    config = replace(storage.config, endpoint_url="https://s3api-eu-ro-1.runpod.io")
    assert Bucket(config)._url("a.png") is None


Change = Callable[[BucketConfig], BucketConfig]
WRONG: dict[str, tuple[Change, str]] = {
    "unknown key": (lambda c: replace(c, access_key_id="AKIAUNKNOWN"), "access key id is unknown"),
    "wrong secret": (lambda c: replace(c, secret_access_key="wrong"), "secret key is wrong"),
    "missing bucket": (lambda c: replace(c, name="absent-bucket"), "there is no such bucket"),
    "nobody there": (lambda c: replace(c, endpoint_url="http://127.0.0.1:9"), "127.0.0.1 did not respond"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_bucket_is_found_and_named(
    strict_storage: Storage, picture: Path, change: Change, said: str
) -> None:
    bucket = Bucket(change(strict_storage.config))
    uses: list[Callable[[], Any]] = [
        bucket.check,
        lambda: bucket.upload(picture, "p.png", "image/png", "j"),
        lambda: bucket.download("k", "images[0]", lambda piece: None),
    ]
    for use in uses:
        with pytest.raises(BucketFailed, match=said) as raised:
            use()
        assert strict_storage.config.secret_access_key not in str(raised.value)


def test_right_keys_open_a_strict_bucket(strict_storage: Storage, picture: Path) -> None:
    bucket = Bucket(strict_storage.config)
    bucket.check()
    stored = bucket.upload(picture, "p.png", "image/png", "j")
    pieces: list[bytes] = []
    bucket.download(stored.key, "images[0]", pieces.append)
    assert b"".join(pieces) == picture.read_bytes()


LONG_OBJECT = bytes(range(256)) * 32_768  # 8 MB


@pytest.fixture
def broken(storage: Storage) -> Iterator[tuple[Bucket, FaultyProxy]]:
    """A bucket with `long.bin`, whose answer breaks off once, after 3 MB."""
    storage.put("long.bin", LONG_OBJECT)
    with faulty_proxy(storage.config.endpoint_url, cut_answer_at=3_000_000) as proxy:
        yield Bucket(replace(storage.config, endpoint_url=proxy.url)), proxy


def test_an_object_whose_answer_breaks_off_comes_whole(broken: tuple[Bucket, FaultyProxy]) -> None:
    bucket, proxy = broken
    read: list[bytes] = []
    bucket.download("long.bin", "images[0]", read.append)
    assert b"".join(read) == LONG_OBJECT
    assert len(proxy.requests) == 2
    assert proxy.answered < len(LONG_OBJECT) * 1.25, "it was not read from its beginning again"


def test_the_rest_of_an_object_that_has_changed_is_not_taken(
    broken: tuple[Bucket, FaultyProxy], storage: Storage
) -> None:
    def write(piece: bytes) -> None:
        if not piece:
            storage.put("long.bin", b"other" * 2_000_000)

    with pytest.raises(BucketFailed, match="could not be read from"):
        broken[0].download("long.bin", "images[0]", write)


def test_the_rest_of_an_object_that_nobody_waits_for_is_not_asked_for(broken: tuple[Bucket, FaultyProxy]) -> None:
    def write(piece: bytes) -> None:
        if not piece:
            raise InputFileUnavailable("too late")

    bucket, proxy = broken
    with pytest.raises(InputFileUnavailable, match="too late"):
        bucket.download("long.bin", "images[0]", write)
    assert len(proxy.requests) == 1


FAULTS: dict[str, dict[str, Any]] = {"5xx": {"refuse": 2}, "cut": {"cut": 2}, "slow": {"pause": 1.0}}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_an_upload_survives_a_bad_line(storage: Storage, picture: Path, faults: dict[str, Any]) -> None:
    with faulty_proxy(storage.config.endpoint_url, **faults) as proxy:
        bucket = Bucket(replace(storage.config, endpoint_url=proxy.url))
        stored = bucket.upload(picture, "p.png", "image/png", "bad-line")
        assert len(proxy.requests) == 1 + sum(value for name, value in faults.items() if name != "pause")
    content = storage.client().get_object(Bucket=NAME, Key=stored.key)["Body"].read()
    assert content == picture.read_bytes()


@pytest.mark.parametrize(("faults", "said"), [({"refuse": 99}, "SlowDown"), ({"cut": 99}, "closed the connection")])
def test_a_line_that_stays_bad_is_an_error_that_says_so(
    storage: Storage, picture: Path, faults: dict[str, Any], said: str
) -> None:
    with faulty_proxy(storage.config.endpoint_url, **faults) as proxy:
        bucket = Bucket(replace(storage.config, endpoint_url=proxy.url))
        with pytest.raises(BucketFailed, match=said):
            bucket.upload(picture, "p.png", "image/png", "bad-line")


def test_an_object_that_is_not_there_is_the_callers_to_mend(storage: Storage) -> None:
    with pytest.raises(InputFileUnavailable, match=r"images\[0\]: the bucket 'pictures' has no 'nope\.png'"):
        Bucket(storage.config).download("nope.png", "images[0]", lambda piece: None)


@pytest.mark.parametrize(
    ("url", "with_bucket", "said"),
    [
        ("s3://other/x.png", True, "must name the bucket 'pictures'"),
        ("s3://pictures/", True, "followed by the key"),
        ("s3://pictures/x.png", False, "needs a bucket"),
    ],
)
def test_only_the_bucket_of_the_worker_can_be_read(storage: Storage, url: str, with_bucket: bool, said: str) -> None:
    with pytest.raises(WorkerError, match=said) as raised:
        key_of(url, storage.config if with_bucket else None, "images[0]")
    assert isinstance(raised.value, InputFileRefused) or "key" in said


def test_settings_make_a_bucket_and_say_what_is_missing() -> None:
    whole = Settings(
        bucket_endpoint_url="https://acc.r2.cloudflarestorage.com/pictures",
        bucket_access_key_id="a",
        bucket_secret_access_key="b",
    )
    config = whole.bucket
    assert config is not None
    assert (config.endpoint_url, config.name) == ("https://acc.r2.cloudflarestorage.com", "pictures")
    assert "b'" not in repr(config).replace("bucket", "")
    with pytest.raises(InvalidSetting, match="BUCKET_SECRET_ACCESS_KEY, BUCKET_NAME"):
        _ = Settings(bucket_endpoint_url="https://x.example", bucket_access_key_id="a").bucket
    with pytest.raises(InvalidSetting, match="names the bucket 'pictures', but BUCKET_NAME is 'other'"):
        _ = replace(whole, bucket_name="other").bucket
    assert Settings().bucket is None


@pytest.mark.parametrize(
    ("url", "endpoint", "name", "region"),
    [
        ("https://acc.r2.cloudflarestorage.com", "https://acc.r2.cloudflarestorage.com", "given", "auto"),
        ("https://acc.r2.cloudflarestorage.com/given", "https://acc.r2.cloudflarestorage.com", "given", "auto"),
        ("https://given.s3.us-west-2.amazonaws.com", "https://s3.us-west-2.amazonaws.com", "given", "us-west-2"),
        ("https://s3.eu-central-1.amazonaws.com", "https://s3.eu-central-1.amazonaws.com", "given", "eu-central-1"),
        ("https://s3.amazonaws.com", "https://s3.amazonaws.com", "given", "us-east-1"),
        ("https://s3api-eu-ro-1.runpod.io", "https://s3api-eu-ro-1.runpod.io", "given", "EU-RO-1"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000", "given", "auto"),
    ],
)
def test_endpoints_as_people_paste_them(url: str, endpoint: str, name: str, region: str) -> None:
    given = Settings(
        bucket_endpoint_url=url, bucket_access_key_id="a", bucket_secret_access_key="b", bucket_name="given"
    )
    config = given.bucket
    assert config is not None
    assert (config.endpoint_url, config.name, _region(config)) == (endpoint, name, region)


@pytest.mark.parametrize("prefix", ["inputs", "inputs/", "/inputs"])
def test_a_folder_that_jobs_may_read_is_no_beginning_of_a_name(prefix: str) -> None:
    config = BucketConfig("https://s3.example", "id", "secret", "name", input_prefix=prefix)
    assert key_of("s3://name/inputs/a.png", config, "images[0]") == "inputs/a.png"
    for other in ("inputs-of-others/a.png", "inputs", "other/inputs/a.png"):
        with pytest.raises(InputFileRefused, match="must be followed by 'inputs/'"):
            key_of(f"s3://name/{other}", config, "images[0]")


@pytest.mark.parametrize("key", ["inputs/../other/a.png", "inputs/./a.png", "../name/a.png", "inputs/.."])
def test_a_key_has_no_way_up(key: str) -> None:
    for prefix in ("", "inputs"):
        with pytest.raises(InputFileRefused, match="must have no"):
            key_of(f"s3://name/{key}", BucketConfig("https://s3.example", "i", "s", "name", input_prefix=prefix), "f")
