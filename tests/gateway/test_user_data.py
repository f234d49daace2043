"""Settings and saved workflows are kept, and listed as the editor expects it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .here import Here, gateway_here


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with gateway_here(tmp_path) as running:
        yield running


def test_there_is_one_user_and_its_settings_are_kept(here: Here, tmp_path: Path) -> None:
    assert here.get("/api/users").json == {"storage": "server", "migrated": True}
    assert here.get("/api/settings").json == {}
    assert here.get("/api/settings/Comfy.Locale").json is None
    changed = here.ask("POST", "/api/settings/Comfy.Locale", b'"de"')
    assert (changed.status, changed.content) == (200, b"")
    assert here.post("/settings", {"Comfy.Other": [1], "Comfy.Locale": "fr"}).status == 200
    assert here.get("/settings").json == {"Comfy.Locale": "fr", "Comfy.Other": [1]}
    with gateway_here(tmp_path) as again:
        assert again.get("/api/settings/Comfy.Locale").json == "fr"


def test_settings_that_are_changed_at_the_same_time_are_all_kept(here: Here) -> None:
    def change(number: int) -> int:
        return here.post(f"/settings/id{number}", number).status

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(change, range(60))) == {200}
    assert here.get("/settings").json == {f"id{number}": number for number in range(60)}


def test_a_slow_change_of_a_setting_undoes_no_other(here: Here) -> None:
    import http.client

    slow = http.client.HTTPConnection(here.host, timeout=30)
    slow.putrequest("POST", "/settings/slow")
    slow.putheader("Content-Length", "1")
    slow.endheaders()
    while here.post("/settings/quick", 1).status != 200:
        pass
    slow.send(b"2")
    assert slow.getresponse().status == 200
    slow.close()
    assert here.get("/settings").json == {"quick": 1, "slow": 2}


@pytest.mark.parametrize("body", [b"NaN", b"[Infinity]", b"1e999", b"{", b"", b"\xff", b"[" * 100_000])
def test_a_setting_that_no_browser_could_read_again_is_refused(here: Here, body: bytes) -> None:
    assert here.ask("POST", "/settings/x", body).status == 400
    assert here.get("/settings").json == {}


def test_a_broken_file_of_settings_counts_as_none(here: Here) -> None:
    (here.folder / "user" / "comfy.settings.json").write_text("{")
    assert here.get("/settings").json == {}
    assert here.post("/settings/x", 1).status == 200
    assert here.get("/settings").json == {"x": 1}


def test_a_workflow_is_saved_read_renamed_and_deleted(here: Here) -> None:
    content = b'{"nodes": []}'
    saved = here.ask("POST", "/api/userdata/workflows%2FMy%20%C3%84%201%25.json", content)
    assert saved.json == "workflows/My Ä 1%.json"
    read = here.ask("GET", "/api/userdata/workflows%2FMy%20%C3%84%201%25.json")
    assert (read.status, read.content) == (200, content)
    assert read.headers["content-disposition"].startswith("attachment")
    moved = here.ask(
        "POST", "/userdata/workflows%2FMy%20%C3%84%201%25.json/move/workflows%2Fdeep%2Fb.json?full_info=true"
    )
    assert (moved.json["path"], moved.json["size"]) == ("workflows/deep/b.json", len(content))
    assert here.ask("GET", "/userdata/workflows%2FMy%20%C3%84%201%25.json").status == 404
    assert here.ask("DELETE", "/userdata/workflows%2Fdeep%2Fb.json").status == 204
    assert here.ask("DELETE", "/userdata/workflows%2Fdeep%2Fb.json").status == 404
    assert here.ask("POST", "/userdata/nope/move/b").status == 404


def test_nothing_is_overwritten_that_must_not_be(here: Here) -> None:
    here.ask("POST", "/userdata/a.json", b"old")
    here.ask("POST", "/userdata/b.json", b"b")
    refused = here.ask("POST", "/userdata/a.json?overwrite=false", b"new")
    assert (refused.status, refused.text) == (409, "File already exists")
    assert here.ask("POST", "/userdata/b.json/move/a.json?overwrite=false").status == 409
    assert here.ask("GET", "/userdata/a.json").content == b"old"
    assert here.ask("POST", "/userdata/a.json", b"new").status == 200
    assert here.ask("POST", "/userdata/b.json/move/a.json").json == "a.json"
    assert here.ask("GET", "/userdata/a.json").content == b"b"


def test_files_are_listed_in_the_three_forms_that_the_editor_asks_for(here: Here) -> None:
    assert (here.get("/userdata").status, here.get("/userdata", dir="workflows").status) == (400, 404)
    for name in ("workflows%2Fb.json", "workflows%2Fsub%2Fa.json", "workflows%2F.index.json", "other.txt"):
        here.ask("POST", f"/userdata/{name}", b"12")
    assert here.get("/userdata", dir="workflows").json == ["b.json"]
    assert here.get("/userdata", dir="workflows", recurse="true").json == ["b.json", "sub/a.json"]
    split = here.get("/userdata", dir="workflows", recurse="true", split="true").json
    assert split == [["b.json", "b.json"], ["sub/a.json", "sub", "a.json"]]
    (full,) = here.get("/userdata", dir="workflows/sub", full_info="true", split="true").json
    assert (full["path"], full["size"]) == ("a.json", 2)
    modified = (here.folder / "user/workflows/sub/a.json").stat().st_mtime
    assert full["modified"] == int(modified * 1000) and isinstance(full["created"], int)


def test_the_second_list_has_folders_first_and_paths_from_the_root(here: Here) -> None:
    for name in ("workflows%2Fsub%2FA.json", "workflows%2Fb.json"):
        here.ask("POST", f"/userdata/{name}", b"1")
    (here.folder / "user/workflows/broken").symlink_to("nothing")
    listed = here.get("/v2/userdata", path="workflows").json
    assert [(entry["path"], entry["type"]) for entry in listed] == [
        ("workflows/sub", "directory"),
        ("workflows/sub/A.json", "file"),
        ("workflows/b.json", "file"),
        ("workflows/broken", "file"),
    ]
    assert {entry["path"] for entry in here.get("/v2/userdata").json} >= {"workflows", "workflows/b.json"}
    assert here.get("/v2/userdata", path="nope").status == 404
    assert here.get("/v2/userdata", path="workflows/b.json").status == 400


def test_the_lists_work_where_the_folder_is_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with gateway_here(tmp_path / "link") as here:
        here.ask("POST", "/userdata/workflows%2Fa.json", b"1")
        assert here.get("/userdata", dir="workflows").json == ["a.json"]
        assert {entry["path"] for entry in here.get("/v2/userdata").json} >= {"workflows/a.json"}


@pytest.mark.parametrize(
    "kind", ["page.html", "code.js", "picture.svg", "data.xml", "feed.rss", "mail.mht", "x.xhtml"]
)
def test_no_file_of_a_user_is_shown_as_a_page_of_this_server(here: Here, kind: str) -> None:
    here.ask("POST", f"/userdata/{kind}", b"<script>alert(1)</script>")
    read = here.ask("GET", f"/userdata/{kind}")
    assert read.headers["content-type"] == "application/octet-stream"
    assert read.headers["x-content-type-options"] == "nosniff"
    assert read.headers["content-disposition"].startswith("attachment")


def test_only_the_style_sheet_of_the_user_is_one(here: Here) -> None:
    for name in ("user.css", "sub%2Fuser.css"):
        here.ask("POST", f"/userdata/{name}", b"body {}")
    assert here.ask("GET", "/userdata/user.css").headers["content-type"] == "text/css"
    assert here.ask("GET", "/userdata/sub%2Fuser.css").headers["content-type"] == "application/octet-stream"


def test_a_name_that_no_file_can_have_is_refused(here: Here) -> None:
    here.ask("POST", "/userdata/file", b"1")
    for name in ("x" * 300, "file%2Fbelow", "workflows%2F" + "y" * 256):
        for method, path in (("POST", name), ("GET", name), ("DELETE", name), ("POST", f"file/move/{name}")):
            assert here.ask(method, f"/userdata/{path}", b"1").status in (400, 404), (method, name)
    assert here.ask("GET", "/userdata/file").content == b"1"
    assert here.ask("POST", f"/userdata/{'z' * 255}", b"1").status == 200


def test_a_folder_is_never_taken_for_a_file(here: Here) -> None:
    here.ask("POST", "/userdata/folder%2Fa", b"1")
    here.ask("POST", "/userdata/b", b"2")
    assert here.ask("POST", "/userdata/folder", b"1").status == 400
    assert here.ask("GET", "/userdata/folder").status == 404
    assert here.ask("DELETE", "/userdata/folder").status == 404
    assert here.ask("POST", "/userdata/b/move/folder").status == 400
    assert here.ask("GET", "/userdata/b").content == b"2"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(here: Here) -> None:
    here.post("/settings/x", 1)
    folder = here.folder / "user"
    before = sorted(folder.iterdir())
    (folder / "comfy.settings.json").unlink()
    (folder / "comfy.settings.json").mkdir()
    assert here.post("/settings/x", 2).status == 400
    assert sorted(folder.iterdir()) == before
    assert json.loads(here.post("/settings/x", 2).content)["error"]
