"""Starts what waits, as the fair queue says, and keeps what became of it. The one place where unforeseen faults end."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, NoReturn, TypeVar

from motet_api.reasons import AdapterReason
from motet_operator.store import backoff
from motet_operator.store.catalogue import Catalogue
from motet_operator.store.errors import BeyondBoundsError, StoreError
from motet_operator.store.fair_queue import FairQueue, Place
from motet_operator.store.metrics import StoreMetrics
from motet_operator.store.pull import Progress, Puller, shown
from motet_operator.store.records import Failure
from motet_operator.store.sources.contract import SourceError
from motet_operator.store.wanted import Wanted

log = logging.getLogger(__name__)

Item = TypeVar("Item", bound=Hashable)
_STILL_ASKED_SECONDS: Final = 1800.0
"""What nobody has asked about for so long is not tried again by itself."""
_TICK_SECONDS: Final = 1.0


class Workers(Generic[Item]):
    """Runs `work` for every item that is put, as many at once as the queue lets. `work` raises nothing."""

    def __init__(self, queue: FairQueue[Item], work: Callable[[Item, str], Awaitable[None]]) -> None:
        self.queue = queue
        self._work = work
        self._wake = asyncio.Event()

    def put(self, item: Item, namespace: str, host: str) -> None:
        """Begin, as soon as there is a place."""
        self.queue.put(item, namespace, host)
        self._wake.set()

    async def run(self) -> NoReturn:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while (place := self.queue.take()) is not None:
                    group.create_task(self._do(place))

    async def _do(self, place: Place[Item]) -> None:
        try:
            await self._work(place.item, place.namespace)
        finally:
            self.queue.done(place)
            self._wake.set()


@dataclass(frozen=True, slots=True)
class Listed:
    """An artifact that was not fetched, as nobody who asked may have so many bytes. None: its source does not say."""

    size: int | None
    at: float


class Pulls:
    """The jobs that fetch.

    Several namespaces may ask for one artifact, each bounded by its quota: it is fetched if one of them may have it.
    """

    def __init__(
        self,
        puller: Puller,
        catalogue: Catalogue,
        metrics: StoreMetrics,
        now: Callable[[], float],
        total: int,
        per_host: int,
        jitter: random.Random,
    ) -> None:
        self._puller = puller
        self._catalogue = catalogue
        self._metrics = metrics
        self._now = now
        self._jitter = jitter
        self._workers = Workers(FairQueue[Wanted](total, per_host), self._pull)
        self._progress: dict[Wanted, Progress] = {}
        self._asked: dict[Wanted, tuple[str, float]] = {}
        self._bounds: dict[Wanted, int | None] = {}
        self._listed: dict[Wanted, Listed] = {}
        metrics.measure_jobs(self._workers.queue)

    def begin(self, wanted: Wanted, namespace: str, bound: int | None) -> None:
        """Fetch, for an object of a namespace, if it has not more bytes than `bound`."""
        self._widen(wanted, bound)
        self._workers.put(wanted, namespace, wanted.host)

    def asked(self, wanted: Wanted, namespace: str, bound: int | None) -> None:
        """Somebody waits for what is under way, or has failed: it is tried again by itself."""
        self._asked[wanted] = (namespace, self._now())
        self._widen(wanted, bound)

    def listed(self, wanted: Wanted) -> Listed | None:
        """What was found of an artifact that nobody was to have."""
        return self._listed.get(wanted)

    def _widen(self, wanted: Wanted, bound: int | None) -> None:
        known = self._bounds.get(wanted, 0)
        self._bounds[wanted] = None if bound is None or known is None else max(bound, known)

    def progress(self, wanted: Wanted) -> Progress | None:
        """How far the job is; None if there is none."""
        if wanted not in self._workers.queue:
            return None
        return self._progress.get(wanted) or Progress()

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._workers.run())
            group.create_task(self._retry())

    async def _retry(self) -> NoReturn:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.retry_due()

    def retry_due(self) -> None:
        """Begin what is due and still asked for; forget failures that nobody has asked about since they were due."""
        now = self._now()
        for wanted, failure in list(self._catalogue.failures.items()):
            if failure.again_at > now or wanted in self._workers.queue:
                continue
            namespace, at = self._asked.get(wanted, ("", 0.0))
            if now - at < _STILL_ASKED_SECONDS:
                self.begin(wanted, namespace, self._bounds.get(wanted, 0))
            elif now - failure.again_at > backoff.PERMANENT_SECONDS:
                self._catalogue.drop_failure(wanted)
        self._asked = {wanted: value for wanted, value in self._asked.items() if wanted in self._catalogue.failures}
        waiting = self._asked.keys()
        self._bounds = {key: most for key, most in self._bounds.items() if key in waiting or key in self._workers.queue}
        self._listed = {key: found for key, found in self._listed.items() if now - found.at < _STILL_ASKED_SECONDS}

    async def _pull(self, wanted: Wanted, namespace: str) -> None:
        progress = self._progress[wanted] = Progress()
        try:
            await self._puller.pull(wanted, progress, lambda: self._bounds.get(wanted, 0))
        except BeyondBoundsError as error:
            self._listed[wanted] = Listed(error.size, self._now())
            self._bounds.pop(wanted, None)
            self._catalogue.drop_failure(wanted)
            self._metrics.job_ended("listed")
        except (StoreError, SourceError) as error:
            self._fail(wanted, namespace, error.reason, error.message, error.retry_after)
        except Exception as error:  # the job's edge: one source's fault must not end the store
            log.exception("%s for namespace %s", shown(wanted.uri), namespace)
            message = f"a fault of the store, see its log: {type(error).__name__}"
            self._fail(wanted, namespace, AdapterReason.LOAD_FAILED, message, None)
        else:
            self._listed.pop(wanted, None)
            self._bounds.pop(wanted, None)
            self._metrics.job_ended("verified")
            log.info("%s for namespace %s is verified", shown(wanted.uri), namespace)
        finally:
            del self._progress[wanted]

    def _fail(
        self, wanted: Wanted, namespace: str, reason: AdapterReason, message: str, retry_after: float | None
    ) -> None:
        before = self._catalogue.failures.get(wanted)
        attempts = before.attempts + 1 if before is not None else 1
        now = self._now()
        again_at = now + backoff.seconds(reason, attempts, retry_after, self._jitter)
        self._catalogue.drop_failure(wanted)
        self._catalogue.fail(
            Failure(wanted=wanted, reason=reason, message=message, attempts=attempts, at=now, again_at=again_at)
        )
        self._asked.setdefault(wanted, (namespace, now))
        self._metrics.job_ended("failed", reason)
        log.warning("%s for namespace %s: %s: %s", shown(wanted.uri), namespace, reason, message)
