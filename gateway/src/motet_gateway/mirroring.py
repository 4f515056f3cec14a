"""Copies of requests to versions that take no traffic yet; their answers are compared and thrown away.

Invariant: a copy never gets in the way of a request. It is sent once the version that was chosen has begun to answer,
only to a place that nobody waits for, within bounds in number, size and time; else it is left out, and counted. Nothing
that becomes of it reaches the client. A copy is compared with a version that is not itself under trial: requests that a
version with copies of its own has answered are not copied.

Copies are sent for an answer in one piece, whatever the client asked for: a stream says the same, and its text is put
together from its events to be compared.
"""

import asyncio
import logging
from types import TracebackType
from typing import Final, Self

import aiohttp

from motet_api.names import MIRROR_HEADER
from motet_gateway.calls import Call
from motet_gateway.capture import FAULTS, Capture
from motet_gateway.comparison import compare
from motet_gateway.dispatch import Dispatcher, Lease
from motet_gateway.engines import check_path
from motet_gateway.errors import GatewayError
from motet_gateway.metrics import Metrics
from motet_gateway.outcomes import Outcomes, Visit
from motet_gateway.pod_client import NotTaken, PodClient
from motet_gateway.resolve import Route
from motet_gateway.routing import Routing
from motet_gateway.split import unit_interval
from motet_gateway.table import Adapter, Mirror

log = logging.getLogger(__name__)

MAX_COPIES: Final = 32
MAX_BODY_BYTES: Final = 1 << 20
KEPT_BYTES: Final = 1 << 18
"""Of either answer; longer ones are not compared."""
COPY_SECONDS: Final = 600.0


class Mirroring:
    """Sends copies."""

    def __init__(
        self,
        pods: PodClient,
        dispatcher: Dispatcher,
        outcomes: Outcomes,
        metrics: Metrics,
        routing: Routing,
    ) -> None:
        self._pods = pods
        self._dispatcher = dispatcher
        self._outcomes = outcomes
        self._metrics = metrics
        self._routing = routing
        self._running: set[asyncio.Task[None]] = set()

    def copies(self, call: Call, request_id: str) -> "Copies":
        """Send the copies of a request that are due. What the client gets is to be told to the result."""
        adapter = call.route.adapter
        copies = Copies()
        if adapter is None or not call.route.by_split:
            return copies
        if any(mirror.version == call.route.version for mirror in adapter.mirror):
            return copies
        for mirror in adapter.mirror:
            if _is_due(adapter, mirror, request_id):
                self._send(call, adapter, mirror.version, copies)
        return copies

    async def close(self) -> None:
        """End the copies that are under way."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _send(self, call: Call, adapter: Adapter, version: str, copies: "Copies") -> None:
        model = self._routing.table.models.get(adapter.model_of(version))
        if model is None:
            return
        route = Route(model, adapter, version)
        copy = self._copy(call, route)
        lease = None if copy is None else self._dispatcher.spare(model, route.runtime_id)
        if copy is None or lease is None:
            self._metrics.mirrored(route, "dropped")
            return
        task = asyncio.create_task(self._run(copy, lease, copies.expect()), name=f"copy to {route.runtime_id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _copy(self, call: Call, route: Route) -> Call | None:
        if len(self._running) >= MAX_COPIES or len(call.body) > MAX_BODY_BYTES:
            return None
        try:
            check_path(route, call.path)
            return call.copy_to(route)
        except GatewayError:
            return None

    async def _run(self, copy: Call, lease: Lease, primary: "asyncio.Future[bytes | None]") -> None:
        try:
            answer = await self._answer(copy, lease)
            comparison = None if answer is None else compare(await primary, answer)
            if comparison is not None:
                self._outcomes.compared(copy.route, agreed=comparison.agreed, drift=comparison.drift)
        except Exception:
            # The edge of the copy: nobody waits for it.
            log.exception("a copy to %s failed", copy.route.runtime_id)
            self._metrics.fault()

    async def _answer(self, copy: Call, lease: Lease) -> bytes | None:
        """The version's answer if it is a good one and not too long; counted for the version."""
        outcome = "dropped"
        try:
            with self._outcomes.visit(copy.route) as visit:
                capture = await self._read(copy, lease, visit)
            outcome = {None: "dropped", True: "failed", False: "answered"}[visit.verdict]
            return capture.whole if capture is not None and visit.verdict is False else None
        finally:
            lease.release()
            self._metrics.mirrored(copy.route, outcome)

    async def _read(self, copy: Call, lease: Lease, visit: Visit) -> Capture | None:
        try:
            async with (
                asyncio.timeout(COPY_SECONDS),
                self._pods.asked(copy, lease.pod, {MIRROR_HEADER: "1"}, lease.last_resort) as answer,
            ):
                if isinstance(answer, NotTaken):
                    return None
                capture = Capture(KEPT_BYTES)
                capture.take(answer.first)
                while piece := await answer.response.content.readany():
                    capture.take(piece)
                if answer.fault:
                    visit.failed()
                elif answer.response.status < 400:
                    visit.answered()
                return capture
        except aiohttp.ClientError:
            visit.failed()
        except TimeoutError:
            log.info("a copy to %s took over %g s and was given up", copy.route.runtime_id, COPY_SECONDS)
        except GatewayError as error:
            if error.code in FAULTS:
                visit.failed()
        return None


class Copies:
    """The copies of one request, which wait for what the client gets."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[bytes | None]] = []

    @property
    def kept_bytes(self) -> int:
        """How much is to be kept of what the client gets."""
        return KEPT_BYTES if self._waiting else 0

    def expect(self) -> "asyncio.Future[bytes | None]":
        """What the client got, once that is known; None if it is not to be compared."""
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def compare_with(self, answer: bytes | None) -> None:
        """The client got this."""
        for future in self._waiting:
            if not future.done():
                future.set_result(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.compare_with(None)


def _is_due(adapter: Adapter, mirror: Mirror, request_id: str) -> bool:
    return unit_interval("mirror", str(adapter.key), mirror.version, request_id) * 100 < mirror.percent
