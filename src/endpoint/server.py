"""All of a local endpoint as one HTTP server: routes for callers and for workers, and the worker processes."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from ..errors import PortTaken
from .client_routes import ClientRoutes
from .jobs import JobQueue
from .worker_routes import WorkerRoutes
from .workers import WorkerPool

_PAGE = Path(__file__).with_name("playground.html")
_ONLY_ITSELF = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data: https:; "
    "media-src blob: https:; connect-src 'self' https://api.runpod.ai; form-action 'none'; base-uri 'none'"
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MAX_BODY = 128 * 1024 * 1024  # the routes themselves say what is too large, as RunPod does


@dataclass(frozen=True)
class EndpointOptions:
    """Where it listens, how many workers stand behind it, and what they are started with."""

    port: int
    workers: int
    worker_arguments: list[str]
    key: str = ""
    host: str = "127.0.0.1"


def serve(options: EndpointOptions, environment: Mapping[str, str], is_up: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM. `environment` is that of the worker processes; `is_up` is called once it answers.

    Raises PortTaken.
    """
    asyncio.run(_serve(options, environment, is_up))


async def _serve(options: EndpointOptions, environment: Mapping[str, str], is_up: Callable[[], None]) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with running_endpoint(options, environment):
        is_up()
        await ended.wait()


@asynccontextmanager
async def running_endpoint(options: EndpointOptions, environment: Mapping[str, str]) -> AsyncIterator[WorkerPool]:
    """An endpoint that answers, with its workers. They end before it does: the SDK asks a dead queue without pause."""
    queue, token = JobQueue(), secrets.token_urlsafe()
    pool = WorkerPool(options.workers, options.worker_arguments, queue.worker_gone)
    application = web.Application(client_max_size=_MAX_BODY)
    ClientRoutes(queue, pool, options.key).add_to(application)
    WorkerRoutes(queue, pool, token).add_to(application)
    application.router.add_get("/", _playground)
    if options.key:
        application.router.add_route("OPTIONS", "/v2/{tail:.*}", _preflight)
        application.on_response_prepare.append(_allow_other_pages)
    else:
        application.middlewares.append(_own_page_only)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await _listen(runner, options)
        url = f"http://{options.host}:{options.port}/v2/local"
        await pool.start({**environment, **worker_environment(url, token)})
        yield pool
    finally:
        await pool.stop()
        await runner.cleanup()


async def _playground(_: web.Request) -> web.StreamResponse:
    """A page to try the endpoint with."""
    return web.FileResponse(_PAGE, headers={"Content-Security-Policy": _ONLY_ITSELF, "Cache-Control": "no-cache"})


async def _preflight(_: web.Request) -> web.StreamResponse:
    """What a browser asks before a page from elsewhere, the playground as a file too, may send its request."""
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Max-Age": "600",
        },
    )


async def _allow_other_pages(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Access-Control-Allow-Origin"] = "*"


@web.middleware
async def _own_page_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Where no key is wanted, a page of the web that a browser here shows could use the GPU."""
    origin = request.headers.get("Origin")  # its host is looked at too: a foreign name may lead here
    if origin and (origin != f"http://{request.host}" or urlsplit(origin).hostname not in _LOOPBACK):
        told = "pages from elsewhere may not ask this endpoint: start it with SERVE_API_KEY, and send that key"
        return web.json_response({"error": told}, status=403)
    return await handler(request)


async def _listen(runner: web.AppRunner, options: EndpointOptions) -> None:
    try:
        await web.TCPSite(runner, options.host, options.port).start()
    except OSError as error:
        raise PortTaken(f"port {options.port} is taken by another process; choose another with --port") from error


def worker_environment(url: str, token: str) -> dict[str, str]:
    """What RunPod sets for a worker, by which the SDK knows that there is a queue and where."""
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_PING": f"{url}/ping/$RUNPOD_POD_ID?gpu=LOCAL",
        "RUNPOD_PING_INTERVAL": "2000",
        "RUNPOD_AI_API_KEY": token,
    }
