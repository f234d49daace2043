"""What an HTTP server needs that only this machine may use: who is refused, and what is logged."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from ..errors import PortTaken

_BROKEN = (HttpProcessingError, web.RequestPayloadError, ConnectionError, asyncio.IncompleteReadError)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def refusing_other_pages(message: str) -> Middleware:
    """Refuses pages of other origins, with a message: any page open in a browser on this machine could use the GPU.

    The Host is checked too, of every request: another site's name may resolve to this machine (DNS rebinding). A
    browser sends no Origin with some requests of other pages (images, scripts), but it says where they come from. A
    link on another page may lead here; no other page may hold this one in a frame, under which it could have a person
    click.
    """

    @web.middleware
    async def refuse_other_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        is_link = (
            request.method == "GET"
            and request.headers.get("Sec-Fetch-Mode") == "navigate"
            and request.headers.get("Sec-Fetch-Dest") == "document"
        )
        if (
            _hostname(f"//{request.host}") not in _LOOPBACK
            or (origin and origin != f"http://{request.host}")
            or (site in ("cross-site", "same-site") and not is_link)
        ):
            return web.json_response({"error": message}, status=403)
        return await handler(request)

    return refuse_other_pages


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def quiet_log() -> logging.Logger:
    """The logger for such a server."""
    log = logging.getLogger("endpoint.http")
    if not any(isinstance(known, _BrokenRequests) for known in log.filters):
        log.addFilter(_BrokenRequests())
    return log


class _BrokenRequests(logging.Filter):
    """Makes one quiet line of each traceback that aiohttp logs for a request that breaks off or is no HTTP."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, _BROKEN):
            record.msg, record.args, record.exc_info = f"a malformed request ({type(error).__name__})", None, None
            record.levelno, record.levelname = logging.INFO, "INFO"
        return True


async def listen(runner: web.AppRunner, host: str, port: int) -> None:
    """Have a server listen. Raises PortTaken."""
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise PortTaken(f"port {port} is in use by another process; choose another with --port") from error
