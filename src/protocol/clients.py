"""The websocket connections of a protocol server, by client id. For use on the event loop only."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

from .report import Frame

# Binary events begin with their kind as a big-endian number.
_IMAGE, _IMAGE_WITH_METADATA = 1, 4
_JPEG, _PNG = 1, 2


@dataclass
class _Connection:
    """A websocket, what is below it, and what its client says that it can do."""

    socket: web.WebSocketResponse
    transport: asyncio.Transport | None
    flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Clients:
    """The connected clients. One that does not read what it is sent for `patience` seconds is disconnected."""

    patience: float = 10.0
    _connections: dict[str, _Connection] = field(default_factory=dict)

    async def serve(
        self, request: web.Request, status: dict[str, Any], features: dict[str, Any]
    ) -> web.WebSocketResponse:
        """Serve one websocket until it closes; the first event sent is `status`.

        A client that says what it can do, is told the `features`.
        """
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        connection = self._connections[client_id] = _Connection(socket, request.transport)
        await self._send(connection, "status", {"status": status, "sid": client_id})
        try:
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
                if (flags := _feature_flags(message)) is not None:
                    connection.flags = flags
                    await self._send(connection, "feature_flags", features)
        finally:
            if self._connections.get(client_id) is connection:
                del self._connections[client_id]
        return socket

    def takes_previews(self, client_id: str) -> bool:
        """Whether a client, by its id, says that it shows previews with what they are of."""
        connection = self._connections.get(client_id)
        return connection is not None and _takes_previews(connection)

    async def send(self, client_id: str | None, kind: str, data: dict[str, Any] | Frame) -> None:
        """Send an event to one client, if it is connected."""
        connection = self._connections.get(client_id or "")
        if connection is not None:
            await self._send(connection, kind, data)

    async def broadcast(self, kind: str, data: dict[str, Any]) -> None:
        """Send an event to every client."""
        for client_id in list(self._connections):
            await self.send(client_id, kind, data)

    async def _send(self, connection: _Connection, kind: str, data: dict[str, Any] | Frame) -> None:
        """Send an event; one that cannot be sent is lost with its client, and nobody else notices."""
        if connection.socket.closed:
            return
        try:
            if isinstance(data, Frame):
                sent = connection.socket.send_bytes(_encoded(data, _takes_previews(connection)))
            else:
                sent = connection.socket.send_json({"type": kind, "data": data})
            await asyncio.wait_for(sent, self.patience)
        except (ConnectionError, TimeoutError, asyncio.TimeoutError):  # two classes until Python 3.11
            if connection.transport is not None:
                connection.transport.abort()


def _takes_previews(connection: _Connection) -> bool:
    return bool(connection.flags.get("supports_preview_metadata"))


def _encoded(frame: Frame, takes_metadata: bool) -> bytes:
    """A picture as ComfyUI sends it: a preview with what it is of, to clients that take that."""
    if frame.preview_of is None:
        return struct.pack(">II", _IMAGE, _PNG) + frame.content
    if not takes_metadata:
        return struct.pack(">II", _IMAGE, _JPEG) + frame.content
    metadata = json.dumps({**frame.preview_of, "image_type": "image/jpeg"}).encode()
    return struct.pack(">II", _IMAGE_WITH_METADATA, len(metadata)) + metadata + frame.content


def _feature_flags(message: WSMessage) -> Mapping[str, Any] | None:
    """What a client says that it can do, None for any other message."""
    if message.type is not WSMsgType.TEXT:
        return None
    try:
        said = json.loads(message.data)
    except (ValueError, RecursionError):
        return None
    is_about = isinstance(said, dict) and said.get("type") == "feature_flags"
    return said["data"] if is_about and isinstance(said.get("data"), dict) else None
