"""Checks every model file of some folders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import WorkerError
from .backup import files_below
from .files import check_digest, digest_of, is_model, what_is_wrong
from .folders import folders_for
from .manifest import Model


class Verified(NamedTuple):
    """A file below a root, and what is wrong with it; "" for nothing."""

    root: Path
    file: Path
    wrong: str


def verify_files(roots: Sequence[Path], models: Sequence[Model], only_these: bool) -> Iterator[Verified]:
    """Check the files of `models`, or every model file: its header, and its digest where the manifest has one."""
    for root in roots:
        for key in files_below(root):
            folder, _, name = key.rpartition("/")
            candidates = [model for model in models if model.file == name and folder in folders_for(model.folder)]
            if candidates or (not only_these and is_model(name)):
                yield Verified(root, root / key, _what_is_wrong(root, root / key, candidates))


def _what_is_wrong(root: Path, file: Path, candidates: Collection[Model]) -> str:
    """What is wrong with a file that may be any one of `candidates`."""
    digests = {model.sha256 for model in candidates if model.sha256}
    try:
        wrong = what_is_wrong(file)
        if not wrong and digests:
            digest = digest_of(file, root, is_fresh=True)
            check_digest(file, digest, digest if digest in digests else next(iter(digests)))
        return wrong
    except WorkerError as error:
        return error.message
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
