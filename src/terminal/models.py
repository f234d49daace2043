"""The commands of `python -m src.models`, one function each."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from .. import job_log
from ..comfy.install import find_comfyui
from ..errors import ComfyNotFound, InvalidSetting, WorkerError
from ..models.backup import Mirror, Step, check_models_folder, files_below, leftovers_below
from ..models.catalog import TEMPLATE, known_manifest, stock_catalog
from ..models.folders import folders_for
from ..models.manifest import Manifest, Model, OwnManifest
from ..models.partial import is_in_use, parts_of
from ..models.pin import pin_manifest
from ..models.places import Places, find_places
from ..models.provisioning import make_fetcher
from ..models.store import ModelStore
from ..models.transfer import TransferLimits
from ..models.verify import verify_files
from ..settings import Settings, read_settings
from ..storage.bucket import Bucket

USAGE = """\
python -m src.models sets                        list the sets, with sizes and licences
python -m src.models list [SET…]                 list the models, and which are installed
python -m src.models fetch SET… [--folder DIR]   download missing models
python -m src.models verify [SET…]               read every local file and compare it with the known digest
python -m src.models backup [--dry-run]          upload files that the bucket does not have
python -m src.models restore [SET…] [--dry-run]  download files that the folder does not have
python -m src.models prune [SET…] [--yes]        remove leftovers and, with SET…, known models that none of them needs
python -m src.models prune --bucket [--yes]      remove files from the bucket that the folder does not have
python -m src.models pin [SET…] [--yes]          for maintainers: get sizes, digests and revisions from Hugging Face
python -m src.models schema                      the JSON schema of a manifest of your own"""


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status: 0 success, 1 failure, 130 interrupted."""
    job_log.configure("INFO" if options.command in _TRANSFER_COMMANDS and not sys.stderr.isatty() else "WARNING")
    try:
        status = COMMANDS[options.command](_Context.make(options))
        sys.stdout.flush()
        return status
    except WorkerError as error:
        print(f"{error.error_code}: {error.message}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe has closed it, like `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("stopped; partial downloads are kept, and the same command resumes them", file=sys.stderr)
        return 130


class _Context:
    """The options and what all commands derive from them."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        self.options = options
        self.settings = settings
        self.manifest: Manifest = known_manifest(settings)
        self.names: list[str] = options.sets

    @staticmethod
    def make(options: argparse.Namespace) -> _Context:
        settings = read_settings()
        return _Context(options, replace(settings, models_dir=options.folder) if options.folder else settings)

    @property
    def models(self) -> list[Model]:
        """The models that were named, by default all."""
        return self.manifest.expand(self.names) if self.names else list(self.manifest.models)

    @property
    def places(self) -> Places:
        """Only the folder given with --folder, by default the folders that the worker itself uses."""
        if self.options.folder:
            folder = Path(self.options.folder).expanduser().absolute()
            return Places((folder,), folder)
        try:
            return find_places(self.settings, find_comfyui(self.settings).directory)
        except ComfyNotFound as error:
            places = find_places(self.settings, Path("ComfyUI").absolute())
            if places.target.is_relative_to(Path("ComfyUI").absolute()):
                raise InvalidSetting("no ComfyUI and no volume found: name a folder with --folder") from error
            return places

    @property
    def mirror(self) -> Mirror:
        config = self.settings.models_bucket
        if config is None:
            raise InvalidSetting(
                "set R2_ENDPOINT, R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY, in the environment or in .secrets "
                "(see .secrets.example)"
            )
        store = ModelStore(Bucket(config))
        store.bucket.check()
        keys = frozenset(model.source.key for model in self.manifest.models if model.source.key)
        digests: dict[str, set[str]] = {}
        for model in self.manifest.models:
            for folder in folders_for(model.folder) if model.sha256 else ():
                digests.setdefault(f"{folder}/{model.file}", set()).add(str(model.sha256))
        return Mirror(self.places.target, store, keys, {key: frozenset(found) for key, found in digests.items()})

    def is_real_run(self, done: str) -> bool:
        """Whether to go on. In a dry run it prints that nothing was `done` (fetched, removed, …) and returns False."""
        if self.options.dry_run:
            print(f"dry run: nothing was {done}")
        return not self.options.dry_run


# --- Commands ------------------------------------------------------------------------------------------


def _sets(context: _Context) -> int:
    for name, members in context.manifest.sets.items():
        models = [context.manifest.model(member) for member in members]
        licences = ", ".join(dict.fromkeys(model.licence for model in models))
        use = "" if all(model.commercial_ok for model in models) else "; not for commercial use"
        print(f"{name:24} {_size(models):>10}  {len(models)} files  {licences}{use}")
    print("\nstock templates of ComfyUI, each a set of the models that it uses (their licences are on their pages):")
    for family, names in _families(stock_catalog().sets):
        print(f"{family:24} {', '.join(names)}")
    return 0


def _families(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Names of sets by their first two words: `template:video_wan2_2_14B_t2v` is of `video_wan2`."""
    families: dict[str, list[str]] = {}
    for name in names:
        words = re.split(r"[_.-]", name.removeprefix(TEMPLATE))
        families.setdefault("_".join(words[:2]), []).append(name)
    yield from sorted(families.items())


def _list(context: _Context) -> int:
    places = context.places
    print(f"searched {', '.join(map(str, places.roots))}")
    for model in context.models:
        print(f"{model.name:40} {_size([model]):>10}  {model.folder}/{model.file}  {_state(model, places)}")
    return 0


def _state(model: Model, places: Places) -> str:
    found = places.find(model)
    if found:
        return f"at {found}"
    other = next(places.candidates(model.folder, model.file), None)
    if other:
        return f"a different or damaged file: {other}"
    return "begun" if parts_of(places.target_of(model)).exists() else "missing"


def _fetch(context: _Context) -> int:
    models = context.manifest.expand(context.names)
    fetcher = make_fetcher(context.settings, context.places, context.manifest)
    missing = fetcher.missing(models)
    for model in missing:
        print(f"{model.folder}/{model.file}: {model.about}")
    if context.is_real_run("fetched"):
        fetcher.fetch(missing, _never_stop)
        print(f"{len(missing)} fetched to {context.places.target}")
        if len(missing) < len(models):
            print(f"{len(models) - len(missing)} were present, of the right size (verify reads them)")
    return 0


def _verify(context: _Context) -> int:
    """Verify the named models, or every model in the folders: the file format, and the digest where one is known."""
    places = context.places
    if context.options.folder:
        for root in places.roots:
            check_models_folder(root)
    verified = list(verify_files(places.roots, context.models, only_these=bool(context.names)))
    for root, file, wrong in verified:
        print(f"{'BAD ' if wrong else 'good'} {file.relative_to(root)}" + (f": {wrong}" if wrong else ""))
    missing = [m for m in context.models if context.names and not any(places.candidates(m.folder, m.file))]
    for model in missing:
        print(f"BAD  {model.folder}/{model.file}: missing")
    bad = len(missing) + sum(bool(found.wrong) for found in verified)
    print(f"{len(verified) + len(missing) - bad} good, {bad} bad; in {', '.join(map(str, places.roots))}")
    return 1 if bad else 0


def _backup(context: _Context) -> int:
    mirror = context.mirror
    steps = mirror.to_back_up()
    _print_steps(steps, "store", "replace in the bucket")
    if not steps:
        print(f"nothing to store: {mirror.store.name} has everything")
        return 0
    if not context.is_real_run("stored"):
        return 0
    failures = mirror.back_up(steps)
    for failure in failures:
        print(f"not stored: {failure}")
    print(f"{len(steps) - len(failures)} of {len(steps)} files stored in {mirror.store.name}")
    return 1 if failures else 0


def _restore(context: _Context) -> int:
    mirror = context.mirror
    steps = mirror.to_restore(context.models if context.names else None)
    _print_steps(steps, "download", "replace here")
    if not steps:
        print(f"nothing to restore: {mirror.root} already has every file that {mirror.store.name} has")
        return 0
    if not context.is_real_run("downloaded"):
        return 0
    kept = [step for step in steps if step.replaces and not context.options.yes]
    limits = TransferLimits(context.settings.download_stall_timeout)
    failures = mirror.restore([step for step in steps if step not in kept], limits)
    for step in kept:
        print(f"kept: {step.key} differs here; --yes replaces it")
    for failure in failures:
        print(f"not restored: {failure}")
    print(f"{len(steps) - len(kept) - len(failures)} of {len(steps)} files restored to {mirror.root}")
    return 1 if failures or kept else 0


def _prune(context: _Context) -> int:
    if context.options.bucket:
        mirror = context.mirror
        to_delete = mirror.only_stored()
        return _remove(context, to_delete, lambda: mirror.store.delete(to_delete))
    root = context.places.target
    check_models_folder(root)
    leftovers = [path for path in leftovers_below(root) if not is_in_use(path)]
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in leftovers}
    if context.names:
        known, needed = _keys(context.manifest.models), _keys(context.models)
        sizes |= {key: (root / key).stat().st_size for key in files_below(root) if key in known - needed}

    def remove() -> None:
        for key in sizes:
            (root / key).unlink(missing_ok=True)

    return _remove(context, sizes, remove)


