"""The packs of CUSTOM_NODES come from a registry and from git, once for all workers, and never end a worker."""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from src.errors import InvalidSetting
from src.packs import InstalledPacks, install_packs, libraries
from src.settings import Settings, read_settings
from src.settings.node_packs import PackSource, read_source, read_sources

from ..models.test_fetch import mounted as mounting
from ..pack_server import NODES, PackServer, pack_server, zipped

mounted = contextmanager(mounting)


@dataclass
class Place:
    """Where packs are put, and where they come from."""

    folder: Path
    server: PackServer

    def settings(self, *packs: str, **changes: Any) -> Settings:
        given = Settings(
            custom_nodes=read_sources(",".join(packs)),
            custom_nodes_dir=str(self.folder),
            comfy_registry=self.server.url,
            trusted_hosts=(self.server.host,),
        )
        return replace(given, **changes)

    def install(self, *packs: str, **changes: Any) -> InstalledPacks:
        return install_packs(self.settings(*packs, **changes), sys.executable)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with pack_server(tmp_path / "server") as server:
        server.publish("a-pack", "1.2.3", {"__init__.py": NODES.format(name="FromRegistry")})
        yield Place(tmp_path / "volume", server)


def files_of(installed: InstalledPacks) -> set[str]:
    """All files of packs, by their paths below custom_nodes."""
    folder = installed.folders[0]
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- Which ----------------------------------------------------------------------------------------------


def test_a_pack_is_named_by_the_registry_or_by_a_repository_and_commit() -> None:
    commit = "A" * 40
    assert read_source("comfyui-kjnodes@1.1.0") == PackSource("comfyui-kjnodes", "1.1.0")
    by_git = read_source(f"https://github.com/owner/A-Pack.git@{commit}")
    assert (by_git.repository, by_git.commit, by_git.name) == (
        "https://github.com/owner/A-Pack",
        commit.lower(),
        "A-Pack",
    )
    for wrong in (
        "a-pack",
        "a-pack@latest",
        f"git@github.com:o/r@{commit}",
        "https://github.com/o/r@main",
        "../x@1.0.0",
    ):
        with pytest.raises(InvalidSetting, match="CUSTOM_NODES must be id@1"):
            read_settings({"CUSTOM_NODES": wrong})
    with pytest.raises(InvalidSetting, match="a-pack is listed twice"):
        read_settings({"CUSTOM_NODES": "a-pack@1.0.0, A-Pack@1.0.1"})


# --- They come ---------------------------------------------------------------------------------------------


def test_packs_come_from_the_registry_and_from_git_once(place: Place) -> None:
    commit = place.server.commit("other", {"__init__.py": NODES.format(name="FromGit"), "sub/data.txt": "1"})
    place.server.commit("other", {"__init__.py": "raise RuntimeError"})
    wanted = ("a-pack@1.2.3", f"{place.server.repository('other')}@{commit}")
    installed = place.install(*wanted)
    assert installed.failures == {}
    assert files_of(installed) == {
        *("a-pack/__init__.py", "a-pack/pyproject.toml", "other/__init__.py", "other/sub/data.txt"),
    }
    assert "FromGit" in (installed.folders[0] / "other/__init__.py").read_text()
    place.server.requests.clear()
    assert place.install(*wanted) == installed
    assert place.server.requests == []


