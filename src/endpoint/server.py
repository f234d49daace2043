"""All of a local endpoint as one HTTP server: routes for clients and for workers, and the worker processes."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from ..settings import LOCAL_ENDPOINT
from .client_routes import ClientRoutes, Route, require_key
from .jobs import JobQueue
from .loopback import listen, quiet_log, refusing_other_pages
from .openapi import openapi
from .webhooks import Webhooks
from .worker_routes import WorkerRoutes
from .workers import WorkerPool

log = logging.getLogger(__name__)

_PLAYGROUND_PAGE = Path(__file__).with_name("playground.html")
_API_PAGE = Path(__file__).with_name("api_docs.html")
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data: https:; "
    "media-src blob: https:; connect-src 'self' https://api.runpod.ai; form-action 'none'; base-uri 'none'"
)
_API_CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src data:; connect-src 'self' https://api.runpod.ai; "
    "form-action 'none'; base-uri 'none'"
)
_OTHER_PAGES = "pages of another origin may not use this endpoint: start it with SERVE_API_KEY, and send that key"
_MAX_BODY = 128 * 1024 * 1024  # the routes themselves refuse what is too large for RunPod


@dataclass(frozen=True)
class EndpointOptions:
    """Where it listens, how many workers it has, and the command-line arguments that they are started with.

    `examples` are inputs of jobs by the names of their workflows, for the description of the API.
    """

    port: int
    workers: int
    worker_arguments: list[str]
    key: str = ""
    host: str = "127.0.0.1"
    examples: Callable[[], Mapping[str, Mapping[str, Any]]] = dict


def serve(options: EndpointOptions, environment: Mapping[str, str], on_ready: Callable[[], None]) -> int:
    """Serve until SIGINT or SIGTERM, or until workers turn out to be unable to start here; the exit status.

    `environment` is for the worker processes; `on_ready` is called once it listens. Raises PortTaken.
    """
    return asyncio.run(_serve(options, environment, on_ready))


async def _serve(options: EndpointOptions, environment: Mapping[str, str], on_ready: Callable[[], None]) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with running_endpoint(options, {**environment, LOCAL_ENDPOINT: "1"}) as pool:
        on_ready()
        ends = [asyncio.create_task(event.wait()) for event in (stopped, pool.has_given_up)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
    if stopped.is_set():
        return 0
    log.error("the workers cannot start: fix the problem shown above, then start again")
    return 1


@asynccontextmanager
async def running_endpoint(options: EndpointOptions, environment: Mapping[str, str]) -> AsyncIterator[WorkerPool]:
    """A running endpoint with its workers.

    The workers end before the server does: the SDK retries an unreachable queue without a pause.
    """
    webhooks = Webhooks()
    queue, token = JobQueue(on_end=webhooks.tell), secrets.token_urlsafe()
    pool = WorkerPool(options.workers, options.worker_arguments, queue.worker_died)
    application = web.Application(client_max_size=_MAX_BODY)
    ClientRoutes(queue, pool, options.key).add_to(application)
    WorkerRoutes(queue, pool, token).add_to(application)
    application.router.add_get("/", _page(_PLAYGROUND_PAGE, _CONTENT_POLICY))
    application.router.add_get("/docs", _page(_API_PAGE, _API_CONTENT_POLICY))
    application.router.add_get("/openapi.json", require_key(_describe(options), options.key))
    if options.key:
        application.router.add_route("OPTIONS", "/v2/{tail:.*}", _preflight)
        application.on_response_prepare.append(_allow_other_pages)
    else:
        application.middlewares.append(refusing_other_pages(_OTHER_PAGES))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, logger=quiet_log())
    await runner.setup()
    try:
        await listen(runner, options.host, options.port)
        url = f"http://{options.host}:{options.port}/v2/local"
        await pool.start({**environment, **worker_environment(url, token)})
        yield pool
    finally:
        await pool.stop()
        await webhooks.close()
        await runner.cleanup()


def _page(file: Path, policy: str) -> Route:
    """A route that serves a page."""

    async def page(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(file, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})

    return page


def _describe(options: EndpointOptions) -> Route:
    """The route of the OpenAPI document, with an example for each stored workflow that there is when it is asked."""

    async def document(_: web.Request) -> web.StreamResponse:
        return web.json_response(await asyncio.to_thread(lambda: openapi(options.examples())))

    return document


async def _preflight(_: web.Request) -> web.StreamResponse:
    """The CORS preflight for pages of another origin, such as the playground opened as a file."""
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


def worker_environment(url: str, token: str) -> dict[str, str]:
    """The variables that RunPod sets for a worker, from which the SDK learns the URLs of the queue."""
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_PING": f"{url}/ping/$RUNPOD_POD_ID?gpu=LOCAL",
        "RUNPOD_PING_INTERVAL": "2000",
        "RUNPOD_AI_API_KEY": token,
    }
