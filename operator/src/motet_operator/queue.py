"""The work queue: wake a key, and a worker looks at it; never two workers at one key.

Invariant: after every `wake` of a key a whole pass begins. A wake during a pass is remembered, and the pass that
follows sees what it was about; wakes before a pass begins are one. So a key needs no payload, and none can be lost.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, NoReturn, Protocol, TypeVar

from motet_operator.errors import OperatorError

log = logging.getLogger(__name__)

KeyT = TypeVar("KeyT", bound=Hashable)

FIRST_BACKOFF_SECONDS: Final = 0.5
LAST_BACKOFF_SECONDS: Final = 60.0
JITTER: Final = 0.1
"""Waiting times are spread by this share, so that keys that began together do not stay together."""


class PassObserver(Protocol):
    """Is told how passes went."""

    def pass_ended(self, result: str, seconds: float) -> None:
        """`result` is `done`, `retry` (a known error) or `failed` (an unexpected one)."""
        ...


class WorkQueue(Generic[KeyT]):
    """Keys that wait, run, or are due later. `clock` is monotonic seconds; `random` gives numbers from 0 to 1."""

    def __init__(
        self,
        look: Callable[[KeyT], Awaitable[float | None]],
        observer: PassObserver,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> None:
        """`look` is one pass; it returns the seconds after which to look again, or None to wait for a wake."""
        self._look = look
        self._observer = observer
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._ready: asyncio.Queue[KeyT] = asyncio.Queue()
        self._waiting: set[KeyT] = set()
        self._running: dict[KeyT, float] = {}
        self._again: set[KeyT] = set()
        self._timers: dict[KeyT, asyncio.Task[None]] = {}
        self._failures: dict[KeyT, int] = {}

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._waiting)

    def longest_pass_seconds(self) -> float:
        """For how long the oldest pass under way has been running."""
        return self._clock() - min(self._running.values(), default=self._clock())

    def wake(self, key: KeyT) -> None:
        """Look at this key, soon."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    async def run(self, workers: int) -> None:
        """Work for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _work(self) -> NoReturn:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            timer = self._timers.pop(key, None)
            if timer is not None:
                timer.cancel()
            self._running[key] = self._clock()
            try:
                delay = await self._pass(key)
            finally:
                del self._running[key]
            if key in self._again:
                self._again.discard(key)
                self.wake(key)
            elif delay is not None:
                spread = 1 + JITTER * (2 * self._random() - 1)
                self._timers[key] = asyncio.create_task(self._later(key, delay * spread))

    async def _pass(self, key: KeyT) -> float | None:
        """One pass; returns when to look again. This is the loop's edge: what goes wrong ends here."""
        began = self._clock()
        try:
            delay = await self._look(key)
        except OperatorError as error:
            log.warning("%s: %s; trying again", key, error)
            return self._failed(key, "retry", began)
        except Exception:
            log.exception("%s: the pass failed", key)
            return self._failed(key, "failed", began)
        self._failures.pop(key, None)
        self._observer.pass_ended("done", self._clock() - began)
        return delay

    def _failed(self, key: KeyT, result: str, began: float) -> float:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._observer.pass_ended(result, self._clock() - began)
        return min(FIRST_BACKOFF_SECONDS * 2.0 ** min(count - 1, 16), LAST_BACKOFF_SECONDS)

    async def _later(self, key: KeyT, seconds: float) -> None:
        await self._sleep(seconds)
        self._timers.pop(key, None)
        self.wake(key)
