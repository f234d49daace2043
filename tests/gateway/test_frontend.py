"""The editor's files, its extensions and templates, and the routes of little interest."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.gateway import frontend

from .here import Here, gateway_here

PACKAGES = {
    "comfyui_frontend_package": {
        "__init__.py": "",
        "static/index.html": "<title>the editor</title>",
        "static/assets/app.js": "let a = 1",
        "static/extensions/core/nodes.js": "",
        "static/extensions/core/deep/more.js": "",
        "static/extensions/core/style.css": "",
        "secret.txt": "SECRET",
    },
    "comfyui_workflow_templates_json": {
        "__init__.py": "",
        "templates/index.json": "[]",
        "templates/flux.json": "{}",
        "secret.txt": "SECRET",
    },
    "comfyui_workflow_templates_media_image": {"__init__.py": "", "templates/flux-1.webp": "picture"},
}


def write(folder: Path) -> None:
    """The packages, in miniature."""
    for package, files in PACKAGES.items():
        for name, content in files.items():
            path = folder / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)


def forget() -> None:
    """Have Python look for the packages again."""
    for package in PACKAGES:
        sys.modules.pop(package, None)


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """A gateway where the packages are installed."""
    write(tmp_path / "packages")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    forget()
    with gateway_here(tmp_path) as here:
        yield here
    forget()


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """A gateway where they are not."""
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if "site-packages" not in folder])
    forget()
    with gateway_here(tmp_path) as here:
        yield here


def test_the_editor_is_served(editor: Here) -> None:
    page = editor.get("/")
    assert (page.status, page.text) == (200, "<title>the editor</title>")
    assert page.headers["content-type"].startswith("text/html")
    assert "no-store" in page.headers["cache-control"]
    assert editor.get("/assets/app.js").text == "let a = 1"
    assert "javascript" in editor.get("/assets/app.js").headers["content-type"]
    assert editor.get("/assets/none.js").status == 404
    assert editor.get("/assets").status in (403, 404)


def test_the_editor_loads_its_own_extensions_and_the_gateways(editor: Here) -> None:
    scripts = editor.get("/api/extensions").json
    own = ["/extensions/core/deep/more.js", "/extensions/core/nodes.js"]
    assert scripts == [*own, "/extensions/gateway/gateway.js"]
    for script in scripts:
        answer = editor.get(script)
        assert (answer.status, "javascript" in answer.headers["content-type"]) == (200, True)
    assert "/gateway/refresh" in editor.get(scripts[-1]).text
    assert "no-store" in editor.get(scripts[-1]).headers["cache-control"]


def test_templates_come_from_all_packages_that_are_installed(editor: Here) -> None:
    index = editor.get("/templates/index.json")
    assert (index.status, index.json, index.headers["content-type"]) == (200, [], "application/json")
    assert editor.get("/templates/flux.json").json == {}
    assert editor.get("/templates/flux-1.webp").headers["content-type"] == "image/webp"
    assert editor.get("/templates/none.json").status == 404


@pytest.mark.parametrize("start", ["/", "/templates/", "/extensions/gateway/", "/assets/"])
@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "..%5csecret.txt",
        "%00",
        "..%252fsecret.txt",
        "a%00b",
        "x" * 5000,
    ],
)
def test_nothing_else_of_the_packages_is_served(editor: Here, start: str, name: str) -> None:
    answer = editor.ask("GET", f"{start}{name}")
    assert 400 <= answer.status < 500
    assert "SECRET" not in answer.text


def test_without_the_editor_there_is_an_explanation_and_the_api(bare: Here) -> None:
    page = bare.get("/")
    assert (page.status, "pip install -r requirements-gateway.txt" in page.text) == (200, True)
    assert page.headers["content-type"].startswith("text/plain")
    assert bare.get("/api/extensions").json == ["/extensions/gateway/gateway.js"]
    assert bare.get("/templates/index.json").status == 404
    assert (bare.get("/prompt").status, bare.get("/api/object_info/SaveImage").status) == (200, 200)


def test_the_version_of_the_editor_is_told_only_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if "site-packages" not in folder])
    forget()
    assert frontend.editor_version() == ""
    write(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])  # `syspath_prepend` would restore the shorter path
    importlib.invalidate_caches()
    assert frontend.editor_version() != ""
    about = tmp_path / "comfyui_frontend_package-1.58.1.dist-info/METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: comfyui-frontend-package\nVersion: 1.58.1\n")
    assert frontend.editor_version() == "1.58.1"
    forget()


def test_the_files_of_a_folder_are_listed_newest_first_without_hidden_ones(bare: Here) -> None:
    for age, name in enumerate(("new.png", "old.png", ".hidden", "sub/deep.png")):
        path = bare.folder / "output" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        os.utime(path, (1000 - age, 1000 - age))
    assert bare.get("/internal/files/output").json == ["new.png [output]", "old.png [output]"]
    assert bare.get("/internal/files/input").json == []
    refused = bare.get("/internal/files/user")
    assert (refused.status, refused.json) == (400, {"error": "Invalid directory type"})


def test_what_a_gateway_does_not_have_is_empty(bare: Here) -> None:
    for route in ("/api/i18n", "/api/workflow_templates", "/api/global_subgraphs", "/internal/folder_paths"):
        assert bare.get(route).json == {}
    assert bare.get("/internal/logs").json == ""
    assert bare.get("/internal/logs/raw").json == {"entries": [], "size": {"cols": 80, "rows": 24}}
    body = b'{"clientId": "x", "enabled": false}'
    assert bare.ask("PATCH", "/internal/logs/subscribe", body, Content_Type="text/plain").status == 200
