"""Downloads one file with huggingface_hub, in its own process: `python -m src.models.hub_child`.

It is a process because a stalled Xet transfer cannot be stopped in another way, because the library reads its settings
when it is imported, and because its memory is freed with it. The request is a JSON line on stdin; the messages are
JSON lines on stdout: `{"bytes": n}` for progress, then `{"path": …}` or `{"failed": class, "status": …}`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ..launch.comfy_launcher import die_with_parent


def main() -> None:
    """Do the request: repository, revision, path, folder, endpoint, token, parent (its pid), environment."""
    request: dict[str, Any] = json.loads(sys.stdin.readline())
    die_with_parent(request["parent"])
    os.environ.update(request["environment"])
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  it reads the environment
    from tqdm.auto import tqdm  # noqa: PLC0415

    class ProgressMessages(tqdm):  # type: ignore[type-arg]
        """A progress bar that sends messages instead of drawing."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            # Xet has two bars: one for bytes over the network, used here only as a sign of life, and one for the file.
            self._is_of_file = "downloading bytes" not in str(options.get("desc", ""))
            super().__init__(*arguments, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            _send(bytes=int(n or 0) if self._is_of_file else 0)
            return None

    try:
        path = hf_hub_download(
            request["repository"],
            request["path"],
            revision=request["revision"],
            local_dir=request["folder"],
            endpoint=request["endpoint"],
            token=request["token"] or False,
            tqdm_class=ProgressMessages,
        )
        _send(path=str(path))
    except Exception as error:  # noqa: BLE001  the edge of the process: the parent decides what it means
        response = getattr(error, "response", None)
        _send(failed=type(error).__name__, status=getattr(response, "status_code", None))


def _send(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
