"""Sends a request to a pod and streams the answer back.

Invariant: a request is sent again only while nothing of an answer has reached the client, and only because the pod
could not be reached or said that it does not take it (draining, loading, version not resident). And an answer reaches
the client only if the pod says that it came from the version that was chosen: an answer of the base in an adapter's
place is a failure.
"""

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Protocol

import aiohttp
from starlette.types import Receive, Scope, Send

from motet_api.errors import ErrorCode
from motet_api.names import ADAPTER_HEADER, ADAPTER_VERSION_HEADER, REQUEST_ID_HEADER
from motet_gateway.dispatch import RETRY_SECONDS, Dispatcher
from motet_gateway.errors import GatewayError, UnavailableError, UpstreamError
from motet_gateway.exchange import Exchange, exchange_of
from motet_gateway.metrics import Metrics
from motet_gateway.pods import CONNECT_SECONDS
from motet_gateway.relay import Relay
from motet_gateway.resolve import Route
from motet_gateway.table import Pod, PodKey
from motet_gateway.upstream_errors import error_code

log = logging.getLogger(__name__)

MAX_TRIES: Final = 4
_COPIED_BYTES: Final = 1 << 20
"""aiohttp writes a body of bytes in one piece; above this size it is given as a file, which it writes in portions."""


class Surprises(Protocol):
    """Is told what a pod turned out to be when a request met it."""

    def doubt(self, pod: PodKey) -> None:
        """It could not be reached, or does not hold what it was believed to hold."""

    def draining(self, pod: PodKey) -> None:
        """It is draining."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent to a pod."""

    method: str
    path: str
    route: Route
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The pod did not take the request: `cause` for the metrics, `error` for the client if no other pod takes it."""

    cause: str
    error: GatewayError


class Proxy:
    """Forwards calls to pods. `read_seconds` bounds the silence between two pieces of an answer."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        dispatcher: Dispatcher,
        surprises: Surprises,
        metrics: Metrics,
        read_seconds: float,
    ) -> None:
        self._session = session
        self._dispatcher = dispatcher
        self._surprises = surprises
        self._metrics = metrics
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=read_seconds)

    def queued(self, call: Call) -> "Forwarded":
        """The answer to a call that takes a place in a pod's batch, after waiting for one where needed."""
        return Forwarded(self, call, takes_place=True)

    def unqueued(self, call: Call) -> "Forwarded":
        """The answer to a call that takes no place: a question about the model."""
        return Forwarded(self, call, takes_place=False)

    async def forward_queued(self, call: Call, exchange: Exchange, send: Send) -> None:
        """Answer the call, from the first pod that takes it.

        Raises:
            GatewayError: no pod took it, or the one that did failed before the first byte.
        """
        ticket = self._dispatcher.ticket(call.route.model, call.route.runtime_id)
        while True:
            lease = await self._dispatcher.acquire(ticket)
            try:
                not_taken = await self._try(call, lease.pod, exchange, send)
            finally:
                lease.release()
            if not_taken is None:
                return
            if ticket.tried >= MAX_TRIES:
                raise not_taken.error

    async def forward_unqueued(self, call: Call, exchange: Exchange, send: Send) -> None:
        """As `forward_queued`, without the queue. Raises: GatewayError."""
        for tried in count(1):
            not_taken = await self._try(call, self._dispatcher.any_pod(call.route.model.key), exchange, send)
            if not_taken is None:
                return
            if tried >= MAX_TRIES:
                raise not_taken.error

    async def _try(self, call: Call, pod: Pod, exchange: Exchange, send: Send) -> NotTaken | None:
        not_taken = await self._send(call, pod, exchange, send)
        if not_taken is not None:
            log.info("request %s: pod %s: %s", exchange.request_id, pod.key.name, not_taken.error)
            self._metrics.retried(call.route, not_taken.cause)
        return not_taken

    async def _send(self, call: Call, pod: Pod, exchange: Exchange, send: Send) -> NotTaken | None:
        try:
            response = await self._session.request(
                call.method,
                f"http://{pod.address}{call.path}",
                data=(io.BytesIO(call.body) if len(call.body) > _COPIED_BYTES else call.body) or None,
                headers={**call.headers, REQUEST_ID_HEADER: exchange.request_id, "accept-encoding": "identity"},
                timeout=self._timeout,
                allow_redirects=False,
            )
        except aiohttp.SocketTimeoutError as error:
            raise self._silent(pod) from error
        except aiohttp.ClientConnectionError as error:
            return self._lost(pod, error)
        except aiohttp.ClientError as error:
            raise UpstreamError(f"pod {pod.key.name} did not answer in HTTP: {error}") from error
        async with response:
            try:
                # An error is read whole, for its code; of anything else the first piece, which decides over a retry.
                first = await (response.read() if response.status >= 400 else response.content.readany())
            except aiohttp.SocketTimeoutError as error:
                raise self._silent(pod) from error
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                return self._lost(pod, error)
            if response.status >= 400:
                if (not_taken := self._refusal(call, pod, error_code(first))) is not None:
                    return not_taken
            else:
                self._check_version(call, pod, response)
            await Relay(call.route, pod, exchange, response).run(first, send)
        return None

    def _lost(self, pod: Pod, error: Exception) -> NotTaken:
        self._surprises.doubt(pod.key)
        return NotTaken("lost", UpstreamError(f"pod {pod.key.name} could not be reached: {error}"))

    def _refusal(self, call: Call, pod: Pod, code: ErrorCode | None) -> NotTaken | None:
        """Whether an error answer means that another pod should be asked."""
        adapter = call.route.runtime_id
        if code is ErrorCode.DRAINING:
            self._surprises.draining(pod.key)
            return NotTaken("draining", _unavailable(ErrorCode.NO_READY_POD, f"pod {pod.key.name} is draining"))
        if code is ErrorCode.NO_READY_POD:
            self._surprises.doubt(pod.key)
            return NotTaken("loading", _unavailable(code, f"pod {pod.key.name} has started anew and loads its base"))
        # The version exists, or it would not have been resolved: to the pod it may be unknown, to us it is only absent.
        absent = {ErrorCode.ADAPTER_NOT_READY, ErrorCode.ADAPTER_NOT_FOUND, ErrorCode.VERSION_NOT_FOUND}
        if adapter is not None and code in absent:
            self._surprises.doubt(pod.key)
            message = f"pod {pod.key.name} does not hold {adapter}"
            return NotTaken("absent", _unavailable(ErrorCode.ADAPTER_NOT_READY, message))
        return None

    def _silent(self, pod: Pod) -> UpstreamError:
        return UpstreamError(f"pod {pod.key.name} did not answer within {self._timeout.sock_read:g} s")

    def _check_version(self, call: Call, pod: Pod, response: aiohttp.ClientResponse) -> None:
        wanted = ("", "") if call.route.adapter is None else (call.route.adapter.key.name, call.route.version)
        answered = (response.headers.get(ADAPTER_HEADER, ""), response.headers.get(ADAPTER_VERSION_HEADER, ""))
        if answered != wanted:
            said = "@".join(answered) if any(answered) else "the base model"
            log.error(
                "pod %s answered from %s where %s was asked", pod.key.name, said, call.route.runtime_id or "the base"
            )
            raise UpstreamError(
                f"pod {pod.key.name} answered from {said}, not from {call.route.runtime_id or 'the base'}"
            )


class Forwarded:
    """A response (an ASGI application) that is the answer of a pod."""

    def __init__(self, proxy: Proxy, call: Call, *, takes_place: bool) -> None:
        self._forward = proxy.forward_queued if takes_place else proxy.forward_unqueued
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the call and stream the answer."""
        await self._forward(self._call, exchange_of(scope), send)


def _unavailable(code: ErrorCode, message: str) -> UnavailableError:
    return UnavailableError(code, message, RETRY_SECONDS[code])
