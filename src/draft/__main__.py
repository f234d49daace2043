"""`python -m src.draft`: the draft engine as a process, with the flags of ComfyUI that the worker uses."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from pathlib import Path

from aiohttp import web

from ..protocol.executor import Folders
from ..protocol.server import Server
from .executor import PREVIEW_METHODS, DraftExecutor

_PARENT_CHECK_SECONDS = 1.0


def main() -> None:
    """Serve until the parent process has exited or a signal arrives."""
    options = _parse()
    temp = options.temp_directory / "temp"
    shutil.rmtree(temp, ignore_errors=True)
    folders = Folders(options.input_directory, options.output_directory, temp)
    for folder in (folders.input, folders.output, folders.temp):
        folder.mkdir(parents=True, exist_ok=True)
    executor = DraftExecutor(
        folders,
        options.step_seconds,
        not options.disable_metadata,
        not options.cache_none,
        options.any_class,
        preview_method=options.preview_method,
    )
    application = Server(executor, sys.argv).application()
    application.cleanup_ctx.append(_exit_with_parent)
    print(f"Starting server\n\nDraft engine: http://{options.listen}:{options.port}", flush=True)  # noqa: T201
    web.run_app(application, host=options.listen, port=options.port, print=None, access_log=None)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m src.draft", allow_abbrev=False)
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188)
    parser.add_argument("--input-directory", type=Path, required=True)
    parser.add_argument("--output-directory", type=Path, required=True)
    parser.add_argument("--temp-directory", type=Path, required=True)
    parser.add_argument("--user-directory", type=Path)
    parser.add_argument("--disable-auto-launch", action="store_true")
    parser.add_argument("--disable-metadata", action="store_true")
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument("--cache-classic", action="store_true")
    cache.add_argument("--cache-lru", type=int, default=0)
    cache.add_argument("--cache-none", action="store_true")
    parser.add_argument("--preview-method", choices=PREVIEW_METHODS, default="none")
    parser.add_argument("--cpu", action="store_true", help="accepted and without meaning")
    parser.add_argument("--any-class", action="store_true", help="run classes of node packs, too: as stand-ins")
    parser.add_argument("--step-seconds", type=float, default=0.02, help="what one sampling step takes")
    return parser.parse_args()


async def _exit_with_parent(application: web.Application):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Exit when the worker has exited, on systems whose kernel does not do that (see launch/comfy_launcher.py)."""

    async def watch() -> None:
        parent = os.getppid()
        while os.getppid() == parent:
            await asyncio.sleep(_PARENT_CHECK_SECONDS)
        os._exit(1)

    task = asyncio.create_task(watch())
    yield
    task.cancel()


if __name__ == "__main__":
    main()
