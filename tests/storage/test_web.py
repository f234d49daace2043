"""A URL of a caller's leads to public places only, whatever it looks like and wherever it is redirected."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from src.deadline import Deadline
from src.errors import InputFileRefused, InputFileUnavailable
from src.storage.web import Fetch, FetchRules, check_endpoint, is_public

HOSTILE = {
    # loopback, in every spelling that some library reads
    "loopback": "https://127.0.0.1/x",
    "loopback, another of it": "https://127.8.9.10/x",
    "loopback by name": "https://localhost/x",
    "loopback by name, capitals": "https://LOCALHOST/x",
    "loopback by name with a dot": "https://localhost./x",
    "loopback, short": "https://127.1/x",
    "loopback, decimal": "https://2130706433/x",
    "loopback, octal": "https://0177.0.0.1/x",
    "loopback, octal whole": "https://017700000001/x",
    "loopback, hexadecimal": "https://0x7f.0.0.1/x",
    "loopback, hexadecimal whole": "https://0x7f000001/x",
    "loopback, full-width digits": "https://\uff11\uff12\uff17.0.0.1/x",
    "loopback, circled letters": "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/x",
    "loopback, IPv6": "https://[::1]/x",
    "loopback, IPv6 whole": "https://[0:0:0:0:0:0:0:1]/x",
    "loopback, mapped": "https://[::ffff:127.0.0.1]/x",
    "loopback, mapped hexadecimal": "https://[::ffff:7f00:1]/x",
    "loopback, compatible": "https://[::127.0.0.1]/x",
    "loopback, 6to4": "https://[2002:7f00:1::]/x",
    "loopback, NAT64": "https://[64:ff9b::7f00:1]/x",
    "this host": "https://0.0.0.0/x",
    "this host, short": "https://0/x",
    "this host, IPv6": "https://[::]/x",
    # private networks, link-local, metadata
    "private 10": "https://10.0.0.1/x",
    "private 172": "https://172.16.5.4/x",
    "private 192": "https://192.168.1.1/x",
    "private, decimal": "https://3232235777/x",
    "carrier's": "https://100.64.0.1/x",
    "link-local": "https://169.254.1.1/x",
    "metadata": "https://169.254.169.254/latest/meta-data/",
    "metadata, decimal": "https://2852039166/latest/meta-data/",
    "metadata, mapped": "https://[::ffff:169.254.169.254]/x",
    "metadata of Alibaba": "https://100.100.100.200/x",
    "metadata of Azure": "https://168.63.129.16/x",
    "metadata of Oracle": "https://192.0.0.192/x",
    "metadata of AWS, IPv6": "https://[fd00:ec2::254]/x",
    "unique local, IPv6": "https://[fc00::1]/x",
    "link-local, IPv6": "https://[fe80::1]/x",
    "link-local with a zone": "https://[fe80::1%25eth0]/x",
    "site-local, IPv6": "https://[fec0::1]/x",
    "documentation": "https://192.0.2.1/x",
    "benchmark": "https://198.18.0.1/x",
    "multicast": "https://224.0.0.1/x",
    "multicast, IPv6": "https://[ff02::1]/x",
    "broadcast": "https://255.255.255.255/x",
    "reserved": "https://240.0.0.1/x",
    # another scheme, or none
    "plain http": "http://example.com/x",
    "file": "file:///etc/passwd",
    "ftp": "ftp://example.com/x",
    "gopher": "gopher://127.0.0.1:6379/_INFO",
    "no scheme": "//127.0.0.1/x",
    "javascript": "javascript:alert(1)",
    # parts that parsers read differently
    "a user": "https://example.com@127.0.0.1/x",
    "user and password": "https://me:secret@example.com/x",
    "a backslash": "https://example.com\\@127.0.0.1/x",
    "a blank": "https://example.com /x",
    "a line break": "https://example.com/\r\nHost: x",
    "a NUL": "https://example.com\0.evil.com/",
    "no host": "https:///x",
    "an empty port and no host": "https://:443/x",
    "a port that is none": "https://example.com:99999/x",
    "too long": "https://example.com/" + "a" * 9000,
}


def fetch(url: str, seconds: float = 5, limit: int = 10**9, **rules: Any) -> bytes:
    """The bytes, or the error."""
    pieces: list[bytes] = []

    def write(piece: bytes) -> None:
        pieces.append(piece)
        if sum(map(len, pieces)) > limit:
            raise InputFileRefused("too large")

    Fetch(FetchRules(**rules), "images[0]", Deadline(seconds)).download(url, write)
    return b"".join(pieces)


@pytest.mark.parametrize("url", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_url_is_refused_before_anything_is_sent(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("it would have connected")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(InputFileRefused, match=r"^images\[0\]: "):
        fetch(url)


def test_the_table_is_long_enough() -> None:
    assert len(HOSTILE) >= 40


def test_public_addresses_are_public() -> None:
    for address in ("1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"):
        assert is_public(address), address


class Site(http.server.BaseHTTPRequestHandler):
    """A server with bad manners; the last request's headers are kept."""

    protocol_version = "HTTP/1.1"
    seen: dict[str, str] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        Site.seen = dict(self.headers)
        name, _, argument = self.path.lstrip("/").partition("?")
        getattr(self, f"_{name}")(argument)

    def _answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for header, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _file(self, argument: str) -> None:
        self._answer(b"content")

    def _missing(self, argument: str) -> None:
        self._answer(b"no", 404)

    def _to(self, argument: str) -> None:
        self._answer(b"", 302, Location=argument)

    def _round(self, argument: str) -> None:
        self._answer(b"", 302, Location="/round")

    def _short(self, argument: str) -> None:
        self._answer(b"half", Content_Length="8")
        self.close_connection = True

    def _drip(self, argument: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b".")
            self.wfile.flush()
            time.sleep(0.05)

    def _endless(self, argument: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"x" * 65536)

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what we test."""


@contextmanager
def site() -> Iterator[str]:
    """Its `127.0.0.1:port`."""
    with _Server(("127.0.0.1", 0), Site) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_host_that_the_operator_trusts_may_be_private_and_plain() -> None:
    with site() as host:
        assert fetch(f"http://{host}/file", trusted_hosts=frozenset({host})) == b"content"
        assert fetch(f"http://{host}/file", trusted_hosts=frozenset({"127.0.0.1"})) == b"content"
        assert not {"Authorization", "Cookie"} & Site.seen.keys()
        with pytest.raises(InputFileRefused, match="private"):
            fetch(f"http://{host}/file", allow_http=True)


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:9/x",
        "https://169.254.169.254/latest",
        "http://localhost:9/x",
        "file:///etc/passwd",
        "//10.0.0.1/x",
    ],
)
def test_every_redirect_is_looked_at_like_the_first_url(target: str) -> None:
    with site() as host, pytest.raises(InputFileRefused):
        fetch(f"http://{host}/to?{target}", trusted_hosts=frozenset({host}))


def test_a_redirect_on_the_same_host_is_followed_and_a_circle_ends() -> None:
    with site() as host:
        assert fetch(f"http://{host}/to?/file", trusted_hosts=frozenset({host})) == b"content"
        with pytest.raises(InputFileUnavailable, match="more than 5 times"):
            fetch(f"http://{host}/round", trusted_hosts=frozenset({host}))


def test_what_the_name_means_the_second_time_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: public when it is checked, private when it is connected to. One answer has to serve for both."""
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    connected: list[Any] = []

    def resolve(host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(InputFileUnavailable):
        fetch("https://rebind.example/x")
    assert connected == [("93.184.216.34", 443)]


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(InputFileRefused, match="private"):
        fetch("https://mixed.example/x")


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("missing", "status 404"),
        ("short", "closed the connection"),
        ("drip", "within 0.5 s"),
        ("gone", "closed the connection"),
    ],
)
def test_what_does_not_arrive_is_said(page: str, said: str) -> None:
    with site() as host, pytest.raises(InputFileUnavailable, match=said):
        fetch(f"http://{host}/{page}", seconds=0.5, trusted_hosts=frozenset({host}))


def test_a_file_without_end_is_cut_by_the_reader() -> None:
    with site() as host, pytest.raises(InputFileRefused, match="too large"):
        fetch(f"http://{host}/endless", limit=10**6, trusted_hosts=frozenset({host}))


def test_an_abort_ends_a_download_that_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        download = Fetch(FetchRules(trusted_hosts=frozenset({host})), "files[0]", Deadline(60))
        threading.Timer(0.2, download.abort).start()
        started = time.monotonic()
        with pytest.raises(InputFileUnavailable):
            download.download(f"http://{host}/x", lambda piece: None)
        assert time.monotonic() - started < 10


def test_a_callers_storage_must_be_public_too() -> None:
    for url in ("http://example.com", "https://127.0.0.1:9000", "https://10.0.0.1", "https://user:x@example.com"):
        with pytest.raises(InputFileRefused, match=r"^s3Config\.endpointUrl: "):
            check_endpoint(url, FetchRules(), "s3Config.endpointUrl")
