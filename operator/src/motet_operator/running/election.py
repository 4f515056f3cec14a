"""One replica at work: waits for the Lease, keeps it, and stops in time when it cannot.

Invariant: no two replicas work at once. `leads` is true only for `renew_within` after the *sending* of the last renewal
that was answered; another replica counts the longer `lease` from when it *saw* that renewal, which is later. The
difference is what the work has for stopping, and writes are refused from the first moment on (`leads` guards them).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from motet_operator.errors import ConflictError, NotFoundError, OperatorError
from motet_operator.running.lease import Lease, LeaseName, Step, make_lease, next_step, read_lease

log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. What lies between `renew_within` and `lease` is for work to stop in."""

    lease: float = 15.0
    renew_within: float = 10.0
    renew_every: float = 2.0
    look_every: float = 1.0
    """While another holds it, what a hand-over takes at most; and after a renewal that failed."""


class LeaseStore(Protocol):
    """The API server, as far as the Lease goes. All raise: UnavailableError, RefusedError."""

    async def read(self, path: str) -> Mapping[str, Any]:
        """The object. Raises: NotFoundError."""
        ...

    async def create(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make it; returns it. Raises: ConflictError where it is there already."""
        ...

    async def replace(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put it in the place of the version that it names; returns it. Raises: ConflictError, NotFoundError."""
        ...


class Leadership(Protocol):
    """Whether this process may act."""

    def leads(self) -> bool:
        """At this moment."""
        ...

    async def run(self, work: Work) -> None:
        """Do the work whenever this process leads, for ever."""
        ...


class Alone:
    """Leadership without a Lease, for a process that is known to be the only one."""

    def leads(self) -> bool:
        """Always."""
        return True

    async def run(self, work: Work) -> None:
        """Do the work."""
        await work()


class Election:
    """Leadership by a Lease. `clock` is steady seconds, and goes on while the process is stopped."""

    def __init__(
        self,
        store: LeaseStore,
        name: LeaseName,
        me: str,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
        timing: Timing = Timing(),
    ) -> None:
        """`me` is an identity that no other process ever has."""
        self._store = store
        self._name = name
        self._me = me
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._timing = timing
        self._seen: Lease | None = None
        self._before: Lease | None = None
        self._seen_at = clock()
        self._leads_until = clock()
        self._trouble = ""

    def leads(self) -> bool:
        """Whether the last renewal is recent enough."""
        return self._clock() < self._leads_until

    async def run(self, work: Work) -> None:
        """Stand by, lead, stand by again, for ever. Gives the Lease back when it is cancelled."""
        try:
            while True:
                while not await self._attempt():
                    await self._sleep(self._timing.look_every)
                log.info("leading from now on: %s holds Lease %s", self._me, self._name.path)
                await self._lead(work)
                log.warning("leading no more; standing by")
        finally:
            await self._give_back()

    async def _lead(self, work: Work) -> None:
        """Work for as long as the Lease is kept; returns once the work has stopped."""
        working = asyncio.create_task(work())
        keeping = [asyncio.create_task(self._renew()), asyncio.create_task(self._expire())]
        try:
            await asyncio.wait([working, *keeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # On the way out the Lease is kept until the work has stopped, or runs out.
            working.cancel()
            await asyncio.wait([working])
            for task in keeping:
                task.cancel()
            await asyncio.wait(keeping)
        for task in (working, *keeping):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _renew(self) -> None:
        """Keep the Lease; returns when another has it, or when it is too late to keep it as if nothing had been."""
        pause = self._timing.renew_every
        while True:
            await self._sleep(pause)
            if not self.leads():
                return
            renewed = await self._attempt()
            if self._seen is not None and self._seen.holder != self._me:
                self._leads_until = self._clock()
                return
            pause = self._timing.renew_every if renewed else self._timing.look_every

    async def _expire(self) -> None:
        """Returns when the last renewal is too long ago. Beside `_renew`, which may hang in a call."""
        while (left := self._leads_until - self._clock()) > 0:
            await self._sleep(left)

    async def _attempt(self) -> bool:
        """Look at the Lease and take the next step; whether it is ours afterwards."""
        try:
            await self._look()
            unchanged = self._clock() - self._seen_at
            if next_step(self._seen, self._before, self._me, unchanged) is Step.WAIT:
                return False
            sent = self._clock()
            await self._write(self._me, self._timing.lease)
        except (ConflictError, NotFoundError):
            # Another was faster, or it was deleted: the next look shows.
            return False
        except OperatorError as error:
            self._troubled(str(error))
            return False
        self._troubled("")
        self._leads_until = sent + self._timing.renew_within
        return self.leads()

    async def _look(self) -> None:
        try:
            self._see(read_lease(await self._store.read(self._name.path), self._timing.lease))
        except NotFoundError:
            self._see(None)

    async def _write(self, holder: str, seconds: float) -> None:
        body = make_lease(self._name, self._seen, holder, seconds, self._now())
        if self._seen is None:
            raw = await self._store.create(self._name.collection, body)
        else:
            raw = await self._store.replace(self._name.path, body)
        self._see(read_lease(raw, self._timing.lease))

    def _see(self, lease: Lease | None) -> None:
        if lease != self._seen:
            self._before = self._seen or self._before
            self._seen, self._seen_at = lease, self._clock()

    async def _give_back(self) -> None:
        """So that the next one need not wait for it to run out."""
        self._leads_until = self._clock()
        for _ in range(2):
            try:
                await self._look()
                if self._seen is None or self._seen.holder != self._me:
                    return
                await self._write("", 1)
            except ConflictError:
                # By a renewal of our own that was under way.
                continue
            except OperatorError as error:
                log.warning("Lease %s was not given back: %s", self._name.path, error)
                return
            log.info("Lease %s given back", self._name.path)
            return

    def _troubled(self, message: str) -> None:
        """Say it once, not with every attempt."""
        if message and message != self._trouble:
            log.warning("Lease %s: %s", self._name.path, message)
        self._trouble = message
