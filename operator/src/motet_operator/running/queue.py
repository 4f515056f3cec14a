"""The work queue: wake a key, and a worker looks at it; never two workers at one key.

Invariant: after every `wake` of a key a whole pass begins. A wake during a pass is remembered, and the pass that
follows sees what it was about; wakes before a pass begins are one. So a key needs no payload, and none can be lost.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar

from motet_operator.errors import OperatorError
from motet_operator.json_logs import about

log = logging.getLogger(__name__)

KeyT = TypeVar("KeyT", bound=Hashable)
KeyT_contra = TypeVar("KeyT_contra", bound=Hashable, contravariant=True)

FIRST_BACKOFF_SECONDS: Final = 0.5
LAST_BACKOFF_SECONDS: Final = 60.0
JITTER: Final = 0.1
"""Waiting times are spread by this share, so that keys that began together do not stay together."""


class PassObserver(Protocol[KeyT_contra]):
    """Is told how passes went."""

    def pass_ended(self, key: KeyT_contra, result: str, seconds: float, error: str) -> None:
        """`result` is `done`, `retry` (a known error) or `failed` (an unexpected one)."""
        ...


class KeyState(StrEnum):
    """Where a key is."""

    RUNNING = "running"
    WAITING = "waiting"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key is: for how long it has been running or waiting, or in how many seconds it is due."""

    state: KeyState
    seconds: float
    failures: int
    """Passes that failed since the last one that did not."""


@dataclass(frozen=True, slots=True)
class _Timer:
    due: float
    task: asyncio.Task[None]


class WorkQueue(Generic[KeyT]):
    """Keys that wait, run, or are due later. `clock` is monotonic seconds; `random` gives numbers from 0 to 1."""

    def __init__(
        self,
        look: Callable[[KeyT], Awaitable[float | None]],
        observers: Sequence[PassObserver[KeyT]],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
        log_fields: Callable[[KeyT], Mapping[str, str]] = lambda _: {},
    ) -> None:
        """`look` is one pass; it returns the seconds after which to look again, or None to wait for a wake.

        `log_fields` go with everything that is logged during a pass.
        """
        self._look = look
        self._observers = observers
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._log_fields = log_fields
        self._ready: asyncio.Queue[KeyT] = asyncio.Queue()
        self._waiting: dict[KeyT, float] = {}
        self._running: dict[KeyT, float] = {}
        self._again: set[KeyT] = set()
        self._timers: dict[KeyT, _Timer] = {}
        self._failures: dict[KeyT, int] = {}
        self._works_since: float | None = None
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._waiting)

    def longest_pass_seconds(self) -> float:
        """For how long the oldest pass under way has been running."""
        return self._clock() - min(self._running.values(), default=self._clock())

    def longest_wait_seconds(self) -> float:
        """For how long the first key in the queue has been waiting, while there are workers; 0 on standby."""
        first = next(iter(self._waiting.values()), None)
        if first is None or self._works_since is None:
            return 0.0
        return self._clock() - max(first, self._works_since)

    def places(self) -> Iterator[tuple[KeyT, Place]]:
        """Every key that is running, waiting or due later; in this order."""
        now = self._clock()
        for key, since in self._running.items():
            yield key, Place(KeyState.RUNNING, now - since, self._failures.get(key, 0))
        for key, since in self._waiting.items():
            yield key, Place(KeyState.WAITING, now - since, self._failures.get(key, 0))
        for key, timer in sorted(self._timers.items(), key=lambda entry: entry[1].due):
            yield key, Place(KeyState.LATER, timer.due - now, self._failures.get(key, 0))

    def wake(self, key: KeyT) -> None:
        """Look at this key, soon."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._clock()
            self._ready.put_nowait(key)

    async def run(self, workers: int) -> None:
        """Work until cancelled or drained. Passes that are cut off are forgotten: wake all keys before another run."""
        self._works_since = self._clock()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work())
        finally:
            self._works_since = None
            for timer in self._timers.values():
                timer.task.cancel()
            self._timers.clear()
            self._again.clear()

    async def drain(self, seconds: float) -> None:
        """Begin no further pass, and wait for those under way, but no longer than this. There is no way back."""
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def _work(self) -> None:
        while not self._draining:
            key = await self._ready.get()
            if self._draining:
                self._ready.put_nowait(key)
                return
            del self._waiting[key]
            timer = self._timers.pop(key, None)
            if timer is not None:
                timer.task.cancel()
            self._running[key] = self._clock()
            self._idle.clear()
            try:
                delay = await self._pass(key)
            finally:
                del self._running[key]
                if not self._running:
                    self._idle.set()
            if key in self._again:
                self._again.discard(key)
                self.wake(key)
            elif delay is not None:
                seconds = delay * (1 + JITTER * (2 * self._random() - 1))
                task = asyncio.create_task(self._later(key, seconds))
                self._timers[key] = _Timer(self._clock() + seconds, task)

    async def _pass(self, key: KeyT) -> float | None:
        """One pass; returns when to look again. This is the loop's edge: what goes wrong ends here."""
        began = self._clock()
        with about(self._log_fields(key)):
            try:
                delay = await self._look(key)
            except OperatorError as error:
                log.warning("%s: %s; trying again", key, error)
                return self._failed(key, "retry", began, str(error))
            except Exception as error:  # one key's fault must not end the worker, and with it everybody's passes
                log.exception("%s: the pass failed", key)
                return self._failed(key, "failed", began, repr(error))
        self._failures.pop(key, None)
        self._ended(key, "done", began, "")
        return delay

    def _failed(self, key: KeyT, result: str, began: float, error: str) -> float:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._ended(key, result, began, error)
        return min(FIRST_BACKOFF_SECONDS * 2.0 ** min(count - 1, 16), LAST_BACKOFF_SECONDS)

    def _ended(self, key: KeyT, result: str, began: float, error: str) -> None:
        for observer in self._observers:
            observer.pass_ended(key, result, self._clock() - began, error)

    async def _later(self, key: KeyT, seconds: float) -> None:
        await self._sleep(seconds)
        self._timers.pop(key, None)
        self.wake(key)
