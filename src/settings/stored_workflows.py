"""Stored workflows in a variable, where an endpoint has no volume and its image lacks them."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import json
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_MAX_BYTES = 20_000_000
MAX_VARIABLE_CHARACTERS = 100_000
"""Linux takes at most 131,072 bytes for one variable."""


def pack(workflows: Mapping[str, Any]) -> str:
    """Name to content, as the text of STORED_WORKFLOWS: JSON, compressed (gzip), in base64.

    Raises ValueError if that is too long for a variable.
    """
    content = json.dumps(workflows, ensure_ascii=False, separators=(",", ":")).encode()
    text = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    if len(text) > MAX_VARIABLE_CHARACTERS:
        raise ValueError(f"{len(text):,} characters, compressed; a variable takes {MAX_VARIABLE_CHARACTERS:,}")
    return text


def packed(text: str) -> str:
    """The parser of the setting. Raises ValueError for what `pack` has not packed."""
    unpack(text.strip())
    return text.strip()


@lru_cache(maxsize=4)
def unpack(text: str) -> dict[str, Any]:
    """What `pack` has packed. Raises ValueError for anything else."""
    if not text:
        return {}
    expected = "workflows by name, as JSON, compressed (gzip), in base64; examples/deploy.py --workflow writes it"
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(base64.b64decode(text, validate=True))) as opened:
            content = opened.read(_MAX_BYTES + 1)
        found = json.loads(content)
    except (binascii.Error, OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise ValueError(expected) from error
    if not isinstance(found, dict) or len(content) > _MAX_BYTES:
        raise ValueError(expected)
    return found
