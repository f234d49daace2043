"""A folder of models and its backup, against a real S3 API: the same trees, and only what differs is moved."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from src.errors import BucketFailed, ModelCorrupt, ModelFetchFailed
from src.models import transfer
from src.models.backup import Mirror
from src.models.fetch import Fetcher
from src.models.files import digest_of
from src.models.hub import Hub
from src.models.manifest import read_manifest, shipped_manifest
from src.models.partial import Partial
from src.models.places import Places
from src.models.store import ModelStore
from src.models.transfer import TransferLimits
from src.storage.bucket import Bucket
from src.storage.web import FetchRules

from ..model_server import entry, weights
from ..s3 import Storage, faulty_proxy
from ..worker_process import ROOT
from .test_fetch import nothing

LARGE = weights(12_000_000)
PART = 5 << 20  # the smallest that S3 takes
LONG = 60.0  # a hang limit, no measure
TREE = {
    "vae/ae.safetensors": weights(1000),
    "diffusion_models/flux.safetensors": LARGE,
    "clip_vision/siglip/config.json": b"{}",
    "loras/empty.txt": b"",
    "pulid/päth with blanks+.bin": b"\x80\x02 pickle",
}


@pytest.fixture
def bucket(storage: Storage) -> Iterator[Storage]:
    """A bucket of its own."""
    name = f"models-{uuid.uuid4().hex[:8]}"
    storage.client().create_bucket(Bucket=name)
    yield Storage(replace(storage.config, name=name, prefix="", is_for_models=True))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path, TREE)


def write_tree(tmp_path: Path, files: dict[str, bytes]) -> Path:
    root = tmp_path / "models"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "vae").mkdir(exist_ok=True)
    (root / "vae" / "half.safetensors.partial").write_bytes(b"x")
    (root / "vae" / "half.safetensors.lock").write_bytes(b"x")
    return root


def mirror_of(root: Path, bucket: Storage) -> Mirror:
    return Mirror(root, ModelStore(Bucket(bucket.config), PART))


def contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and ".checked" not in path.parts and not path.name.startswith("half.")
    }


EXPECTED = {name: hashlib.sha256(content).hexdigest() for name, content in TREE.items()}


def back_up(mirror: Mirror) -> list[str]:
    steps = mirror.to_back_up()
    assert mirror.back_up(steps) == []
    return [step.key for step in steps]


def restore(mirror: Mirror) -> list[str]:
    steps = mirror.to_restore()
    assert mirror.restore(steps, TransferLimits(LONG)) == []
    return [step.key for step in steps]


def test_backup_wipe_restore_gives_the_same_tree(tree: Path, bucket: Storage) -> None:
    mirror = mirror_of(tree, bucket)
    assert set(back_up(mirror)) == TREE.keys()
    assert mirror.store.sizes() == {name: len(content) for name, content in TREE.items()}
    shutil.rmtree(tree)
    tree.mkdir()
    assert set(restore(mirror)) == TREE.keys()
    assert contents(tree) == EXPECTED


def test_only_what_differs_is_moved(tree: Path, bucket: Storage) -> None:
    mirror = mirror_of(tree, bucket)
    back_up(mirror)
    assert back_up(mirror) == restore(mirror) == []
    (tree / "vae" / "ae.safetensors").write_bytes(weights(1000, seed=9))  # of the same size
    (tree / "loras" / "new.safetensors").write_bytes(weights(50))
    steps = {step.key: step.replaces for step in mirror.to_back_up()}
    assert steps == {"vae/ae.safetensors": True, "loras/new.safetensors": False}
    assert [(step.key, step.replaces) for step in mirror.to_restore()] == [("vae/ae.safetensors", True)]
    assert set(back_up(mirror)) == steps.keys()
    shutil.rmtree(tree / "loras")
    assert set(restore(mirror)) == {"loras/empty.txt", "loras/new.safetensors"}


def test_only_some_models_are_restored_if_that_is_wanted(tree: Path, bucket: Storage) -> None:
    mirror = mirror_of(tree, bucket)
    back_up(mirror)
    shutil.rmtree(tree)
    steps = mirror.to_restore([shipped_manifest().model("ae")])
    assert [step.key for step in steps] == ["vae/ae.safetensors"]


def test_a_broken_file_does_not_replace_a_good_one(tree: Path, bucket: Storage) -> None:
    mirror = mirror_of(tree, bucket)
    back_up(mirror)
    (tree / "vae" / "ae.safetensors").write_bytes(TREE["vae/ae.safetensors"][:-5])
    steps = mirror.to_back_up()
    assert mirror.back_up(steps) == ["vae/ae.safetensors: its tensors need 1,000 bytes, but it has 995"]
    stored = mirror.store.head("vae/ae.safetensors")
    assert stored is not None
    assert stored.sha256 == EXPECTED["vae/ae.safetensors"]


def test_content_that_changed_in_the_bucket_is_not_brought(tree: Path, bucket: Storage) -> None:
    mirror = mirror_of(tree, bucket)
    back_up(mirror)
    digest = EXPECTED["vae/ae.safetensors"]
    bucket.client().put_object(
        Bucket=bucket.config.name, Key="vae/ae.safetensors", Body=b"something else", Metadata={"sha256": digest}
    )
    (tree / "vae" / "ae.safetensors").unlink()
    failures = mirror.restore(mirror.to_restore(), TransferLimits(LONG))
    assert len(failures) == 1
    assert "ae.safetensors: it does not start like a safetensors file" in failures[0]
    bucket.client().put_object(
        Bucket=bucket.config.name, Key="vae/ae.safetensors", Body=weights(7), Metadata={"sha256": digest}
    )
    (failure,) = mirror.restore(mirror.to_restore(), TransferLimits(LONG))
    assert "ae.safetensors is not the expected file" in failure
    assert not (tree / "vae" / "ae.safetensors").exists()


@pytest.mark.parametrize("key", ["../out.safetensors", "/etc/x", "a/../../x", "a\\b"])
def test_keys_that_lead_out_of_the_folder_restore_nothing(tree: Path, bucket: Storage, key: str) -> None:
    bucket.client().put_object(Bucket=bucket.config.name, Key=key, Body=b"x")
    stored = mirror_of(tree, bucket)
    if key not in stored.store.sizes():
        pytest.skip("this storage does not keep such a key")
    with pytest.raises(ModelFetchFailed, match="leads out of the folder"):
        stored.to_restore()


def test_linked_folders_are_followed_once(tree: Path, bucket: Storage, tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk2"
    elsewhere.mkdir()
    (elsewhere / "style.safetensors").write_bytes(weights(70))
    (tree / "styles").symlink_to(elsewhere)
    (tree / "loop").symlink_to(tree)
    mirror = mirror_of(tree, bucket)
    assert set(back_up(mirror)) == {*TREE, "styles/style.safetensors"}
    (elsewhere / "style.safetensors").unlink()
    assert restore(mirror) == ["styles/style.safetensors"]
    assert (elsewhere / "style.safetensors").is_file()


def test_storage_that_breaks_off_is_asked_again(tree: Path, bucket: Storage) -> None:
    with faulty_proxy(bucket.config.endpoint_url, refuse=2, cut=2) as proxy:
        broken = Storage(replace(bucket.config, endpoint_url=proxy.url))
        mirror = mirror_of(tree, broken)
        assert set(back_up(mirror)) == TREE.keys()
        shutil.rmtree(tree)
        proxy.cut = 2
        restore(mirror)
    assert contents(tree) == EXPECTED


def test_wrong_keys_say_which_variable_to_mend(tree: Path, strict_storage: Storage) -> None:
    config = replace(strict_storage.config, secret_access_key="wrong", is_for_models=True)
    with pytest.raises(BucketFailed, match="check R2_SECRET_ACCESS_KEY"):
        mirror_of(tree, Storage(config)).to_back_up()


# --- Interrupted -----------------------------------------------------------------------------------------


def run_apart(command: str, root: Path, url: str, bucket: Storage) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "src.models", command, "--folder", str(root)],
        cwd=ROOT,
        env={
            **os.environ,
            "R2_ENDPOINT": url,
            "R2_ACCESS_KEY_ID": "any",
            "R2_SECRET_ACCESS_KEY": "any",
            "R2_BUCKET": bucket.config.name,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_when(process: subprocess.Popen[bytes], is_time: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not is_time():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()


VERY_LARGE = weights(80_000_000)


@pytest.fixture
def large_tree(tmp_path: Path) -> Path:
    """With a file that takes some time, in the parts that the command makes."""
    return write_tree(tmp_path, {"diffusion_models/flux.safetensors": VERY_LARGE})


def test_a_backup_that_was_killed_goes_on_where_it_was(large_tree: Path, bucket: Storage) -> None:
    tree = large_tree
    client, place = bucket.client(), {"Bucket": bucket.config.name}

    def has_parts() -> bool:
        begun = client.list_multipart_uploads(**place).get("Uploads", [])
        ids = [{"Key": upload["Key"], "UploadId": upload["UploadId"]} for upload in begun]
        return any(client.list_parts(**place, **upload).get("Parts") for upload in ids)

    with faulty_proxy(bucket.config.endpoint_url, pause=0.5) as proxy:
        kill_when(run_apart("backup", tree, proxy.url, bucket), has_parts)
    sent = "PUT /" + bucket.config.name + "/diffusion_models/flux.safetensors?"
    with faulty_proxy(bucket.config.endpoint_url) as proxy:
        mirror = Mirror(tree, ModelStore(Bucket(replace(bucket.config, endpoint_url=proxy.url))))
        back_up(mirror)
        parts = [request for request in proxy.requests if request.startswith(sent)]
    assert len(parts) < 3
    assert client.list_multipart_uploads(**place).get("Uploads", []) == []
    shutil.rmtree(tree)
    restore(mirror_of(tree, bucket))
    assert (tree / "diffusion_models" / "flux.safetensors").read_bytes() == VERY_LARGE


def test_parts_of_another_content_are_sent_anew(tree: Path, bucket: Storage) -> None:
    client, place = bucket.client(), {"Bucket": bucket.config.name, "Key": "diffusion_models/flux.safetensors"}
    digest = EXPECTED["diffusion_models/flux.safetensors"]
    upload_id = client.create_multipart_upload(**place, Metadata={"sha256": digest})["UploadId"]
    client.upload_part(**place, UploadId=upload_id, PartNumber=1, Body=b"x" * PART)
    back_up(mirror_of(tree, bucket))
    (tree / "diffusion_models" / "flux.safetensors").unlink()
    restore(mirror_of(tree, bucket))
    assert contents(tree) == EXPECTED


def test_a_restore_that_was_killed_goes_on_where_it_was(large_tree: Path, bucket: Storage) -> None:
    tree = large_tree
    mirror = mirror_of(tree, bucket)
    back_up(mirror)
    shutil.rmtree(tree)
    target = tree / "diffusion_models" / "flux.safetensors"
    parts = target.with_name("flux.safetensors.partial.parts")
    with faulty_proxy(bucket.config.endpoint_url, pause=0.2) as proxy:
        process = run_apart("restore", tree, proxy.url, bucket)
        kill_when(process, lambda: parts.exists() and len(parts.read_text().splitlines()) > 1)
    with faulty_proxy(bucket.config.endpoint_url) as proxy:
        restore(mirror_of(tree, Storage(replace(bucket.config, endpoint_url=proxy.url))))
    assert proxy.answered < len(VERY_LARGE)
    assert target.read_bytes() == VERY_LARGE


# --- The bucket as a source --------------------------------------------------------------------------------


def fetcher_for(root: Path, bucket: Storage, *entries: dict[str, object]) -> Fetcher:
    manifest = read_manifest({"models": list(entries)}, shipped_manifest())
    store = ModelStore(Bucket(bucket.config))
    return Fetcher(
        Places((root,), root), manifest, Hub("http://127.0.0.1:9", ""), FetchRules(), store, TransferLimits(5.0)
    )


def test_a_model_with_a_key_comes_from_the_bucket(tmp_path: Path, bucket: Storage) -> None:
    bucket.client().put_object(Bucket=bucket.config.name, Key="private/my lora.safetensors", Body=weights(500))
    known = entry(
        "mine", weights(500), {"key": "private/my lora.safetensors"}, folder="loras", file="mine.safetensors"
    )
    fetcher = fetcher_for(tmp_path, bucket, known)
    fetcher.fetch([fetcher.manifest.model("mine")], nothing)
    assert (tmp_path / "loras" / "mine.safetensors").read_bytes() == weights(500)


def test_what_is_backed_up_comes_from_the_bucket_and_not_from_its_publisher(tree: Path, bucket: Storage) -> None:
    back_up(mirror_of(tree, bucket))
    shutil.rmtree(tree)
    known = entry(
        "flux", LARGE, {"repository": "org/gated", "path": "x.safetensors"}, folder="unet", file="flux.safetensors",
        gated=True,
    )  # fmt: skip
    fetcher = fetcher_for(tree, bucket, known)
    fetcher.fetch([fetcher.manifest.model("flux")], nothing)
    assert (tree / "unet" / "flux.safetensors").read_bytes() == LARGE


def test_an_object_of_another_content_is_not_taken_for_the_model(tmp_path: Path, bucket: Storage) -> None:
    key = {"Bucket": bucket.config.name, "Key": "vae/x.safetensors"}
    bucket.client().put_object(**key, Body=weights(500, seed=5), Metadata={"sha256": "0" * 64})
    known = entry("x", weights(500), {"repository": "org/name", "path": "x.safetensors"})
    fetcher = fetcher_for(tmp_path, bucket, known)
    with pytest.raises(ModelFetchFailed, match=r"127\.0\.0\.1:9 could not be reached|must begin with https"):
        fetcher.fetch([fetcher.manifest.model("x")], nothing)


def test_a_key_without_a_bucket_says_what_to_set(tmp_path: Path, bucket: Storage) -> None:
    known = entry("mine", weights(5), {"key": "a.safetensors"})
    fetcher = replace(fetcher_for(tmp_path, bucket, known), store=None)
    with pytest.raises(ModelFetchFailed, match="set R2_ENDPOINT, R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY"):
        fetcher.fetch([fetcher.manifest.model("mine")], nothing)


def test_a_key_that_is_not_in_the_bucket_is_told(tmp_path: Path, bucket: Storage) -> None:
    known = entry("mine", weights(5), {"key": "a.safetensors"})
    fetcher = fetcher_for(tmp_path, bucket, known)
    with pytest.raises(ModelFetchFailed, match=r"has no 'a\.safetensors'"):
        fetcher.fetch([fetcher.manifest.model("mine")], nothing)


def test_a_digest_is_taken_once(tree: Path, bucket: Storage) -> None:
    back_up(mirror_of(tree, bucket))
    file = tree / "diffusion_models" / "flux.safetensors"
    assert digest_of(file, tree) == EXPECTED["diffusion_models/flux.safetensors"]
    assert (tree / ".checked" / "diffusion_models" / "flux.safetensors.json").is_file()


def test_a_file_that_changes_while_it_is_stored_is_not_the_backup(tree: Path, bucket: Storage) -> None:
    mirror, file = mirror_of(tree, bucket), tree / "diffusion_models" / "flux.safetensors"
    counted: list[int] = []

    def count(more: int) -> None:
        if not counted:
            file.write_bytes(weights(12_000_000, seed=4))
        counted.append(more)

    with pytest.raises(ModelCorrupt, match="changed during its upload"):
        mirror.store.upload(file, "diffusion_models/flux.safetensors", digest_of(file, tree), nothing, count)
    assert mirror.store.head("diffusion_models/flux.safetensors") is None


def test_a_bad_download_does_not_keep_a_restore_from_ever_ending(tree: Path, bucket: Storage) -> None:
    mirror = mirror_of(tree, bucket)
    back_up(mirror)
    target = tree / "diffusion_models" / "flux.safetensors"
    target.unlink()
    tag = str(mirror.store.remote("diffusion_models/flux.safetensors").info().sha256)
    with Partial.open(target, len(LARGE), tag, transfer.PART_BYTES) as partial:
        partial.write(0, b"x" * len(LARGE))  # of the right length, and nothing else
    restore(mirror)
    assert contents(tree) == EXPECTED


def test_an_object_without_a_digest_must_be_what_the_manifest_knows(tree: Path, bucket: Storage) -> None:
    bucket.client().put_object(Bucket=bucket.config.name, Key="upscale_models/x.pth", Body=b"another pickle")
    mirror = replace(mirror_of(tree, bucket), digests={"upscale_models/x.pth": frozenset({"0" * 64})})
    (failure,) = mirror.restore(mirror.to_restore(), TransferLimits(LONG))
    assert "x.pth is not the expected file" in failure
    assert not (tree / "upscale_models" / "x.pth").exists()
