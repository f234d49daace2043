"""Downloads from URLs that a caller names, and answers of public APIs, protected against server-side request forgery.

Every address that a host resolves to must be public, and the connection goes to an address that was checked, not to
the result of a second look-up (DNS rebinding). Redirects are followed here, not by urllib3, each checked like the
first URL. No credentials or cookies are sent, and no proxies used. urllib3 does the rest: HTTP, TLS, certificates.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urljoin

import certifi
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError, NewConnectionError
from urllib3.util import Timeout, Url, parse_url

from ..deadline import Deadline
from ..errors import InputFileRefused, InputFileUnavailable

_MAX_REDIRECTS = 5
_CHUNK_BYTES = 1 << 16
_CONNECT_TIMEOUT_SECONDS, _READ_TIMEOUT_SECONDS = 10.0, 30.0
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_URL_CHARACTERS = 8000
_JSON_TIMEOUT_SECONDS, _MAX_JSON_BYTES = 30.0, 4 << 20
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\\]")
# Global by `ipaddress` in some version of Python, but not public: Azure's platform, protocol assignments (with
# Oracle's metadata service), 6to4 relays, documentation.
_NON_PUBLIC_NETWORKS = tuple(
    ipaddress.ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20")
)
_HEADERS = {"User-Agent": "comfyui-serverless-worker", "Accept": "*/*", "Accept-Encoding": "identity"}

Address = tuple[Any, ...]
"""A socket address, as `socket.connect` takes it."""
Connect = Callable[[str, int, float], socket.socket]
"""(host, port, seconds) -> a connection."""


@dataclass(frozen=True)
class FetchRules:
    """Which URLs may be fetched. `trusted_hosts` (`name` or `name:port`) may be private and may use plain HTTP."""

    allow_http: bool = False
    trusted_hosts: frozenset[str] = frozenset()

    def trusts(self, host: str, port: int) -> bool:
        """Whether the operator trusts a host."""
        return bool({host, f"{host}:{port}"} & self.trusted_hosts)


@dataclass
class Fetch:
    """One download, which another thread may abort.

    For messages, `where` is the place of the URL in the input, and `setting` the one that the deadline is from.
    """

    rules: FetchRules
    where: str
    deadline: Deadline
    setting: str = ""
    _sockets: list[socket.socket] = field(default_factory=list)
    _aborted: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_over(self) -> bool:
        """Whether it was aborted, or its deadline has passed."""
        return self._aborted.is_set() or self.deadline.passed

    def abort(self) -> None:
        """Break it off at once, so that a server that sends a byte a minute holds nothing up."""
        with self._lock:
            self._aborted.set()
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def download(self, url: str, write: Callable[[bytes], object]) -> None:
        """Pass the bytes behind a URL to `write` in chunks.

        Raises InputFileRefused for a URL that must not be reached, InputFileUnavailable for one that does not deliver.
        """
        try:
            self._follow(url, write)
        finally:
            for connection in self._sockets:
                connection.close()

    def _follow(self, url: str, write: Callable[[bytes], object]) -> None:
        for _ in range(_MAX_REDIRECTS + 1):
            parts = checked_url(url, self.rules, self.where)
            if self.is_over:
                raise self._unavailable(parts)
            response = self._get(parts)
            try:
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location:
                    try:
                        url = urljoin(url, location)
                    except ValueError as error:
                        raise InputFileUnavailable(
                            f"{self.where}: {parts.host} redirects to an invalid URL"
                        ) from error
                    continue
                if response.status != 200:
                    raise InputFileUnavailable(
                        f"{self.where}: {parts.host} answered with status {response.status}; is the link right and "
                        "public?",
                        response.status,
                    )
                self._read(response, parts, write)
                return
            finally:
                response.close()
        raise InputFileUnavailable(f"{self.where}: the URL was redirected more than {_MAX_REDIRECTS} times")

    def _get(self, parts: Url) -> BaseHTTPResponse:
        scheme, host, port = origin_of(parts)
        if scheme == "https":
            pool: HTTPConnectionPool = HTTPSConnectionPool(host, port, maxsize=1, ca_certs=certifi.where())
            pool.ConnectionCls = partial(GuardedHttps, connect=self._connect)  # type: ignore[assignment]
        else:
            pool = HTTPConnectionPool(host, port, maxsize=1)
            pool.ConnectionCls = partial(GuardedHttp, connect=self._connect)  # type: ignore[assignment]
        try:
            return pool.urlopen(
                "GET",
                parts.request_uri,
                headers=_HEADERS,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=Timeout(connect=self.deadline.at_most(_CONNECT_TIMEOUT_SECONDS), read=_READ_TIMEOUT_SECONDS),
            )
        except (HTTPError, OSError) as error:
            raise self._unavailable(parts) from error

    def _read(self, response: BaseHTTPResponse, parts: Url, write: Callable[[bytes], object]) -> None:
        received = 0
        try:
            while chunk := response.read1(_CHUNK_BYTES):
                received += len(chunk)
                if self.is_over:
                    raise self._unavailable(parts)
                write(chunk)
        except (HTTPError, OSError) as error:
            raise self._unavailable(parts) from error
        if self.is_over:  # an aborted connection looks like the end of a file without Content-Length
            raise self._unavailable(parts)
        declared = response.headers.get("Content-Length", "")
        if declared.isdecimal() and not response.headers.get("Content-Encoding") and int(declared) != received:
            raise self._unavailable(parts)

    def _unavailable(self, parts: Url) -> InputFileUnavailable:
        if self.is_over:
            setting = f" ({self.setting})" if self.setting else ""
            return InputFileUnavailable(
                f"{self.where}: {parts.host} did not deliver within {self.deadline.seconds:g} s{setting}"
            )
        return InputFileUnavailable(f"{self.where}: {parts.host} could not be reached, or closed the connection")

    def _connect(self, host: str, port: int, timeout: float) -> socket.socket:
        """A connection that `abort` can break off, even when TLS has wrapped the socket: by a duplicate of it."""
        connection = connect_checked(host, port, timeout, self.rules, self.where)
        with self._lock:
            self._sockets.append(connection.dup())
            if not self.is_over:
                return connection
        connection.close()
        raise OSError("nobody waits for it any more")


def fetch_json(url: str, rules: FetchRules, where: str) -> Mapping[str, Any]:
    """The JSON object that an API answers with.

    Raises InputFileRefused for a URL that must not be reached, InputFileUnavailable for one that gives no such answer.
    """
    content = bytearray()

    def write(chunk: bytes) -> None:
        content.extend(chunk)
        if len(content) > _MAX_JSON_BYTES:
            raise InputFileUnavailable(f"{where}: the response is larger than {_MAX_JSON_BYTES:,} bytes")

    Fetch(rules, where, Deadline(_JSON_TIMEOUT_SECONDS)).download(url, write)
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputFileUnavailable(f"{where}: the response is not valid JSON") from error
    if not isinstance(answer, dict):
        raise InputFileUnavailable(f"{where}: the response is not a JSON object")
    return answer


def connect_checked(host: str, port: int, timeout: float, rules: FetchRules, where: str) -> socket.socket:
    """A socket that is connected to a checked address of the host. Raises InputFileRefused, OSError."""
    last_error: OSError | None = None
    for family, address in public_addresses(host, port, rules, where):
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            last_error = error
            continue
        return connection
    raise last_error or OSError("no address")


class Guarded:
    """Mixin for connections of urllib3: the socket comes from `connect`, which checks the address."""

    host: str
    port: int
    timeout: Any

    def __init__(self, *args: Any, connect: Connect, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connect_checked = connect

    def _new_conn(self) -> socket.socket:
        timeout = self.timeout if isinstance(self.timeout, (int, float)) else _CONNECT_TIMEOUT_SECONDS
        try:
            return self._connect_checked(self.host, self.port, timeout)
        except OSError as error:
            raise NewConnectionError(self, "could not connect") from error  # type: ignore[arg-type]


class GuardedHttp(Guarded, HTTPConnection):
    """An HTTP connection to an address that was checked."""


class GuardedHttps(Guarded, HTTPSConnection):
    """An HTTPS connection to an address that was checked."""


# --- What may be reached -------------------------------------------------------------------------------


def checked_url(url: str, rules: FetchRules, where: str) -> Url:
    """The parts of a valid URL. Raises InputFileRefused. Its addresses are checked later, when connecting."""
    if len(url) > _MAX_URL_CHARACTERS or _UNPRINTABLE.search(url):
        raise InputFileRefused(
            f"{where}: a URL must have no spaces or backslashes, and at most {_MAX_URL_CHARACTERS} characters"
        )
    try:
        parts = parse_url(url)
    except (LocationParseError, UnicodeError) as error:
        raise InputFileRefused(f"{where}: not a valid URL: {ascii(url)[:100]}") from error
    if parts.scheme not in _PORTS or not parts.host:
        raise InputFileRefused(f"{where}: the URL must begin with https:// and a host, not {ascii(url)[:60]}")
    if parts.auth is not None:
        raise InputFileRefused(
            f"{where}: the URL must not contain a user or password; use a signed link, or s3:// and a bucket"
        )
    scheme, host, port = origin_of(parts)
    if scheme == "http" and not rules.allow_http and not rules.trusts(host, port):
        raise InputFileRefused(f"{where}: the URL must begin with https:// (ALLOW_HTTP_URLS=true allows http://)")
    return parts


def check_endpoint(url: str, rules: FetchRules, where: str) -> None:
    """Raise InputFileRefused if the server of a URL must not be reached, InputFileUnavailable without an address."""
    parts = checked_url(url, rules, where)
    try:
        public_addresses(str(parts.host), origin_of(parts)[2], rules, where)
    except OSError as error:
        raise InputFileUnavailable(f"{where}: {parts.host} has no address") from error


def public_addresses(host: str, port: int, rules: FetchRules, where: str) -> list[tuple[int, Address]]:
    """The addresses of a host, (family, address) each.

    Raises InputFileRefused if one of them is not public, unless the operator trusts the host; OSError for no address.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OSError("the host has no address") from error
    addresses = [(int(family), address) for family, _, _, _, address in found]
    if not rules.trusts(host, port) and not all(is_public(str(address[0])) for _, address in addresses):
        raise InputFileRefused(
            f"{where}: the host {host[:100]!r} is, or leads to, a private address; a URL must lead to a public one "
            "(TRUSTED_HOSTS lists private hosts that jobs may reach)"
        )
    return addresses


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet: not loopback, private, link-local, metadata or reserved.

    IPv6 addresses that embed an IPv4 address (mapped, compatible, 6to4, Teredo, NAT64) count as not public.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        embeds_ipv4 = parsed.ipv4_mapped or parsed.sixtofour or parsed.teredo
        if embeds_ipv4 or parsed.is_site_local:
            return False
    is_special = parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified or not parsed.is_global
    return not is_special and not any(parsed in network for network in _NON_PUBLIC_NETWORKS)


def origin_of(parts: Url) -> tuple[str, str, int]:
    """The origin of a checked URL: scheme, host and port."""
    scheme = str(parts.scheme)
    return scheme, str(parts.host), parts.port or _PORTS[scheme]