def _remove(context: _Context, sizes: dict[str, int], remove: Callable[[], None]) -> int:
    for key, size in sizes.items():
        print(f"remove {key} ({size / 1e9:.2f} GB)")
    if not sizes:
        print("nothing to remove")
    elif not context.options.yes:
        print(f"nothing was removed: --yes removes these {len(sizes)} files, {sum(sizes.values()) / 1e9:.2f} GB")
    elif context.is_real_run("removed"):
        remove()
        print(f"{len(sizes)} files removed, {sum(sizes.values()) / 1e9:.2f} GB")
    return 0


def _pin(context: _Context) -> int:
    changes = pin_manifest(context.settings.hf_endpoint, context.settings.hf_token, context.names, context.options.yes)
    for change in changes:
        print(change)
    print("written" if changes and context.options.yes else f"{len(changes)} differences; --yes writes them")
    return 0


def _schema(context: _Context) -> int:
    print(json.dumps(OwnManifest.model_json_schema(), indent=2))
    return 0


_TRANSFER_COMMANDS = ("fetch", "backup", "restore")  # they log their progress; on a terminal a progress bar shows it
COMMANDS: dict[str, Callable[[_Context], int]] = {
    "sets": _sets,
    "list": _list,
    "fetch": _fetch,
    "verify": _verify,
    "backup": _backup,
    "restore": _restore,
    "prune": _prune,
    "pin": _pin,
    "schema": _schema,
}


def _never_stop() -> None:
    """The check that a download calls to learn whether to stop: only Ctrl-C stops a command."""


def _keys(models: Iterable[Model]) -> set[str]:
    """The paths below a root at which files of these models may be."""
    return {f"{folder}/{model.file}" for model in models for folder in folders_for(model.folder)}


def _print_steps(steps: Iterable[Step], new: str, other: str) -> None:
    for step in steps:
        print(f"{other if step.replaces else new} {step.key} ({step.size / 1e9:.2f} GB)")


def _size(models: Iterable[Model]) -> str:
    sizes = [model.size for model in models]
    known = sum(size for size in sizes if size)
    return f"{'>' if None in sizes and known else ''}{known / 1e9:.2f} GB" if known else "?"
