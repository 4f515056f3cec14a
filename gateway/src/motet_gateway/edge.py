"""The outermost layer of every request: its id, its body, its end when the client leaves, and what is counted of it.

A handler below runs as a task of its own that is cancelled when the client leaves, wherever it stands: in the queue, in
a call to a pod, in the middle of a stream. So no code below looks for disconnects; it cleans up in `finally`.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from motet_api.names import DEMAND_PATH, LIVE_PATH, OUTCOMES_PATH, READY_PATH, REQUEST_ID_HEADER
from motet_gateway.answers import error_answer
from motet_gateway.bodies import BodyBudget
from motet_gateway.errors import GatewayError
from motet_gateway.exchange import CLIENT_CLOSED, Exchange, begin
from motet_gateway.metrics import Metrics

log = logging.getLogger(__name__)

NOT_COUNTED: Final = frozenset({"/health", "/ping", "/metrics", LIVE_PATH, READY_PATH, DEMAND_PATH})
"""What asks about the gateway and not about a model."""
_MAX_REQUEST_ID: Final = 128


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, budget: BodyBudget, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._app = app
        self._budget = budget
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # lorax-client makes `//path` of a base URL that ends in a slash.
        scope = {**scope, "path": "/" + scope["path"].lstrip("/")}
        exchange = Exchange(_request_id(Headers(scope=scope)))
        begin(scope, exchange)
        started = self._clock()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = exchange.request_id
            else:
                if exchange.first_byte_at is None and message.get("body"):
                    exchange.first_byte_at = self._clock()
                exchange.complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._answer(scope, receive, observed, exchange)
        finally:
            if scope["path"] not in NOT_COUNTED and not scope["path"].startswith(f"{OUTCOMES_PATH}/"):
                self._metrics.observe(exchange, started, self._clock())

    async def _answer(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        try:
            body = await self._budget.read(receive)
        except GatewayError as error:
            await error_answer(scope, error)(scope, receive, send)
            return
        if body is None:
            exchange.outcome = CLIENT_CLOSED
            return
        size, exchange.body = len(body), body
        del body
        try:
            handler = asyncio.create_task(self._guarded(scope, receive, send, exchange))
            if not await _finished_before_client_left(handler, receive) and not exchange.complete:
                exchange.outcome = CLIENT_CLOSED
        finally:
            self._budget.free(size)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            # The edge of the request. The application has answered already, if there was still a way to.
            log.exception("request %s to %s failed", exchange.request_id, scope["path"])
            self._metrics.fault()
            exchange.outcome = 500


async def _finished_before_client_left(handler: asyncio.Task[None], receive: Receive) -> bool:
    """Whether the handler came to its end; if the client left first, the handler has been cancelled and has ended."""
    gone = asyncio.create_task(_wait_until_gone(receive))
    try:
        await asyncio.wait({handler, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not handler.done():
            return False
        await handler
        return True
    finally:
        for task in (handler, gone):
            task.cancel()
        await asyncio.wait({handler, gone})


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID_HEADER, "")
    # It goes into logs and headers: anything long or unprintable is replaced.
    return given if 0 < len(given) <= _MAX_REQUEST_ID and given.isascii() and given.isprintable() else uuid.uuid4().hex
