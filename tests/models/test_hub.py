"""Hugging Face's own library, pointed at a hub on loopback: Xet storage, its stalls, and the maintainer's pins."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.errors import JobCancelled, ModelFetchFailed
from src.models.manifest import read_manifest
from src.models.pin import pin_manifest

from ..model_server import COMMIT, ModelServer, entry, model_server, weights
from .test_fetch import CONTENT as LARGE
from .test_fetch import fetch, fetcher_for, files_of, from_hub, nothing

LONG = 120.0  # a hang limit, no measure


@pytest.fixture
def hub() -> Iterator[ModelServer]:
    with model_server(a=LARGE) as served:
        served.has_xet = True
        yield served


def test_a_file_in_xet_storage_comes_by_xet(tmp_path: Path, hub: ModelServer) -> None:
    (file,) = fetch(fetcher_for(tmp_path, hub, from_hub(), stall=LONG))
    assert file.read_bytes() == LARGE
    assert files_of(tmp_path) == {"a.safetensors"}
    assert any("/xorb/" in line for line in hub.requests)
    assert hub.data_requests() == [line for line in hub.data_requests() if "/files/" not in line]


def test_a_stall_of_xet_is_ended_and_the_file_comes_by_ranges(tmp_path: Path, hub: ModelServer) -> None:
    hub.xet_hangs = True
    (file,) = fetch(fetcher_for(tmp_path, hub, from_hub(), stall=4))
    assert file.read_bytes() == LARGE
    assert any("/reconstructions/" in line for line in hub.requests)
    assert any("GET /files/" in line for line in hub.requests)


def test_wrong_content_by_xet_is_refused(tmp_path: Path, hub: ModelServer) -> None:
    known = from_hub(sha256=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(ModelFetchFailed, match="is not the expected file"):
        fetch(fetcher_for(tmp_path, hub, known, stall=LONG))
    assert files_of(tmp_path) == set()


def test_what_has_come_by_ranges_goes_on_by_ranges(tmp_path: Path, hub: ModelServer) -> None:
    hub.has_xet, hub.cut = False, [0.3] * 1000
    with pytest.raises(ModelFetchFailed):
        fetch(fetcher_for(tmp_path, hub, from_hub()))
    hub.has_xet, hub.cut = True, []
    (file,) = fetch(fetcher_for(tmp_path, hub, from_hub()))
    assert file.read_bytes() == LARGE
    assert not any("/xorb/" in line for line in hub.requests)


def test_who_no_longer_waits_ends_xet_too(tmp_path: Path, hub: ModelServer) -> None:
    hub.xet_hangs, stop = True, threading.Event()

    def check() -> None:
        if stop.is_set():
            raise JobCancelled("the job was cancelled")

    threading.Timer(1.0, stop.set).start()
    started = time.monotonic()
    with pytest.raises(JobCancelled):
        fetch(fetcher_for(tmp_path, hub, from_hub(), stall=LONG), check=check)
    assert time.monotonic() - started < 30
    assert files_of(tmp_path) == {"a.safetensors.partial.parts"}
    hub.requests.clear()
    (file,) = fetch(fetcher_for(tmp_path, hub, from_hub()))  # by ranges, which could go on
    assert file.read_bytes() == LARGE
    assert not any("/reconstructions/" in line for line in hub.requests)


@pytest.mark.parametrize("has_xet", [True, False], ids=["by xet", "over one connection"])
def test_the_library_tells_what_has_come(tmp_path: Path, hub: ModelServer, has_xet: bool) -> None:
    hub.has_xet = has_xet
    fetcher = fetcher_for(tmp_path, hub, from_hub())
    source, target = fetcher.manifest.model("a").source, tmp_path / "x.safetensors"
    counted: list[int] = []
    path = fetcher.hub.download(source, target, nothing, counted.append, LONG)
    assert path.read_bytes() == LARGE
    assert sum(counted) == len(LARGE)


def test_a_failure_of_the_library_is_told_without_its_words(tmp_path: Path, hub: ModelServer) -> None:
    fetcher = fetcher_for(tmp_path, hub, from_hub())
    hub.files.clear()
    with pytest.raises(ModelFetchFailed, match=r"huggingface_hub failed \(RemoteEntryNotFoundError\)"):
        fetcher.hub.download(fetcher.manifest.model("a").source, tmp_path / "x", nothing, lambda more: None, LONG)
    assert files_of(tmp_path) == set()


# --- Pins ----------------------------------------------------------------------------------------------


@pytest.fixture
def pinned(tmp_path: Path, hub: ModelServer) -> Path:
    """A manifest with a model whose size and revision are not known, and a hub that knows them."""
    small = weights(100)
    known = entry("a", small, {"repository": "org/repo", "path": "a.safetensors"})
    del known["size"]
    web = entry("b", small, {"url": "https://example.com/b.safetensors"})
    hub.extra["/api/models/org/repo"] = {"id": "org/repo", "sha": COMMIT, "siblings": []}
    info: list[dict[str, Any]] = [
        {
            "type": "file", "path": "a.safetensors", "size": len(small), "oid": "0" * 40,
            "lfs": {"oid": known["sha256"], "size": len(small), "pointerSize": 130},
        }
    ]  # fmt: skip
    hub.extra[f"/api/models/org/repo/paths-info/{COMMIT}"] = info
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"models": [known, web], "sets": {"both": ["a", "b"]}}))
    return file


def test_pins_are_asked_from_the_hub_and_written_only_if_wanted(pinned: Path, hub: ModelServer) -> None:
    before = pinned.read_text()
    changes = pin_manifest(hub.url, "", [], may_write=False, file=pinned)
    assert changes == [f"a: size unknown -> {len(weights(100))}", f"a: revision unknown -> {COMMIT}"]
    assert pinned.read_text() == before
    assert pin_manifest(hub.url, "", ["both"], may_write=True, file=pinned) == changes
    assert pin_manifest(hub.url, "", [], may_write=True, file=pinned) == []
    manifest = read_manifest(json.loads(pinned.read_text()))
    assert manifest.model("a").size == len(weights(100))
    assert manifest.model("a").source.revision == COMMIT
    assert manifest.sets == {"both": ("a", "b")}


def test_a_pin_that_is_gone_is_told(pinned: Path, hub: ModelServer) -> None:
    hub.extra[f"/api/models/org/repo/paths-info/{COMMIT}"] = []
    with pytest.raises(ModelFetchFailed, match=f"org/repo/a.safetensors does not exist at revision {COMMIT}"):
        pin_manifest(hub.url, "", [], may_write=False, file=pinned)
    hub.extra.clear()
    with pytest.raises(ModelFetchFailed, match="cannot be queried"):
        pin_manifest(hub.url, "", [], may_write=False, file=pinned)


def test_the_shipped_manifest_has_the_form_that_pins_are_written_in() -> None:
    from src.models.manifest import MANIFEST_FILE
    from src.models.pin import _formatted

    text = MANIFEST_FILE.read_text(encoding="utf-8")
    assert _formatted(json.loads(text)) == text
