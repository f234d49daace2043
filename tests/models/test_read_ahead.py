"""Models are read before they are needed: within the memory there is, or copied to a fast disk."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import sys
import threading
from pathlib import Path

import pytest

from src.models import read_ahead
from src.models.local_cache import LocalCache
from src.models.read_ahead import ReadAhead

from ..model_server import weights

GB = 10**9
SIZE = 30_000_000


def put(root: Path, name: str, size: int = SIZE) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(weights(size))
    return path


def reader(root: Path, cache: LocalCache | None = None) -> ReadAhead:
    return ReadAhead((root,), cache, threading.Event())


def pages_in_memory(file: Path) -> float:
    """The share of a file's pages that are in the page cache (mincore(2))."""
    size, page = file.stat().st_size, mmap.PAGESIZE
    pages = -(-size // page)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    with file.open("rb") as opened:
        address = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, opened.fileno(), 0)
        vector = (ctypes.c_ubyte * pages)()
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vector) == 0
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return sum(byte & 1 for byte in vector) / pages


def forget(file: Path) -> None:
    """Drop a file from the page cache."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for pages")
def test_files_are_in_memory_afterwards(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = put(tmp_path, "vae/a.safetensors")
    forget(file)
    if pages_in_memory(file) > 0.5:
        pytest.skip("this file system keeps its pages")
    with caplog.at_level(logging.INFO):
        reader(tmp_path).read([file])
    assert pages_in_memory(file) > 0.99
    assert "read ahead 0.03 GB of models, " in caplog.text
    assert "MB/s" in caplog.text


def test_what_does_not_fit_into_memory_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(read_ahead, "free_memory", lambda: 2 * SIZE)
    files = [put(tmp_path, "vae/a.safetensors"), put(tmp_path, "vae/b.safetensors")]
    with caplog.at_level(logging.INFO):
        reader(tmp_path).read(files)
    assert "b.safetensors is not read ahead: only 0.0 GB of memory are available" in caplog.text
    assert "a.safetensors is not" not in caplog.text


def test_files_that_cannot_be_read_cost_nothing(tmp_path: Path) -> None:
    reader(tmp_path).read([tmp_path / "gone.safetensors", tmp_path])


def test_it_ends_when_the_worker_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ended = reader(tmp_path)
    ended.stop.set()
    with caplog.at_level(logging.INFO):
        ended.read([put(tmp_path, "a")])
    assert "read ahead" not in caplog.text


# --- A fast disk -----------------------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disk counts as slow."""
    monkeypatch.setattr(read_ahead, "_SLOW_SPEED", float("inf"))


@pytest.mark.usefixtures("slow")
def test_a_slow_volume_is_copied_from_once(tmp_path: Path) -> None:
    volume, cache = tmp_path / "volume", LocalCache(tmp_path / "fast", GB)
    file = put(volume, "diffusion_models/a.safetensors")
    reader(volume, cache).read([file])
    copy = tmp_path / "fast" / "diffusion_models" / "a.safetensors"
    assert copy.read_bytes() == file.read_bytes()
    first = copy.stat()
    reader(volume, cache).read([file])
    assert copy.stat().st_ino == first.st_ino


@pytest.mark.usefixtures("slow")
def test_a_file_that_changed_is_copied_anew(tmp_path: Path) -> None:
    volume, cache = tmp_path / "volume", LocalCache(tmp_path / "fast", GB)
    file = put(volume, "vae/a.safetensors")
    reader(volume, cache).read([file])
    file.write_bytes(weights(SIZE, seed=2))
    reader(volume, cache).read([file])
    assert (tmp_path / "fast" / "vae" / "a.safetensors").read_bytes() == file.read_bytes()


def test_a_fast_volume_is_not_copied_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_SLOW_SPEED", 0.0)
    cache = LocalCache(tmp_path / "fast", GB)
    reader(tmp_path / "volume", cache).read([put(tmp_path / "volume", "vae/a.safetensors")])
    assert not (tmp_path / "fast").exists()


