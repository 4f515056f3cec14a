"""A clock that moves when the test says so, and sleeps that end by it."""

import asyncio
import heapq
from itertools import count


async def settle() -> None:
    """Let every task go on until it waits for something."""
    for _ in range(30):
        await asyncio.sleep(0)


class Timeline:
    """Steady seconds. `clock` and `sleep` are what a part is given."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._order = count()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), over))
        await over.wait()

    async def advance(self, seconds: float) -> None:
        """Time goes by, and whoever sleeps wakes when it is due."""
        end = self.now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, over = heapq.heappop(self._sleepers)
            self.now = max(self.now, due)
            over.set()
            await settle()
        self.now = end
        await settle()

    async def freeze(self, seconds: float) -> None:
        """Time goes by without anybody noticing, as for a process that is stopped."""
        self.now += seconds
