"""`python -m src.models`: models on a folder or a volume, and their backup in a bucket."""

from __future__ import annotations

import argparse
import sys

from ..terminal.models import COMMANDS, USAGE, run


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m src.models",
        description=f"Models and their backup.\n\n{USAGE}",
        usage="python -m src.models COMMAND [SET…] [flags]",
        epilog="Settings come from the environment and from .secrets (see docs/models.md).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("sets", nargs="*", metavar="SET", help="sets of models, or single ones")
    parser.add_argument("--folder", metavar="DIR", help="the models folder (default: the worker's)")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")
    parser.add_argument("--yes", action="store_true", help="remove and replace files that would otherwise be kept")
    parser.add_argument("--bucket", action="store_true", help="prune the bucket, not the folder")
    options = parser.parse_intermixed_args()
    if options.command is None:
        parser.error("no command given; see --help")
    if options.command == "fetch" and not options.sets:
        parser.error("fetch: name a set or model; `python -m src.models sets` lists them")
    return options


if __name__ == "__main__":
    sys.exit(run(_parse()))
