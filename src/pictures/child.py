"""A helper process: `python -m src.pictures.child MEGABYTES`, a JSON line with a call in, one with the result out.

Results come as JSON, so that a picture that takes the process over gets no further.
"""

from __future__ import annotations

import base64
import contextlib
import json
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .checking import PILLOW_ERRORS, check_picture
from .encoding import Encoding, encode_picture
from .preview import small_jpeg


def _check(path: str, name: str, is_image: bool, max_pixels: int) -> str:
    return check_picture(Path(path), name, is_image, max_pixels)


def _encode(source: str, target: str, name: str, encoding: dict[str, Any]) -> dict[str, Any]:
    wanted = Encoding(**{**encoding, "background": tuple(encoding["background"])})
    return asdict(encode_picture(Path(source), Path(target), name, wanted))


def _preview(jpeg: str) -> str:
    return base64.b64encode(small_jpeg(base64.b64decode(jpeg))).decode()


_OPERATIONS: dict[str, Callable[..., Any]] = {"check": _check, "encode": _encode, "preview": _preview}


def main() -> None:
    """Do calls until stdin ends, which it does with the worker."""
    limit = int(sys.argv[1]) * 1_000_000
    with contextlib.suppress(OSError, ValueError):  # a system without such a limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        operation, *arguments = json.loads(line)
        try:
            answer = {"result": _OPERATIONS[operation](*arguments)}
        except PILLOW_ERRORS as error:
            answer = {"failed": f"{type(error).__name__}: {error}", "errno": getattr(error, "errno", None)}
        except MemoryError:
            answer = {"failed": "out of memory"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
