"""A client that reads nothing, or is gone without a word, holds nobody up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from src.protocol.clients import Clients
from src.protocol.report import Frame

LONG = 30.0  # a hang limit, no measure
HELLO = (
    b"GET /ws?clientId=%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@asynccontextmanager
async def serving(clients: Clients) -> AsyncIterator[int]:
    """A server of their websockets; its port."""

    async def socket_of(request: web.Request) -> web.WebSocketResponse:
        return await clients.serve(request, {}, {})

    application = web.Application()
    application.router.add_get("/ws", socket_of)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def connected(port: int, client_id: bytes) -> socket.socket:
    """A client that has read only its first event, and takes little at a time."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    await loop.sock_sendall(connection, HELLO % client_id)
    heard = b""
    while b'"sid"' not in heard:
        heard += await loop.sock_recv(connection, 4096)
    return connection


async def hears(port: int, clients: Clients) -> bool:
    """Whether another client still gets its events."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/ws?clientId=good") as good,
    ):
        await good.receive_json()
        await clients.broadcast("status", {"n": 1})
        return bool((await good.receive_json())["data"] == {"n": 1})


def test_a_client_that_reads_nothing_is_dropped() -> None:
    async def run() -> None:
        clients = Clients(patience=0.05)
        async with serving(clients) as port:
            connection = await connected(port, b"asleep")
            for _ in range(40):
                await clients.send("asleep", "picture", Frame(b"x" * 1_000_000))
            assert await hears(port, clients)
            connection.setblocking(True)
            connection.settimeout(LONG)
            while True:  # it finds its connection closed, so that it can connect again
                try:
                    if not connection.recv(1 << 20):
                        break
                except ConnectionError:
                    break
            connection.close()

    asyncio.run(asyncio.wait_for(run(), LONG))


def test_a_client_that_is_gone_is_no_error() -> None:
    async def run() -> None:
        clients = Clients()
        async with serving(clients) as port:
            for number in range(20):
                connection = await connected(port, b"gone")
                if number % 2:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                connection.close()
                for _ in range(5):
                    await clients.send("gone", "picture", Frame(b"x" * 500_000))
                    await clients.broadcast("status", {})
            assert await hears(port, clients)

    asyncio.run(asyncio.wait_for(run(), LONG))
