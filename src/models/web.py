"""Model files at URLs, read in ranges: those of Hugging Face (without its library), and any others.

Connections follow the rules of `storage.web`. Redirects are followed here, not by urllib3; a token is sent only to its
own host. The URL at the end of the redirects, on Hugging Face a presigned one that expires, is looked up again when it
is refused.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from time import time
from typing import Any
from urllib.parse import urljoin

import certifi
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout, Url

from ..errors import InputFileRefused, ModelCorrupt, ModelFetchFailed, ModelGated
from ..storage.web import FetchRules, GuardedHttp, GuardedHttps, checked_url, connect_checked, origin_of
from .transfer import CONNECTIONS, RemoteInfo, RetryableSourceError

_CONNECT_TIMEOUT_SECONDS, _READ_TIMEOUT_SECONDS = 10.0, 60.0
_MAX_REDIRECTS = 8
_REDIRECTS = (301, 302, 303, 307, 308)
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_CHUNK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HTML = "text/html"


@dataclass
class WebFile:
    """One file at a URL. `token` is sent to the URL's own host. `refusal_hint` is the message for a 401 or 403."""

    url: str
    name: str
    rules: FetchRules
    token: str = field(default="", repr=False)
    refusal_hint: str = ""
    is_page: bool = False
    """Whether the file is itself an HTML page, so that `text/html` is no error."""
    _resolved: str = ""
    _pools: dict[tuple[str, str, int], HTTPConnectionPool] = field(default_factory=dict)
    _connections: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    _abort_count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    headers: dict[str, str] = field(default_factory=dict)
    """The headers of all responses, redirects included; names in lower case (`x-linked-etag` of Hugging Face)."""

    def __str__(self) -> str:
        return self.name

    def info(self) -> RemoteInfo:
        """See `Remote`. Requests the first byte, which presigned URLs allow where they refuse HEAD."""
        response = self._open(0, 1)
        try:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            length = response.headers.get("Content-Length", "")
            has_ranges = response.status == 206 and match is not None
            size = match[3] if match else length if response.status == 200 else ""
            if response.headers.get("Content-Type", "").startswith(_HTML) and not self.is_page:
                raise ModelCorrupt(
                    f"{self.name}: {self._host} returned a web page instead of the file; is the URL right and public?"
                )
            if not size.isdecimal():
                raise ModelFetchFailed(f"{self.name}: {self._host} does not report the size of the file")
            etag = self.headers.get("x-linked-etag") or response.headers.get("ETag") or ""
            digest = _SHA256.fullmatch(self.headers.get("x-linked-etag", "").strip('"'))
            return RemoteInfo(int(size), etag or self.url, has_ranges, digest[0] if digest else None)
        finally:
            _release(response)

    def read(self, start: int, end: int, write: Callable[[bytes], object]) -> None:
        """See `Remote`."""
        response = self._open(start, end)
        remaining = end - start
        try:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            is_requested_range = int(match[1]) == start if response.status == 206 and match else not start
            length = response.headers.get("Content-Length") or str(remaining)
            if not is_requested_range or length != str(remaining):
                raise RetryableSourceError(f"{self.name}: {self._host} returned a different range than requested")
            while remaining and (chunk := response.read1(min(_CHUNK_BYTES, remaining))):
                remaining -= len(chunk)
                write(chunk)
        except (HTTPError, OSError) as error:
            raise self._unreachable() from error
        finally:
            _release(response, is_whole=not remaining)

    def abort(self) -> None:
        """See `Remote`."""
        with self._lock:
            self._abort_count += 1
            open_now = list(self._connections)
        for connection in open_now:
            with contextlib.suppress(OSError, AttributeError):  # it may be closing already
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See `Remote`."""
        self.abort()
        for pool in self._pools.values():
            pool.close()

    # --- Requests --------------------------------------------------------------------------------------

    @property
    def _host(self) -> str:
        return self.url.split("/")[2].rpartition("@")[2]

    def _open(self, start: int, end: int) -> BaseHTTPResponse:
        """The response with the bytes from `start` to `end`, after redirects."""
        resolved = self._resolved
        if resolved:
            response = self._get(resolved, start, end)
            if response.status in (200, 206):
                return response
            _release(response)
            self._resolved = ""  # the presigned URL has expired
            if response.status in _BUSY:
                raise self._busy(response)
        return self._follow(start, end)

    def _follow(self, start: int, end: int) -> BaseHTTPResponse:
        url = self.url
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._get(url, start, end)
            self.headers.update({name.lower(): value for name, value in response.headers.items()})
            location = response.headers.get("Location")
            if response.status in _REDIRECTS and location:
                _release(response)
                try:
                    url = urljoin(url, location)
                except ValueError as error:
                    raise ModelFetchFailed(f"{self.name}: {self._host} redirects to an invalid URL") from error
                continue
            if response.status in (200, 206):
                self._resolved = url
                return response
            _release(response)
            raise self._refusal(response, url)
        raise ModelFetchFailed(f"{self.name}: {self._host} redirects more than {_MAX_REDIRECTS} times")

    def _get(self, url: str, start: int, end: int) -> BaseHTTPResponse:
        try:
            parts = checked_url(url, self.rules, self.name)
            headers = {
                "User-Agent": "comfyui-serverless-worker",
                "Accept-Encoding": "identity",
                "Range": f"bytes={start}-{end - 1}",
            }
            if self.token and origin_of(parts) == origin_of(checked_url(self.url, self.rules, self.name)):
                headers["Authorization"] = f"Bearer {self.token}"
            return self._pool(parts).urlopen(
                "GET",
                parts.request_uri,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=Timeout(connect=_CONNECT_TIMEOUT_SECONDS, read=_READ_TIMEOUT_SECONDS),
            )
        except InputFileRefused as error:
            hint = "for models, hosts in TRUSTED_HOSTS may be private and use plain http"
            raise ModelFetchFailed(f"{error.message}; {hint}") from error
        except (HTTPError, OSError) as error:
            raise self._unreachable() from error

    def _pool(self, parts: Url) -> HTTPConnectionPool:
        scheme, host, port = origin_of(parts)
        with self._lock:
            pool = self._pools.get((scheme, host, port))
            if pool is None:
                if scheme == "https":
                    pool = HTTPSConnectionPool(host, port, maxsize=CONNECTIONS, ca_certs=certifi.where())
                    pool.ConnectionCls = partial(_AbortableHttps, owner=self, connect=self._connect)  # type: ignore[assignment]
                else:
                    pool = HTTPConnectionPool(host, port, maxsize=CONNECTIONS)
                    pool.ConnectionCls = partial(_AbortableHttp, owner=self, connect=self._connect)  # type: ignore[assignment]
                self._pools[scheme, host, port] = pool
            return pool

    def _connect(self, host: str, port: int, timeout: float) -> socket.socket:
        return connect_checked(host, port, timeout, self.rules, self.name)

    def abort_count(self) -> int:
        """How often `abort` was called."""
        return self._abort_count

    def register(self, connection: Any, abort_count: int) -> None:
        """Keep a new connection for `abort`. Raises OSError if `abort` was called since `abort_count` was read."""
        with self._lock:
            if abort_count == self._abort_count:
                self._connections.add(connection)
                return
        connection.close()
        raise OSError("nobody waits for it any more")

    # --- Errors ----------------------------------------------------------------------------------------

    def _unreachable(self) -> RetryableSourceError:
        return RetryableSourceError(f"{self.name}: {self._host} could not be reached, or closed the connection")

    def _busy(self, response: BaseHTTPResponse) -> RetryableSourceError:
        delay = _retry_after(response.headers)
        return RetryableSourceError(f"{self.name}: {self._host} answered with status {response.status}", delay)

    def _refusal(self, response: BaseHTTPResponse, url: str) -> ModelFetchFailed | RetryableSourceError:
        """The error for a response without the file."""
        if response.status in _BUSY:
            return self._busy(response)
        is_own = url.split("/")[2] == self.url.split("/")[2]
        if response.status in (401, 403) and is_own:
            return ModelGated(
                f"{self.name}: {self.refusal_hint or f'{self._host} refuses it (status {response.status})'}"
            )
        if response.status in (404, 410):
            return ModelFetchFailed(
                f"{self.name}: {self._host} no longer has this file; its entry in the manifest needs another source"
            )
        return ModelFetchFailed(f"{self.name}: {self._host} answered with status {response.status}")


class _Abortable:
    """A connection that `WebFile.abort` can break off."""

    def __init__(self, *arguments: Any, owner: WebFile, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._owner = owner

    def connect(self) -> None:
        abort_count = self._owner.abort_count()
        super().connect()  # type: ignore[misc]
        self._owner.register(self, abort_count)


class _AbortableHttp(_Abortable, GuardedHttp):
    pass


class _AbortableHttps(_Abortable, GuardedHttps):
    pass


def _release(response: BaseHTTPResponse, is_whole: bool = False) -> None:
    """Finish with a response; its connection is kept if little or nothing of the body is unread."""
    length = response.headers.get("Content-Length", "")
    with contextlib.suppress(HTTPError, OSError):
        if is_whole or (length.isdecimal() and int(length) <= _CHUNK_BYTES):
            response.drain_conn()
            response.release_conn()
            return
    response.close()


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: RFC 9110's Retry-After (a number or a date), or `t=` of Hugging Face's `RateLimit` header."""
    retry_after = headers.get("Retry-After", "")
    if retry_after.strip().isdecimal():
        return float(retry_after)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    window = re.search(r"\bt=(\d+)", headers.get("RateLimit", ""))
    return float(window[1]) if window else None
