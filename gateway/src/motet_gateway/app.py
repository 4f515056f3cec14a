"""The application: routes of both APIs and the gateway's own, inside the edge."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import nan

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from motet_api.errors import ErrorCode
from motet_api.names import DEMAND_PATH, LIVE_PATH, OUTCOMES_PATH, READY_PATH
from motet_api.wire import LONGEST_OUTCOME_SECONDS
from motet_gateway.answers import error_answer
from motet_gateway.bodies import BodyBudget
from motet_gateway.demand import demand
from motet_gateway.dispatch import Dispatcher
from motet_gateway.edge import Edge
from motet_gateway.errors import GatewayError, RequestRefusedError, UnavailableError
from motet_gateway.exchange import exchange_of
from motet_gateway.lorax_routes import LoraxRoutes
from motet_gateway.metrics import Metrics
from motet_gateway.openai_routes import OpenAIRoutes
from motet_gateway.outcomes import Outcomes
from motet_gateway.proxy import Proxy
from motet_gateway.routing import Routing
from motet_gateway.table import ObjectKey


@dataclass(slots=True)
class Lifecycle:
    """Whether this gateway is on its way out."""

    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application is made of. `clock` is monotonic, `wall_clock` Unix seconds."""

    routing: Routing
    dispatcher: Dispatcher
    proxy: Proxy
    outcomes: Outcomes
    metrics: Metrics
    registry: CollectorRegistry
    budget: BodyBudget
    lifecycle: Lifecycle
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time


def make_app(parts: Parts) -> ASGIApp:
    """The ASGI application."""
    own = OwnRoutes(parts)
    app = Starlette(
        routes=[
            *LoraxRoutes(parts.routing, parts.proxy).routes(),
            *OpenAIRoutes(parts.routing, parts.proxy).routes(),
            *own.routes(),
        ],
        exception_handlers={HTTPException: _no_such_route, GatewayError: _known_error, Exception: _fault},
    )
    # A path with a slash too many is a wrong path, not a redirect that a client would follow with a GET.
    app.router.redirect_slashes = False
    return Edge(app, parts.budget, parts.metrics, parts.clock)


class OwnRoutes:
    """Probes, metrics, demand and outcomes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route(LIVE_PATH, self.live, methods=["GET"]),
            Route(READY_PATH, self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route(DEMAND_PATH, self.demand, methods=["GET"]),
            Route(f"{OUTCOMES_PATH}/{{namespace}}/{{name}}", self.outcomes, methods=["GET"]),
        ]

    async def live(self, _request: Request) -> Response:
        """Whether the event loop turns: if it does not, nothing is answered at all."""
        return Response("ok\n", media_type="text/plain")

    async def ready(self, _request: Request) -> Response:
        """Whether new requests should come here: after the first complete read of the table, until told to stop."""
        self._check_synced()
        if self._parts.lifecycle.stopping:
            raise UnavailableError(ErrorCode.DRAINING, "this gateway is going away", 1)
        return Response("ok\n", media_type="text/plain")

    async def metrics(self, _request: Request) -> Response:
        """Prometheus text."""
        return Response(generate_latest(self._parts.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def demand(self, _request: Request) -> Response:
        """Requests waiting and running by model. Refused before the table is read: no data is not zero."""
        self._check_synced()
        answer = demand(self._parts.routing.table, self._parts.dispatcher, self._parts.wall_clock())
        return Response(answer.model_dump_json(by_alias=True), media_type="application/json")

    async def outcomes(self, request: Request) -> Response:
        """What became of the requests of an adapter's versions lately. Refused before the table is read."""
        self._check_synced()
        seconds = _seconds(request.query_params.get("seconds", ""))
        key = ObjectKey(request.path_params["namespace"], request.path_params["name"])
        answer = self._parts.outcomes.report(key, self._parts.routing.table.adapters.get(key), seconds)
        return Response(answer.model_dump_json(by_alias=True), media_type="application/json")

    def _check_synced(self) -> None:
        if not self._parts.routing.synced:
            raise UnavailableError(ErrorCode.NO_READY_POD, "the routing table has not been read yet", 1)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = nan
    if not 0 <= seconds <= LONGEST_OUTCOME_SECONDS:
        raise RequestRefusedError(
            ErrorCode.INVALID_REQUEST,
            f"`seconds` must be a number from 0 to {LONGEST_OUTCOME_SECONDS}, and is {text!r}",
            param="seconds",
        )
    return seconds


async def _known_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, GatewayError):
        raise error
    return error_answer(request.scope, error)


async def _fault(request: Request, _error: Exception) -> Response:
    request_id = exchange_of(request.scope).request_id
    fault = GatewayError(ErrorCode.INTERNAL, f"a fault of the gateway; its log has the traceback under {request_id}")
    return error_answer(request.scope, fault)


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: ErrorCode.NOT_FOUND, 405: ErrorCode.METHOD_NOT_ALLOWED}.get(status, ErrorCode.INTERNAL)
    message = {
        404: f"no route {request.url.path}",
        405: f"{request.url.path} does not take {request.method}",
    }.get(status, "a fault of the gateway")
    answer = error_answer(request.scope, RequestRefusedError(code, message, status=status))
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer
