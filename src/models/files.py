"""Checks of a model file: size, safetensors header, SHA-256 digest. Digests are cached in a folder below the root."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import ModelCorrupt

_SAFETENSORS = (".safetensors", ".sft")
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
_READ_BYTES = 1 << 22
_MODEL_ENDINGS = (*_SAFETENSORS, ".gguf", ".ckpt", ".pt", ".pth", ".bin", ".onnx")
DIGESTS_FOLDER = ".checked"
"""The folder below a root that holds the cached digests."""
_ERROR_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b'{"error')
_GGUF_START = b"gguf"  # in lower case: see what_is_wrong
_TEXT_ENDINGS = (".json", ".txt", ".yaml", ".yml", ".md", ".xml")


def is_model(name: str) -> bool:
    """Whether a file name has the ending of a model file."""
    return name.lower().endswith(_MODEL_ENDINGS)


def could_be(path: Path, size: int | None) -> bool:
    """Whether a file has that size (any, if None) and is not cut short; reads only its beginning."""
    with contextlib.suppress(OSError):
        actual = path.stat().st_size
        return (size is None or actual == size) and not what_is_wrong(path)
    return False


def what_is_wrong(path: Path, suffix: str = "") -> str:
    """What is wrong with a file by its beginning: empty, a web page, a safetensors file cut short; '' for nothing.

    `suffix` is that of its final name, for a file that does not have it yet.

    A safetensors file is eight bytes with the length of a JSON header (little-endian), the header, and the tensors at
    the offsets that it gives, up to the end of the file (https://github.com/huggingface/safetensors#format).
    """
    size, suffix = path.stat().st_size, (suffix or path.suffix).lower()
    if not size:
        return "it is empty"
    with path.open("rb") as opened:
        start = opened.read(64).lstrip().lower()
        if start.startswith(_ERROR_PAGE_STARTS) and suffix not in _TEXT_ENDINGS:
            return "it is a web page or an error message, not a model"
        if suffix not in _SAFETENSORS:
            is_other = suffix == ".gguf" and not start.startswith(_GGUF_START)
            return "it does not start like a GGUF file" if is_other else ""
        opened.seek(0)
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > _MAX_HEADER_BYTES:
            return "it does not start like a safetensors file"
        if 8 + length > size:
            return "it ends inside its header"
        return _wrong_header(opened.read(length), size - 8 - length)


def _wrong_header(header: bytes, data_size: int) -> str:
    try:
        tensors = json.loads(header)
        ends = [int(tensor["data_offsets"][1]) for name, tensor in tensors.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError):
        return "its safetensors header cannot be read"
    needed = max(ends, default=0)
    if needed != data_size:
        return f"its tensors need {needed:,} bytes, but it has {data_size:,}"
    return ""


def check_digest(path: Path, actual: str, expected: str | None) -> None:
    """Raise ModelCorrupt if two SHA-256 digests differ."""
    if expected is not None and actual != expected:
        raise ModelCorrupt(f"{path.name} is not the expected file: its SHA-256 is {actual}, but should be {expected}")


def digest_of(path: Path, root: Path, check: Callable[[], None] = lambda: None, is_fresh: bool = False) -> str:
    """The SHA-256 of a file: cached if neither size nor mtime changed, else computed, and cached below `root`.

    `is_fresh`: compute it in any case, for disks corrupt data too. `check` raises to cancel.
    """
    cached = None if is_fresh else cached_digest(path, root)
    if cached is not None:
        return cached
    before = path.stat()
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as opened:
        while length := opened.readinto(buffer):
            digest.update(buffer[:length])
            check()
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
        cache_digest(path, root, digest.hexdigest())
    return digest.hexdigest()


def cached_digest(path: Path, root: Path) -> str | None:
    """The cached digest of a file, None without one or if the file has changed since."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        cached, now = json.loads(_digest_file(path, root).read_text(encoding="utf-8")), path.stat()
        if (cached["size"], cached["mtime_ns"]) == (now.st_size, now.st_mtime_ns):
            return str(cached["sha256"])
    return None


def cache_digest(path: Path, root: Path, digest: str) -> None:
    """Cache a file's digest; does nothing where that cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        file, now = _digest_file(path, root), path.stat()
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"size": now.st_size, "mtime_ns": now.st_mtime_ns, "sha256": digest}))
        temporary.replace(file)


def _digest_file(path: Path, root: Path) -> Path:
    return root / DIGESTS_FOLDER / f"{path.relative_to(root)}.json"
