"""`python -m src.workflow`: what a workflow is, told or written by ComfyUI's own node classes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import urlsplit

from ..terminal.workflow import run


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or (parts.port is not None and not 0 < parts.port < 1 << 16):
        raise argparse.ArgumentTypeError(f"must be like http://127.0.0.1:8188, not {text!r}")
    return text


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m src.workflow", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    help_text = "write a workflow that the editor saved in API format, as the editor's Export (API) would"
    command = commands.add_parser("convert", help=help_text, description=help_text)
    command.add_argument("file", type=Path, metavar="FILE.json")
    command.add_argument("--output", type=Path, metavar="FILE.json", help="where to write it; else it is printed")
    command.add_argument(
        "--url", type=_url, help="a ComfyUI that runs, like http://127.0.0.1:8188; else one is started"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(_parse()))
