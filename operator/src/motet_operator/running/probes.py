"""The operator's own HTTP: is it alive, is it at work, and its metrics."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from motet_api.names import LIVE_PATH, READY_PATH

STUCK_SECONDS: Final = 120.0
"""Every call in a pass has a timeout: one that takes this long is stuck, and only a restart helps."""


def make_probes(longest_pass_seconds: Callable[[], float], is_ready: Callable[[], bool]) -> web.Application:
    """Liveness (the event loop turns, since it answers, and no pass is stuck) and readiness (the watches are up).

    A warm standby is ready: it can take over at once.
    """

    async def live(_: web.Request) -> web.Response:
        stuck = longest_pass_seconds() > STUCK_SECONDS
        return web.Response(status=503 if stuck else 200, text="a pass is stuck\n" if stuck else "ok\n")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if is_ready() else web.Response(status=503, text="objects not listed yet\n")

    app = web.Application()
    app.add_routes([web.get(LIVE_PATH, live), web.get(READY_PATH, ready)])
    return app


def make_metrics_page(registry: CollectorRegistry) -> web.Application:
    """The metrics, as Prometheus reads them."""

    async def page(_: web.Request) -> web.Response:
        # Beside the event loop: with ten thousand objects the text is a megabyte or two.
        text = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/metrics", page)])
    return app


@asynccontextmanager
async def serving(app: web.Application, port: int, host: str | None = None) -> AsyncIterator[None]:
    """Serve an application on a port (of all addresses, unless one is named) while the block runs."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
