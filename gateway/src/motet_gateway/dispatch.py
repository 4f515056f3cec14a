"""The queue of each model: which pod a request gets, and how long it may wait for one.

Invariant: a request waits only while no pod that could answer it has room. Whenever room may have appeared (an answer
ended, a pod or a version came up) the queue is gone through in order of arrival and each request gets, of the pods that
hold its version, the one with the fewest requests in flight; one that no free pod can answer is passed over, so it
holds up nobody behind it. So a request that arrives while others wait may take a free pod at once: those who wait had
no use for it.

Every request is waiting, or running on one pod, or gone; the counts that scale the model are the lengths of those sets.
"""

import asyncio
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_gateway.errors import RequestRefusedError, UnavailableError
from motet_gateway.fleet import Fleet, PodView
from motet_gateway.split import unit_interval
from motet_gateway.table import Model, ObjectKey, Pod, PodKey, Table

RETRY_SECONDS: Final = {ErrorCode.OVERLOADED: 2, ErrorCode.NO_READY_POD: 5, ErrorCode.ADAPTER_NOT_READY: 2}
EXPIRY_CHECK_SECONDS: Final = 0.25


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place: what it needs and until when (by the dispatcher's clock) it may wait, over all tries.

    `spills`: when the pods that hold the version are full, a pod that would load it is as good.
    """

    model: Model
    adapter: AdapterId | None
    deadline: float
    spills: bool = False
    tried: int = 0


class Lease:
    """A place on a pod. Give it back with `release`, once; more often does no harm.

    `last_resort` says that the pod has failed to load the version, and may do so again.
    """

    __slots__ = ("_dispatcher", "_model", "last_resort", "pod")

    def __init__(self, dispatcher: "Dispatcher", model: ObjectKey, pod: Pod, last_resort: bool) -> None:
        self._dispatcher: Dispatcher | None = dispatcher
        self._model = model
        self.pod = pod
        self.last_resort = last_resort

    def release(self) -> None:
        """The request no longer occupies the pod."""
        dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None:
            dispatcher.released(self._model, self.pod.key)


Queue = OrderedDict[Ticket, "asyncio.Future[Lease]"]
"""Who waits, in order of arrival."""


class Dispatcher:
    """Grants places on pods. Lives on the event loop's thread; nothing in it blocks."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._fleet = Fleet()
        self._queues: defaultdict[ObjectKey, Queue] = defaultdict(OrderedDict)
        self._running: Counter[ObjectKey] = Counter()
        self._in_flight: Counter[PodKey] = Counter()
        self._last_grant: dict[PodKey, int] = {}
        self._grants = 0

    def ticket(self, model: Model, adapter: AdapterId | None, spills: bool = False) -> Ticket:
        """A place in the queue for a request that arrives now."""
        return Ticket(model, adapter, self._clock() + model.max_wait_seconds, spills)

    def moved(self, ticket: Ticket, model: Model, adapter: AdapterId | None, spills: bool) -> Ticket:
        """The place of a request that now goes to another version: it keeps the tries, and may wait no longer."""
        return Ticket(model, adapter, ticket.deadline, spills, ticket.tried)

    async def acquire(self, ticket: Ticket) -> Lease:
        """A place on a pod, at once or after waiting. Cancelling the caller takes it out of the queue.

        A ticket that comes again (its pod failed before it answered) goes to the front: it has waited longest.

        Raises:
            UnavailableError: the queue is full, the waiting time is over, or waiting cannot help.
            RequestRefusedError: the model was deleted while the request waited.
        """
        ticket.tried += 1
        pod = self._choose(ticket)
        if pod is not None:
            return self._grant(ticket, pod)
        model = ticket.model.key
        if (verdict := self._fleet.hopeless(model, ticket.adapter)) is not None:
            raise _unavailable(ErrorCode.ADAPTER_NOT_READY, verdict.message)
        queue = self._queues[model]
        if ticket.tried == 1 and len(queue) >= ticket.model.max_requests:
            raise _unavailable(ErrorCode.OVERLOADED, f"{len(queue)} requests wait for {model} already")
        if self._clock() >= ticket.deadline:
            raise self._too_late(ticket)
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        queue[ticket] = future
        if ticket.tried > 1:
            queue.move_to_end(ticket, last=False)
        try:
            return await future
        except asyncio.CancelledError:
            queue.pop(ticket, None)
            # The place may have been granted in the same turn of the loop in which the client left.
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().release()
            raise

    def spare(self, model: Model, adapter: AdapterId | None) -> Lease | None:
        """A place that nobody waits for, or None: for what may as well be left undone."""
        if self._queues.get(model.key):
            return None
        ticket = self.ticket(model, adapter)
        pod = self._choose(ticket)
        return None if pod is None else self._grant(ticket, pod)

    def any_pod(self, model: ObjectKey) -> Pod:
        """A pod that serves the model, for a question that takes no place in a batch.

        Raises:
            UnavailableError: there is none.
        """
        found = self._fleet.serving(model, None)
        if not found:
            raise _unavailable(ErrorCode.NO_READY_POD, f"no pod of {model} is ready")
        return min(found, key=lambda pair: (self._in_flight[pair[0].key], pair[0].key))[0]

    def update(self, table: Table, fleet: Fleet) -> None:
        """Take in a new state of the world: serve whom it lets us serve, refuse those for whom it is over."""
        self._fleet = fleet
        known = {pod.key for pods in fleet.pods.values() for pod in pods}
        self._last_grant = {key: turn for key, turn in self._last_grant.items() if key in known}
        for model, queue in list(self._queues.items()):
            if model not in table.models:
                message = f"ModelDeployment {model} was deleted"
                for future in queue.values():
                    _fail(future, RequestRefusedError(ErrorCode.MODEL_NOT_FOUND, message))
                del self._queues[model]
                continue
            self._serve(model)
            self._drop_hopeless(model, queue)

    def expire(self) -> None:
        """Refuse the requests whose waiting time is over."""
        now = self._clock()
        for queue in self._queues.values():
            for ticket in [ticket for ticket in queue if now >= ticket.deadline]:
                _fail(queue.pop(ticket), self._too_late(ticket))

    async def run(self, sleep: Callable[[float], Awaitable[None]]) -> NoReturn:
        """Expire requests for as long as the gateway runs."""
        while True:
            await sleep(EXPIRY_CHECK_SECONDS)
            self.expire()

    def released(self, model: ObjectKey, pod: PodKey) -> None:
        """A place has become free. Called by the lease, once."""
        self._running[model] -= 1
        self._in_flight[pod] -= 1
        if not self._in_flight[pod]:
            # A pod's name never comes back: a zero kept would be kept for ever.
            del self._in_flight[pod]
        if self._queues.get(model):
            self._serve(model)

    def waiting(self, model: ObjectKey) -> int:
        """Requests held for the model."""
        return len(self._queues[model]) if model in self._queues else 0

    def running(self, model: ObjectKey) -> int:
        """Requests of the model sent to a pod and not yet answered in full."""
        return self._running[model]

    def in_flight(self, pod: PodKey) -> int:
        """Requests on the pod."""
        return self._in_flight[pod]

    def _choose(self, ticket: Ticket) -> Pod | None:
        tiers = self._fleet.tiers(ticket.model.key, ticket.adapter)
        for tier in (tiers.resident, tiers.warming):
            free = self._free(tier)
            if free:
                return min(free, key=self._load)
            if tier and not ticket.spills:
                return None
        # Every gateway picks the same pod, so that a version is loaded once.
        free = self._free(tiers.standby or tiers.failing)
        return min(free, key=lambda pod: _draw(ticket, pod), default=None)

    def _free(self, pods: list[tuple[Pod, PodView]]) -> list[Pod]:
        return [pod for pod, view in pods if self._in_flight[pod.key] < view.max_batch_size]

    def _load(self, pod: Pod) -> tuple[int, int, PodKey]:
        return self._in_flight[pod.key], self._last_grant.get(pod.key, 0), pod.key

    def _grant(self, ticket: Ticket, pod: Pod) -> Lease:
        self._grants += 1
        self._last_grant[pod.key] = self._grants
        self._in_flight[pod.key] += 1
        self._running[ticket.model.key] += 1
        failing = self._fleet.views[pod.key].failing
        return Lease(self, ticket.model.key, pod, last_resort=ticket.adapter in failing)

    def _serve(self, model: ObjectKey) -> None:
        queue = self._queues[model]
        passed_over: set[AdapterId | None] = set()
        served: list[Ticket] = []
        for ticket, future in queue.items():
            if future.done() or ticket.adapter in passed_over:
                continue
            pod = self._choose(ticket)
            if pod is not None:
                future.set_result(self._grant(ticket, pod))
                served.append(ticket)
                continue
            passed_over.add(ticket.adapter)
            if not self._room(model):
                break
        for ticket in served:
            del queue[ticket]

    def _room(self, model: ObjectKey) -> bool:
        return any(
            (view := self._fleet.views.get(pod.key)) is not None and self._in_flight[pod.key] < view.max_batch_size
            for pod in self._fleet.pods.get(model, ())
            if pod.ready
        )

    def _drop_hopeless(self, model: ObjectKey, queue: Queue) -> None:
        verdicts = {adapter: self._fleet.hopeless(model, adapter) for adapter in {ticket.adapter for ticket in queue}}
        for ticket in list(queue):
            if (verdict := verdicts[ticket.adapter]) is not None:
                _fail(queue.pop(ticket), _unavailable(ErrorCode.ADAPTER_NOT_READY, verdict.message))

    def _too_late(self, ticket: Ticket) -> UnavailableError:
        model, seconds = ticket.model.key, ticket.model.max_wait_seconds
        if not self._fleet.serving(model, None):
            return _unavailable(ErrorCode.NO_READY_POD, f"no pod of {model} became ready within {seconds:g} s")
        if not self._fleet.serving(model, ticket.adapter):
            return _unavailable(ErrorCode.ADAPTER_NOT_READY, f"{ticket.adapter} was not loaded within {seconds:g} s")
        return _unavailable(ErrorCode.NO_READY_POD, f"every pod of {model} was busy for {seconds:g} s")


def _unavailable(code: ErrorCode, message: str) -> UnavailableError:
    return UnavailableError(code, message, RETRY_SECONDS[code])


def _draw(ticket: Ticket, pod: Pod) -> float:
    """Rendezvous hashing: the lowest draw wins."""
    return unit_interval(str(ticket.adapter), *pod.key)


def _fail(future: asyncio.Future[Lease], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
