"""The websocket connections of a protocol server, by client id. For use on the event loop only."""

from __future__ import annotations

import contextlib
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
        self._flags.pop(client_id, None)
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

    def takes_previews(self, client_id: str) -> bool:
        """Whether a client, by its id, says that it shows previews with what they are of."""
        return bool(self._flags.get(client_id, {}).get("supports_preview_metadata"))

    async def send(self, client_id: str | None, kind: str, data: dict[str, Any] | Frame) -> None:
        """Send an event to one client, if it is connected."""
        connection = self._sockets.get(client_id or "")
        if connection is None or connection.closed:
            return
        with contextlib.suppress(ConnectionError):  # it goes away in this moment
            if isinstance(data, Frame):
                await connection.send_bytes(_encoded(data, self.takes_previews(client_id or "")))
            else:
                await connection.send_json({"type": kind, "data": data})

    async def broadcast(self, kind: str, data: dict[str, Any]) -> None:
        """Send an event to every client."""
        for client_id in list(self._sockets):
            await self.send(client_id, kind, data)


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
