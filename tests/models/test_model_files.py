"""What a look at a file tells, one at a time for each, how much memory there is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from src.errors import JobCancelled
from src.models.files import cached_digest, could_be, digest_of, what_is_wrong
from src.models.locks import locked
from src.models.memory import free_memory, total_memory

from ..model_server import weights

HEADER = json.dumps({"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()

WRONG: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.safetensors", b"", "it is empty"),
    "cut short": ("a.safetensors", weights(1000)[:-1], "its tensors take 1,000 bytes, but 999 are there"),
    "too long": ("a.sft", weights(1000) + b"x", "but 1,001 are there"),
    "cut in its header": ("a.safetensors", weights(1000)[:20], "ends before its header"),
    "shorter than a length": ("a.safetensors", b"abc", "does not begin like"),
    "a length without end": ("a.safetensors", b"\xff" * 100, "does not begin like"),
    "no JSON": ("a.safetensors", (9).to_bytes(8, "little") + b"not json!", "header cannot be read"),
    "JSON of another form": ("a.safetensors", (4).to_bytes(8, "little") + b"[1] ", "header cannot be read"),
    "offsets of another form": ("a.safetensors", (9).to_bytes(8, "little") + b'{"x": {}}', "header cannot be read"),
    "a web page": ("a.pth", b"\n <!DOCTYPE html><html></html>", "it is a web page"),
    "an XML error": ("a.gguf", b'<?xml version="1.0"?><Error/>', "it is a web page or an error"),
    "a JSON error": ("a.onnx", b'{"error": "rate limited"}', "it is a web page or an error"),
}


@pytest.mark.parametrize(("name", "content", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_file_that_is_no_model_is_seen_by_its_beginning(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert said in what_is_wrong(file)
    assert not could_be(file, len(content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", weights(1000)),
        ("a.safetensors", len(HEADER).to_bytes(8, "little") + HEADER + b"abcd"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{}"),
        ("config.json", b'{"error": 1}'),
        ("a.pth", b"PK\x03\x04"),
    ],
)
def test_a_file_that_may_be_one_passes(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert what_is_wrong(file) == ""
    assert could_be(file, len(content))
    assert could_be(file, None)
    assert not could_be(file, len(content) + 1)


def test_a_digest_is_kept_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "vae" / "a.bin"
    file.parent.mkdir()
    file.write_bytes(b"one")
    assert cached_digest(file, tmp_path) is None
    assert digest_of(file, tmp_path) == hashlib.sha256(b"one").hexdigest()
    assert cached_digest(file, tmp_path) == hashlib.sha256(b"one").hexdigest()
    os.utime(file, ns=(1, 1))
    assert cached_digest(file, tmp_path) is None
    file.write_bytes(b"two")
    assert digest_of(file, tmp_path) == hashlib.sha256(b"two").hexdigest()


# --- Locks ---------------------------------------------------------------------------------------------


def nothing() -> None:
    """Nobody ends the wait."""


def test_one_holds_a_lock_and_the_next_waits(tmp_path: Path) -> None:
    path, order = tmp_path / "x.lock", list[str]()
    begun = threading.Event()

    def first() -> None:
        with locked(path, nothing):
            begun.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with locked(path, nothing):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert not path.exists()


def test_who_waits_for_a_lock_can_be_ended(tmp_path: Path) -> None:
    path, waits = tmp_path / "x.lock", list[int]()

    def check() -> None:
        waits.append(1)
        if len(waits) > 2:
            raise JobCancelled("the job was cancelled")

    with locked(path, nothing), pytest.raises(JobCancelled), locked(path, check):
        pass
    assert not path.exists()


def test_the_lock_of_a_dead_process_of_this_machine_is_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); import os; from pathlib import Path;"
        f"from src.models.locks import locked; held = locked(Path({str(path)!r}), lambda: None);"
        "held.__enter__(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert path.exists()
    started = time.monotonic()
    with locked(path, nothing, stale_seconds=600):
        assert time.monotonic() - started < 30


@pytest.mark.parametrize("content", [json.dumps({"machine": "elsewhere", "process": 1, "id": "x"}), ""])
def test_the_lock_of_another_machine_is_taken_when_nobody_touches_it_any_more(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.lock"
    path.write_text(content)
    started = time.monotonic()
    with locked(path, nothing, stale_seconds=0.5):
        assert time.monotonic() - started >= 0.5
    assert not path.exists()


def test_a_lock_that_is_touched_is_not_taken(tmp_path: Path) -> None:
    path, end = tmp_path / "x.lock", time.monotonic() + 1.5
    path.write_text(json.dumps({"machine": "elsewhere", "process": 1, "id": "x"}))

    def check() -> None:
        os.utime(path)
        if time.monotonic() > end:
            raise JobCancelled("the job was cancelled")

    with pytest.raises(JobCancelled), locked(path, check, stale_seconds=0.5):
        pass
    assert path.exists()


def test_of_many_that_find_a_lock_left_each_gets_it_alone(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "x.lock", list[int](), list[int]()
    path.write_text(json.dumps({"machine": "elsewhere", "process": 1, "id": "x"}))

    def one() -> None:
        with locked(path, nothing, stale_seconds=0.4):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 8


# --- Memory --------------------------------------------------------------------------------------------

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n"
GB = 1 << 30
GROUPS: dict[str, tuple[dict[str, str], int, int]] = {
    "no group": ({}, 16_000_000 << 10, 8_000_000 << 10),
    "version 2": (
        {"memory.max": f"{4 * GB}", "memory.current": f"{3 * GB}", "memory.stat": f"anon 5\ninactive_file {GB}\n"},
        4 * GB,
        2 * GB,
    ),
    "version 2 without a limit": ({"memory.max": "max\n", "memory.current": "5"}, 16_000_000 << 10, 8_000_000 << 10),
    "version 1": (
        {
            "memory/memory.limit_in_bytes": f"{4 * GB}",
            "memory/memory.usage_in_bytes": f"{2 * GB}",
            "memory/memory.stat": f"cache 1\ntotal_inactive_file {GB // 2}\n",
        },
        4 * GB,
        5 * GB // 2,
    ),
    "version 1 without a limit": (
        {"memory/memory.limit_in_bytes": "9223372036854771712"},
        16_000_000 << 10,
        8_000_000 << 10,
    ),
    "a group that is used up": ({"memory.max": "100", "memory.current": "200"}, 100, 0),
}


@pytest.mark.parametrize(("files", "total", "free"), GROUPS.values(), ids=GROUPS.keys())
def test_memory_is_that_of_the_container(tmp_path: Path, files: dict[str, str], total: int, free: int) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert total_memory(tmp_path, tmp_path / "meminfo") == total
    assert free_memory(tmp_path, tmp_path / "meminfo") == free


def test_a_system_that_tells_nothing_has_no_memory_to_spare(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path / "none") == 0