@pytest.mark.usefixtures("slow")
def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    volume, cache = tmp_path / "volume", LocalCache(tmp_path / "fast", int(2.5 * SIZE))
    a, b, c = (put(volume, f"vae/{name}.safetensors") for name in "abc")
    reader(volume, cache).read([a])
    reader(volume, cache).read([b])
    reader(volume, cache).read([a])
    reader(volume, cache).read([c])
    assert {path.name for path in (tmp_path / "fast" / "vae").iterdir()} == {"a.safetensors", "c.safetensors"}


@pytest.mark.usefixtures("slow")
def test_copies_that_are_wanted_now_do_not_push_each_other_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume, cache = tmp_path / "volume", LocalCache(tmp_path / "fast", int(1.5 * SIZE))
    files = [put(volume, f"vae/{name}.safetensors") for name in "ab"]
    with caplog.at_level(logging.INFO):
        reader(volume, cache).read(files)
    assert [path.name for path in (tmp_path / "fast" / "vae").iterdir()] == ["a.safetensors"]
    assert "no room for a copy of b.safetensors in MODEL_CACHE_DIR (MODEL_CACHE_GB)" in caplog.text


@pytest.mark.usefixtures("slow")
def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    volume, cache = tmp_path / "volume", LocalCache(tmp_path / "fast", int(1.5 * SIZE))
    thesis = put(tmp_path / "fast", "thesis.docx", 2 * SIZE)
    of_a_pack = put(tmp_path / "fast", "vae/b.safetensors", SIZE)
    a, b = put(volume, "vae/a.safetensors"), put(volume, "vae/b.safetensors", SIZE + 1)
    reader(volume, cache).read([a, b])
    assert (tmp_path / "fast" / "vae" / "a.safetensors").exists()
    assert thesis.stat().st_size > 2 * SIZE
    assert of_a_pack.read_bytes() == weights(SIZE)


@pytest.mark.usefixtures("slow")
def test_what_cannot_fit_pushes_nothing_out(tmp_path: Path) -> None:
    volume, cache = tmp_path / "volume", LocalCache(tmp_path / "fast", int(1.5 * SIZE))
    reader(volume, cache).read([put(volume, "vae/a.safetensors")])
    reader(volume, cache).read([put(volume, "vae/huge.safetensors", 2 * SIZE)])
    assert (tmp_path / "fast" / "vae" / "a.safetensors").exists()


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "changed"])
def test_a_copy_whose_original_is_no_longer_that_goes_before_comfyui_looks(tmp_path: Path, is_gone: bool) -> None:
    volume, cache = tmp_path / "volume", LocalCache(tmp_path / "fast", GB)
    files = [put(volume, f"vae/{name}.safetensors") for name in "ab"]
    reader(volume, cache).read(files)
    files[0].unlink()
    if not is_gone:
        put(volume, "vae/a.safetensors", SIZE + 1)
    cache.tidy()
    assert [path.name for path in (tmp_path / "fast" / "vae").iterdir()] == ["b.safetensors"]


@pytest.mark.usefixtures("slow")
def test_a_copy_that_is_not_whole_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume, cache = tmp_path / "volume", LocalCache(tmp_path / "fast", GB)
    file, read = put(volume, "vae/a.safetensors"), os.pread
    monkeypatch.setattr(os, "pread", lambda opened, length, position: read(opened, min(length, 1 << 20), position))
    reader(volume, cache).read([file])  # a network file system may give less at a time
    assert (tmp_path / "fast" / "vae" / "a.safetensors").read_bytes() == file.read_bytes()
    other = put(volume, "vae/b.safetensors")
    monkeypatch.setattr(os, "pread", lambda opened, length, position: b"" if position else read(opened, length, 0))
    reader(volume, cache).read([other])
    assert [path.name for path in (tmp_path / "fast" / "vae").iterdir()] == ["a.safetensors"]
