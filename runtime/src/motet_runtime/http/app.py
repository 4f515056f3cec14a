"""The two applications: what the serving port answers, and what the admin port does."""

import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from motet_api.names import REQUEST_ID_HEADER
from motet_runtime.errors import RequestError
from motet_runtime.http.answers import (
    CLIENT_LEFT_STATUS,
    on_client_left,
    on_crash,
    on_http_exception,
    on_request_error,
)
from motet_runtime.http.judging_routes import JudgingRoutes
from motet_runtime.http.lorax_routes import LoraxRoutes
from motet_runtime.http.openai_routes import OpenAIRoutes
from motet_runtime.http.own_routes import OwnRoutes
from motet_runtime.http.watching import ClientLeftError
from motet_runtime.metrics import RuntimeMetrics
from motet_runtime.service import Service

_HANDLERS = {
    RequestError: on_request_error,
    ClientLeftError: on_client_left,
    HTTPException: on_http_exception,
    Exception: on_crash,
}
_OTHER_ROUTE = "other"


def make_apps(service: Service) -> tuple[ASGIApp, ASGIApp]:
    """The serving application and the admin application."""
    own = OwnRoutes(service)
    serving_routes = [
        *LoraxRoutes(service).routes(),
        *OpenAIRoutes(service).routes(),
        *JudgingRoutes(service).routes(),
        *own.serving_routes(),
    ]
    serving = Starlette(routes=serving_routes, exception_handlers=_HANDLERS)
    admin = Starlette(routes=own.admin_routes(), exception_handlers=_HANDLERS)
    known = {route.path for route in serving_routes}
    return Edge(serving, service.metrics, known), admin


class Edge:
    """What holds for every request of the serving port: one slash, an echoed request id, counted and timed."""

    def __init__(self, app: ASGIApp, metrics: RuntimeMetrics, routes: set[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # lorax-client makes `//path` of a base URL that ends in a slash.
        path = "/" + scope["path"].lstrip("/")
        scope = {**scope, "path": path}
        request_id = next((value for name, value in scope["headers"] if name == REQUEST_ID_HEADER.encode()), None)
        route = path if path in self._routes else _OTHER_ROUTE
        started, status = time.monotonic(), [str(CLIENT_LEFT_STATUS)]
        try:
            await self._app(scope, receive, _noting(send, status, request_id))
        finally:
            self._metrics.requests.labels(route, status[0]).inc()
            self._metrics.request_seconds.labels(route).observe(time.monotonic() - started)


def _noting(send: Send, status: list[str], request_id: bytes | None) -> Callable[[Message], Awaitable[None]]:
    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            status[0] = str(message["status"])
            if request_id:
                message["headers"] = [*message.get("headers", []), (REQUEST_ID_HEADER.encode(), request_id)]
        await send(message)

    return noting