def test_other_packs_and_other_libraries_of_comfyui_have_another_folder(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.server.publish("a-pack", "1.2.4", {"__init__.py": ""})
    one, other = place.install("a-pack@1.2.3"), place.install("a-pack@1.2.4")
    monkeypatch.setattr("src.packs.install.environment_of", lambda python: ["torch==9"])
    assert len({one.folders, other.folders, place.install("a-pack@1.2.3").folders}) == 3


def test_two_workers_fetch_once(place: Place) -> None:
    found: list[InstalledPacks] = []
    threads = [threading.Thread(target=lambda: found.append(place.install("a-pack@1.2.3"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [installed.failures for installed in found] == [{}, {}, {}]
    assert len([line for line in place.server.requests if "/archives/" in line]) == 1


# --- They do not --------------------------------------------------------------------------------------------


def test_a_pack_that_cannot_be_had_is_left_out_and_tried_again(place: Place) -> None:
    gone = f"{place.server.repository('gone')}@{'0' * 40}"
    commit = place.server.commit("there", {"__init__.py": ""})
    other = f"{place.server.repository('there')}@{'1' * 40}"
    installed = place.install("a-pack@1.2.3", "b-pack@1.0.0", gone, other)
    assert set(installed.failures) == {"b-pack", "gone", "there"}
    assert "not found in ComfyUI's registry" in installed.failures["b-pack"]
    assert "cannot be fetched" in installed.failures["gone"]
    assert files_of(installed) == {"a-pack/__init__.py", "a-pack/pyproject.toml"}
    place.server.publish("b-pack", "1.0.0", {"__init__.py": ""})
    assert set(place.install("a-pack@1.2.3", "b-pack@1.0.0", gone, other).failures) == {"gone", "there"}
    assert commit


ODD = {
    "names another pack": ({"node_id": "evil", "version": "1.2.3", "downloadUrl": "x"}, "returned evil@1.2.3"),
    "gives another version": ({"node_id": "a-pack", "version": "9.9.9", "downloadUrl": "x"}, "returned a-pack@9"),
    "has banned it": ({"node_id": "a-pack", "version": "1.2.3", "status": "NodeVersionStatusBanned"}, "banned"),
    "has no address": ({"node_id": "a-pack", "version": "1.2.3"}, "cannot be fetched"),
    "names a private address": (
        {"node_id": "a-pack", "version": "1.2.3", "downloadUrl": "https://169.254.169.254/x"},
        "private address",
    ),
    "says nonsense": ([1], "the response is not a JSON object"),
}


@pytest.mark.parametrize(("told", "said"), ODD.values(), ids=ODD.keys())
def test_a_registry_that(place: Place, told: Any, said: str) -> None:
    place.server.answers["/nodes/a-pack/install"] = (200, told)
    installed = place.install("a-pack@1.2.3")
    assert said in installed.failures["a-pack"]
    assert files_of(installed) == set()


def test_a_registry_that_is_down_leaves_the_worker_running(place: Place) -> None:
    place.server.answers["/nodes/a-pack/install"] = (503, {})
    assert "registry: 127.0.0.1 answered with status 503" in place.install("a-pack@1.2.3").failures["a-pack"]
    nobody = place.install("a-pack@1.2.3", comfy_registry="http://127.0.0.1:9", trusted_hosts=("127.0.0.1:9",))
    assert "registry: 127.0.0.1 could not be reached" in nobody.failures["a-pack"]


def test_a_slow_registry_does_not_keep_the_worker(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.storage.web._JSON_TIMEOUT_SECONDS", 0.3)
    place.server.delay = 2.0
    assert "did not deliver within" in place.install("a-pack@1.2.3").failures["a-pack"]


def test_a_repository_that_has_moved_is_followed(place: Place) -> None:
    commit = place.server.commit("new-name", {"__init__.py": NODES.format(name="Moved")})
    place.server.moved["old-name"] = "new-name"
    installed = place.install(f"{place.server.repository('old-name')}@{commit}")
    assert installed.failures == {}
    assert files_of(installed) == {"old-name/__init__.py"}


def test_a_full_disk_is_told(tmp_path: Path, place: Place) -> None:
    (tmp_path / "disk").mkdir()
    place.server.publish("large", "1.0.0", {"data.txt": secrets.token_hex(3_000_000)})
    with mounted(tmp_path / "disk", "size=2m") as disk:
        installed = place.install("large@1.0.0", custom_nodes_dir=str(disk))
        assert "No space left on device" in installed.failures["large"]
        assert not [path for path in disk.rglob("*") if path.stat().st_size > 10_000 and path.is_file()]


PROJECT = '[project]\nname = "{}"\nversion = "{}"\n'
ARCHIVES = {
    "no zip file": (b"<html>", "not a valid zip file"),
    "a name outside": (zipped({"../../evil.py": "", "pyproject.toml": ""}), "leads outside it"),
    "an absolute name": (zipped({"/etc/evil.py": ""}), "leads outside it"),
    "another pack": (zipped({"pyproject.toml": PROJECT.format("b-pack", "1.2.3")}), "pyproject.toml of b-pack@1.2.3"),
    "another version": (zipped({"pyproject.toml": PROJECT.format("a-pack", "0.0.1")}), "pyproject.toml of a-pack@0.0"),
    "no project": (zipped({"__init__.py": ""}), "pyproject.toml of nothing"),
}


@pytest.mark.parametrize(("content", "said"), ARCHIVES.values(), ids=ARCHIVES.keys())
def test_an_archive_with(place: Place, content: bytes, said: str) -> None:
    place.server.archives["a-pack", "1.2.3"] = content
    installed = place.install("a-pack@1.2.3")
    assert said in installed.failures["a-pack"]
    assert files_of(installed) == set()


def test_a_folder_that_cannot_be_written_is_told(place: Place) -> None:
    place.folder.parent.joinpath("file").write_text("")
    installed = place.install("a-pack@1.2.3", custom_nodes_dir=str(place.folder.parent / "file" / "x"))
    assert "CUSTOM_NODES_DIR" in installed.failures["a-pack"]


# --- Libraries ------------------------------------------------------------------------------------------------


def test_what_a_pack_wants_is_read_from_its_requirements_or_its_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["one>=1", "two"]\n')
    assert libraries.wanted_by(tmp_path) == ["one>=1", "two"]
    (tmp_path / "requirements.txt").write_text("\ufeff# a comment\n\nthree==3\n", encoding="utf-8")
    assert libraries.wanted_by(tmp_path) == ["three==3"]
    assert libraries.wanted_by(tmp_path / "nothing") == []


def wheel(folder: Path, name: str, version: str) -> None:
    """A wheel of a library with one module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{name}-{version}-py3-none-any.whl").write_bytes(zipped(files))


def test_libraries_lie_beside_those_of_comfyui_and_a_pack_that_would_change_them_is_left_out(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    for version in ("1.0", "2.0"):
        wheel(wheels, "tiny_library", version)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    import pydantic

    place.server.publish("good", "1.0.0", {"__init__.py": "", "requirements.txt": "tiny_library==1.0\npydantic\n"})
    wheel(wheels, "pydantic", "1.0")
    place.server.publish("breaks", "1.0.0", {"__init__.py": "", "requirements.txt": "pydantic==1.0\n"})
    place.server.publish("clashes", "1.0.0", {"__init__.py": "", "requirements.txt": "tiny_library==2.0\n"})
    installed = place.install("good@1.0.0", "breaks@1.0.0", "clashes@1.0.0")
    assert set(installed.failures) == {"breaks", "clashes"}
    assert installed.failures["breaks"].startswith("its libraries cannot be installed: pip: ")
    assert installed.libraries is not None
    assert {path.name for path in installed.libraries.iterdir() if path.suffix != ".dist-info"} == {"tiny_library.py"}
    assert "1.0" in (installed.libraries / "tiny_library.py").read_text()
    assert pydantic.VERSION != "1.0"
    place.server.requests.clear()
    assert place.install("good@1.0.0").failures == {}


# --- Workers that end in the middle, and what must not be lost ---------------------------------------------------


def with_library(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that wants a library, and an index that has it."""
    wheel(tmp_path / "wheels", "tiny_library", "1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    place.server.publish("wants", "1.0.0", {"__init__.py": "", "requirements.txt": "tiny_library\n"})


def test_a_worker_that_ends_while_it_installs_leaves_nothing_that_is_taken_for_done(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_library(place, tmp_path, monkeypatch)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("src.packs.install.install_libraries", killed)
        place.install("wants@1.0.0", "later@1.0.0")
    installed = place.install("wants@1.0.0", "later@1.0.0")
    assert installed.libraries is not None
    assert (installed.libraries / "tiny_library.py").is_file()
    place.server.publish("later", "1.0.0", {"__init__.py": "", "requirements.txt": "tiny_library\n"})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("src.packs.install.install_libraries", killed)
        place.install("wants@1.0.0", "later@1.0.0")
    again = place.install("wants@1.0.0", "later@1.0.0")
    assert again.failures == {}
    assert (again.folders, again.libraries) != (installed.folders, installed.libraries)
    assert (installed.libraries / "tiny_library.py").is_file()  # a worker that runs has it still
    assert not list(place.folder.glob("*/tmp-*"))


def test_an_outage_of_the_index_takes_nothing_away(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_library(place, tmp_path, monkeypatch)
    wanted = ("a-pack@1.2.3", "wants@1.0.0", "gone@1.0.0")
    before = place.install(*wanted)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    for content in ({"__init__.py": "", "requirements.txt": "tiny_library\n"}, None):
        if content:
            place.server.publish("gone", "1.0.0", content)
        during = place.install(*wanted)
        assert (during.folders, during.libraries) == (before.folders, before.libraries)
        assert set(during.failures) == {"gone"}
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    assert place.install(*wanted).failures == {}


def test_a_state_that_cannot_be_read_is_made_again(place: Place) -> None:
    place.install("a-pack@1.2.3")
    (state,) = place.folder.glob("*/current.json")
    state.write_text('{"folder":')
    installed = place.install("a-pack@1.2.3")
    assert installed.failures == {}
    assert files_of(installed)


# --- Packs that want too much ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["-r /run/secrets", "--index-url https://x", "x @ git+https://x/y@1", "https://x/y.tar.gz", "./here", "a b"],
)
def test_a_requirement_that_is_more_than_a_name_and_versions_is_refused(place: Place, line: str) -> None:
    place.server.publish("odd", "1.0.0", {"__init__.py": "", "requirements.txt": f"{line}\n"})
    installed = place.install("odd@1.0.0", "a-pack@1.2.3")
    assert "its requirements have a line that is" in installed.failures["odd"]
    assert line not in installed.failures["odd"]
    assert files_of(installed) == {"a-pack/__init__.py", "a-pack/pyproject.toml"}


def test_usual_requirements_are_taken(tmp_path: Path) -> None:
    lines = [
        "numpy",
        "opencv-python-headless>=4,<6  # for pictures",
        "torch[x,y] ~= 2.0 ; python_version < '4'",
        "a==1.0+cu",
    ]
    (tmp_path / "requirements.txt").write_text("\n".join(lines))
    assert libraries.wanted_by(tmp_path) == [lines[0], "opencv-python-headless>=4,<6", *lines[2:]]


def test_a_link_that_leads_out_of_a_repository_is_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("HF_TOKEN=secret")
    place.server.commit("linked", {"__init__.py": ""})
    work = place.server.folder / "linked-work"
    (work / "requirements.txt").symlink_to(tmp_path / "secrets")
    commit = place.server.commit("linked", {"more": "1"})
    failure = place.install(f"{place.server.repository('linked')}@{commit}").failures["linked"]
    assert "a link that leads outside it" in failure


def test_a_repository_that_wants_a_login_leaves_the_worker_running(place: Place) -> None:
    place.server.answers["/git/private/info/refs"] = (401, {})
    failure = place.install(f"{place.server.repository('private')}@{'0' * 40}").failures["private"]
    assert "cannot be fetched" in failure


def test_git_is_not_asked_at_private_addresses_or_led_there(place: Place) -> None:
    private = place.server.url.replace("127.0.0.1", "127.0.0.2")
    commit = place.server.commit("other", {"__init__.py": ""})
    failure = place.install(f"{private}/git/other@{commit}", allow_http_urls=True).failures["other"]
    assert "cannot be fetched" in failure
    assert not [line for line in place.server.requests if "/git/" in line]


@pytest.mark.parametrize("name", ["..", ".hidden", "pack.disabled"])
def test_a_name_that_comfyui_does_not_load_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="whose names ComfyUI loads"):
        read_source(f"https://github.com/o/{name}@{'0' * 40}")
