"""The websocket connections of a protocol server, by client id. For use on the event loop only."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

# Binary event PREVIEW_IMAGE (1), image format JPEG (1) or PNG (2).
_HEADERS = {"preview": struct.pack(">II", 1, 1), "picture": struct.pack(">II", 1, 2)}


@dataclass
class Clients:
    """The connected clients."""

    _sockets: dict[str, web.WebSocketResponse] = field(default_factory=dict)
    _flags: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    async def serve(
        self, request: web.Request, status: dict[str, Any], features: dict[str, Any]
    ) -> web.WebSocketResponse:
        """Serve one websocket until it closes; the first event sent is `status`.

        A client that says what it can do, is told the `features`.
        """
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        self._sockets[client_id] = connection
        await connection.send_json({"type": "status", "data": {"status": status, "sid": client_id}})
        try:
            async for message in connection:
                if message.type is WSMsgType.ERROR:
                    break
                if (flags := _feature_flags(message)) is not None:
                    self._flags[client_id] = flags
                    await connection.send_json({"type": "feature_flags", "data": features})
        finally:
            if self._sockets.get(client_id) is connection:
                del self._sockets[client_id]
            self._flags.pop(client_id, None)
        return connection

    async def send(self, client_id: str | None, kind: str, data: dict[str, Any] | bytes) -> None:
        """Send an event to one client, if it is connected; bytes are a `picture` in PNG, or a `preview` in JPEG."""
        connection = self._sockets.get(client_id or "")
        if connection is None or connection.closed:
            return
        if isinstance(data, bytes):
            await connection.send_bytes(_HEADERS[kind] + data)
        else:
            await connection.send_json({"type": kind, "data": data})

    async def broadcast(self, kind: str, data: dict[str, Any]) -> None:
        """Send an event to every client."""
        for client_id in list(self._sockets):
            await self.send(client_id, kind, data)


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
