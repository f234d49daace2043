"""ComfyUI's websocket: it wakes a wait and carries progress. It decides nothing.

One socket serves all jobs and is drained in its own thread. After a drop it reconnects with a new client id: ComfyUI
forgets a socket that takes the id of one it has not seen end. A prompt that was queued under the old id then gets no
more events, and its wait falls back on polling.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import queue
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import websocket

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 15.0  # then we ping; after as long again without any frame the socket counts as dead
_RETRY_SECONDS = 0.5
# A binary frame begins with two big-endian numbers: the kind of event, and the format of the image that follows.
_PICTURE, _JPEG, _PNG = 1, 1, 2
_ENDINGS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass(frozen=True)
class Event:
    """An event of one prompt.

    `is_last`: the history entry exists. `is_ending`: it will at any moment. `node_id` runs now; `step` of `steps` of
    it are done (0 of 0 if it reports none). `cached` nodes will not run. `png` is a picture that the node sent, `jpeg`
    a preview of what it makes. `at` is when the event came, by the monotonic clock.
    """

    node_id: str | None = None
    step: int = 0
    steps: int = 0
    cached: tuple[str, ...] = ()
    is_ending: bool = False
    is_last: bool = False
    png: bytes = field(default=b"", repr=False)
    jpeg: bytes = field(default=b"", repr=False)
    at: float = field(default_factory=time.monotonic, compare=False)


class Listener:
    """The events of one prompt, in order. Of previews that wait to be taken only the newest is kept."""

    def __init__(self, takes_previews: bool = False) -> None:
        self.takes_previews = takes_previews
        """Whether previews are kept at all."""
        self._events: queue.SimpleQueue[Event | int] = queue.SimpleQueue()
        self._preview = (0, Event())  # its number, which stands for it in the queue

    def put(self, event: Event) -> None:
        """Called by the stream."""
        if event.jpeg:
            self._preview = (self._preview[0] + 1, event)
            self._events.put(self._preview[0])
        else:
            self._events.put(event)

    def next(self, seconds: float) -> Event | None:
        """The next event, None if `seconds` pass without one."""
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._events.get(timeout=seconds)
                number, preview = self._preview
                if not isinstance(event, int):
                    return event
                if event == number:
                    return preview
        return None


class EventStream:
    """The events of one ComfyUI server, from `start` to `stop`, over as many sockets as it takes."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("http://", "ws://", 1) + "/ws?clientId="
        self._listeners: dict[str, Listener] = {}
        self._executing: tuple[str, str] | None = None  # prompt and node; whose picture comes next
        self._client_id = str(uuid.uuid4())
        self._connected = threading.Event()
        self._stopped = threading.Event()
        self._socket: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="comfyui-events")

    def start(self) -> None:
        """Connect, in a thread of its own, and stay connected."""
        self._thread.start()

    def stop(self) -> None:
        """Close the socket and end the thread."""
        self._stopped.set()
        self._close_socket()
        self._thread.join(timeout=_CONNECT_SECONDS + 1)

    def client_id(self, seconds: float) -> str:
        """The id to queue a prompt under; waits up to `seconds` for the socket to be open.

        Without a socket it is an id that no one listens to: newer versions of ComfyUI require one all the same.
        """
        self._connected.wait(seconds)
        return self._client_id

    def is_connected_as(self, client_id: str) -> bool:
        """Whether the events of prompts that were queued under that client id still arrive."""
        return self._connected.is_set() and self._client_id == client_id

    @contextmanager
    def listen(self, prompt_id: str, takes_previews: bool = False) -> Iterator[Listener]:
        """The events of a prompt, from before it is queued; without its previews, unless they are wanted."""
        listener = Listener(takes_previews)
        self._listeners[prompt_id] = listener
        try:
            yield listener
        finally:
            del self._listeners[prompt_id]

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._client_id = str(uuid.uuid4())
                self._socket = websocket.create_connection(
                    self._url + self._client_id, timeout=_CONNECT_SECONDS, http_no_proxy=["127.0.0.1"]
                )
                if self._stopped.is_set():  # `stop` may have come before there was a socket to close
                    return
                self._socket.settimeout(_IDLE_SECONDS)
                self._connected.set()
                self._drain(self._socket)
            except (OSError, websocket.WebSocketException, ValueError, RecursionError) as error:
                if not self._stopped.is_set():
                    log.debug("websocket: %s", error)
            finally:
                self._connected.clear()
                self._close_socket()
            self._stopped.wait(_RETRY_SECONDS)

    def _drain(self, connection: Any) -> None:
        """Read frames until the socket ends. Raises what the library raises then."""
        has_pinged = False
        while True:
            try:
                opcode, data = connection.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException:
                if has_pinged:
                    raise
                has_pinged = True
                connection.ping()
                continue
            has_pinged = False
            if opcode == websocket.ABNF.OPCODE_TEXT:
                self._dispatch(json.loads(data))
            elif opcode == websocket.ABNF.OPCODE_BINARY:
                self._dispatch_picture(data)
            elif opcode == websocket.ABNF.OPCODE_CLOSE:
                return

    def _dispatch(self, message: object) -> None:
        if not isinstance(message, Mapping) or not isinstance(message.get("data"), Mapping):
            return
        prompt_id, kind = str(message["data"].get("prompt_id")), str(message.get("type"))
        if kind == "executing":
            node = message["data"].get("node")
            self._executing = None if node is None else (prompt_id, str(node))
        listener, reader = self._listeners.get(prompt_id), _READERS.get(kind)
        if listener is not None and reader is not None:
            listener.put(reader(message["data"]))

    def _dispatch_picture(self, frame: bytes) -> None:
        """A PNG is what SaveImageWebsocket sends; previews of a sampler are JPEG."""
        if self._executing is None or len(frame) <= 8:
            return
        prompt_id, node_id = self._executing
        listener, kind = self._listeners.get(prompt_id), struct.unpack_from(">II", frame)
        if listener is not None and kind == (_PICTURE, _PNG):
            listener.put(Event(node_id=node_id, png=frame[8:]))
        elif listener is not None and kind == (_PICTURE, _JPEG) and listener.takes_previews:
            listener.put(Event(node_id=node_id, jpeg=frame[8:]))

    def _close_socket(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError, AttributeError, websocket.WebSocketException):
                connection.sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads from it; close alone does not
                connection.shutdown()


def _read_executing(data: Mapping[str, Any]) -> Event:
    node = data.get("node")
    return Event(is_last=True) if node is None else Event(node_id=str(node))


def _read_progress(data: Mapping[str, Any]) -> Event:
    return Event(node_id=str(data.get("node")), step=_as_int(data.get("value")), steps=_as_int(data.get("max")))


def _read_cached(data: Mapping[str, Any]) -> Event:
    nodes = data.get("nodes")
    return Event(cached=tuple(str(node) for node in nodes) if isinstance(nodes, list) else ())


def _as_int(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0


_READERS: dict[str, Callable[[Mapping[str, Any]], Event]] = {
    "executing": _read_executing,
    "progress": _read_progress,
    "execution_cached": _read_cached,
    **{ending: lambda data: Event(is_ending=True) for ending in _ENDINGS},
}
