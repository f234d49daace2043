"""A pack's files: from the registry's archive, or a git repository at a commit."""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..deadline import Deadline
from ..errors import InputFileRefused, InputFileUnavailable, PackFailed
from ..needs.project import read_project
from ..settings import PackSource
from ..storage.web import Fetch, FetchRules, GuardedHttp, GuardedHttps, checked_url, connect_checked
from .registry import Registry

_TIMEOUT_SECONDS = 300.0
_MAX_BYTES = 1 << 30  # of a pack, unpacked: some bring small models
_MAX_FILES = 20_000
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class Fetched(NamedTuple):
    """The registry's archive: its URL and SHA-256; "" for git."""

    url: str = ""
    sha256: str = ""


def fetch_pack(source: PackSource, folder: Path, registry: Registry, rules: FetchRules) -> Fetched:
    """Put a pack's files into `folder`, which must not exist.

    Raises PackFailed, and OSError where files cannot be written.
    """
    if source.id:
        return _from_registry(source, folder, registry, rules)
    _from_git(source, folder, rules)
    _check_tree(source, folder)
    return Fetched()


def newest_commit(repository: str, rules: FetchRules) -> str:
    """The commit that the HEAD of a repository is at. Raises PackFailed."""
    client, path = _git_client(repository, rules, repository)
    try:
        head = client.get_refs(path.encode()).refs.get(b"HEAD")
    except _git_errors() as error:
        raise PackFailed(f"{repository}: the repository cannot be read") from error
    if head is None:
        raise PackFailed(f"{repository}: the repository has no commit")
    return str(head.decode())


def _git_client(repository: str, rules: FetchRules, where: str) -> tuple[Any, str]:
    """A client for a repository's server, and its path there. Raises PackFailed.

    Its connections, redirects too, go to addresses that were checked.
    """
    from dulwich.client import HttpGitClient  # noqa: PLC0415  slow to import
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager  # noqa: PLC0415

    try:
        checked_url(repository, rules, where)
    except InputFileRefused as error:
        raise PackFailed(error.message) from error

    def connect(host: str, port: int, timeout: float) -> Any:
        return connect_checked(host, port, timeout, rules, where)

    def connect_plainly(host: str, port: int, timeout: float) -> Any:
        if not (rules.allow_http or rules.trusts(host, port)):
            raise InputFileRefused(f"{where}: its URL is plain http")
        return connect(host, port, timeout)

    class Plain(HTTPConnectionPool):
        ConnectionCls = partial(GuardedHttp, connect=connect_plainly)  # type: ignore[assignment]

    class Encrypted(HTTPSConnectionPool):
        ConnectionCls = partial(GuardedHttps, connect=connect)  # type: ignore[assignment]

    manager = PoolManager(timeout=60.0, retries=2)
    manager.pool_classes_by_scheme = {"http": Plain, "https": Encrypted}
    base, _, path = repository.rpartition("/")
    return HttpGitClient(base, pool_manager=manager, quiet=True), path


def _git_errors() -> tuple[type[Exception], ...]:
    """What dulwich raises for servers and repositories that are not as they should be."""
    from dulwich.client import HTTPProxyUnauthorized, HTTPUnauthorized  # noqa: PLC0415  slow to import
    from dulwich.errors import FileFormatException, GitProtocolError, NotGitRepository  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    of_server = (HTTPUnauthorized, HTTPProxyUnauthorized, GitProtocolError, NotGitRepository, HTTPError)
    return (*of_server, FileFormatException, InputFileRefused, KeyError, AssertionError, ValueError)


def _from_registry(source: PackSource, folder: Path, registry: Registry, rules: FetchRules) -> Fetched:
    version = registry.version(source.id, source.version)
    archive = folder.with_name(f"{folder.name}.zip")
    digest, received = hashlib.sha256(), 0
    with archive.open("wb") as opened:

        def write(chunk: bytes) -> None:
            nonlocal received
            received += len(chunk)
            if received > _MAX_BYTES:
                raise PackFailed(f"{source}: its archive is larger than {_MAX_BYTES:,} bytes")
            digest.update(chunk)
            try:
                opened.write(chunk)
            except OSError as error:  # not of the network
                raise PackFailed(f"{source}: its archive cannot be saved: {error.strerror}") from error

        try:
            Fetch(rules, str(source), Deadline(_TIMEOUT_SECONDS)).download(version.url, write)
        except (InputFileRefused, InputFileUnavailable) as error:
            raise PackFailed(f"its archive cannot be fetched: {error.message}") from error
    _unpack(source, archive, folder)
    _check_project(source, folder)
    return Fetched(version.url, digest.hexdigest())


def _unpack(source: PackSource, archive: Path, folder: Path) -> None:
    """Unpack a zip archive whose names stay in its folder. Raises PackFailed."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if len(members) > _MAX_FILES or sum(member.file_size for member in members) > _MAX_BYTES:
                raise PackFailed(f"{source}: its archive is too large for a node pack")
            for member in members:
                parts = PurePosixPath(member.filename.replace("\\", "/"))
                is_link = stat.S_ISLNK(member.external_attr >> 16)
                if parts.is_absolute() or ".." in parts.parts or is_link or "\0" in member.filename:
                    raise PackFailed(f"{source}: its archive has a file name that leads outside it")
            opened.extractall(folder)
    except _BAD_ZIP as error:
        raise PackFailed(f"{source}: its archive is not a valid zip file") from error


def _check_project(source: PackSource, folder: Path) -> None:
    """Raise PackFailed if an archive is not the pack and version that its pyproject.toml says."""
    found = read_project(folder)
    if found.name.lower() != source.id.lower() or found.version not in (source.version, ""):
        said = f"{found.name or 'nothing'}@{found.version or '?'}"[:200]
        raise PackFailed(f"{source}: its archive has a pyproject.toml of {said}")


def _check_tree(source: PackSource, folder: Path) -> None:
    """Raise PackFailed for a tree that is too large, or has a link that leads out of it."""
    size = count = 0
    for path in folder.rglob("*"):
        count += 1
        size += path.lstat().st_size
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise PackFailed(f"{source}: it has a link that leads outside it")
    if count > _MAX_FILES or size > _MAX_BYTES:
        raise PackFailed(f"{source}: it is too large for a node pack")


def _from_git(source: PackSource, folder: Path, rules: FetchRules) -> None:
    """Check out a commit, without history."""
    from dulwich.index import build_index_from_tree  # noqa: PLC0415  slow to import
    from dulwich.objects import Commit, ObjectID  # noqa: PLC0415
    from dulwich.repo import Repo  # noqa: PLC0415

    client, path = _git_client(source.repository, rules, str(source))
    folder.mkdir()
    commit_id = ObjectID(source.commit.encode())
    with Repo.init(str(folder)) as repo:
        try:
            client.fetch(path, repo, determine_wants=lambda refs, depth=None: [commit_id], depth=1)
            commit = repo[commit_id]
        except _git_errors() as error:
            raise PackFailed(f"{source}: the repository, or that commit of it, cannot be fetched") from error
        if not isinstance(commit, Commit):
            raise PackFailed(f"{source}: not a commit")
        try:
            build_index_from_tree(str(folder), repo.index_path(), repo.object_store, commit.tree)
        except _git_errors() as error:
            raise PackFailed(f"{source}: its files cannot be checked out") from error
    shutil.rmtree(folder / ".git")
