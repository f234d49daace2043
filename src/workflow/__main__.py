"""`python -m src.workflow`: what a workflow is, told or written by ComfyUI's own node classes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import urlsplit

from ..terminal.check import run as check
from ..terminal.needs import run as needs
from ..terminal.workflow import run as convert


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
    command.add_argument("--output", type=Path, metavar="FILE.json", help="where to write it (default: print it)")
    command.add_argument("--url", type=_url, help="a running ComfyUI, like http://127.0.0.1:8188 (default: start one)")
    help_text = "list the models, node packs and files that workflows need, and where to get them"
    command = commands.add_parser(
        "needs",
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}, according to the files themselves or the worker's "
        "catalog. Nothing is downloaded. Also reads a snapshot of ComfyUI-Manager and a comfy-build.yaml. The exit "
        "status is 2 if something remains unresolved.",
    )
    command.add_argument("files", type=Path, nargs="*", metavar="FILE", help="a file, or a folder of them")
    command.add_argument("--from", dest="comfyui", type=Path, metavar="COMFYUI", help="list what that ComfyUI has")
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.add_argument(
        "--lock",
        action="store_true",
        help="print the node packs as entries of docker/custom_nodes.lock (downloads them)",
    )
    command.add_argument(
        "--write", type=Path, metavar="LOCK", help="with --lock: write them into that file, and print their names"
    )
    command.add_argument(
        "--write-models",
        type=Path,
        metavar="MANIFEST",
        help="with --lock: write the models there, as a set",
    )
    help_text = "check whether this ComfyUI would run workflows, apart from missing models and files"
    command = commands.add_parser("check", help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    command.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    options = parser.parse_args()
    if options.command == "needs" and not options.files and options.comfyui is None:
        parser.error("needs: name a FILE, or a ComfyUI by --from")
    return options


COMMANDS = {"check": check, "convert": convert, "needs": needs}

if __name__ == "__main__":
    options = _parse()
    sys.exit(COMMANDS[options.command](options))
