"""`python -m src.models`, as people run it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from src.models.manifest import OwnManifest
from src.settings import environment as own_environment
from src.settings import read_settings

from ..model_server import ModelServer, entry, model_server, weights
from ..s3 import Storage
from ..worker_process import ROOT

A, B = weights(3000), weights(2000, seed=2)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server(a=A, b=B) as served:
        yield served


@pytest.fixture
def environment(tmp_path: Path, server: ModelServer, storage: Storage) -> dict[str, str]:
    """A manifest with two models, and a bucket."""
    bucket = f"models-{uuid.uuid4().hex[:8]}"
    storage.client().create_bucket(Bucket=bucket)
    models = [
        entry("a", A, {"url": f"{server.url}/files/a.safetensors"}),
        entry("b", B, {"url": f"{server.url}/files/b.safetensors"}, folder="loras", commercial_ok=False),
    ]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"models": models, "sets": {"both": ["a", "b"], "one": ["a"]}}))
    return {
        "MODELS_MANIFEST": str(manifest),
        "TRUSTED_HOSTS": server.host,
        "R2_ENDPOINT": storage.config.endpoint_url,
        "R2_ACCESS_KEY_ID": "any",
        "R2_SECRET_ACCESS_KEY": "any",
        "R2_BUCKET": bucket,
    }


class Command:
    """The command on one folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """What it says; it must end with that status, and without a traceback."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("R2_", "HF_", "MODELS"))}
        done = subprocess.run(
            [sys.executable, "-m", "src.models", *arguments, "--folder", str(self.folder)],
            cwd=ROOT, env={**own, **self.environment}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == status, said
        assert "Traceback" not in said
        return said


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Command:
    return Command(tmp_path / "models", environment)


def test_sets_are_listed_with_size_and_use(run: Command) -> None:
    said = run("sets")
    assert "flux1-dev                  34.17 GB  4 files" in said
    (line,) = [line for line in said.splitlines() if line.startswith("both ")]
    assert line.endswith("MIT; not for commercial use")


def test_fetch_brings_a_set_once(run: Command, server: ModelServer) -> None:
    assert "dry run: nothing was fetched" in run("fetch", "both", "--dry-run")
    assert server.requests == []
    assert f"2 fetched to {run.folder}" in run("fetch", "both")
    assert (run.folder / "loras" / "b.safetensors").read_bytes() == B
    assert "1 were present, of the right size (verify reads them)" in run("fetch", "ONE")


def test_list_says_where_models_are(run: Command) -> None:
    run("fetch", "one")
    lines = {line.split()[0]: line for line in run("list", "both").splitlines()}
    assert lines["a"].endswith(f"at {run.folder / 'vae' / 'a.safetensors'}")
    assert lines["b"].endswith("missing")
    (run.folder / "loras").mkdir()
    (run.folder / "loras" / "b.safetensors").write_bytes(A)
    assert "a different or damaged file" in run("list", "b")


def test_verify_reads_every_file(run: Command) -> None:
    run("fetch", "both")
    (run.folder / "vae" / "mine.safetensors").write_bytes(weights(50))
    said = run("verify")
    assert f"3 good, 0 bad; in {run.folder}" in said
    assert "good vae/mine.safetensors" in said
    other = bytearray(A)
    other[-1] ^= 1  # as a bad disk does it
    (run.folder / "vae" / "a.safetensors").write_bytes(other)
    (run.folder / "loras" / "b.safetensors").write_bytes(B[:-1])
    said = run("verify", status=1)
    assert "BAD  vae/a.safetensors: a.safetensors is not the expected file" in said
    assert "BAD  loras/b.safetensors: its tensors need 2,000 bytes, but it has 1,999" in said
    assert "1 good, 2 bad" in said
    (run.folder / "loras" / "b.safetensors").unlink()
    assert "BAD  loras/b.safetensors: missing" in run("verify", "b", status=1)


def test_backup_and_restore_say_what_they_do(run: Command) -> None:
    run("fetch", "both")
    said = run("backup", "--dry-run")
    assert "store vae/a.safetensors" in said
    assert "dry run: nothing was stored" in said
    assert "2 of 2 files stored" in run("backup")
    assert "nothing to store" in run("backup")
    (run.folder / "vae" / "a.safetensors").write_bytes(weights(3000, seed=8))
    (run.folder / "loras" / "b.safetensors").unlink()
    said = run("restore", status=1)
    assert "kept: vae/a.safetensors differs here; --yes replaces it" in said
    assert (run.folder / "loras" / "b.safetensors").read_bytes() == B
    assert "1 of 1 files restored" in run("restore", "--yes")
    assert (run.folder / "vae" / "a.safetensors").read_bytes() == A


def test_restore_brings_the_models_of_a_set(run: Command) -> None:
    run("fetch", "both")
    run("backup")
    for name in ("vae/a.safetensors", "loras/b.safetensors"):
        (run.folder / name).unlink()
    assert "1 of 1 files restored" in run("restore", "one")
    assert not (run.folder / "loras" / "b.safetensors").exists()


def test_prune_removes_only_if_it_is_told_to(run: Command) -> None:
    run("fetch", "both")
    left = run.folder / "vae" / "x.safetensors.partial"
    left.write_bytes(b"x")
    assert "nothing was removed: --yes removes these 1 files" in run("prune")
    assert left.exists()
    assert "1 files removed" in run("prune", "--yes")
    assert not left.exists()
    assert "nothing to remove" in run("prune")
    assert "remove loras/b.safetensors" in run("prune", "one")
    assert (run.folder / "loras" / "b.safetensors").exists()
    run("prune", "one", "--yes")
    assert not (run.folder / "loras" / "b.safetensors").exists()
    assert (run.folder / "vae" / "a.safetensors").exists()


def test_prune_of_the_bucket_removes_what_the_folder_has_not(run: Command) -> None:
    run("fetch", "both")
    run("backup")
    (run.folder / "loras" / "b.safetensors").unlink()
    assert "nothing was removed: --yes removes these 1 files" in run("prune", "--bucket")
    assert "store loras/b" not in run("backup", "--dry-run")
    assert "1 files removed" in run("prune", "--bucket", "--yes")
    assert "nothing to remove" in run("prune", "--bucket")


def test_what_is_wrong_is_said_in_a_line(run: Command) -> None:
    assert "there is no set or model 'flux1'; similar names:" in run("fetch", "flux1", status=1)
    assert run("fetch", "both,one")
    assert "fetch: name a set or model; `python -m src.models sets` lists" in run("fetch", status=2)
    assert "invalid choice" in run("fetsh", status=2)
    run.environment["R2_ENDPOINT"] = ""
    assert "set R2_ENDPOINT, R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY" in run("backup", status=1)
    run.environment["MODELS_MANIFEST"] = str(ROOT / "README.md")
    assert "invalid_manifest: MODELS_MANIFEST must be a JSON file, but README.md" in run("sets", status=1)


def test_no_key_is_said(run: Command) -> None:
    (run.folder / "vae").mkdir(parents=True)
    run.environment |= {"R2_ACCESS_KEY_ID": "key-of-mine", "R2_SECRET_ACCESS_KEY": "secret-of-mine"}
    run.environment["R2_BUCKET"] = "no-such-bucket"
    said = run("backup", status=1)
    assert "there is no such bucket: check R2_BUCKET" in said
    assert "secret-of-mine" not in said


def test_a_folder_that_is_none_of_models_is_refused(run: Command, tmp_path: Path) -> None:
    run.folder = tmp_path / "ComfyUI"
    for command in ("verify", "backup", "prune"):
        assert f"there is no folder {run.folder}" in run(command, status=1)
    (run.folder / "models" / "vae").mkdir(parents=True)
    for command in ("verify", "backup", "prune"):
        assert f"did you mean {run.folder / 'models'}?" in run(command, status=1)
    assert "there is no folder" not in run("prune", "--bucket", "--yes", status=1)
    run.folder = run.folder / "models"
    assert "has no files: is the volume attached? Nothing is removed" in run("prune", "--bucket", "--yes", status=1)


def test_a_damaged_file_does_not_become_the_backup_and_no_damaged_one_comes_back(
    run: Command, storage: Storage
) -> None:
    run("fetch", "both")
    run("backup")
    damaged = bytearray(A)
    damaged[1500] ^= 255
    (run.folder / "vae" / "a.safetensors").write_bytes(damaged)
    assert "not stored: vae/a.safetensors is not the file in the manifest" in run("backup", status=1)
    assert "1 of 1 files restored" in run("restore", "--yes")
    place = {"Bucket": run.environment["R2_BUCKET"], "Key": "vae/a.safetensors"}
    storage.client().put_object(**place, Body=bytes(damaged), Metadata={"sha256": hashlib.sha256(damaged).hexdigest()})
    assert "is not the file in the manifest" in run("restore", "--yes", status=1)
    assert (run.folder / "vae" / "a.safetensors").read_bytes() == A


def test_keys_that_the_manifest_names_are_no_part_of_the_backup(run: Command, storage: Storage) -> None:
    manifest = Path(run.environment["MODELS_MANIFEST"])
    content = json.loads(manifest.read_text())
    content["models"].append(entry("c", A, {"key": "private/c.safetensors"}))
    manifest.write_text(json.dumps(content))
    storage.client().put_object(Bucket=run.environment["R2_BUCKET"], Key="private/c.safetensors", Body=A)
    run("fetch", "c")
    assert "nothing to restore" in run("restore")
    assert "nothing to remove" in run("prune", "--bucket", "--yes")


def test_prune_keeps_what_the_manifest_does_not_know_and_what_is_being_fetched(run: Command) -> None:
    run("fetch", "both")
    mine, busy = run.folder / "loras" / "mine.safetensors", run.folder / "vae" / "y.safetensors.partial"
    mine.write_bytes(A)
    busy.write_bytes(b"x")
    (run.folder / "vae" / "y.safetensors.lock").write_text("x")
    staged = run.folder / "vae" / "z.safetensors.partial.hub" / ".cache" / "x.incomplete"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"x")
    run("prune", "one", "--yes")
    assert mine.exists()
    assert busy.exists()
    assert not staged.exists()
    assert not (run.folder / "loras" / "b.safetensors").exists()


def test_names_of_folders_above_and_of_models_are_not_taken_for_leftovers(run: Command, tmp_path: Path) -> None:
    run.folder = tmp_path / "x.partial.hub" / "models"
    mine = [run.folder / "loras" / "style.lock.safetensors", run.folder / "loras" / "b.hub" / "c.safetensors"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(A)
    assert "nothing to remove" in run("prune", "--yes")
    assert "2 good, 0 bad" in run("verify")


def test_the_schema_is_told(run: Command) -> None:
    assert json.loads(run("schema")) == OwnManifest.model_json_schema()


def test_a_file_of_secrets_stands_behind_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tmp_path / ".secrets"
    secrets.write_text('# mine\nHF_TOKEN="hf_x # no comment"\nexport R2_BUCKET=other\nLOG_LEVEL=debug\nEMPTY=\n')
    monkeypatch.setattr(own_environment, "SECRETS_FILE", secrets)
    for name in ("HF_TOKEN", "R2_BUCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    read = read_settings()
    assert (read.hf_token, read.r2_bucket, read.log_level) == ("hf_x # no comment", "other", "ERROR")
    assert read_settings({}) == replace(read_settings({}), hf_token="")
    assert "hf_x" not in repr(read)
