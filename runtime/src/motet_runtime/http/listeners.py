"""Two uvicorn listeners in one event loop. Signals are the process's business, not theirs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

LAST_WORDS_SECONDS: Final = 2
"""For sending what is already answered when the context closes; what still runs then has had its time to drain."""


class _Listener(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: ending is orchestrated by whoever started both listeners."""
        yield


@asynccontextmanager
async def listening(apps: list[tuple[ASGIApp, int]], host: str) -> AsyncIterator[None]:
    """Serve each application on its port for as long as the context is open."""
    servers = [
        _Listener(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=LAST_WORDS_SECONDS,
            )
        )
        for app, port in apps
    ]
    tasks = [asyncio.create_task(server.serve()) for server in servers]
    try:
        while not all(server.started for server in servers):
            for task in tasks:
                if task.done():
                    task.result()
                    raise OSError("a listener ended before it had started: is its port taken?")
            await asyncio.sleep(0.01)
        yield
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)
