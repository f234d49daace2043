"""The websocket connections of a protocol server, by client id. For use on the event loop only."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

_PNG_HEADER = struct.pack(">II", 1, 2)  # binary event PREVIEW_IMAGE (1), image format PNG (2)


@dataclass
class Clients:
    """The connected clients."""

    _sockets: dict[str, web.WebSocketResponse] = field(default_factory=dict)

    async def serve(self, request: web.Request, status: dict[str, Any]) -> web.WebSocketResponse:
        """Serve one websocket until it closes; the first event sent is `status`."""
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        self._sockets[client_id] = connection
        await connection.send_json({"type": "status", "data": {"status": status, "sid": client_id}})
        try:
            async for message in connection:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            self._sockets.pop(client_id, None)
        return connection

    async def send(self, client_id: str | None, kind: str, data: dict[str, Any] | bytes) -> None:
        """Send an event to one client, if it is connected; bytes are a picture in PNG."""
        connection = self._sockets.get(client_id or "")
        if connection is None or connection.closed:
            return
        if isinstance(data, bytes):
            await connection.send_bytes(_PNG_HEADER + data)
        else:
            await connection.send_json({"type": kind, "data": data})

    async def broadcast(self, kind: str, data: dict[str, Any]) -> None:
        """Send an event to every client."""
        for client_id in list(self._sockets):
            await self.send(client_id, kind, data)
