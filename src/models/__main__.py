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
    parser.add_argument("--folder", metavar="DIR", help="the folder of models; else where the worker has them")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--yes", action="store_true", help="remove and replace what would be kept")
    parser.add_argument("--bucket", action="store_true", help="prune: the bucket, not the folder")
    options = parser.parse_intermixed_args()
    if options.command is None:
        parser.error("which command? see --help")
    if options.command == "fetch" and not options.sets:
        parser.error("fetch what? `python -m src.models sets` lists the sets")
    return options


if __name__ == "__main__":
    sys.exit(run(_parse()))
