"""Brings a request to a pod that takes it, and the answer back.

Invariant: a request is sent again only while nothing of an answer has reached the client, and only because the pod
could not be reached or said that it does not take it (draining, loading, version not resident). A version that the
split chose, and that no pod holds any more, is chosen again; one that the client named is not.
"""

import logging
from itertools import count
from typing import Final

from starlette.types import Receive, Scope, Send

from motet_api.errors import ErrorCode
from motet_api.names import REQUEST_ID_HEADER
from motet_gateway.calls import Call
from motet_gateway.capture import FAULTS
from motet_gateway.dispatch import Dispatcher, Ticket
from motet_gateway.engines import check_path
from motet_gateway.errors import GatewayError
from motet_gateway.exchange import Exchange, exchange_of
from motet_gateway.metrics import Metrics
from motet_gateway.mirroring import Mirroring
from motet_gateway.outcomes import Outcomes, Visit
from motet_gateway.pod_client import NotTaken, PodClient, Taken
from motet_gateway.relay import Relay
from motet_gateway.table import Pod

log = logging.getLogger(__name__)

MAX_TRIES: Final = 4
_CHOSEN_AGAIN: Final = frozenset({ErrorCode.ADAPTER_NOT_READY, ErrorCode.MODEL_NOT_FOUND})
"""Why waiting for a version ends that another version may not suffer from."""


class Proxy:
    """Forwards calls to pods."""

    def __init__(
        self, pods: PodClient, dispatcher: Dispatcher, metrics: Metrics, outcomes: Outcomes, mirroring: Mirroring
    ) -> None:
        self._pods = pods
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._outcomes = outcomes
        self._mirroring = mirroring

    def queued(self, call: Call) -> "Forwarded":
        """The answer to a call that takes a place in a pod's batch, after waiting for one where needed.

        Raises:
            RequestRefusedError: the model's engine does not answer this path.
        """
        check_path(call.route, call.path)
        return Forwarded(self, call, takes_place=True)

    def unqueued(self, call: Call) -> "Forwarded":
        """The answer to a call that takes no place: a question about the model. Raises: as `queued`."""
        check_path(call.route, call.path)
        return Forwarded(self, call, takes_place=False)

    async def forward_queued(self, call: Call, exchange: Exchange, send: Send) -> None:
        """Answer the call, from the first pod that takes it.

        Raises:
            GatewayError: no pod took it, or the one that did failed before the first byte.
        """
        route = call.route
        ticket = self._dispatcher.ticket(route.model, route.runtime_id, route.spills)
        with self._outcomes.visit(route) as visit:
            while (moved := await self._attempt(call, ticket, visit, exchange, send)) is not None:
                call, ticket = moved

    async def forward_unqueued(self, call: Call, exchange: Exchange, send: Send) -> None:
        """As `forward_queued`, without the queue. Raises: GatewayError."""
        for tried in count(1):
            pod = self._dispatcher.any_pod(call.route.model.key)
            not_taken = await self._try(call, pod, None, exchange, send)
            if not_taken is None:
                return
            if tried >= MAX_TRIES:
                raise not_taken.error

    async def _attempt(
        self, call: Call, ticket: Ticket, visit: Visit, exchange: Exchange, send: Send
    ) -> tuple[Call, Ticket] | None:
        """One place on one pod: None once it has answered, else what to try next. Raises: GatewayError."""
        try:
            lease = await self._dispatcher.acquire(ticket)
        except GatewayError as error:
            if error.code in _CHOSEN_AGAIN and (moved := self._moved(call, ticket, visit, exchange)) is not None:
                return moved
            raise
        try:
            not_taken = await self._try(call, lease.pod, visit, exchange, send, lease.last_resort)
        finally:
            lease.release()
        if not_taken is None:
            return None
        if not_taken.cause == "absent" and (moved := self._moved(call, ticket, visit, exchange)) is not None:
            return moved
        if ticket.tried >= MAX_TRIES:
            _judge(visit, not_taken.error)
            raise not_taken.error
        return call, ticket

    def _moved(self, call: Call, ticket: Ticket, visit: Visit, exchange: Exchange) -> tuple[Call, Ticket] | None:
        if ticket.tried >= MAX_TRIES or (moved := call.moved()) is None:
            return None
        check_path(moved.route, moved.path)
        log.info("request %s: %s instead of %s", exchange.request_id, moved.route.runtime_id, call.route.runtime_id)
        visit.move(moved.route)
        exchange.route = moved.route
        return moved, self._dispatcher.moved(ticket, moved.route.model, moved.route.runtime_id, moved.route.spills)

    async def _try(
        self,
        call: Call,
        pod: Pod,
        visit: Visit | None,
        exchange: Exchange,
        send: Send,
        last_resort: bool = False,
    ) -> NotTaken | None:
        headers = {REQUEST_ID_HEADER: exchange.request_id}
        try:
            async with self._pods.asked(call, pod, headers, last_resort) as answer:
                if isinstance(answer, Taken):
                    await self._relay(call, pod, answer, visit, exchange, send)
                    return None
        except GatewayError as error:
            _judge(visit, error)
            raise
        log.info("request %s: pod %s: %s", exchange.request_id, pod.key.name, answer.error)
        self._metrics.retried(call.route, answer.cause)
        return answer

    async def _relay(
        self, call: Call, pod: Pod, answer: Taken, visit: Visit | None, exchange: Exchange, send: Send
    ) -> None:
        if visit is None or answer.response.status >= 400:
            if visit is not None and answer.fault:
                visit.failed()
            await Relay(call.route, pod, exchange, answer.response).run(answer.first, send)
            return
        with self._mirroring.copies(call, exchange.request_id) as copies:
            relay = Relay(call.route, pod, exchange, answer.response, copies.kept_bytes)
            if await relay.run(answer.first, send):
                visit.answered()
                copies.compare_with(relay.capture.whole)
            else:
                visit.failed()


def _judge(visit: Visit | None, error: GatewayError) -> None:
    if visit is not None and error.code in FAULTS:
        visit.failed()


class Forwarded:
    """A response (an ASGI application) that is the answer of a pod."""

    def __init__(self, proxy: Proxy, call: Call, *, takes_place: bool) -> None:
        self._forward = proxy.forward_queued if takes_place else proxy.forward_unqueued
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the call and stream the answer."""
        await self._forward(self._call, exchange_of(scope), send)
