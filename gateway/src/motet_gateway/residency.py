"""Asks every pod what it holds: once a second, and at once after a surprise.

Invariant: silence is not an answer. A pod that misses a poll keeps what it last said for a few seconds, marked as not
fresh (it is then asked only where no other pod can answer), and after that is unknown: neither empty nor usable.

What a pod did not have when it was asked it may have by now: when the table says anew what the pods of a model hold,
they are asked at once, and until they have answered nothing is refused for not being there.
"""

import asyncio
import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Final, Protocol

from motet_api.identity import AdapterId
from motet_api.reasons import AdapterReason
from motet_api.wire import AdapterReport, AdaptersReport
from motet_gateway.fleet import Fleet, PodView
from motet_gateway.routing import Routing
from motet_gateway.table import Pod, PodKey, Source, Table

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
TRUST_SECONDS: Final = 5.0
"""How long the last answer of a pod that has fallen silent is still used."""


class PodUnreachableError(Exception):
    """The pod did not answer, or not as agreed."""


class ReportFetcher(Protocol):
    """Asks a pod for its report."""

    async def fetch(self, pod: Pod) -> AdaptersReport:
        """What the pod holds. Raises: PodUnreachableError."""
        ...


def view_of(report: AdaptersReport) -> PodView:
    """The part of a report that routing goes by."""
    adapters = report.adapters
    by_reason: defaultdict[AdapterReason, set[AdapterId]] = defaultdict(set)
    for adapter in adapters:
        by_reason[adapter.reason].add(adapter.id)
    return PodView(
        model=report.model,
        resident=frozenset(by_reason[AdapterReason.RESIDENT]),
        standby=frozenset(by_reason[AdapterReason.STANDBY]),
        loading=frozenset(by_reason[AdapterReason.LOADING]),
        failed={a.id: f"{a.reason}: {a.message}" if a.message else str(a.reason) for a in adapters if a.reason.failed},
        base_loaded=report.base_loaded,
        desired_known=report.desired_known,
        draining=report.draining,
        max_batch_size=report.max_batch_size,
        sources={adapter.id: _source(adapter) for adapter in adapters},
    )


def _source(adapter: AdapterReport) -> Source:
    """What a resident version was found to be; what another one will be checked against."""
    resident = adapter.reason is AdapterReason.RESIDENT
    return Source(adapter.uri, adapter.digest if resident else adapter.desired_digest)


class ResidencyPoller:
    """One task per pod of the table; results go to `routing`."""

    def __init__(
        self,
        routing: Routing,
        fetcher: ReportFetcher,
        clock: Callable[[], float],
        on_failure: Callable[[Pod], None],
        poll_seconds: float = POLL_SECONDS,
        trust_seconds: float = TRUST_SECONDS,
    ) -> None:
        self._routing = routing
        self._fetcher = fetcher
        self._clock = clock
        self._on_failure = on_failure
        self._poll_seconds = poll_seconds
        self._trust_seconds = trust_seconds
        self._table: Table | None = None
        self._followed: dict[PodKey, _Followed] = {}

    def follow(self, table: Table, _fleet: Fleet) -> None:
        """Poll the pods of this table, and no others. Called on the event loop after every change."""
        if table is self._table:
            return
        before, self._table = self._table, table
        wanted = {pod.key: pod for pod in table.all_pods()}
        for key in [key for key, followed in self._followed.items() if _moved(followed.pod, wanted.get(key))]:
            self._followed.pop(key).task.cancel()
            self._routing.set_view(key, None)
        for key, pod in wanted.items():
            if key not in self._followed:
                wake = asyncio.Event()
                task = asyncio.create_task(self._poll(pod, wake), name=f"residency {key.namespace}/{key.name}")
                self._followed[key] = _Followed(pod, wake, task)
            elif before is not None and before.expected.get(pod.model) is not table.expected.get(pod.model):
                self._ask_again(key)

    def doubt(self, pod: PodKey) -> None:
        """A request met something else than what the pod last said: it is unknown until it answers the next poll."""
        self._routing.set_view(pod, None)
        self._poke(pod)

    def draining(self, pod: PodKey) -> None:
        """The pod refused a request because it is draining."""
        if (view := self._routing.said.get(pod)) is not None:
            self._routing.set_view(pod, dataclasses.replace(view, draining=True))
        self._poke(pod)

    async def close(self) -> None:
        """End every poll."""
        tasks = [followed.task for followed in self._followed.values()]
        self._followed.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ask_again(self, pod: PodKey) -> None:
        """The table says something else of what the pod should hold than when it was asked."""
        self._followed[pod].changes += 1
        if (view := self._routing.said.get(pod)) is not None:
            self._routing.set_view(pod, dataclasses.replace(view, behind=True))
        self._poke(pod)

    def _changes(self, pod: PodKey) -> int:
        followed = self._followed.get(pod)
        return 0 if followed is None else followed.changes

    def _poke(self, pod: PodKey) -> None:
        if (followed := self._followed.get(pod)) is not None:
            followed.wake.set()

    async def _poll(self, pod: Pod, wake: asyncio.Event) -> None:
        answered_at: float | None = None
        while True:
            wake.clear()
            changes = self._changes(pod.key)
            try:
                view = view_of(await self._fetcher.fetch(pod))
            except PodUnreachableError as error:
                log.debug("pod %s/%s did not say what it holds: %s", *pod.key, error)
                self._on_failure(pod)
                self._missed(pod.key, answered_at)
            except Exception:
                # The loop's edge: a poll that ended for good would leave the pod unknown for ever.
                log.exception("the poll of pod %s/%s failed", *pod.key)
                self._on_failure(pod)
                self._missed(pod.key, answered_at)
            else:
                answered_at = self._clock()
                behind = self._changes(pod.key) != changes
                self._routing.set_view(pod.key, dataclasses.replace(view, behind=behind))
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await wake.wait()
            except TimeoutError:
                continue

    def _missed(self, pod: PodKey, answered_at: float | None) -> None:
        view = self._routing.said.get(pod)
        if view is None:
            return
        trusted = answered_at is not None and self._clock() - answered_at < self._trust_seconds
        self._routing.set_view(pod, dataclasses.replace(view, fresh=False) if trusted else None)


@dataclasses.dataclass(slots=True)
class _Followed:
    pod: Pod
    wake: asyncio.Event
    task: asyncio.Task[None]
    changes: int = 0
    """How often the table has said anew what the pod should hold."""


def _moved(pod: Pod, wanted: Pod | None) -> bool:
    return wanted is None or (wanted.address, wanted.reports_at) != (pod.address, pod.reports_at)
