"""Only this machine's own pages and programs use the gateway, and no request gets more than it should."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import websocket
from aiohttp import web

from .. import workflows
from .here import KEY, Here, contents, gateway_here, info, tracebacks
from .test_images import png

FAILED = (200, {"status": "FAILED", "error": "no"})
SECRET = "only-for-its-owner"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("safety")
    with gateway_here(folder, statuses=[FAILED]) as running:
        for place in (folder, running.folder, running.folder / "user"):
            (place / "secret.txt").write_text(SECRET)
        yield running


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No request may leave a traceback in the log."""
    with caplog.at_level(logging.DEBUG):
        yield
    assert tracebacks(caplog.records) == []


# --- Who asks ------------------------------------------------------------------------------------------


def test_the_address_is_only_of_this_machine(here: Here) -> None:
    assert here.host.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "localhost", "127.0.0.1:8188", "localhost:1", "[::1]:8188", "LOCALHOST"]
)
def test_requests_to_this_machine_by_its_own_names_are_served(here: Here, name: str) -> None:
    assert here.ask("GET", "/prompt", Host=name).status == 200


@pytest.mark.parametrize(
    "name",
    [
        "evil.example", "evil.example:8188", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example",
        "evil.example#127.0.0.1", "192.168.0.2:8188", "0.0.0.0", "", "[", "localhost.", "xn--localhost-",
    ],
)  # fmt: skip
def test_a_name_of_another_that_leads_here_is_refused(here: Here, name: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/api/userdata/secret.txt"), ("POST", "/prompt"), ("GET", "/none")):
        answer = here.ask(method, path, b"{}", Host=name)
        assert (answer.status, SECRET in answer.text) == (403, False)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "https://HOST",
        "http://localhost:1",
        "http://127.0.0.1",
        "http://HOST.evil.example",
        "file://",
        "x",
    ],
)
def test_pages_of_another_origin_are_refused(here: Here, origin: str) -> None:
    origin = origin.replace("HOST", here.host)
    for method, path in (("POST", "/prompt"), ("GET", "/history"), ("OPTIONS", "/prompt"), ("POST", "/upload/image")):
        assert here.ask(method, path, b"{}", Origin=origin).status == 403
    assert "access-control-allow-origin" not in here.ask("GET", "/prompt", Origin=f"http://{here.host}").headers


def test_pages_of_the_gateway_and_programs_are_served(here: Here) -> None:
    served: list[dict[str, Any]] = [
        {"Origin": f"http://{here.host}"}, {}, {"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"},
        {"Origin": f"http://{here.host}", "Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors"},
    ]  # fmt: skip
    for headers in served:
        assert here.ask("POST", "/interrupt", b"{}", **headers).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_may_link_here_but_neither_load_nor_frame_anything(here: Here, site: str) -> None:
    link: dict[str, Any] = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": "navigate"}
    assert here.ask("GET", "/", Sec_Fetch_Dest="document", **link).status == 200
    for wanted in ("iframe", "frame", "embed", "object", ""):
        assert here.ask("GET", "/", Sec_Fetch_Dest=wanted, **link).status == 403
    assert here.ask("POST", "/prompt", b"{}", Sec_Fetch_Dest="document", **link).status == 403
    for mode, wanted in (("no-cors", "image"), ("no-cors", "script"), ("cors", "empty"), ("websocket", "websocket")):
        answer = here.ask("GET", "/view?filename=x", Sec_Fetch_Site=site, Sec_Fetch_Mode=mode, Sec_Fetch_Dest=wanted)
        assert answer.status == 403


def test_a_websocket_is_opened_only_for_the_gateways_own_pages_and_programs(here: Here) -> None:
    address = f"ws://{here.host}/ws"
    for origin in ("http://evil.example", "null", "http://localhost"):
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            websocket.create_connection(address, timeout=10, origin=origin)
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        websocket.create_connection(address, timeout=10, host="evil.example", origin="http://evil.example")
    for options in ({"origin": f"http://{here.host}"}, {"suppress_origin": True}):
        connection = websocket.create_connection(address, timeout=10, **options)
        assert json.loads(connection.recv())["type"] == "status"
        connection.close()


