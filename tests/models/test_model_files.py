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

from ..model_server import weights

HEADER = json.dumps({"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()

WRONG: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.safetensors", b"", "it is empty"),
    "cut short": ("a.safetensors", weights(1000)[:-1], "its tensors need 1,000 bytes, but it has 999"),
    "too long": ("a.sft", weights(1000) + b"x", "but it has 1,001"),
    "cut in its header": ("a.safetensors", weights(1000)[:20], "ends inside its header"),
    "shorter than a length": ("a.safetensors", b"abc", "does not start like"),
    "a length without end": ("a.safetensors", b"\xff" * 100, "does not start like"),
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
