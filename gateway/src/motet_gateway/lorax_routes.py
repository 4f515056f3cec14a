"""The LoRAX API: `lorax-client` works against it unmodified."""

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from motet_api.errors import ErrorCode
from motet_api.names import BASE_MODEL_ALIAS
from motet_gateway.asking import asked, passed_headers
from motet_gateway.bodies import parse_body, render_body, text_field
from motet_gateway.calls import Call, named
from motet_gateway.errors import RequestRefusedError, UnavailableError
from motet_gateway.exchange import exchange_of
from motet_gateway.proxy import Forwarded, Proxy
from motet_gateway.resolve import Asked, Route, resolve_adapter
from motet_gateway.routing import Routing


class LoraxRoutes:
    """Handlers of the LoRAX paths."""

    def __init__(self, routing: Routing, proxy: Proxy) -> None:
        self._routing = routing
        self._proxy = proxy

    def routes(self) -> list[HttpRoute]:
        """For the application."""
        return [
            *(HttpRoute(path, self.health, methods=["GET"]) for path in ("/", "/health", "/ping")),
            *(
                HttpRoute(path, self.generate, methods=["POST"])
                for path in ("/", "/generate", "/generate_stream", "/invocations")
            ),
            HttpRoute("/info", self.info, methods=["GET"]),
            HttpRoute("/tokenize", self.tokenize, methods=["POST"]),
        ]

    async def health(self, _request: Request) -> Response:
        """Whether this gateway is up and knows what to serve; nothing about any model. LoRAX answers with no body."""
        if not self._routing.synced:
            raise UnavailableError(ErrorCode.NO_READY_POD, "the gateway has not read its routing table yet", 1)
        return Response()

    async def generate(self, request: Request) -> Forwarded:
        """Generate, streaming or not: the pod tells from the path and the body."""
        exchange = exchange_of(request.scope)
        body = parse_body(exchange.take_body())
        parameters = _parameters(body)
        path, where = request.url.path, asked(request, text_field(parameters, "adapter_id"))
        exchange.route = route = self._resolve(where)
        rendered = render_body(named(body, path, route.runtime_id or BASE_MODEL_ALIAS))
        again = partial(self._resolve, where)
        return self._proxy.queued(Call("POST", path, route, rendered, passed_headers(request), again))

    async def info(self, request: Request) -> Forwarded:
        """What a pod of the model says of it."""
        return self._about_base(request, "GET", b"")

    async def tokenize(self, request: Request) -> Forwarded:
        """Tokens of a text, by the base's tokenizer."""
        return self._about_base(request, "POST", render_body(parse_body(exchange_of(request.scope).take_body())))

    def _resolve(self, where: Asked) -> Route:
        return resolve_adapter(where, self._routing.table, self._routing.fleet)

    def _about_base(self, request: Request, method: str, body: bytes) -> Forwarded:
        route = self._resolve(asked(request, ""))
        exchange_of(request.scope).route = route
        return self._proxy.unqueued(Call(method, request.url.path, route, body, passed_headers(request)))


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    parameters = body.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestRefusedError(ErrorCode.INVALID_REQUEST, "`parameters` must be an object", param="parameters")
    if parameters.get("merged_adapters") is not None:
        # Passed on, it would be answered by the base.
        raise RequestRefusedError(
            ErrorCode.INVALID_REQUEST, "`merged_adapters` is not supported: name one adapter in `adapter_id`"
        )
    return parameters
