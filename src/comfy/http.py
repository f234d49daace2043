"""HTTP/1.1 with one server on this machine, over connections that stay open.

It uses http.client directly: urllib3 sends the body in a packet of its own, which wakes the server twice and took
0.5 ms more per job.
"""

from __future__ import annotations

import contextlib
import select
from collections import deque
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple

from ..errors import ComfyUnreachable

_CONNECT_SECONDS = 2.0


class Answer(NamedTuple):
    """The status and the body of an answer."""

    status: int
    body: bytes


class HttpConnections:
    """A pool with as many connections as there are requests at a time. May be used from several threads."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: deque[HTTPConnection] = deque()

    def close(self) -> None:
        """Close those that are not in use."""
        while connection := self._pop_idle():
            connection.close()

    def request(self, method: str, target: str, body: bytes | None, headers: dict[str, str], seconds: float) -> Answer:
        """The answer to one request, sent once.

        Raises ComfyUnreachable if the server cannot be reached, or is silent for `seconds`, or breaks off.
        """
        connection = self._open() or HTTPConnection(self._host, self._port, timeout=_CONNECT_SECONDS)
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(seconds)
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.read())
        except (OSError, HTTPException) as error:
            connection.close()
            raise ComfyUnreachable(f"ComfyUI did not answer {method} {target.split('/')[1]}") from error
        if connection.sock is not None:  # None where the server wants it closed
            self._idle.append(connection)
        return answer

    def _open(self) -> HTTPConnection | None:
        """An idle connection that the server has not closed in the meantime."""
        while connection := self._pop_idle():
            if not _is_readable(connection):
                return connection
            connection.close()
        return None

    def _pop_idle(self) -> HTTPConnection | None:
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        return None


def _is_readable(connection: HTTPConnection) -> bool:
    """Whether there is something to read: an idle connection then is closed by the server, or out of step."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
