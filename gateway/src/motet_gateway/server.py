"""The HTTP server, and how it stops."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from motet_gateway.app import Lifecycle

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn, without its own handling of signals: it would close the port at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the server."""
        yield


def make_server(app: ASGIApp, host: str, port: int, finish_seconds: float) -> Server:
    """A server for the application. Requests in flight have `finish_seconds` to end once it is told to exit."""
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=max(1, round(finish_seconds)),
        )
    )


async def stop_in_order(
    server: Server,
    lifecycle: Lifecycle,
    requested: asyncio.Event,
    grace_seconds: float,
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Once requested: say "not ready", go on serving until that has reached those who send requests, then finish."""
    await requested.wait()
    log.info("stopping: not ready from now on, the port closes in %g s", grace_seconds)
    lifecycle.stopping = True
    await sleep(grace_seconds)
    server.should_exit = True
