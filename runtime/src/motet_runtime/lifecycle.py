"""From start to drain: what the three probes answer, and how many requests are in flight.

| state      | /livez            | /readyz                              | new requests        |
|------------|-------------------|--------------------------------------|---------------------|
| starting   | yes               | no: what is waited for               | 503 model not ready |
| serving    | loop turns        | yes                                  | served              |
| draining   | loop turns        | no: draining                         | served, for a grace |
| refusing   | loop turns        | no: draining                         | 503 draining        |
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from motet_api.errors import ErrorCode
from motet_runtime.errors import RequestError

STALLED_SECONDS: Final = 120.0
"""An engine whose loop has not turned for this long is taken for dead; a step takes seconds at most."""


class Lifecycle:
    """One process's life. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._refusing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        self.in_flight = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while it runs.

        Raises:
            RequestError: no new requests are taken.
        """
        if self._refusing:
            raise RequestError(ErrorCode.DRAINING, "this pod is going away and takes no new requests: retry elsewhere")
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()

    def start_draining(self) -> None:
        """Say not ready from now on, and go on serving: those who route here take a moment to notice."""
        self.draining = True

    async def drain(self, grace: float, limit: float) -> bool:
        """Serve for `grace` seconds more, refuse, wait up to `limit` for those in flight; returns whether all ended."""
        self.start_draining()
        await self._sleep(grace)
        self._refusing = True
        try:
            async with asyncio.timeout(limit):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