# --- Paths ---------------------------------------------------------------------------------------------

UP = [
    "../secret.txt",
    "../../secret.txt",
    "x/../../secret.txt",
    "..\\secret.txt",
    "/secret.txt",
    "//secret.txt",
    "a\0.txt",
]
NAMES = [
    *(quote(name, safe="") for name in UP),
    *(name.replace("..", "%2e%2e").replace("\\", "%5c").replace("\0", "%00") for name in UP),
    *(quote(quote(name, safe=""), safe="") for name in UP),
    "%c0%ae%c0%ae%2fsecret.txt", "%ff", "%ed%a0%80", ".", "..", "%2e", "%2e%2e", "%00", "%0d%0aX:%201", "x" * 5000, "%F0%9F%98%80",
]  # fmt: skip
PATHS = [
    ("GET", "/userdata/{}"), ("POST", "/userdata/{}"), ("DELETE", "/userdata/{}"), ("POST", "/userdata/{}/move/x"),
    ("POST", "/userdata/mine/move/{}"), ("GET", "/userdata?dir={}"), ("GET", "/v2/userdata?path={}"),
    ("GET", "/settings/{}"), ("GET", "/view?filename={}"), ("GET", "/view?filename={}&type=temp&preview=webp"),
    ("GET", "/view?filename=secret.txt&subfolder={}"), ("GET", "/view?filename=secret.txt&type={}"),
    ("GET", "/view?filename={}%20[input]"), ("GET", "/models/{}"), ("GET", "/experiment/models/{}"), ("GET", "/object_info/{}"),
    ("GET", "/history/{}"), ("GET", "/jobs/{}"), ("POST", "/jobs/{}/cancel"), ("GET", "!/templates/{}"),
    ("GET", "!/extensions/gateway/{}"), ("GET", "!/internal/files/{}"), ("GET", "!/{}"), ("GET", "/{}"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_no_path_leads_out_of_a_folder(here: Here, quiet: None, method: str, path: str) -> None:
    (here.folder / "user/mine").write_text("mine")
    outside = {name: content for name, content in contents(here.folder.parent).items() if "/user/" not in name}
    for name in NAMES:
        asked = path.removeprefix("!").format(name)
        for prefix in ("",) if path.startswith("!") else ("", "/api"):
            answer = here.ask(method, prefix + asked, b"1" if method == "POST" else None)
            assert answer.status < 500, (asked, answer.text)
            assert SECRET not in answer.text, asked
            assert "x" not in answer.headers, asked
    after = {name: content for name, content in contents(here.folder.parent).items() if "/user/" not in name}
    assert {name: content for name, content in after.items() if outside.get(name) != content} == {}
    assert outside.keys() == after.keys()
    assert (here.folder / "user/secret.txt").read_text() == SECRET


# --- Bodies --------------------------------------------------------------------------------------------

BODIES: list[bytes] = [
    b"", b"{", b"null", b"5", b'"x"', b"[]", b"[[]]", b"\xff\xfe", b"\x00", b"[" * 200_000, b'{"a":' * 200_000, b"NaN", b"1e999",
    b'{"prompt": null}', b'{"prompt": 5}', b'{"prompt": "x"}', b'{"prompt": []}', b'{"prompt": {"1": 5}}',
    b'{"prompt": {"1": {"class_type": ["x"], "inputs": {}}}}', b'{"prompt": {"1": {"class_type": "SaveImage", "inputs": []}}}',
    b'{"prompt": {"1": {"class_type": "SaveImage", "inputs": {"images": ["\\ud800", 0]}}}}',
    b'{"prompt": {"1": {"class_type": "SaveImage", "inputs": {"images": ["1", 1e400]}}}}',
    b'{"delete": 5}', b'{"delete": "x"}', b'{"delete": [{}, [], null, 5]}', b'{"delete": {"a": 1}}', b'{"clear": {}}',
    b'{"prompt_id": {}}', b'{"prompt_id": ["x"]}', b'{"job_ids": [null]}', b'{"job_ids": {"a": 1}}', b'{"free_memory": []}',
    b'{"enabled": 1}', b'{"\\ud800": "\\udfff"}',
]  # fmt: skip
FIELDS: dict[str, list[Any]] = {
    "client_id": [{"a": 1}, ["x"], 5, True, None], "extra_data": [5, "x", [], [1], None, {"extra_pnginfo": 5}, {"client_id": {}}],
    "number": ["x", None, [], {}, True, 10**400, 10**30], "partial_execution_targets": [5, "4", {}, [{}], [5], [["4"]], None],
    "prompt_id": [5, {}, "x", "A" * 36], "front": [[], {}, "x"], "preview_method": [5], "node_errors": [5],
}  # fmt: skip


def routes(here: Here, *methods: str) -> list[tuple[str, str]]:
    """All of the gateway with these methods, with something in each place."""
    found = []
    for route in here.gateway.application().router.routes():
        resource = route.resource
        if route.method in methods and resource is not None and not isinstance(resource, web.StaticResource):
            path = resource.canonical
            for place in ("{id}", "{file}", "{dest}", "{job}", "{prompt_id}", "{class_type}", "{folder}", "{type}"):
                path = path.replace(place, "something")
            assert "{" not in path
            found.append((route.method, path))
    return found


def test_every_body_gets_an_answer_without_a_traceback(here: Here, quiet: None) -> None:
    asked = routes(here, "POST", "PATCH", "DELETE", "PUT")
    assert len(asked) > 20
    for method, path in asked:
        for body in BODIES:
            if path.endswith("refresh") and body:  # which takes no body, and asks the endpoint each time
                continue
            for kind in ("application/json", "text/plain; charset=none", "multipart/form-data", "\xff"):
                answer = here.ask(method, path, body, Content_Type=kind)
                assert answer.status < 500, (path, body[:80], kind, answer.text)
                assert "Traceback" not in answer.text
    assert here.get("/api/settings").status == 200


def test_every_field_of_a_prompt_may_be_wrong(here: Here, quiet: None) -> None:
    for name, values in FIELDS.items():
        for value in values:
            answer = here.post("/prompt", {"prompt": workflows.still(), name: value})
            assert answer.status in (200, 400), (name, value, answer.text)
            assert set(answer.json) >= {"node_errors"}
    for path in ("/queue", "/history", "/api/jobs", "/prompt"):
        assert here.get(path).json is not None
    here.post("/queue", {"clear": True})


def test_whatever_clients_send_all_threads_that_run_prompts_live_on(tmp_path: Path, quiet: None) -> None:
    others = set(threading.enumerate())
    with gateway_here(tmp_path, statuses=[FAILED]) as here:
        threads = [thread for thread in set(threading.enumerate()) - others if "prompt_worker" in thread.name]
        for name, values in FIELDS.items():
            for value in values:
                here.post("/prompt", {"prompt": workflows.still(), name: value})
        end = time.monotonic() + 30
        while here.get("/prompt").json["exec_info"]["queue_remaining"] and time.monotonic() < end:
            threading.Event().wait(0.02)
        assert here.get("/queue").json == {"queue_running": [], "queue_pending": []}
        assert len(threads) == here.gateway.executor.concurrency
        assert all(thread.is_alive() for thread in threads)


def test_every_question_gets_an_answer_without_a_traceback(here: Here, quiet: None) -> None:
    values = ["", "-1", "1e9", "9" * 5000, "x", "%00", "%ff", "null", "a" * 6000, "%2e%2e%2f", ";;;"]
    names = [
        "max_items",
        "offset",
        "limit",
        "status",
        "sort_by",
        "dir",
        "path",
        "filename",
        "type",
        "subfolder",
        "preview",
        "channel",
        "clientId",
    ]
    for method, path in routes(here, "GET", "HEAD"):
        if path.endswith("/ws"):
            continue
        for value in values:
            query = "&".join(f"{name}={value}" for name in names)
            answer = here.ask(method, f"{path}?{query}")
            assert answer.status < 500, (path, value, answer.text)


def test_a_global_interrupt_needs_no_body(here: Here) -> None:
    for body in (None, b"", b"no json", b"[]"):
        assert here.ask("POST", "/interrupt", body).status == 200


def test_a_body_that_is_too_large_is_refused(here: Here, quiet: None) -> None:
    class Endless:
        """A body of 101 MB."""

        def __iter__(self) -> Iterator[bytes]:
            return iter([b" " * 1_000_000] * 106)

    for path in ("/prompt", "/settings", "/userdata/large", "/upload/image"):
        try:
            answer = here.ask("POST", path, Endless(), Content_Type="application/json")  # type: ignore[arg-type]
        except OSError:  # it is not even read
            continue
        assert answer.status in (400, 413)
    assert not (here.folder / "user/large").exists()
    assert here.get("/prompt").status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET /\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{", b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET http://evil.example/prompt HTTP/1.1\r\nHost: localhost\r\n\r\n", b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_disturbs_nothing(here: Here, quiet: None, sent: bytes) -> None:
    host, _, port = here.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except OSError:
            pass
    assert b"Traceback" not in answer
    assert here.get("/prompt").status == 200


def test_websocket_messages_of_any_kind_are_survived(here: Here, quiet: None) -> None:
    for client_id in ("", "x" * 5000, "%00", "%ff%0d%0a", "same", "same"):
        connection = websocket.create_connection(f"ws://{here.host}/ws?clientId={client_id}", timeout=10)
        connection.recv()
        for message in (
            "",
            "{",
            "null",
            "[]",
            '{"type": "feature_flags"}',
            '{"type": "feature_flags", "data": []}',
            "[" * 100_000,
        ):
            connection.send(message)
        connection.send(b"\x00\xff", websocket.ABNF.OPCODE_BINARY)
        connection.send('{"type": "feature_flags", "data": {}}')
        while (heard := json.loads(connection.recv()))["type"] != "feature_flags":
            pass
        assert heard["data"]["supports_preview_metadata"]
        connection.shutdown()  # type: ignore[no-untyped-call]
    assert here.post("/queue", {"clear": True}).status == 200


# --- The key, and the files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "submitted",
    [(401, {"error": "no"}), (403, {}), (404, {}), (500, b"oops"), (200, b"<html>"), (0, None), (200, {"id": "j"})],
)
def test_the_key_is_in_no_answer_log_line_or_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, submitted: Any
) -> None:
    with caplog.at_level(logging.DEBUG):
        with gateway_here(tmp_path, is_asked=True, submitted=submitted, statuses=[info()]) as here:
            answers = [here.ask(method, path).text for method, path in routes(here, "GET") if not path.endswith("/ws")]
            answers += [
                here.post(path, {"prompt": workflows.still()}).text for path in ("/prompt", "/gateway/refresh")
            ]
            while here.get("/prompt").json["exec_info"]["queue_remaining"] and submitted[0] != 200:
                threading.Event().wait(0.02)
            answers += [here.get(path).text for path in ("/history", "/queue", "/api/jobs", "/system_stats")]
        files = contents(here.folder)
    assert not [answer for answer in answers if KEY in answer]
    assert KEY not in caplog.text
    assert not [name for name, content in files.items() if KEY.encode() in content]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """With that one."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="has no such permissions")
@pytest.mark.parametrize(("mask", "folders", "files"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_files_and_folders_have_the_permissions_that_the_person_wants(
    tmp_path: Path, mask: int, folders: int, files: int
) -> None:
    with umask(mask), gateway_here(tmp_path, is_asked=True, statuses=[info()]) as here:
        here.get("/object_info")
        here.post("/settings/x", 1)
        here.ask("POST", "/userdata/workflows%2Fa.json", b"1")
        here.upload(png(), "a.png", subfolder="new")
        here.upload(png(), "a.png", overwrite="true", type="temp")
        here.post("/prompt", {"prompt": workflows.still()})
        made = {path: stat.S_IMODE(path.stat().st_mode) for path in [here.folder, *here.folder.rglob("*")]}
    assert len(made) > 10
    assert {path.name: mode for path, mode in made.items() if mode != (folders if path.is_dir() else files)} == {}
